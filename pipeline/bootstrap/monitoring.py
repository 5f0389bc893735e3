"""Joins monitoring: the prediction log and the source of a window against what the serving version was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from datetime import time as midnight
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.adapters import snapshot, source
from pipeline.bootstrap.evaluation import reference_profile
from pipeline.bootstrap.gatekeeping import evidence_of
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.steps import load_model, source_of
from pipeline.config import Project
from pipeline.domain.canonical import digest_json
from pipeline.domain.drift import compare
from pipeline.domain.events import Draft
from pipeline.domain.monitoring import MonitorVerdict, Outcomes, months_of, verdict
from pipeline.domain.state import Placement, RunState
from pipeline.domain.window import Window
from pipeline.errors import PolicyRefused, UsageError
from pipeline.ports import Columns
from pipeline.reports import monitor as page
from pipeline.serving import prediction_log


def monitor(place: Installation, environment: str, model: str | None, window: str | None, out: Path | None) -> None:
    """Measure a window (the last whole month, if not given), record the verdict, write the page.

    Raises:
        PolicyRefused: drift was found, or there was nothing to judge.
        UsageError: nothing serves in the environment.
    """
    name = place.model_in(environment, model)
    wanted = place.environment(name, environment).wanted
    if wanted is None:
        raise UsageError(f"nothing serves in {environment}", where="--env", fix="promote a version first")
    state = place.state(wanted.run)
    project = place.project(state)
    span = Window.parse(window) if window else Window.month_before(place.clock().date())
    with place.reporter.track(f"reading {span} from the source"):
        rows = source_columns(place, wanted.run, str(span))
    with place.reporter.track("predicting and comparing"):
        predicted = load_model(place, wanted.package, wanted.uri).predict(rows) if _any(rows) else np.empty(0)
        found = _verdict(place, state, project, rows, predicted)
        asked = _asked(place, state, project, environment, span)
    report = _report(place, environment, wanted, state, span, found, asked) | {"target": project.settings.source.target}
    folder = out or place.settings.home / "pages" / "monitor"
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in page.render(report).items():
        (folder / file).write_bytes(data)
    _record(place, name, environment, state.run, report)
    place.reporter.note(f"monitor page: {folder / 'monitor.html'}")
    if not found.passed:
        reasons = "\n".join(f"  {reason}" for reason in found.reasons[:8])
        word = "drift was found" if found.drifted else "the window cannot be judged"
        raise PolicyRefused(
            f"{word}:\n{reasons}",
            where=f"{name} version {wanted.version}, {span}",
            fix="look at the page; train on newer data",
        )


def source_columns(place: Installation, run: str, window: str) -> Columns:
    """The source's rows of a window, as the run's project reads them."""
    import pyarrow as pa

    project = place.project(place.state(run))
    with source.read(source_of(place, project), Window.parse(window)) as batches:
        return snapshot.columns(pa.Table.from_batches(list(batches), batches.schema))


def _any(columns: Columns) -> bool:
    return any(len(values) for values in columns.values())


def _verdict(
    place: Installation, state: RunState, project: Project, rows: Columns, predicted: NDArray[np.float64]
) -> MonitorVerdict:
    settings = project.settings
    target = settings.source.target
    outcomes = None
    if _any(rows):
        labels = np.asarray(rows[target], dtype=np.float64)
        outcomes = Outcomes(y=labels, p=predicted, months=months_of(rows[settings.source.time]))
    return verdict(
        reference_profile(place, state.fact("train")),
        rows,
        outcomes,
        settings.monitor.thresholds,
        target=target,
        evidence=evidence_of(place, state),
        ignore=settings.unwatched,
    )


def _asked(place: Installation, state: RunState, project: Project, environment: str, span: Window) -> Mapping[str, Any]:
    """What clients asked in the window, from the prediction log: how much, and how far it is from the reference."""
    folder = place.settings.home / "servers" / environment / "predictions"
    if not folder.is_dir():
        return {"rows": 0, "features": []}
    start, end = (datetime.combine(day, midnight(), UTC) for day in (span.start, span.end))
    table = prediction_log.read(folder, start, end)
    columns = {name: values for name, values in snapshot.columns(table).items() if not name.startswith("_")}
    settings = project.settings
    known = reference_profile(place, state.fact("train"))
    watched = set(columns) - {settings.source.target, *settings.unwatched}
    ignored = set(known.columns) - watched
    rows = compare(known, columns, settings.monitor.thresholds, ignore=ignored) if table.num_rows else []
    return {"rows": table.num_rows, "features": [row.model_dump(mode="json", exclude={"bars"}) for row in rows]}


def _report(
    place: Installation,
    environment: str,
    wanted: Placement,
    state: RunState,
    span: Window,
    found: MonitorVerdict,
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    opened = state.opened or {}
    return {
        "model": opened["project"],
        "environment": environment,
        "version": wanted.version,
        "package": wanted.package,
        "run": state.run,
        "reference": opened["windows"]["train"],
        "holdout": opened["windows"]["holdout"],
        "window": str(span),
        "created": place.clock().isoformat(),
        "verdict": found.model_dump(mode="json"),
        "asked": dict(asked),
    }


def _record(place: Installation, model: str, environment: str, run: str, report: Mapping[str, Any]) -> None:
    found = report["verdict"]
    body = {
        "window": report["window"],
        "version": report["version"],
        "package": report["package"],
        "drifted": found["drifted"],
        "refused": found["refused"],
        "reasons": list(found["reasons"])[:20],
        "rows": found["rows"],
        "asked": report["asked"]["rows"],
        "report": digest_json(report),
    }
    place.ledger.append(Draft("drift.measured", place.actor, body, run, model, environment))
