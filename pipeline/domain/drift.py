"""Has the world moved away from the training data? A small reference as data, and comparisons with it. Pure.

Decisions are on effect size, never on a p-value: with a hundred thousand rows any difference is significant.
With few rows the reverse holds, chance alone makes large effects, so an effect counts only when it also exceeds
what chance gives at these sizes. A measure that could not be taken is None, and never passes for a small one.

What others do, and why not: bins over the union with the new data (Evidently) make the reference's histogram
depend on what it is compared with; closed outer bins lose what lies outside; a fixed floor of 1e-4 for empty bins
exceeds real shares in large data (evidently issue 334). Here bins are the reference's own, with one more on either
side for what it never had.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.divergence import chance_ks, chance_psi, js_distance, ks_statistic, psi
from pipeline.domain.reference import (
    CategoryProfile,
    Columns,
    Floats,
    Frozen,
    Ints,
    NumberProfile,
    Profile,
    bin_counts,
    categories,
    profile,
    share_upto,
)
from pipeline.domain.thresholds import Thresholds

__all__ = ["Bar", "FeatureDrift", "Level", "Measure", "Profile", "Thresholds", "compare", "judge", "profile"]

Level = Literal["stable", "moderate", "drifted"]

BARS = 24  # of a histogram for the eye
TAILS = (0.005, 0.995)  # outside of these a histogram has no bars of its own
NAMED = 16  # categories and unseen values that are listed by name
OTHER = "(other)"


# --- the comparison ---------------------------------------------------------------------------------------


class Bar(Frozen):
    """One bar of a histogram for the eye: what it holds, and the share of either side's known values."""

    label: str
    reference: float
    current: float


class FeatureDrift(Frozen):
    """One column against the reference. KS is for numbers only, unseen categories are for categories only.

    `rule` says why the verdict is what it is (None: stable). `severity` is the largest ratio of a measure to its
    limit. `unseen_share` is None where the reference kept only its most frequent categories.
    """

    feature: str
    kind: Literal["number", "category"]
    rows_reference: int
    rows_current: int
    psi: float | None = None
    ks: float | None = None
    js: float | None = None
    null_reference: float | None = None
    null_current: float | None = None
    unseen: tuple[str, ...] = ()
    unseen_share: float | None = None
    mean_reference: float | None = None
    mean_current: float | None = None
    verdict: Level
    rule: str | None = None
    severity: float = 0.0
    bars: tuple[Bar, ...] = ()


class Measure(NamedTuple):
    """A measured difference, its limit, and what chance alone gives. `of_rows`: over all rows, nulls included."""

    name: str
    value: float
    limit: float
    chance: float = 0.0
    of_rows: bool = False

    @property
    def ratio(self) -> float:
        """1 and more is drift."""
        return self.value / self.limit

    @property
    def real(self) -> bool:
        """Whether it is more than chance."""
        return self.value > self.chance

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3g} ≥ {self.limit:g}"


def compare(
    reference: Profile, columns: Columns, thresholds: Thresholds, *, ignore: Collection[str] = ()
) -> list[FeatureDrift]:
    """Compare data with a reference, column by column; the most severe first.

    PSI, KS and JS are of the known values; a change of the nulls is a measure of its own. A column of the reference
    that is missing, or of another kind, counts as all null. Columns that the reference does not have are left out.

    Args:
        reference: as `profile` gave it.
        columns: by name, arrays of equal length.
        thresholds: from when on it is drift.
        ignore: columns that are not watched: keys, and what drifts by construction (month, day of the year).
    """
    found = [
        _compare_column(name, known, columns.get(name), thresholds)
        for name, known in reference.columns.items()
        if name not in ignore
    ]
    return sorted(found, key=lambda row: (-row.severity, row.feature))


