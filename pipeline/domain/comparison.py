"""Quality of probabilities for a binary target, and whether one model is better than another. Pure.

Throughout, `y` is float or integer [n] of 0 and 1, `p` float [n] in [0, 1]. Every metric is written once, for
rows with whole-number weights: a bootstrap resample is a vector of counts on rows sorted once, so a resample
costs a few passes over the rows and no sorting, and gives exactly what the metric gives on the drawn rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.domain.evidence import METRICS, Curves, Interval, Intervals, Metrics, ReliabilityBin, SliceRow
from pipeline.errors import UsageError

ECE_BINS = 15
MIN_SLICE_ROWS = 100
_EPSILON = float(np.finfo(np.float64).eps)
_Z95 = 1.959963984540054
_DIGITS = 6

Floats = NDArray[np.float64]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Intervals of each metric for both models, and of challenger − champion on the same rows."""

    challenger: Intervals
    champion: Intervals | None
    difference: Intervals | None


# --- rows sorted once -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Rows in ascending order of prediction. `starts` [g]: first row of each group of equal predictions."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    y: Floats
    group_p: Floats

    @classmethod
    def of(cls, y: Floats, p: Floats) -> _Ranked:
        order = np.argsort(p, kind="stable")
        ranked = p[order]
        starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1])))
        return cls(order, starts, y[order], ranked[starts])

    def totals(self, weights: Floats | None = None) -> tuple[Floats, Floats]:
        """Weight of positives and of all rows in each group of equal predictions, [g] each."""
        drawn = np.ones(len(self.y)) if weights is None else weights[self.order]
        positives = drawn * self.y
        if len(self.starts) == len(self.y):
            return positives, drawn
        return np.add.reduceat(positives, self.starts), np.add.reduceat(drawn, self.starts)


def _auc(positives: Floats, rows: Floats) -> float:
    """Mann–Whitney U over its maximum; ties count one half (Hanley & McNeil 1982)."""
    negatives = rows - positives
    below = np.cumsum(negatives) - 0.5 * negatives
    pairs = positives.sum() * negatives.sum()
    return float(positives @ below / pairs) if pairs else float("nan")


def _average_precision(positives: Floats, rows: Floats) -> float:
    """Σ (Rₖ − Rₖ₋₁) Pₖ over the distinct thresholds, highest first, not interpolated (as in scikit-learn)."""
    found, taken = np.cumsum(positives[::-1]), np.cumsum(rows[::-1])
    if not found[-1]:
        return float("nan")
    precision = found / np.maximum(taken, 1.0)
    return float(positives[::-1] @ precision / found[-1])


def _calibration_error(positives: Floats, rows: Floats, group_p: Floats, bins: int) -> float:
    """Σ_b n_b/n · |mean y − mean p| over equal-mass bins; a group of equal predictions is never split."""
    edges = _equal_mass(rows, bins)
    gap = np.concatenate(([0.0], np.cumsum(positives - rows * group_p)))
    return float(np.abs(np.diff(gap[edges])).sum() / rows.sum())


def _equal_mass(rows: Floats, bins: int) -> NDArray[np.int64]:
    """Group index at which each bin starts, and the end; a group belongs where its first row falls."""
    before = np.cumsum(rows) - rows
    wanted = np.arange(1, bins) * (rows.sum() / bins)
    return np.concatenate(([0], np.searchsorted(before, wanted, side="left"), [len(rows)])).astype(np.int64)


class _Measured:
    """One model's rows, ready to be measured under any row weights."""

    def __init__(self, y: Floats, p: Floats) -> None:
        self._ranked = _Ranked.of(y, p)
        # Brier and log loss are means over rows, so that a resample is one product with the weights.
        self._losses = np.stack([(p - y) ** 2, _row_log_loss(y, p)])

    def __call__(self, weights: Floats | None = None) -> Floats:
        """The metrics in the order of `METRICS`, float64 [5]; NaN where only one class is drawn."""
        positives, rows = self._ranked.totals(weights)
        losses = self._losses.mean(axis=1) if weights is None else self._losses @ weights / weights.sum()
        error = _calibration_error(positives, rows, self._ranked.group_p, ECE_BINS)
        return np.array([_auc(positives, rows), _average_precision(positives, rows), *losses, error])


