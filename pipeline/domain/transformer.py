"""The fitted features: plain numbers and vocabularies that go through JSON unchanged and hold no code.

The same object encodes a quarter of a million rows for training and a single row in a model server.

Invariants: an unseen or null category is index 0; an encoded number is always finite; the order of the encoded
columns is the order of declaration (names before bins; numbers, then flags of missing ones, then waves).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError

Columns = Mapping[str, NDArray[Any]]
Kind = Literal["double", "string", "boolean"]
Value = str | float | bool

FORMAT = 1
CLIP = 8.0
"""Standard deviations beyond which a number is cut: one broken sensor must not steer a prediction."""

_BLOCK_ROWS = 16_384
_FEW_ROWS = 32
NUMERIC_KINDS = "fiub"


class Encoded(NamedTuple):
    """Rows as a model reads them: `categories` int64 [n, k] and `numbers` float32 [n, m]."""

    categories: NDArray[np.int64]
    numbers: NDArray[np.float32]

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.categories)

    def rows(self, chosen: NDArray[Any] | slice) -> Encoded:
        """The chosen rows, by index, mask or slice."""
        return Encoded(self.categories[chosen], self.numbers[chosen])


@dataclass(frozen=True)
class Wave:
    """A cyclic number as sin and cos of 2πkx/period for k = 1…harmonics; null becomes the circle's centre."""

    column: str
    period: float
    harmonics: int = 1


# --- what fitting makes of it ------------------------------------------------------------------------------


@dataclass(frozen=True)
class FittedCategory:
    """A vocabulary: the value at position i is encoded as i + 1."""

    column: str
    kind: Kind
    values: tuple[Value, ...]


@dataclass(frozen=True)
class FittedBins:
    """Inner edges, ascending: a value is in bin 1 + (how many edges are at or below it); 0 is null."""

    column: str
    edges: tuple[float, ...]


@dataclass(frozen=True)
class FittedNumber:
    """Centre and scale of a number (of its logarithm when `log`), and whether nulls get a flag."""

    column: str
    log: bool
    mean: float
    scale: float
    flag: bool


@dataclass(frozen=True)
class Transformer:
    """Fitted features: pure data, applied the same way in training and in serving."""

    categories: tuple[FittedCategory, ...]
    numbers: tuple[FittedNumber, ...]
    waves: tuple[Wave, ...]
    bins: tuple[FittedBins, ...] = ()

    @cached_property
    def inputs(self) -> Mapping[str, Kind]:
        """The source columns needed and their kind; of a column used twice the vocabulary's kind counts."""
        numeric = [item.column for items in (self.bins, self.numbers, self.waves) for item in items]
        return {**dict.fromkeys(numeric, "double"), **{item.column: item.kind for item in self.categories}}

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Size of each vocabulary, index 0 (unseen or null) included; then of each set of bins, 0 being null."""
        names = tuple(len(item.values) + 1 for item in self.categories)
        return names + tuple(len(item.edges) + 2 for item in self.bins)

    @cached_property
    def width(self) -> int:
        """How many encoded numbers there are: numbers, flags and waves."""
        flags = sum(item.flag for item in self.numbers)
        return len(self.numbers) + flags + sum(2 * wave.harmonics for wave in self.waves)

    def apply(self, columns: Columns) -> Encoded:
        """Encode rows.

        Raises:
            UsageError: a missing column, columns of different lengths, or a value of the wrong kind.
        """
        rows = length(columns, self.inputs)
        categories = np.empty((rows, len(self.categories) + len(self.bins)), np.int64)
        for position, (item, table) in enumerate(self._tables):
            categories[:, position] = _look_up(item, table, columns[item.column])
        for position, bins in enumerate(self.bins, len(self.categories)):
            categories[:, position] = _bin(bins, numeric(bins.column, columns[bins.column]))
        numbers = np.empty((rows, self.width), np.float32)
        for start in range(0, rows, _BLOCK_ROWS):  # blocks stay in cache and keep memory flat
            block = slice(start, start + _BLOCK_ROWS)
            self._encode_numbers(columns, block, numbers[block])
        return Encoded(categories, numbers)

    def _encode_numbers(self, columns: Columns, block: slice, out: NDArray[np.float32]) -> None:
        values = _matrix(self.numbers, columns, block, len(out))
        constants = self._constants
        if constants.logged.size:
            part = values[:, constants.logged]
            values[:, constants.logged] = np.sign(part) * np.log1p(np.abs(part))
        missing = np.isnan(values)
        values -= constants.mean
        values /= constants.scale
        values[missing] = 0.0
        count, flagged = len(self.numbers), constants.flagged
        np.clip(values, -CLIP, CLIP, out=out[:, :count], casting="same_kind")
        out[:, count : count + flagged.size] = missing[:, flagged]
        if self.waves:
            angles = _matrix(self.waves, columns, block, len(out))[:, constants.wave] * constants.frequency
            start = count + flagged.size
            out[:, start::2] = np.nan_to_num(np.sin(angles))
            out[:, start + 1 :: 2] = np.nan_to_num(np.cos(angles))

    @cached_property
    def _tables(self) -> tuple[tuple[FittedCategory, Mapping[Value, int]], ...]:
        return tuple((item, {v: i for i, v in enumerate(item.values, 1)}) for item in self.categories)

    @cached_property
    def _constants(self) -> _Constants:
        turns = [(i, 2 * np.pi * k / w.period) for i, w in enumerate(self.waves) for k in range(1, w.harmonics + 1)]
        return _Constants(
            mean=np.array([item.mean for item in self.numbers]),
            scale=np.array([item.scale for item in self.numbers]),
            logged=np.flatnonzero([item.log for item in self.numbers]),
            flagged=np.flatnonzero([item.flag for item in self.numbers]),
            wave=np.array([i for i, _ in turns], np.int64),
            frequency=np.array([frequency for _, frequency in turns]),
        )

    def to_json(self) -> dict[str, Any]:
        """The fitted state as plain JSON; `from_json` gives an equal transformer."""
        return {
            "format": FORMAT,
            "categories": [asdict(item) | {"values": list(item.values)} for item in self.categories],
            "bins": [asdict(item) | {"edges": list(item.edges)} for item in self.bins],
            "numbers": [asdict(item) for item in self.numbers],
            "waves": [asdict(item) for item in self.waves],
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Transformer:
        """Rebuild a transformer.

        Raises:
            UsageError: the state is of another format or damaged.
        """
        if state.get("format") != FORMAT:
            raise UsageError(f"transformer format {state.get('format')!r} is not {FORMAT}", where="transformer.json")
        try:
            return cls(
                categories=tuple(
                    FittedCategory(**{**item, "values": tuple(item["values"])}) for item in state["categories"]
                ),
                bins=tuple(FittedBins(item["column"], tuple(item["edges"])) for item in state["bins"]),
                numbers=tuple(FittedNumber(**item) for item in state["numbers"]),
                waves=tuple(Wave(**item) for item in state["waves"]),
            )
        except (KeyError, TypeError) as error:
            raise UsageError(f"the transformer's state is damaged: {error}", where="transformer.json") from error


@dataclass(frozen=True)
class _Constants:
    """A transformer's constants, one array per operation, so that a single row costs few numpy calls."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    logged: NDArray[np.intp]
    flagged: NDArray[np.intp]
    wave: NDArray[np.int64]
    frequency: NDArray[np.float64]


