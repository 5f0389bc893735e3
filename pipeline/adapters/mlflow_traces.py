"""Traces in MLflow: one of each run, in which every stage is a span. For people to look at, never a proof.

Sent as OTLP in JSON with one request, without MLflow's own client: importing it takes longer than most stages' work.
Ids follow from the run, so that each process adds to the same trace; a span that is sent again replaces the first.
https://opentelemetry.io/docs/specs/otlp/#otlphttp-request, ``/v1/traces`` of the MLflow server
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from pipeline.errors import Unreachable

_SECONDS = 3
_OK, _ERROR = 1, 2  # StatusCode of opentelemetry/proto/trace/v1/trace.proto


@dataclass(frozen=True, slots=True)
class Span:
    """One stage's work. Times are nanoseconds since 1970, UTC; `problem` says why it failed."""

    stage: str
    started: int
    ended: int
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    problem: str | None = None


def otlp(run: str, opened: int, span: Span, about: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's span and, above it, the run's, as an ``ExportTraceServiceRequest`` in JSON.

    Args:
        run: the run id.
        opened: when the run was opened, nanoseconds since 1970.
        span: the stage.
        about: what the whole run works on.
    """
    trace, root = _hex(run, 16), _hex(f"{run}: root", 8)
    whole = Span(run, opened, span.ended, about, {"last stage": span.stage}, span.problem)
    tag = {"mlflow.traceTag.gatehouse.run": run}
    spans = [_span(whole, trace, root, None, tag), _span(span, trace, _hex(f"{run} {span.stage}", 8), root, {})]
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {"name": "gatehouse"}, "spans": spans}]}]}


def send(uri: str, credentials: Path | None, workspace: str | None, experiment: str, run: str, body: Any) -> None:
    """Add spans to a run's trace, and show it with the run's own MLflow run.

    Raises:
        Unreachable: MLflow did not take them, or knows no such experiment or run.
    """
    session = requests.Session()
    session.headers.update({"X-MLFLOW-WORKSPACE": workspace} if workspace else {})
    try:
        if credentials is not None:
            name, _, password = credentials.read_text(encoding="utf-8").strip().partition(":")
            session.auth = (name, password)
        with session:
            place = _experiment(session, uri, experiment)
            headers = {"x-mlflow-experiment-id": place, "x-mlflow-run-id": _run(session, uri, place, run)}
            session.post(f"{uri}/v1/traces", json=body, headers=headers, timeout=_SECONDS).raise_for_status()
    except (requests.RequestException, OSError, KeyError, IndexError) as error:
        raise Unreachable(f"MLflow does not take the stage's trace: {type(error).__name__}", where=uri) from error


def _experiment(session: requests.Session, uri: str, name: str) -> str:
    query = {"experiment_name": name}
    answer = session.get(f"{uri}/api/2.0/mlflow/experiments/get-by-name", params=query, timeout=_SECONDS)
    answer.raise_for_status()
    return str(answer.json()["experiment"]["experiment_id"])


def _run(session: requests.Session, uri: str, experiment: str, run: str) -> str:
    query = {"experiment_ids": [experiment], "filter": f"tags.`gatehouse.stage` = '{run}'", "max_results": 1}
    answer = session.post(f"{uri}/api/2.0/mlflow/runs/search", json=query, timeout=_SECONDS)
    answer.raise_for_status()
    return str(answer.json()["runs"][0]["info"]["run_id"])


def _span(span: Span, trace: str, own: str, parent: str | None, more: Mapping[str, str]) -> dict[str, Any]:
    words = {"mlflow.spanType": "TASK" if parent else "CHAIN", **more}
    words |= {f"mlflow.span{name}": json.dumps(value) for name, value in _both(span).items() if value}
    made = {
        "traceId": trace,
        "spanId": own,
        "name": span.stage,
        "kind": 1,
        "startTimeUnixNano": str(span.started),
        "endTimeUnixNano": str(span.ended),
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in words.items()],
        "status": {"code": _ERROR, "message": span.problem} if span.problem else {"code": _OK},
    }
    return made | ({"parentSpanId": parent} if parent else {})


def _both(span: Span) -> Mapping[str, Mapping[str, Any]]:
    return {"Inputs": span.inputs, "Outputs": span.outputs}


def _hex(text: str, size: int) -> str:
    return hashlib.sha256(f"gatehouse {text}".encode()).digest()[:size].hex()