def _row_log_loss(y: Floats, p: Floats) -> Floats:
    clipped = np.clip(p, _EPSILON, 1 - _EPSILON)
    return np.asarray(-np.where(y == 1, np.log(clipped), np.log1p(-clipped)))


# --- metrics ----------------------------------------------------------------------------------------------


def auc(y: ArrayLike, p: ArrayLike) -> float:
    """Area under the ROC curve; `p` may be any finite score. Raises UsageError when a class is missing."""
    return _auc(*_Ranked.of(*_checked(y, p, probabilities=False)).totals())


def average_precision(y: ArrayLike, p: ArrayLike) -> float:
    """Average precision; `p` may be any finite score. Raises UsageError when a class is missing."""
    return _average_precision(*_Ranked.of(*_checked(y, p, probabilities=False)).totals())


def brier(y: ArrayLike, p: ArrayLike) -> float:
    """Mean squared difference of probability and outcome (Brier 1950)."""
    labels, predicted = _checked(y, p, both_classes=False)
    return float(np.mean((predicted - labels) ** 2))


def log_loss(y: ArrayLike, p: ArrayLike) -> float:
    """Mean negative log-likelihood in nats; probabilities are kept one float64 epsilon from 0 and 1."""
    return float(np.mean(_row_log_loss(*_checked(y, p, both_classes=False))))


def calibration_error(y: ArrayLike, p: ArrayLike, bins: int = ECE_BINS) -> float:
    """Expected calibration error, Σ_b n_b/n · |mean y − mean p|, over bins of equal mass.

    Guo et al. 2017, eq. 3, with the equal-mass bins of Nixon et al. 2019 ("adaptive"). Rows with equal
    predictions share a bin, so the order of rows does not matter.
    """
    ranked = _Ranked.of(*_checked(y, p, both_classes=False))
    return _calibration_error(*ranked.totals(), ranked.group_p, bins)


def evaluate(y: ArrayLike, p: ArrayLike) -> Metrics:
    """All metrics at once.

    Raises:
        UsageError: lengths differ, no rows, labels other than 0 and 1, one class only, or `p` outside [0, 1].
    """
    values = _Measured(*_checked(y, p))().tolist()
    return Metrics.model_validate(dict(zip(METRICS, values, strict=True)))


def _checked(
    y: ArrayLike, p: ArrayLike, *, probabilities: bool = True, both_classes: bool = True
) -> tuple[Floats, Floats]:
    labels, predicted = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    problem = ""
    if labels.ndim != 1 or labels.shape != predicted.shape or not len(labels):
        problem = f"labels {labels.shape} and predictions {predicted.shape} are not rows of equal number"
    elif not np.isin(labels, (0.0, 1.0)).all():
        problem = "labels other than 0 and 1"
    elif not np.isfinite(predicted).all():
        problem = "predictions that are not finite"
    elif probabilities and not ((predicted >= 0) & (predicted <= 1)).all():
        problem = "predictions outside [0, 1]"
    elif both_classes and labels.min() == labels.max():
        problem = "only one class occurs"
    if problem:
        raise UsageError(f"nothing to measure: {problem}", where="comparison")
    return labels, predicted


# --- what is drawn ----------------------------------------------------------------------------------------


