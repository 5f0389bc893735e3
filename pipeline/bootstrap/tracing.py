"""Shows a run in MLflow as a trace, a span for each stage. Whatever goes wrong here, no stage fails by it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pipeline.bootstrap.installation import Installation
from pipeline.domain.state import RunState
from pipeline.errors import GatehouseError, Unreachable
from pipeline.graph import Stage

LONGEST = 200


@contextmanager
def traced(place: Installation, stage: Stage, state: RunState) -> Iterator[dict[str, Any]]:
    """Trace what happens in the block; it puts into the given dictionary what came out."""
    outputs: dict[str, Any] = {}
    problem, started = None, time.time_ns()
    try:
        yield outputs
    except GatehouseError as error:
        problem = error.what[:LONGEST]
        raise
    finally:
        _send(place, stage, state, started, outputs, problem)


def _send(
    place: Installation, stage: Stage, state: RunState, started: int, outputs: Mapping[str, Any], problem: str | None
) -> None:
    from pipeline.adapters import mlflow_traces as traces

    opened, settings = state.opened or {}, place.settings.mlflow
    inputs = {needed: _plain(state.facts.get(needed, {})) for needed in stage.reads}
    span = traces.Span(stage.name, started, time.time_ns(), inputs, _plain(outputs), problem)
    about = {"code": opened["code"]["digest"], "windows": opened["windows"], "requester": opened["requester"]}
    since = int(datetime.fromisoformat(str(state.since)).timestamp() * 1e9)
    body = traces.otlp(state.run, min(since, started), span, about)
    try:
        # The experiment is the line's, whoever's stage this is.
        traces.send(settings.uri, settings.credentials, settings.workspace, opened["project"], state.run, body)
    except Unreachable as error:
        place.reporter.note(f"{error.what}; the stage goes on")


def _plain(fact: Mapping[str, Any]) -> dict[str, Any]:
    """What of a fact fits on a line: words and numbers."""
    kinds = (str, int, float, bool)
    return {key: value for key, value in fact.items() if isinstance(value, kinds) and len(str(value)) <= LONGEST}
