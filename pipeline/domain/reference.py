"""The training reference: what every column was like, as a small piece of data that others are compared with. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Columns = Mapping[str, NDArray[Any]]

POINTS = 256  # of the thinned distribution function: a share is known to 1/256 anywhere
_ROWS_PER_BIN = 10  # a bin with fewer reference rows would measure luck


class Frozen(BaseModel):
    """A value that is finite JSON and gives itself back when read from it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """JSON values; reading them back gives an equal value."""
        return self.model_dump(mode="json")


class NumberProfile(Frozen):
    """A numeric column. Infinite values count as nulls: neither can be ordered among the others.

    Bin i of `counts` [len(edges) + 1] holds edges[i−1] < x ≤ edges[i]; the first and the last, empty here, are open.
    If `discrete`, bin i holds x = edges[i] instead, and the last bin every other value. Of the distribution function,
    `below` and `upto` are the rows < and ≤ each of `points`: exact there, also where many rows share a value.
    """

    kind: Literal["number"] = "number"
    rows: int
    nulls: int
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    sd: float | None = None
    discrete: bool = False
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    points: tuple[float, ...] = ()
    below: tuple[int, ...] = ()
    upto: tuple[int, ...] = ()


class CategoryProfile(Frozen):
    """A column of strings or booleans: rows by value of the most frequent, `other` of all the rest."""

    kind: Literal["category"] = "category"
    rows: int
    nulls: int
    distinct: int
    counts: Mapping[str, int]
    other: int = 0


class Profile(Frozen):
    """A reference: what the columns of a table were like. Columns of timestamps are not in it."""

    format: Literal[1] = 1
    rows: int
    columns: Mapping[str, Annotated[NumberProfile | CategoryProfile, Field(discriminator="kind")]]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Profile:
        """Read what `to_json` gave, also after it went through canonical JSON."""
        return cls.model_validate(data)


def profile(columns: Columns, *, bins: int = 20, max_categories: int = 200) -> Profile:
    """Describe columns so that other data can be compared with them later.

    Args:
        columns: by name, arrays of equal length n: numbers (NaN: null), objects (None: null), timestamps.
        bins: quantile bins of a numeric column; fewer where values repeat or rows are few.
        max_categories: values of a categorical column kept by name.
    """
    found: dict[str, NumberProfile | CategoryProfile] = {}
    for name, values in columns.items():
        if values.dtype.kind in "fiub":
            found[name] = _number_profile(values.astype(np.float64), bins)
        elif values.dtype.kind not in "mM":
            found[name] = _category_profile(values, max_categories)
    return Profile(rows=max((len(values) for values in columns.values()), default=0), columns=found)


def _number_profile(values: Floats, bins: int) -> NumberProfile:
    known = np.sort(values[np.isfinite(values)])
    nulls = len(values) - len(known)
    if not len(known):
        return NumberProfile(rows=len(values), nulls=nulls)
    distinct = np.unique(known)
    discrete = len(distinct) <= bins and len(known) >= _ROWS_PER_BIN * len(distinct)
    edges = distinct if discrete else _quantile_edges(known, min(bins, len(known) // _ROWS_PER_BIN))
    points = distinct if len(distinct) <= POINTS else np.unique(_quantiles(known, POINTS - 1))
    with np.errstate(over="ignore", invalid="ignore"):
        mean, sd = float(known.mean()), float(known.std())
    return NumberProfile(
        rows=len(values),
        nulls=nulls,
        min=float(known[0]),
        max=float(known[-1]),
        mean=mean if math.isfinite(mean) else None,
        sd=sd if math.isfinite(sd) else None,
        discrete=discrete,
        edges=tuple(edges.tolist()),
        counts=tuple(bin_counts(known, edges, discrete=discrete).tolist()),
        points=tuple(points.tolist()),
        below=tuple(np.searchsorted(known, points, side="left").tolist()),
        upto=tuple(np.searchsorted(known, points, side="right").tolist()),
    )


def _quantiles(ordered: Floats, parts: int) -> Floats:
    """Values of the data (never between them) that cut it into `parts`, both ends included."""
    return ordered[np.linspace(0, len(ordered) - 1, parts + 1).round().astype(np.int64)]


def _quantile_edges(ordered: Floats, bins: int) -> Floats:
    """Quantiles, and the ends of the range: what lies beyond them (a sentinel, a new unit) has bins of its own.

    A value that fills a bin by itself is also cut off from what is below it.
    """
    ends = max(np.nextafter(ordered[0], -np.inf), -np.finfo(np.float64).max), ordered[-1]
    values, times = np.unique(_quantiles(ordered, max(1, bins))[1:-1], return_counts=True)
    first = np.searchsorted(ordered, values[times > 1], side="left")
    return np.unique(np.concatenate((ends, values, ordered[first[first > 0] - 1])))


def bin_counts(values: Floats, edges: Floats, *, discrete: bool) -> Ints:
    """Rows of each bin, [len(edges) + 1], as `NumberProfile` describes them."""
    place = np.searchsorted(edges, values, side="left")
    if discrete:
        place = np.where(edges[np.minimum(place, len(edges) - 1)] == values, place, len(edges))
    return np.bincount(place, minlength=len(edges) + 1)


def _category_profile(values: NDArray[Any], limit: int) -> CategoryProfile:
    counts, nulls = categories(values)
    kept = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit])
    other = counts.total() - sum(kept.values())
    return CategoryProfile(rows=len(values), nulls=nulls, distinct=len(counts), counts=kept, other=other)


def categories(values: NDArray[Any]) -> tuple[Counter[str], int]:
    """Rows by value as text, and nulls."""
    counts: Counter[str] = Counter()
    nulls = 0
    for value, rows in Counter(values.tolist()).items():
        if value is None or value != value:  # noqa: PLR0124  # NaN among objects
            nulls += rows
        else:
            counts[str(value).lower() if isinstance(value, bool) else str(value)] += rows
    return counts, nulls


def share_upto(reference: NumberProfile, at: Floats) -> Floats:
    """The reference's distribution function between its points, too: a straight line from jump to jump."""
    points = np.repeat(np.array(reference.points), 2)
    jumps = np.column_stack((reference.below, reference.upto)).ravel() / (reference.rows - reference.nulls)
    # A hair above each value, so that a value equal to a point takes the upper end of its jump.
    return np.interp(np.nextafter(at, np.inf), points, jumps, left=0.0, right=1.0)
