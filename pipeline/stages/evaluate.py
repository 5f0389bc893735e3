"""evaluate: measure challenger and champion on the same hold-out rows, and set down the evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.domain import comparison
from pipeline.domain.evidence import (
    Candidate,
    Champion,
    Column,
    Evidence,
    Intervals,
    Latency,
    MonthRows,
    Reliance,
    SliceRow,
)
from pipeline.domain.importance import importance
from pipeline.domain.state import Placement
from pipeline.errors import UsageError
from pipeline.ports import Columns, Predictor, Reporter


@dataclass(frozen=True, slots=True)
class Rival:
    """The champion: where it stands, its bytes loaded, and what the ledger knows of it."""

    placement: Placement
    model: Predictor
    weights: str | None
    package_bytes: int
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """The comparison's results, as the evidence takes them."""

    candidate: Candidate
    champion: Champion | None
    differences: Intervals | None
    slices: tuple[SliceRow, ...]
    relies_on: tuple[Reliance, ...]


def measure(
    y: NDArray[np.float64],
    columns: Columns,
    challenger: Predictor,
    rival: Rival | None,
    *,
    slices: Sequence[str],
    target: str,
    resamples: int,
    seed: int,
    champion_latency: Latency | None,
    reporter: Reporter,
) -> Measured:
    """Predict the hold-out with both models and compare.

    Args:
        y: labels, float64 [n].
        columns: the hold-out.
        challenger, rival: the models; no rival when nothing is in production yet.
        slices: columns to look at, value by value.
        target: the column with the labels.
        resamples, seed: of the bootstrap, and of the shuffles.
        champion_latency: measured beside the challenger's.

    Raises:
        UsageError: the hold-out has one class only, or lacks a slice's column.
    """
    with reporter.track("measuring on the hold-out", total=5) as tracker:
        p = challenger.predict(columns)
        q = rival.model.predict(columns) if rival else None
        tracker.advance()
        intervals = comparison.bootstrap(y, p, q, resamples=resamples, seed=seed)
        tracker.advance()
        rows = comparison.by_slice(y, p, q, {name: _slice(columns, name) for name in slices})
        tracker.advance()
        candidate = Candidate(
            metrics=comparison.evaluate(y, p), intervals=intervals.challenger, curves=comparison.curves(y, p)
        )
        champion = _champion(rival, y, q, intervals, champion_latency) if rival and q is not None else None
        tracker.advance()
        lost = importance(y, columns, challenger.predict, leave=(target,), seed=seed)
        relies_on = tuple(Reliance(column=name, auc_lost=value) for name, value in lost)
        tracker.advance()
    return Measured(candidate, champion, intervals.difference, tuple(rows), relies_on)


def _champion(
    rival: Rival,
    y: NDArray[np.float64],
    q: NDArray[np.float64],
    intervals: comparison.Bootstrap,
    latency: Latency | None,
) -> Champion:
    place = rival.placement
    assert intervals.champion is not None
    return Champion(
        version=place.version,
        run=place.run,
        package=place.package,
        weights=rival.weights,
        package_bytes=rival.package_bytes,
        since=place.since,
        metrics=comparison.evaluate(y, q),
        intervals=intervals.champion,
        curves=comparison.curves(y, q),
        latency=latency,
    )


def _slice(columns: Columns, name: str) -> NDArray[Any]:
    if name not in columns:
        raise UsageError(
            f"slice '{name}' is no column of the source",
            where="project.toml: evaluation.slices",
            fix=f"one of: {', '.join(sorted(columns))}",
        )
    values = columns[name]
    if values.dtype.kind != "f":
        return values.astype(object)
    return np.array([None if np.isnan(value) else f"{value:g}" for value in values], dtype=object)


def months(part: str, time: NDArray[Any], y: NDArray[np.float64]) -> tuple[MonthRows, ...]:
    """Rows and positives of each month."""
    values, inverse = np.unique(time.astype("datetime64[M]"), return_inverse=True)
    rows = np.bincount(inverse, minlength=len(values))
    positives = np.bincount(inverse, weights=y, minlength=len(values))
    return tuple(
        MonthRows(part=part, month=str(month), rows=int(n), positives=int(k))
        for month, n, k in zip(values, rows, positives, strict=True)
    )


def describe(columns: Columns) -> tuple[Column, ...]:
    """Type, null share and number of distinct values of each column."""
    return tuple(_describe(name, values) for name, values in columns.items())


def _describe(name: str, values: NDArray[Any]) -> Column:
    if values.dtype.kind == "f":
        null = np.isnan(values)
        return Column(name=name, type="number", null_share=float(null.mean()), distinct=len(np.unique(values[~null])))
    if values.dtype.kind == "M":
        return Column(name=name, type="time", null_share=float(np.isnat(values).mean()))
    present = [value for value in values if value is not None]
    return Column(name=name, type="text", null_share=1 - len(present) / max(1, len(values)), distinct=len(set(present)))


def headline(evidence: Evidence) -> Mapping[str, float]:
    """The metrics by name, for the ledger and MLflow."""
    return evidence.candidate.metrics.model_dump()
