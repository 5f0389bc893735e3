"""How good the serving model is month by month, and how target and predictions have shifted. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.comparison import evaluate, histogram
from pipeline.domain.divergence import chance_ks, chance_psi, js_distance, psi
from pipeline.domain.drift import Bar, Level, Measure, Thresholds, judge
from pipeline.domain.reference import CategoryProfile, Floats, Frozen, NumberProfile, Profile
from pipeline.errors import UsageError

NO_TIME = "no time"


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What was predicted and what came true, [n] each: NaN where no label has arrived or nothing was predicted.

    `months` holds texts like ``2013-09``. The rows need not be those of the columns that are compared.
    """

    y: Floats
    p: Floats
    months: NDArray[Any]


class Baseline(Frozen):
    """What the model was trained on and what it promised.

    `target`: negatives and positives it was trained on; `metrics` and `predictions` are of its hold-out, the latter
    counted in bins of equal width over [0, 1]. Empty: not known.
    """

    target: tuple[int, int] | None = None
    metrics: Mapping[str, float | None] = {}
    predictions: tuple[int, ...] = ()

    @classmethod
    def of(cls, reference: Profile, target: str, evidence: Mapping[str, Any] | None = None) -> Baseline:
        """From the training reference and the evidence (as JSON) that the serving version was approved on."""
        candidate = (evidence or {}).get("candidate", {})
        return cls(
            target=_classes(reference.columns.get(target)),
            metrics=candidate.get("metrics", {}),
            predictions=tuple(candidate.get("curves", {}).get("histogram", ())),
        )

    @property
    def target_rate(self) -> float | None:
        """Share of positives it was trained on."""
        return self.target[1] / sum(self.target) if self.target and sum(self.target) else None

    @property
    def prediction_mean(self) -> float | None:
        """Mean prediction on the hold-out, from the middles of the bins."""
        counts = np.array(self.predictions, dtype=np.float64)
        return float(counts @ (np.arange(len(counts)) + 0.5) / len(counts) / counts.sum()) if counts.sum() else None


def _classes(column: NumberProfile | CategoryProfile | None) -> tuple[int, int] | None:
    if column is None or column.rows == column.nulls:
        return None
    known = column.rows - column.nulls
    positives = column.counts.get("true", 0) if column.kind == "category" else round((column.mean or 0.0) * known)
    return known - positives, positives


class MonthQuality(Frozen):
    """One month. Metrics are of rows with both label and prediction; `note` says why there are none.

    `worse`: quality fell by more than its limit; `rules`: everything of this month that counts as drift.
    """

    month: str
    rows: int
    labelled: int
    predicted: int
    judged: int
    target_rate: float | None = None
    prediction_mean: float | None = None
    auc: float | None = None
    average_precision: float | None = None
    brier: float | None = None
    log_loss: float | None = None
    calibration_error: float | None = None
    note: str | None = None
    worse: bool = False
    rules: tuple[str, ...] = ()


class Shift(Frozen):
    """Target or predictions of the whole window against what was promised."""

    what: Literal["target", "prediction"]
    rows: int
    reference: float
    current: float
    psi: float
    js: float
    verdict: Level
    rule: str | None
    bars: tuple[Bar, ...] = ()


def months_of(times: NDArray[Any]) -> NDArray[Any]:
    """Month of each timestamp, ``2013-09``, object [n]; ``no time`` where it is null."""
    text = np.datetime_as_string(times.astype("datetime64[M]"))
    return np.where(np.isnat(times), NO_TIME, text).astype(object)


# --- by month ---------------------------------------------------------------------------------------------


def quality(y: Floats, p: Floats, months: NDArray[Any], *, min_rows: int = 1) -> list[MonthQuality]:
    """Rows, rates and metrics of every month that occurs, in order.

    Args:
        y: labels 0 and 1, p: probabilities, NaN where unknown, months: texts; [n] each.
        min_rows: months with fewer rows of label and prediction are not measured.

    Raises:
        UsageError: lengths differ, labels other than 0 and 1, or probabilities outside [0, 1].
    """
    if not len(y) == len(p) == len(months):
        raise UsageError(
            f"{len(y)} labels, {len(p)} predictions and {len(months)} months are not rows of equal number",
            where="monitoring",
        )
    names, place = np.unique(months.astype(str), return_inverse=True)
    order = np.argsort(place, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(place, minlength=len(names)))[:-1]) if len(names) else []
    return [_month(str(name), y[rows], p[rows], min_rows) for name, rows in zip(names, parts, strict=True)]


