"""Data checks: the project's pandera schema, and what no schema should have to say.

Bad data is never an exception here: it comes back as a list of failed checks. Types and nulls are judged on Arrow's
columns, where a missing value is not a NaN and an integer stays one; pandera judges values.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pandera.errors import SchemaDefinitionError, SchemaError, SchemaErrorReason, SchemaErrors, SchemaInitError

from pipeline.domain.checks import FailedCheck
from pipeline.domain.window import Window
from pipeline.errors import UsageError

EXAMPLES = 5
MAX_NULL_SHARE = 0.2
# A query may cut its window at local midnight while the time column is in UTC.
_ZONE = timedelta(days=1)
_EXACT = 2**53
# What the schema may call a type, by how its name begins, and the kinds of column that satisfy it.
_KINDS: Mapping[str, tuple[str, ...]] = {
    "int": ("integer",),
    "uint": ("integer",),
    "float": ("integer", "float"),
    "decimal": ("integer", "float"),
    "bool": ("boolean",),
    "str": ("text",),
    "date": ("time",),
    "timestamp": ("time",),
}


def check(
    table: pa.Table,
    schema: pandera.DataFrameSchema,
    *,
    target: str,
    key: Sequence[str],
    time: str,
    window: Window | None = None,
    max_null_share: float = MAX_NULL_SHARE,
) -> list[FailedCheck]:
    """Hold a snapshot against its schema.

    Args:
        table: the rows.
        schema: pandera's; a column's ``metadata={"max_null_share": 0.9}`` replaces the limit for it.
        target: the label's column; needs two different values.
        key: columns that together name a row.
        time: the column that places a row in the window.
        window: every month of it must have rows, and no row may lie outside (a day's grace for time zones).
        max_null_share: limit for columns that may be null.

    Returns:
        Every failed check; empty when the data is good.

    Raises:
        UsageError: `schema` is no pandera schema, or pandera cannot apply it.
    """
    schema = _schema(schema)
    rows = _Rows(table, tuple(name for name in dict.fromkeys([*key, time]) if name in table.column_names))
    structure = [*_missing(rows, schema, [target, *key, time]), *_wrong_types(rows, schema)]
    if table.num_rows == 0:
        return [*structure, FailedCheck("", "at least one row", 0, 0.0)]
    unusable = {failure.column for failure in structure}
    return [
        *structure,
        *_nulls(rows, schema, {*key, time}, max_null_share),
        *_not_finite(rows),
        *_duplicates(rows, key, unusable),
        *_one_class(rows, target),
        *(_outside(rows, time, window) if window else ()),
        *_values(rows, schema, unusable),
    ]


@dataclass(frozen=True, slots=True)
class _Rows:
    """A table and the columns that make an example recognisable."""

    table: pa.Table
    shown: tuple[str, ...]

    def failed(self, columns: str | Sequence[str], rule: str, bad: NDArray[np.bool_]) -> FailedCheck:
        """The failed check about `columns`, given a flag per row."""
        names = [columns] if isinstance(columns, str) else list(columns)
        return self.failed_at(names, rule, np.flatnonzero(bad))

    def failed_at(self, names: Sequence[str], rule: str, positions: NDArray[np.intp]) -> FailedCheck:
        """The failed check, given the positions of the rows that break it."""
        wanted = [name for name in dict.fromkeys([*self.shown, *names]) if name in self.table.column_names]
        examples = self.table.select(wanted).take(pa.array(positions[:EXAMPLES])).to_pylist()
        return FailedCheck(
            ", ".join(name for name in names if name),
            rule,
            len(positions),
            len(positions) / max(1, self.table.num_rows),
            tuple({name: _json(value) for name, value in example.items()} for example in examples),
        )


def _schema(schema: Any) -> pandera.DataFrameSchema:
    if (to_schema := getattr(schema, "to_schema", None)) is not None:
        schema = to_schema()
    if not isinstance(schema, pandera.DataFrameSchema):
        raise UsageError(
            f"the schema is {type(schema).__name__}, not a pandera DataFrameSchema",
            where="the project's schema function",
            fix="return pandera.pandas.DataFrameSchema({...})",
        )
    return schema


def _missing(rows: _Rows, schema: pandera.DataFrameSchema, named: Iterable[str]) -> Iterator[FailedCheck]:
    required = [name for name, column in schema.columns.items() if column.required and not column.regex]
    for name in dict.fromkeys([*required, *named]):
        if name not in rows.table.column_names:
            yield FailedCheck(name, "present", rows.table.num_rows, float(rows.table.num_rows > 0))


def _wrong_types(rows: _Rows, schema: pandera.DataFrameSchema) -> Iterator[FailedCheck]:
    for name, column in schema.columns.items():
        if name not in rows.table.column_names or column.dtype is None:
            continue
        begins = str(column.dtype).lower()
        wanted = next((name for name in _KINDS if begins.startswith(name)), None)
        actual = rows.table.schema.field(name).type
        if wanted is not None and _kind(actual) not in _KINDS[wanted]:
            yield rows.failed_at([name], f"type {wanted}, not {actual}", np.arange(rows.table.num_rows))


def _kind(type_: pa.DataType) -> str:
    if pa.types.is_integer(type_):
        return "integer"
    if pa.types.is_floating(type_):
        return "float"
    if pa.types.is_boolean(type_):
        return "boolean"
    return "time" if pa.types.is_temporal(type_) else "text"


def _nulls(rows: _Rows, schema: pandera.DataFrameSchema, identity: set[str], limit: float) -> Iterator[FailedCheck]:
    for name, values in zip(rows.table.column_names, rows.table.columns, strict=True):
        if not values.null_count:
            continue
        column = schema.columns.get(name)
        if name in identity or (column is not None and not column.nullable):
            yield rows.failed(name, "not null", _flags(values.is_null()))
            continue
        allowed = ((column.metadata if column is not None else None) or {}).get("max_null_share", limit)
        if values.null_count > allowed * len(values):
            yield rows.failed(name, f"at most {allowed:.0%} null", _flags(values.is_null()))


def _not_finite(rows: _Rows) -> Iterator[FailedCheck]:
    for name, values in zip(rows.table.column_names, rows.table.columns, strict=True):
        if pa.types.is_floating(values.type):
            bad = _flags(pc.fill_null(pc.invert(pc.is_finite(values)), False))
            if bad.any():
                yield rows.failed(name, "finite", bad)


def _duplicates(rows: _Rows, key: Sequence[str], unusable: set[str]) -> Iterator[FailedCheck]:
    if unusable.isdisjoint(key):
        bad = rows.table.select(list(key)).to_pandas(date_as_object=False).duplicated().to_numpy()
        if bad.any():
            yield rows.failed(key, "unique key", bad)


def _one_class(rows: _Rows, target: str) -> Iterator[FailedCheck]:
    if target in rows.table.column_names:
        values = rows.table.column(target)
        if len(pc.unique(values.drop_null())) < 2:
            yield rows.failed(target, "two classes", np.ones(len(values), bool))


def _outside(rows: _Rows, time: str, window: Window) -> Iterator[FailedCheck]:
    if time not in rows.table.column_names or _kind(rows.table.schema.field(time).type) != "time":
        return
    moments = rows.table.column(time)
    seen = set(pc.unique(pc.add(pc.multiply(pc.year(moments), 12), pc.month(moments))).to_pylist())
    for month in window.months():
        year, number = map(int, month.split("-"))
        if year * 12 + number not in seen:
            yield FailedCheck(time, f"rows in {month}", 0, 0.0)
    days = pc.cast(moments, pa.date32(), safe=False)
    early = pc.less(days, pa.scalar(window.start - _ZONE if window.start > date.min else date.min))
    late = pc.greater_equal(days, pa.scalar(window.end + _ZONE if window.end < date.max else date.max))
    if (bad := _flags(pc.fill_null(pc.or_(early, late), False))).any():
        yield rows.failed(time, f"inside {window}", bad)


def _values(rows: _Rows, schema: pandera.DataFrameSchema, unusable: set[str]) -> Iterator[FailedCheck]:
    """What pandera finds in columns that are there and of the right type."""
    frame = rows.table.to_pandas(date_as_object=False)
    try:
        _checks_only(schema, unusable).validate(frame, lazy=True)
    except SchemaErrors as found:
        yield from (_from_pandera(rows, error) for error in found.schema_errors)
    except (SchemaDefinitionError, SchemaInitError) as error:
        raise UsageError(f"pandera cannot apply the schema: {error}", where="the project's schema function") from error


def _checks_only(schema: pandera.DataFrameSchema, unusable: set[str]) -> pandera.DataFrameSchema:
    """The schema without types and nulls, and without the columns that its checks cannot be asked about."""
    schema = copy.deepcopy(schema)
    schema = schema.remove_columns([name for name in unusable if name in schema.columns])
    judged = {name: {"dtype": None, "nullable": True} for name in schema.columns}
    schema = schema.update_columns(judged) if judged else schema
    for rule in itertools.chain(schema.checks, *(column.checks for column in schema.columns.values())):
        # pandera would write every offending value into its message; which rows they are is in the check's output.
        rule.n_failure_cases = EXAMPLES
    return schema


def _from_pandera(rows: _Rows, error: SchemaError) -> FailedCheck:
    names = _names(error)
    if error.reason_code is SchemaErrorReason.CHECK_ERROR:
        return FailedCheck(", ".join(names), f"{_rule(error)} (the check itself fails: {_reason(error)})", 0, 0.0)
    return rows.failed_at(names, _rule(error), _positions(error, rows.table.num_rows))


def _names(error: SchemaError) -> list[str]:
    if error.reason_code is SchemaErrorReason.COLUMN_NOT_IN_SCHEMA:
        return [str(error.failure_cases)]
    return [error.schema.name] if isinstance(error.schema, pandera.Column) else []


def _rule(error: SchemaError) -> str:
    if isinstance(error.check, str) or error.check is None:
        return {"field_uniqueness": "unique", "column_in_schema": "not in the schema"}.get(
            str(error.check), str(error.check).replace("_", " ")
        )
    return str(error.check.error or error.check.name or "check")


def _reason(error: SchemaError) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else "no message"


def _positions(error: SchemaError, rows: int) -> NDArray[np.intp]:
    """Rows that break a check; pandera says it in one of three ways."""
    output = error.check_output
    if isinstance(output, pd.DataFrame):
        output = output.all(axis="columns")
    if isinstance(output, pd.Series):
        # Without the rows that are null there, so by label; the frame's labels are its positions.
        positions: NDArray[np.intp] = output.index.to_numpy(dtype=np.intp)[~output.to_numpy(dtype=bool)]
        return positions
    cases = error.failure_cases
    if isinstance(cases, pd.DataFrame) and "index" in cases and pd.api.types.is_integer_dtype(cases["index"]):
        return np.unique(cases["index"].to_numpy(dtype=np.intp))
    return np.arange(rows, dtype=np.intp)


def _flags(mask: pa.ChunkedArray) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = mask.to_numpy()
    return flags.astype(bool, copy=False)


def _json(value: Any) -> Any:
    """A cell as a JSON value that canonical JSON accepts."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, int) and abs(value) > _EXACT:
        return str(value)
    return value