# --- reading columns ------------------------------------------------------------------------------------------


def length(columns: Columns, names: Iterable[str]) -> int:
    """The common length of the named columns."""
    length = -1
    for name in names:
        if name not in columns:
            fix = f"the rows have: {', '.join(sorted(columns)) or 'no columns'}"
            raise UsageError(f"input column {name!r} is missing", where=name, fix=fix)
        rows = len(columns[name])
        if rows != length and length >= 0:
            raise UsageError(f"column has {rows} rows where others have {length}", where=name)
        length = rows
    return length


def _matrix(items: Sequence[FittedNumber | Wave], columns: Columns, block: slice, rows: int) -> NDArray[np.float64]:
    """The items' columns side by side, float64 [rows, len(items)], NaN for null."""
    matrix = np.empty((rows, len(items)))
    for position, item in enumerate(items):
        matrix[:, position] = numeric(item.column, columns[item.column][block])
    if np.isinf(matrix).any():
        column = items[int(np.flatnonzero(np.isinf(matrix).any(axis=0))[0])].column
        raise UsageError("infinite value", where=column, fix="send a number, or null")
    return matrix


def numeric(name: str, column: NDArray[Any]) -> NDArray[Any]:
    """`column` as numbers. An object column may hold numbers and None, never text that looks like a number."""
    if column.dtype.kind in NUMERIC_KINDS:
        return column
    if column.dtype.kind == "O":
        wrong = next((v for v in column if v is not None and not isinstance(v, int | float | np.number)), None)
        if wrong is None:
            return column.astype(np.float64)
    else:
        wrong = column[0] if len(column) else column.dtype
    raise UsageError(f"{str(wrong)[:40]!r} is not a number", where=name, fix="send a number, or null")


def _look_up(item: FittedCategory, table: Mapping[Value, int], column: NDArray[Any]) -> list[int]:
    """Positions in the vocabulary; 0 for null and for what training did not see."""
    if item.kind == "string" and column.dtype.kind not in "OU":
        raise UsageError(f"column must hold text, not {column.dtype}", where=item.column)
    if item.kind == "double" and column.dtype.kind == "O":
        column = numeric(item.column, column)
    get: Callable[[Any, int], int] = table.get
    try:
        return [get(value, 0) for value in column.tolist()]
    except TypeError as error:
        raise UsageError(f"a category must be a plain value: {error}", where=item.column) from error


def _bin(item: FittedBins, column: NDArray[Any]) -> NDArray[np.intp] | list[int]:
    """Ordinals of the bins; 0 for null."""
    if len(column) <= _FEW_ROWS:  # in a server numpy's call would cost more than its work
        return [bisect_right(item.edges, value) + 1 if value == value else 0 for value in column.tolist()]  # noqa: PLR0124 - NaN
    ordinals = np.searchsorted(np.array(item.edges), column, side="right") + 1
    ordinals[np.isnan(column)] = 0
    return ordinals