def _month(name: str, y: Floats, p: Floats, min_rows: int) -> MonthQuality:
    labelled, predicted = np.isfinite(y), np.isfinite(p)
    both = labelled & predicted
    row = MonthQuality(
        month=name,
        rows=len(y),
        labelled=int(labelled.sum()),
        predicted=int(predicted.sum()),
        judged=int(both.sum()),
        target_rate=float(y[labelled].mean()) if labelled.any() else None,
        prediction_mean=float(p[predicted].mean()) if predicted.any() else None,
    )
    if note := _unmeasurable(row, y[both], min_rows):
        return row.model_copy(update={"note": note})
    return row.model_copy(update=evaluate(y[both], p[both]).model_dump())


def _unmeasurable(row: MonthQuality, y: Floats, min_rows: int) -> str:
    if not row.labelled:
        return "no labels yet"
    if not row.predicted:
        return "no predictions"
    if row.judged < max(1, min_rows):
        return f"{row.judged} rows with label and prediction are too few to judge"
    return "only one class occurs" if y.min() == y.max() else ""


# --- target and predictions -------------------------------------------------------------------------------


def target_shift(y: Floats, baseline: Baseline, thresholds: Thresholds) -> Shift | None:
    """Share of positive labels against the training reference's; None where either is unknown."""
    known = y[np.isfinite(y)]
    if baseline.target is None or baseline.target_rate is None or not len(known):
        return None
    rates = (baseline.target_rate, float(known.mean()))
    noise = chance_ks(sum(baseline.target), len(known), thresholds.chance)
    change = Measure("change of the target rate", abs(rates[1] - rates[0]), thresholds.target_rate, noise)
    current = np.array([len(known) - known.sum(), known.sum()])
    return _shift("target", np.array(baseline.target), current, rates, change, thresholds, ("0", "1"))


def prediction_shift(p: Floats, baseline: Baseline, thresholds: Thresholds) -> Shift | None:
    """Distribution of the predictions against the hold-out's; None where either is unknown.

    Raises:
        UsageError: predictions outside [0, 1].
    """
    known = p[np.isfinite(p)]
    before = baseline.prediction_mean
    if before is None or not len(known):
        return None
    if known.min() < 0 or known.max() > 1:
        raise UsageError("predictions outside [0, 1]", where="monitoring")
    bins = len(baseline.predictions)
    rates = (before, float(known.mean()))
    noise = chance_ks(sum(baseline.predictions), len(known), thresholds.chance)
    change = Measure("change of the mean prediction", abs(rates[1] - before), thresholds.prediction_mean, noise)
    labels = tuple(f"{i / bins:g} – {(i + 1) / bins:g}" for i in range(bins))
    reference, current = np.array(baseline.predictions), np.array(histogram(known, bins))
    return _shift("prediction", reference, current, rates, change, thresholds, labels)


def _shift(
    what: Literal["target", "prediction"],
    reference: NDArray[Any],
    current: NDArray[Any],
    rates: tuple[float, float],
    change: Measure,
    thresholds: Thresholds,
    labels: Sequence[str],
) -> Shift:
    rows = round(float(current.sum()))
    index, distance = psi(reference, current), js_distance(reference, current)
    used = int(((reference + current) > 0).sum())
    noise = chance_psi(used, int(reference.sum()), rows, thresholds.chance)
    measures = [
        change,
        Measure("PSI", index, thresholds.psi, noise),
        Measure("JS", distance, thresholds.js, math.sqrt(noise / (8 * math.log(2)))),
    ]
    verdict, rule = judge(measures, rows, thresholds)
    shares = zip(labels, reference / reference.sum(), current / rows, strict=True)
    bars = tuple(Bar(label=name, reference=round(float(a), 5), current=round(float(b), 5)) for name, a, b in shares)
    return Shift(
        what=what,
        rows=rows,
        reference=rates[0],
        current=rates[1],
        psi=index,
        js=distance,
        verdict=verdict,
        rule=rule,
        bars=bars,
    )
