"""What a project declares as its features, and how they are fitted on the training rows.

A project lists `Category`, `Bins`, `Number` and `Wave` items. `Features.fit` reads the training columns once and gives
a `Transformer`, which is what a package carries (see `pipeline.domain.transformer`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.transformer import (
    NUMERIC_KINDS,
    Columns,
    FittedBins,
    FittedCategory,
    FittedNumber,
    Kind,
    Transformer,
    Value,
    Wave,
    length,
    numeric,
)
from pipeline.errors import UsageError

__all__ = ["Bins", "Category", "Features", "Number", "Wave"]

# --- what a project declares ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Category:
    """A column whose values have names; rarer than `min_count` in training counts as unseen."""

    column: str
    min_count: int = 1


@dataclass(frozen=True)
class Bins:
    """A number as the ordinal of its bin, 1 upwards; the bins hold about equally many training rows each.

    Values beyond the training range fall into the outer bins, so a model cannot extrapolate along it.
    """

    column: str
    count: int = 32


@dataclass(frozen=True)
class Number:
    """A standardised number; null becomes the mean.

    Args:
        column: the source column.
        log: take sign(x)·ln(1+|x|) first, for counts and amounts with a long tail.
        flag: add a 0/1 column that says "was null"; None adds it when the training data had nulls.
    """

    column: str
    log: bool = False
    flag: bool | None = None


Item = Category | Bins | Number | Wave


class Features:
    """The declared features of a project.

    Raises:
        UsageError: no item, the same item twice, or a parameter out of its range.
    """

    def __init__(self, *items: Item) -> None:
        if not items:
            raise UsageError("no feature is declared", fix="list at least one Category, Bins, Number or Wave")
        repeated = [item.column for item, count in Counter(items).items() if count > 1]
        if repeated:
            raise UsageError("the same feature is declared twice", where=repeated[0])
        for item in items:
            _check_item(item)
        self.items: tuple[Item, ...] = items

    @property
    def columns(self) -> tuple[str, ...]:
        """The source columns needed, each once, in order of declaration."""
        return tuple(dict.fromkeys(item.column for item in self.items))

    def fit(self, columns: Columns) -> Transformer:
        """Learn vocabularies, means and deviations from the training rows.

        Raises:
            UsageError: no rows, a missing column, columns of different lengths, a value that is not a number
                or not finite where a number is declared.
        """
        if length(columns, self.columns) == 0:
            raise UsageError("there are no rows to fit features on", fix="check the training window")
        return Transformer(
            categories=tuple(_fit_category(i, columns) for i in self.items if isinstance(i, Category)),
            bins=tuple(_fit_bins(i, columns) for i in self.items if isinstance(i, Bins)),
            numbers=tuple(_fit_number(i, columns) for i in self.items if isinstance(i, Number)),
            waves=tuple(i for i in self.items if isinstance(i, Wave)),
        )


def _check_item(item: Item) -> None:
    if isinstance(item, Category) and item.min_count < 1:
        raise UsageError(f"min_count must be at least 1, not {item.min_count}", where=item.column)
    if isinstance(item, Bins) and item.count < 2:
        raise UsageError(f"there must be at least 2 bins, not {item.count}", where=item.column)
    if isinstance(item, Wave) and not (0 < item.period < float("inf") and item.harmonics >= 1):
        raise UsageError("a wave needs a period above 0 and at least one harmonic", where=item.column)


def _fit_category(item: Category, columns: Columns) -> FittedCategory:
    column = columns[item.column]
    if column.dtype.kind == "M":
        raise UsageError("a timestamp cannot be a category", where=item.column, fix="derive a column in the source")
    counts = Counter(value for value in column.tolist() if not (value is None or value != value))  # noqa: PLR0124 - NaN
    empty: Kind = "double" if column.dtype.kind in NUMERIC_KINDS else "string"
    kinds = {_kind(value) for value in counts} or {empty}
    if len(kinds) > 1 or None in kinds:
        raise UsageError("a category must hold only text, only numbers or only booleans", where=item.column)
    values = sorted(value for value, count in counts.items() if count >= item.min_count)
    return FittedCategory(item.column, next(kind for kind in kinds if kind), _plain(values))


def _kind(value: object) -> Kind | None:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "double"
    return "string" if isinstance(value, str) else None


def _plain(values: Iterable[Value]) -> tuple[Value, ...]:
    """Whole numbers as floats, so that the JSON is the same whether the source said 7 or 7.0."""
    return tuple(v if isinstance(v, bool | str) else float(v) for v in values)


def _known(name: str, columns: Columns) -> NDArray[np.float64]:
    """The column's numbers without nulls."""
    values = numeric(name, columns[name]).astype(np.float64)
    if np.isinf(values).any():
        raise UsageError("infinite value", where=name, fix="correct the source, or make it null there")
    return values[~np.isnan(values)]


def _fit_bins(item: Bins, columns: Columns) -> FittedBins:
    known = _known(item.column, columns)
    if not known.size:
        return FittedBins(item.column, ())
    shares = np.linspace(0, 1, item.count + 1)[1:-1]
    # "higher" takes edges from the data itself: no arithmetic, so no rounding, and the lowest value makes no edge.
    edges = np.unique(np.quantile(known, shares, method="higher"))
    return FittedBins(item.column, tuple(edges[edges > known.min()].tolist()))


def _fit_number(item: Number, columns: Columns) -> FittedNumber:
    known = _known(item.column, columns)
    missing = known.size < len(columns[item.column])
    if item.log:
        known = np.sign(known) * np.log1p(np.abs(known))
    mean, deviation = (float(known.mean()), float(known.std())) if known.size else (0.0, 0.0)
    flag = missing if item.flag is None else item.flag
    # Nine digits: beyond them a sum depends on the machine's vector width, and the digest would with it.
    return FittedNumber(item.column, item.log, _digits(mean), _digits(deviation) or 1.0, flag)


def _digits(value: float) -> float:
    return float(f"{value:.9g}")
