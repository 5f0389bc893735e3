"""Is the model that serves still right? Quality by month, shift of target and predictions, and the verdict. Pure.

The verdict refuses where there is nothing to judge, and says what was not measured: labels arrive late, and their
absence is neither drift nor its opposite. Quality counts for more than any input: reasons come in that order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

from pipeline.domain.comparison import ECE_BINS
from pipeline.domain.divergence import chance_ks
from pipeline.domain.drift import FeatureDrift, Measure, Thresholds, compare
from pipeline.domain.evidence import METRICS
from pipeline.domain.quality import (
    Baseline,
    MonthQuality,
    Outcomes,
    Shift,
    months_of,
    prediction_shift,
    quality,
    target_shift,
)
from pipeline.domain.reference import Columns, Frozen, Profile

__all__ = ["Baseline", "MonitorVerdict", "MonthQuality", "Outcomes", "Shift", "months_of", "quality", "verdict"]


class MonitorVerdict(Frozen):
    """What a window's data say about the version that serves. `reasons`: why it drifted or was refused, worst first."""

    format: Literal[1] = 1
    drifted: bool
    refused: bool
    reasons: tuple[str, ...]
    rows: int
    months: tuple[MonthQuality, ...]
    target: Shift | None
    prediction: Shift | None
    features: tuple[FeatureDrift, ...]
    ignored: tuple[str, ...]
    not_measured: tuple[str, ...]
    baseline: Baseline
    thresholds: Thresholds

    @property
    def passed(self) -> bool:
        """Neither drifted nor refused."""
        return not self.drifted and not self.refused


class _Finding(NamedTuple):
    """Something that counts as drift; the lowest rank and then the largest ratio comes first."""

    rank: int
    ratio: float
    text: str


_MISSING, _QUALITY, _TARGET, _PREDICTION, _FEATURE = range(5)


def verdict(
    reference: Profile,
    columns: Columns,
    outcomes: Outcomes | None,
    thresholds: Thresholds,
    *,
    target: str,
    evidence: Mapping[str, Any] | None = None,
    ignore: Collection[str] = (),
) -> MonitorVerdict:
    """Compare a window with the training reference and with what the model promised.

    Args:
        reference: the training reference of the version that serves.
        columns: the window's inputs, by name. The target is never compared as an input.
        outcomes: predictions, and labels as far as they have arrived; None: neither is known.
        thresholds: from when on it is drift.
        target: column of the label in the reference.
        evidence: JSON of the evidence that the version was approved on; without it quality has no reference.
        ignore: columns that are not watched.

    Raises:
        UsageError: outcomes of unequal length, labels other than 0 and 1, probabilities outside [0, 1].
    """
    baseline = Baseline.of(reference, target, evidence)
    rows = max((len(values) for values in columns.values()), default=0)
    features = compare(reference, columns, thresholds, ignore={*ignore, target}) if rows else []
    months: list[MonthQuality] = []
    shifts: dict[str, Shift | None] = {"target": None, "prediction": None}
    findings = _feature_findings(features, thresholds)
    if outcomes is not None:
        found = quality(outcomes.y, outcomes.p, outcomes.months, min_rows=thresholds.min_rows)
        for month in found:
            said = _month_findings(month, baseline, thresholds)
            worse = any(finding.rank == _QUALITY for finding in said)
            months.append(month.model_copy(update={"worse": worse, "rules": tuple(finding.text for finding in said)}))
            findings += [finding._replace(text=f"{month.month}: {finding.text}") for finding in said]
        shifts["target"] = target_shift(outcomes.y, baseline, thresholds)
        shifts["prediction"] = prediction_shift(outcomes.p, baseline, thresholds)
        findings += _shift_findings(shifts)
    refusals = _refusals(rows, features, thresholds)
    return MonitorVerdict(
        drifted=bool(findings) and not refusals,
        refused=bool(refusals),
        reasons=tuple(refusals)
        or tuple(finding.text for finding in sorted(findings, key=lambda f: (f.rank, -f.ratio))),
        rows=rows,
        months=tuple(months),
        target=shifts["target"],
        prediction=shifts["prediction"],
        features=tuple(features),
        ignored=tuple(sorted(name for name in ignore if name in reference.columns)),
        not_measured=tuple(_not_measured(months, baseline)),
        baseline=baseline,
        thresholds=thresholds,
    )


def _refusals(rows: int, features: Sequence[FeatureDrift], thresholds: Thresholds) -> list[str]:
    if not rows:
        return ["no rows in this window"]
    if rows < thresholds.min_rows:
        return [f"{rows} rows are too few to judge (fewer than {thresholds.min_rows})"]
    return [] if features else ["no column is watched"]