def _compare_column(
    name: str, reference: NumberProfile | CategoryProfile, values: NDArray[Any] | None, thresholds: Thresholds
) -> FeatureDrift:
    problem = _unusable(reference, values)
    if values is None or problem:
        return _absent(name, reference, problem, thresholds)
    if reference.kind == "number":
        numbers = values.astype(np.float64)
        known = numbers[np.isfinite(numbers)]
        fields, measures = _compare_numbers(reference, known, thresholds)
        size = len(known)
    else:
        counts, _ = categories(values)
        fields, measures = _compare_categories(reference, counts, thresholds)
        size = counts.total()
    before, after = reference.nulls / max(1, reference.rows), 1 - size / len(values)
    if reference.rows:
        noise = chance_ks(reference.rows, len(values), thresholds.chance)
        measures.append(Measure("change of nulls", abs(after - before), thresholds.null_share, noise, of_rows=True))
    verdict, rule = judge(measures, min(size, reference.rows - reference.nulls), thresholds)
    return FeatureDrift(
        feature=name,
        kind=reference.kind,
        rows_reference=reference.rows,
        rows_current=len(values),
        null_reference=before if reference.rows else None,
        null_current=after,
        verdict=verdict,
        rule=rule,
        severity=max((measure.ratio for measure in measures), default=0.0),
        **fields,
    )


def _unusable(reference: NumberProfile | CategoryProfile, values: NDArray[Any] | None) -> str:
    if values is None:
        return "the column is missing"
    if not len(values):
        return "no rows"
    kind = "number" if values.dtype.kind in "fiub" else "time" if values.dtype.kind in "mM" else "category"
    if kind != reference.kind and not (kind == "number" and np.isnan(values.astype(np.float64)).all()):
        return f"{kind} where the reference has {reference.kind}"
    return ""


def _absent(
    name: str, reference: NumberProfile | CategoryProfile, problem: str, thresholds: Thresholds
) -> FeatureDrift:
    before = reference.nulls / max(1, reference.rows)
    return FeatureDrift(
        feature=name,
        kind=reference.kind,
        rows_reference=reference.rows,
        rows_current=0,
        null_reference=before,
        verdict="drifted",
        rule=problem,
        severity=max(1.0, (1 - before) / thresholds.null_share),
    )


def _compare_numbers(
    reference: NumberProfile, known: Floats, thresholds: Thresholds
) -> tuple[dict[str, Any], list[Measure]]:
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(known.mean()) if len(known) else math.nan
    fields = {"mean_reference": reference.mean, "mean_current": mean if math.isfinite(mean) else None}
    if not reference.counts or not len(known):
        return fields, []
    counts = bin_counts(known, np.array(reference.edges), discrete=reference.discrete)
    measured, measures = _histograms(np.array(reference.counts), counts, thresholds)
    ks = ks_statistic(reference, known)
    noise = chance_ks(reference.rows - reference.nulls, len(known), thresholds.chance)
    bars = _value_bars(reference, counts) if reference.discrete else _range_bars(reference, known)
    return {**fields, **measured, "ks": ks, "bars": bars}, [*measures, Measure("KS", ks, thresholds.ks, noise)]


def _compare_categories(
    reference: CategoryProfile, current: Counter[str], thresholds: Thresholds
) -> tuple[dict[str, Any], list[Measure]]:
    unseen = Counter({value: rows for value, rows in current.items() if value not in reference.counts})
    if not (total := current.total()) or reference.rows == reference.nulls:
        return {}, []
    names = list(reference.counts)
    before = np.array([*(reference.counts[name] for name in names), reference.other])
    after = np.array([*(current[name] for name in names), unseen.total()])
    fields, measures = _histograms(before, after, thresholds)
    fields["bars"] = _category_bars([*names, OTHER], before, after)
    if not reference.other:
        share = unseen.total() / total
        ranked = sorted(unseen, key=lambda value: (-unseen[value], value))
        fields |= {"unseen": tuple(ranked[:NAMED]), "unseen_share": share}
        measures.append(Measure("unseen categories", share, thresholds.unseen))
    return fields, measures


