"""A run's trace: every process adds its stage to the same one, and a stage that is sent again replaces itself."""

from __future__ import annotations

import json

import pytest

from pipeline.adapters import mlflow_traces as traces
from pipeline.errors import Unreachable


def spans(run, stage, ended=2_000, problem=None):
    span = traces.Span(stage, 1_000, ended, {"ingest": {"rows": 5}}, {}, problem)
    (resource,) = traces.otlp(run, 500, span, {"code": "sha256:c"})["resourceSpans"]
    root, own = resource["scopeSpans"][0]["spans"]
    return root, own


def test_stages_of_one_run_share_its_trace_and_root_and_nothing_with_another_run():
    (root, first), (again, second), (other, _) = spans("a", "train"), spans("a", "evaluate"), spans("b", "train")
    assert root["traceId"] == first["traceId"] == second["traceId"] != other["traceId"]
    assert root["spanId"] == again["spanId"] == first["parentSpanId"] == second["parentSpanId"]
    assert first["spanId"] == spans("a", "train", ended=3_000)[1]["spanId"] != second["spanId"]
    assert "parentSpanId" not in root and (root["startTimeUnixNano"], root["endTimeUnixNano"]) == ("500", "2000")


def test_a_span_says_what_was_read_and_why_it_failed():
    _, own = spans("a", "gate production", problem="1 approval(s) missing")
    assert own["status"] == {"code": 2, "message": "1 approval(s) missing"}
    words = {entry["key"]: entry["value"]["stringValue"] for entry in own["attributes"]}
    assert json.loads(words["mlflow.spanInputs"]) == {"ingest": {"rows": 5}}


def test_an_mlflow_that_is_down_is_unreachable_and_no_traceback():
    with pytest.raises(Unreachable, match="does not take"):
        traces.send("http://127.0.0.1:9", None, None, "flights", "r", {})