def reliability(y: ArrayLike, p: ArrayLike, bins: int = ECE_BINS) -> tuple[ReliabilityBin, ...]:
    """Mean prediction and observed share in bins of equal mass, with 95 % intervals (Wilson 1927)."""
    ranked = _Ranked.of(*_checked(y, p, both_classes=False))
    positives, rows = ranked.totals()
    edges = np.unique(_equal_mass(rows, bins))[:-1]
    counts, found = np.add.reduceat(rows, edges), np.add.reduceat(positives, edges)
    predicted = np.add.reduceat(rows * ranked.group_p, edges) / counts
    return tuple(_reliability_bin(*row) for row in zip(counts, predicted, found / counts, strict=True))


def _reliability_bin(n: float, predicted: float, observed: float) -> ReliabilityBin:
    z2 = _Z95**2
    middle = (observed + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * float(np.sqrt(observed * (1 - observed) / n + z2 / (4 * n * n)))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    rounded = {"predicted": predicted, "observed": observed, "low": low, "high": high}
    return ReliabilityBin(n=int(n), **{name: round(float(value), _DIGITS) for name, value in rounded.items()})


def roc_points(y: ArrayLike, p: ArrayLike, limit: int = 200) -> tuple[Point, ...]:
    """ROC curve as (false, true positive rate), from (0, 0) to (1, 1), at most `limit` points."""
    positives, rows = _Ranked.of(*_checked(y, p, probabilities=False)).totals()
    tpr = np.concatenate(([0.0], np.cumsum(positives[::-1]))) / positives.sum()
    fpr = np.concatenate(([0.0], np.cumsum((rows - positives)[::-1]))) / (rows - positives).sum()
    return _thinned(fpr, tpr, along=fpr + tpr, limit=limit)


def pr_points(y: ArrayLike, p: ArrayLike, limit: int = 200) -> tuple[Point, ...]:
    """Precision-recall curve as (recall, precision), highest threshold first, at most `limit` points."""
    positives, rows = _Ranked.of(*_checked(y, p, probabilities=False)).totals()
    found, taken = np.cumsum(positives[::-1]), np.cumsum(rows[::-1])
    return _thinned(found / found[-1], found / taken, along=found / found[-1], limit=limit)


def _thinned(x: Floats, y: Floats, *, along: Floats, limit: int) -> tuple[Point, ...]:
    """Points evenly spaced in `along` (ascending), ends kept, to six decimals: for the eye only."""
    wanted = np.linspace(along[0], along[-1], limit)
    picks = np.unique(np.concatenate(([0], np.searchsorted(along, wanted[1:-1]), [len(x) - 1])))
    return tuple((round(float(x[i]), _DIGITS), round(float(y[i]), _DIGITS)) for i in picks)


def histogram(p: ArrayLike, bins: int = 40) -> tuple[int, ...]:
    """Number of predictions in `bins` bins of equal width over [0, 1]."""
    counts, _ = np.histogram(np.asarray(p, dtype=np.float64), bins=bins, range=(0.0, 1.0))
    return tuple(int(count) for count in counts)


def curves(y: ArrayLike, p: ArrayLike) -> Curves:
    """Everything that the evidence page draws of one model."""
    bins = reliability(y, p)
    return Curves(roc=roc_points(y, p), pr=pr_points(y, p), reliability=bins, histogram=histogram(p))


# --- is one better ----------------------------------------------------------------------------------------


def bootstrap(
    y: ArrayLike,
    challenger: ArrayLike,
    champion: ArrayLike | None = None,
    *,
    resamples: int = 400,
    seed: int = 0,
    level: float = 0.95,
) -> Bootstrap:
    """Percentile bootstrap intervals (Efron 1979), paired: both models are measured on the same drawn rows.

    Each interval is moved so that the resamples' median lies on the sample's value. For AUC, AP, Brier and
    log loss this changes next to nothing; the calibration error, a sum of absolute values, grows with the
    noise that resampling adds, and its interval would not even contain its own estimate. Resamples in which
    only one class was drawn are left out. The same arguments give the same bytes.

    Raises:
        UsageError: as `evaluate`; fewer than two resamples; a level outside (0, 1).
    """
    if resamples < 2 or not 0 < level < 1:
        raise UsageError("a bootstrap needs two resamples or more and a level in (0, 1)", where="comparison")
    labels, first = _checked(y, challenger)
    models = [_Measured(labels, first)] + ([_Measured(*_checked(y, champion))] if champion is not None else [])
    values = np.array([model() for model in models])
    drawn = np.array([[m(w) for m in models] for w in _resamples(len(labels), resamples, seed)])
    mine = _intervals(values[0], drawn[:, 0], level)
    if champion is None:
        return Bootstrap(mine, None, None)
    difference = _intervals(values[0] - values[1], drawn[:, 0] - drawn[:, 1], level, bounded=False)
    return Bootstrap(mine, _intervals(values[1], drawn[:, 1], level), difference)


def _resamples(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each row is drawn, one resample at a time: constant memory."""
    random = np.random.Generator(np.random.PCG64(seed))
    for _ in range(resamples):
        yield np.bincount(random.integers(0, n, n, dtype=np.int64), minlength=n).astype(np.float64)


def _intervals(values: Floats, drawn: Floats, level: float, *, bounded: bool = True) -> Intervals:
    floor, ceiling = (0.0, 1.0) if bounded else (-np.inf, np.inf)
    return {
        name: _interval(float(values[i]), drawn[:, i], level, floor, np.inf if name == "log_loss" else ceiling)
        for i, name in enumerate(METRICS)
    }


def _interval(value: float, drawn: Floats, level: float, floor: float, ceiling: float) -> Interval:
    known = drawn[np.isfinite(drawn)]
    if not len(known):
        return Interval(value=value, low=None, high=None)
    low, middle, high = np.quantile(known, [(1 - level) / 2, 0.5, (1 + level) / 2]).tolist()
    return Interval(value=value, low=max(floor, value - (middle - low)), high=min(ceiling, value + (high - middle)))


# --- slices -----------------------------------------------------------------------------------------------


def by_slice(
    y: ArrayLike,
    p: ArrayLike,
    q: ArrayLike | None,
    slices: Mapping[str, NDArray[Any]],
    *,
    min_rows: int = MIN_SLICE_ROWS,
) -> list[SliceRow]:
    """Metrics in every value of every slice, worst AUC first; unmeasured values last.

    Args:
        y, p, q: labels, challenger's and champion's probabilities (None: no champion), [n] each.
        slices: by name, the value of each row, object [n]; None and NaN are the rows where it is missing.
        min_rows: values with fewer rows are listed but not measured.
    """
    labels, mine = _checked(y, p)
    theirs = None if q is None else _checked(y, q)[1]
    rows: list[SliceRow] = []
    for name, values in slices.items():
        texts = np.array([_text(value) for value in values], dtype=object)
        found: list[SliceRow] = []
        for text in sorted(set(texts), key=lambda text: (text is None, text or "")):
            here = np.equal(texts, text)
            row = SliceRow(slice=name, value=text, n=int(here.sum()), positives=int(labels[here].sum()))
            other = None if theirs is None else theirs[here]
            found.append(_measure(row, labels[here], mine[here], other, min_rows))
        rows += sorted(found, key=lambda row: (row.auc is None, row.auc or 0.0))
    return rows


def _text(value: Any) -> str | None:
    missing = value is None or (isinstance(value, float) and np.isnan(value))
    return None if missing else str(value)


def _measure(row: SliceRow, y: Floats, p: Floats, q: Floats | None, min_rows: int) -> SliceRow:
    if row.n < min_rows:
        return row.model_copy(update={"note": f"fewer than {min_rows} rows"})
    if row.positives in (0, row.n):
        return row.model_copy(update={"note": "only one class occurs"})
    measured = evaluate(y, p).model_dump()
    theirs = None if q is None else auc(y, q)
    difference = None if theirs is None else measured["auc"] - theirs
    return row.model_copy(update={**measured, "champion_auc": theirs, "auc_difference": difference})