def _histograms(before: Ints, after: Ints, thresholds: Thresholds) -> tuple[dict[str, Any], list[Measure]]:
    index, distance = psi(before, after), js_distance(before, after)
    used = int(((before + after) > 0).sum())
    noise = chance_psi(used, int(before.sum()), int(after.sum()), thresholds.chance) if used > 1 else 0.0
    measures = [
        Measure("PSI", index, thresholds.psi, noise),
        Measure("JS", distance, thresholds.js, math.sqrt(noise / (8 * math.log(2)))),
    ]
    return {"psi": index, "js": distance}, measures


def judge(measures: list[Measure], values: int, thresholds: Thresholds) -> tuple[Level, str | None]:
    """The verdict on measures taken of `values` known values, and the rule that fired.

    A limit that is exceeded, but by no more than chance would, is moderate; so is what is too small to judge.
    """
    ranked = sorted(measures, key=lambda measure: -measure.ratio)
    over = [measure for measure in ranked if measure.ratio >= 1]
    enough = values >= thresholds.min_rows
    if real := [measure for measure in over if measure.real and (enough or measure.of_rows)]:
        return "drifted", "; ".join(map(str, real))
    if not enough:
        return "moderate", f"{values} known values are too few to judge (fewer than {thresholds.min_rows})"
    if over:
        return "moderate", f"{over[0]}, but chance alone gives {over[0].chance:.3g}"
    if ranked and ranked[0].real and ranked[0].ratio >= thresholds.moderate:
        return "moderate", str(ranked[0]._replace(limit=ranked[0].limit * thresholds.moderate))
    return "stable", None


# --- bars for the eye -------------------------------------------------------------------------------------


def _value_bars(reference: NumberProfile, counts: Ints) -> tuple[Bar, ...]:
    labels = [f"{edge:g}" for edge in reference.edges] + [OTHER]
    return _bars(labels, np.array(reference.counts), counts)


def _category_bars(names: list[str], before: Ints, after: Ints) -> tuple[Bar, ...]:
    """The categories that changed most, most frequent first, then all others in one bar."""
    shares = before[:-1] / before.sum(), after[:-1] / after.sum()
    kept = np.argsort(-np.abs(shares[1] - shares[0]), kind="stable")[:NAMED]
    kept = kept[np.argsort(-np.maximum(*shares)[kept], kind="stable")]
    rest = np.setdiff1d(np.arange(len(before)), kept)
    labels = [names[i] for i in kept] + [OTHER]
    return _bars(labels, np.append(before[kept], before[rest].sum()), np.append(after[kept], after[rest].sum()))


def _range_bars(reference: NumberProfile, known: Floats) -> tuple[Bar, ...]:
    """Bars of equal width over the middle 99 % of both sides; what lies outside is in the outermost."""
    share = np.array(reference.upto) / (reference.rows - reference.nulls)
    ends = np.array(reference.points)[np.searchsorted(share, TAILS)]
    tails = np.quantile(known, TAILS, method="inverted_cdf")
    low, high = float(min(ends[0], tails[0])), float(max(ends[1], tails[1]))
    edges = np.linspace(low, high if high > low else low + 1, BARS + 1)
    inner = edges[1:-1]
    before = np.diff(np.concatenate(([0.0], share_upto(reference, inner), [1.0])))
    after = np.bincount(np.searchsorted(inner, known, side="left"), minlength=BARS) / len(known)
    labels = [f"{left:.4g} – {right:.4g}" for left, right in pairwise(edges.tolist())]
    return _bars(labels, before, after)


def _bars(labels: list[str], before: NDArray[Any], after: NDArray[Any]) -> tuple[Bar, ...]:
    shares = zip(labels, before / before.sum(), after / after.sum(), strict=True)
    bars = [Bar(label=label, reference=round(float(p), 5), current=round(float(q), 5)) for label, p, q in shares]
    return tuple(bar for bar in bars if bar.label != OTHER or bar.reference or bar.current)
