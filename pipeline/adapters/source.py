"""Reading a project's source for one time window: a stream of record batches in bounded memory.

Every kind of source ends in the same stream: the types of `data_digest.standard`, the window's rows only, and
errors that say which column or which server, never a driver's traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import csv

from pipeline.adapters.data_digest import standard
from pipeline.adapters.postgres_copy import read_query
from pipeline.domain.window import Window
from pipeline.errors import UsageError

BLOCK = 4 << 20
_INFERENCE_BLOCK = 16 << 20
# What stands for a missing value in a CSV file unless it is quoted.
_NULLS = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a project's rows come from.

    Args:
        kind: ``postgres`` takes `uri` and `query`; ``parquet`` (a file or a folder of files) and ``csv`` take
            `path` and `time`.
        uri: SQLAlchemy's or libpq's: ``postgresql+psycopg2://user@host:5432/db?passfile=…``.
        query: SQL with ``%(start)s`` (first day) and ``%(end)s`` (day after the last); ``%%`` is a percent sign.
        path: the file or folder.
        time: the column that places a row in a window: a date or a timestamp (without time zone it is UTC).
    """

    kind: Literal["postgres", "parquet", "csv"]
    uri: str = ""
    query: str = ""
    path: str = ""
    time: str = ""


def read(source: Source, window: Window) -> AbstractContextManager[pa.RecordBatchReader]:
    """Open the stream of a window's rows; leaving the ``with`` block early stops the server's work too.

    Args:
        source: where to read.
        window: which rows.

    Returns:
        A context manager around a record batch reader. Integers, floats, booleans, strings, dates and timestamps
        keep their type (``numeric`` becomes float64, timestamps microseconds in UTC); null and empty string
        stay apart.

    Raises:
        Unreachable: (also while reading) the server did not answer within 15 s, or the connection broke.
        UsageError: (also while reading) the query fails, or a column has a type that is not supported.
    """
    if source.kind == "postgres":
        return read_query(source.uri, source.query, window.start, window.end)
    return _read_file(source, window)


@contextmanager
def _read_file(source: Source, window: Window) -> Iterator[pa.RecordBatchReader]:
    path = Path(source.path)
    if not path.exists():
        raise UsageError(f"the source's {source.kind} file is not there", where=str(path))
    with _reading(path):
        opened = _parquet(path, source.time, window) if source.kind == "parquet" else _csv(path, source.time, window)
    schema = _standard_schema(opened.schema, path)
    yield pa.RecordBatchReader.from_batches(schema, _cast(opened, schema, path))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"cannot read the source: {error}", where=str(path)) from error


@dataclass(frozen=True, slots=True)
class _Opened:
    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]


def _parquet(path: Path, time: str, window: Window) -> _Opened:
    # Pre-buffering keeps what it has read ahead of a whole file in memory.
    options = ds.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True)
    data = ds.dataset(path, format=ds.ParquetFileFormat(default_fragment_scan_options=options))
    low, high = _bounds(data.schema, time, window, path)
    rows = (ds.field(time) >= low) & (ds.field(time) < high)
    scanner = data.scanner(filter=rows, batch_size=32_768, batch_readahead=4, fragment_readahead=1)
    return _Opened(data.schema, scanner.to_reader())


def _csv(path: Path, time: str, window: Window) -> _Opened:
    schema = _infer(path)
    low, high = _bounds(schema, time, window, path)
    types = {column.name: column.type for column in schema}
    reader = csv.open_csv(path, csv.ReadOptions(block_size=BLOCK), _PARSE, _convert(types))
    index = schema.names.index(time)
    return _Opened(schema, (batch.filter(_inside(batch.column(index), low, high)) for batch in reader))


_PARSE = csv.ParseOptions(newlines_in_values=True)


def _infer(path: Path) -> pa.Schema:
    """Types from the first 16 MB; a column without a single value there is text."""
    with csv.open_csv(path, csv.ReadOptions(block_size=_INFERENCE_BLOCK), _PARSE, _convert({})) as reader:
        schema = reader.schema
    names = schema.names
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise UsageError("two columns have the same name", where=f"{path}, column '{doubled}'")
    return pa.schema(
        [(column.name, pa.string() if pa.types.is_null(column.type) else column.type) for column in schema]
    )


def _convert(types: dict[str, pa.DataType]) -> csv.ConvertOptions:
    return csv.ConvertOptions(
        column_types=types, null_values=_NULLS, strings_can_be_null=True, quoted_strings_can_be_null=False
    )


def _inside(times: pa.Array, low: pa.Scalar, high: pa.Scalar) -> pa.Array:
    return pc.and_(pc.greater_equal(times, low), pc.less(times, high))


def _bounds(schema: pa.Schema, time: str, window: Window, path: Path) -> tuple[pa.Scalar, pa.Scalar]:
    """The window's ends as values of the time column's own type."""
    if time not in schema.names:
        raise UsageError(f"there is no column '{time}'", where=str(path), fix=f"columns: {', '.join(schema.names)}")
    type_ = schema.field(time).type
    if pa.types.is_date(type_):
        return pa.scalar(window.start, type_), pa.scalar(window.end, type_)
    if not pa.types.is_timestamp(type_):
        raise UsageError(
            f"the time column '{time}' is {type_}, not a date or a timestamp",
            where=str(path),
            fix="write times as 2013-07-04 or 2013-07-04T10:00:00Z",
        )
    low, high = (_midnight(day).cast(type_) for day in (window.start, window.end))
    return low, high


def _midnight(day: date) -> pa.Scalar:
    return pa.scalar(day, pa.date32()).cast(pa.timestamp("s"))


def _standard_schema(schema: pa.Schema, path: Path) -> pa.Schema:
    for column in schema:
        if standard(column.type) is None:
            raise UsageError(
                f"columns of type {column.type} are not supported",
                where=f"{path}, column '{column.name}'",
                fix="convert it to a number, text, a boolean, a date or a timestamp",
            )
    return pa.schema([(column.name, standard(column.type)) for column in schema])


def _cast(opened: _Opened, schema: pa.Schema, path: Path) -> Iterator[pa.RecordBatch]:
    with _reading(path):
        for batch in opened.batches:
            yield pa.record_batch(_standardised(batch.columns, schema), schema=schema)


def _standardised(arrays: Sequence[Any], schema: pa.Schema) -> list[Any]:
    # Only times may lose something: what is finer than a microsecond.
    return [
        array.cast(column.type, safe=not pa.types.is_timestamp(column.type))
        for array, column in zip(arrays, schema, strict=True)
    ]