def _feature_findings(features: Sequence[FeatureDrift], thresholds: Thresholds) -> list[_Finding]:
    drifted = [row for row in features if row.verdict == "drifted"]
    if len(drifted) < thresholds.features:
        return []
    return [
        _Finding(_FEATURE if row.rows_current else _MISSING, row.severity, f"{row.feature}: {row.rule}")
        for row in drifted
    ]


def _shift_findings(shifts: Mapping[str, Shift | None]) -> list[_Finding]:
    ranks = {"target": _TARGET, "prediction": _PREDICTION}
    return [
        # The whole window speaks after its months: a month says more.
        _Finding(ranks[what], 0.0, f"{what}s over the whole window: {shift.rule}")
        for what, shift in shifts.items()
        if shift is not None and shift.verdict == "drifted"
    ]


def _month_findings(month: MonthQuality, baseline: Baseline, thresholds: Thresholds) -> list[_Finding]:
    found = (
        _auc_drop(month, baseline, thresholds),
        _calibration_rise(month, baseline, thresholds),
        _rate_change(_TARGET, "target rate", month.target_rate, baseline.target_rate, month.labelled, thresholds),
        _rate_change(
            _PREDICTION, "mean prediction", month.prediction_mean, baseline.prediction_mean, month.predicted, thresholds
        ),
    )
    return [finding for finding in found if finding is not None]


def _auc_drop(month: MonthQuality, baseline: Baseline, thresholds: Thresholds) -> _Finding | None:
    """AUC against the hold-out's; its standard error after Hanley & McNeil 1982."""
    before, after = baseline.metrics.get("auc"), month.auc
    if before is None or after is None or month.target_rate is None:
        return None
    positives = month.target_rate * month.judged
    q1, q2 = after / (2 - after), 2 * after**2 / (1 + after)
    spread = after * (1 - after) + (positives - 1) * (q1 - after**2) + (month.judged - positives - 1) * (q2 - after**2)
    error = math.sqrt(max(0.0, spread) / max(1.0, positives * (month.judged - positives)))
    drop = Measure("", before - after, thresholds.auc_drop, NormalDist().inv_cdf(1 - thresholds.chance) * error)
    text = f"AUC {after:.3f}, hold-out {before:.3f}: a loss of {drop.value:.3f} (limit {drop.limit:g})"
    return _Finding(_QUALITY, drop.ratio, text) if drop.ratio >= 1 and drop.real else None


def _calibration_rise(month: MonthQuality, baseline: Baseline, thresholds: Thresholds) -> _Finding | None:
    """Calibration error against the hold-out's; a perfect model's is a mean of |normal| errors of the bins."""
    before, after = baseline.metrics.get("calibration_error"), month.calibration_error
    if before is None or after is None or month.target_rate is None:
        return None
    variance = month.target_rate * (1 - month.target_rate) / month.judged
    z = NormalDist().inv_cdf(1 - thresholds.chance)
    noise = math.sqrt(2 / math.pi * ECE_BINS * variance) + z * math.sqrt((1 - 2 / math.pi) * variance)
    rise = Measure("", after - before, thresholds.calibration_rise, noise)
    text = f"calibration error {after:.3f}, hold-out {before:.3f}: a rise of {rise.value:.3f} (limit {rise.limit:g})"
    return _Finding(_QUALITY, rise.ratio, text) if rise.ratio >= 1 and rise.real else None


def _rate_change(
    rank: int, name: str, after: float | None, before: float | None, rows: int, thresholds: Thresholds
) -> _Finding | None:
    if after is None or before is None or rows < thresholds.min_rows:
        return None
    limit = thresholds.target_rate if rank == _TARGET else thresholds.prediction_mean
    change = Measure("", abs(after - before), limit, chance_ks(rows, rows, thresholds.chance))
    where = "training" if rank == _TARGET else "hold-out"
    text = f"{name} {after:.1%}, {where} {before:.1%}: a change of {change.value * 100:.1f} points"
    return (
        _Finding(rank, change.ratio, f"{text} (limit {limit * 100:g})") if change.ratio >= 1 and change.real else None
    )


def _not_measured(months: Sequence[MonthQuality], baseline: Baseline) -> list[str]:
    notes: dict[str, list[str]] = {}
    for month in months:
        if month.note:
            notes.setdefault(month.note, []).append(month.month)
    found = [f"{', '.join(names)}: {note}" for note, names in notes.items()]
    if not months:
        found.append("quality, target and predictions: neither labels nor predictions are known")
    if baseline.target_rate is None:
        found.append("change of the target rate: the training reference does not have the target")
    if not any(baseline.metrics.get(name) is not None for name in METRICS):
        found.append("loss of quality: no hold-out metrics to compare with")
    if baseline.prediction_mean is None:
        found.append("shift of the predictions: no hold-out predictions to compare with")
    return found
