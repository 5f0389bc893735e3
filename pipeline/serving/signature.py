"""The columns a model takes, and how the values a client sends for one become an array. Pure."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from operator import itemgetter
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.ports import Columns

_EXACT_INTEGER = 2**53
_LARGEST = sys.float_info.max
_NAMES: Mapping[type, str] = {
    str: "text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    NoneType: "null",
}


Raw = Sequence[Sequence[Any]]
"""Values by column, then row, as JSON gives them."""


class Refused(UsageError):
    """A request that cannot be answered, with the HTTP status and MLflow's name for the error."""

    def __init__(self, what: str, *, status: int = 400, code: str = "BAD_REQUEST") -> None:
        super().__init__(what, where="/invocations")
        self.status = status
        self.code = code

    def body(self) -> bytes:
        """The JSON answer."""
        return json.dumps({"error_code": self.code, "message": self.what}).encode()


@dataclass(frozen=True, slots=True)
class Input:
    """One column a model takes. `type` is MLflow's: double, long, string, boolean or datetime."""

    name: str
    type: str
    required: bool


@dataclass(frozen=True)
class Signature:
    """The columns a model takes, in order."""

    inputs: tuple[Input, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every input's name, in order."""
        return tuple(entry.name for entry in self.inputs)

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Names of the inputs that every request must have."""
        return tuple(entry.name for entry in self.inputs if entry.required)

    @cached_property
    def pick(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        """Takes every input's value out of a record; raises KeyError when one is not there."""
        if len(self.names) == 1:
            return lambda record: (record[self.names[0]],)
        return itemgetter(*self.names)

    @cached_property
    def groups(self) -> tuple[tuple[str, tuple[Input, ...], tuple[str, ...]], ...]:
        """Type, inputs, names. Columns of one type are read together: a call for each would outweigh the model."""
        types = dict.fromkeys(entry.type for entry in self.inputs)
        groups = [(kind, tuple(entry for entry in self.inputs if entry.type == kind)) for kind in types]
        return tuple((kind, entries, tuple(entry.name for entry in entries)) for kind, entries in groups)

    def read(self, raw: Mapping[str, Sequence[Any]], rows: int) -> Columns:
        """Arrays from JSON values.

        Args:
            raw: by column, `rows` numbers, texts, booleans and Nones as JSON gives them; an input that is not
                there counts as all null.
            rows: how many rows there are.

        Returns:
            float64 with NaN for null (double, long), object with None (string, boolean), datetime64[us] with NaT.

        Raises:
            Refused: a value does not fit the input's type, naming column and row.
        """
        absent = [None] * rows
        found: dict[str, NDArray[Any]] = {}
        for kind, entries, names in self.groups:
            values = [raw.get(name, absent) for name in names]
            _check_types(entries, values, _ALLOWED[kind])
            found.update(zip(names, _READERS[kind](entries, values), strict=True))
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Signature:
        """Read ``signature.json``.

        Raises:
            UsageError: an input has no name, or a type that cannot be parsed.
        """
        try:
            inputs = tuple(Input(e["name"], e["type"], bool(e.get("required", True))) for e in value["inputs"])
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError("signature.json does not list inputs with name and type") from error
        for entry in inputs:
            if entry.type not in _READERS:
                raise UsageError(f"input '{entry.name}' has type '{entry.type}'", fix=f"one of: {', '.join(_READERS)}")
        return cls(inputs)

    def with_optional(self, name: str, kind: str) -> Signature:
        """This signature, taking column `name` too when a client sends it."""
        if any(entry.name == name for entry in self.inputs):
            return self
        return Signature((*self.inputs, Input(name, kind, required=False)))


_ALLOWED: Mapping[str, frozenset[type]] = {
    "double": frozenset({float, int, NoneType}),
    "long": frozenset({float, int, NoneType}),
    "string": frozenset({str, NoneType}),
    "boolean": frozenset({bool, NoneType}),
    "datetime": frozenset({str, NoneType}),
}


def _check_types(entries: Sequence[Input], raw: Raw, allowed: frozenset[type]) -> None:
    if allowed.issuperset(map(type, chain.from_iterable(raw))):
        return
    for entry, values in zip(entries, raw, strict=True):
        for row, value in enumerate(values):
            if type(value) not in allowed:
                got = _NAMES.get(type(value), "a list or object")
                raise Refused(f"Column '{entry.name}' expects {entry.type}, got {got} in row {row}.")


def _doubles(entries: Sequence[Input], raw: Raw) -> NDArray[Any]:
    try:
        matrix = np.array(raw, dtype=np.float64)
    except OverflowError as error:
        raise Refused(f"Column '{_first_too_large(entries, raw)}' has a number too large for a double.") from error
    infinite = np.isinf(matrix)
    if np.count_nonzero(infinite):  # half the price of any()
        column, row = np.argwhere(infinite)[0]
        raise Refused(f"Column '{entries[column].name}' has a number that is not finite in row {row}.")
    return matrix


def _longs(entries: Sequence[Input], raw: Raw) -> NDArray[Any]:
    matrix = _doubles(entries, raw)
    for entry, values in zip(entries, matrix, strict=True):
        _check_long(entry, values)
    return matrix


def _first_too_large(entries: Sequence[Input], raw: Raw) -> str:
    sizes = (max((abs(value) for value in values if value is not None), default=0) for values in raw)
    return next((entry.name for entry, size in zip(entries, sizes, strict=True) if size > _LARGEST), "?")


def _check_long(entry: Input, values: NDArray[Any]) -> None:
    null = np.isnan(values)
    if entry.required and null.any():
        raise Refused(f"Column '{entry.name}' expects long, got null in row {int(null.argmax())}.")
    wrong = ~null & ((values != np.floor(values)) | (np.abs(values) > _EXACT_INTEGER))
    if wrong.any():
        raise Refused(f"Column '{entry.name}' expects long, row {int(wrong.argmax())} is not an exact integer.")


def _objects(entries: Sequence[Input], raw: Raw) -> NDArray[Any]:
    matrix = np.empty((len(entries), len(raw[0])), dtype=object)
    matrix[:] = raw
    return matrix


def _datetimes(entries: Sequence[Input], raw: Raw) -> NDArray[Any]:
    moments = [
        [_instant(value, row, entry) for row, value in enumerate(values)]
        for entry, values in zip(entries, raw, strict=True)
    ]
    return np.array(moments, dtype="datetime64[us]")


def _instant(value: str | None, row: int, entry: Input) -> datetime | None:
    """A naive time as it stands; one with an offset as naive UTC."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        raise Refused(f"Column '{entry.name}' expects an ISO 8601 datetime in row {row}.") from error


_READERS: Mapping[str, Callable[[Sequence[Input], Raw], NDArray[Any]]] = {
    "double": _doubles,
    "long": _longs,
    "string": _objects,
    "boolean": _objects,
    "datetime": _datetimes,
}
