"""Snapshots: one window's rows as a Parquet file, and a digest of the rows themselves.

The snapshot digest is logical. It covers every row, in order, and depends on values, nulls, names and types
only: not on chunks, row groups, compression or the version of Parquet. So a snapshot written years later by
other software has the same digest when, and only when, it holds the same data.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.domain.canonical import ALGORITHM, digest_json
from pipeline.errors import GatehouseError, IntegrityViolated, UsageError
from pipeline.ports import Columns

FORMAT = 1
ROW_GROUP = 131_072
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# The types a snapshot can hold, by the name under which they enter the digest. Arrow's own names for them may
# change; these may not. `width` is how one value enters the stream of values, little-endian.
_TYPES: Mapping[Any, tuple[str, str]] = {
    pa.int16(): ("int16", "<i2"),
    pa.int32(): ("int32", "<i4"),
    pa.int64(): ("int64", "<i8"),
    pa.float32(): ("float32", "<f4"),
    pa.float64(): ("float64", "<f8"),
    pa.bool_(): ("bool", "<u1"),
    pa.date32(): ("date", "<i4"),
    pa.timestamp("us"): ("timestamp", "<i8"),
    pa.timestamp("us", "UTC"): ("timestamptz", "<i8"),
    pa.string(): ("string", ""),
}


class DiskFull(GatehouseError):
    """A snapshot does not fit on its disk. Nothing of it was left behind."""

    family = "disk full"


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """What is recorded about a snapshot.

    Args:
        rows: number of rows.
        digest: logical digest of all rows.
        column_digests: the same per column, by name, to say which columns differ.
        schema: type by column name: ``int64``, ``float64``, ``string``, ``timestamptz``, …
        bytes: size of the Parquet file.
    """

    rows: int
    digest: str
    column_digests: Mapping[str, str]
    schema: Mapping[str, str]
    bytes: int


def standard(type_: pa.DataType) -> pa.DataType | None:
    """The type as which a snapshot holds values of an Arrow type; None when it cannot hold them."""
    if pa.types.is_dictionary(type_):
        return standard(type_.value_type)
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_decimal(type_) or pa.types.is_float16(type_):
        return pa.float64()
    if pa.types.is_date(type_):
        return pa.date32()
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", "UTC" if type_.tz else None)
    wider = {pa.int8(): pa.int16(), pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64()}
    type_ = wider.get(type_, type_)
    return type_ if type_ in _TYPES else None


def write(
    batches: pa.RecordBatchReader, path: Path, *, advance: Callable[[float], None] = lambda rows: None
) -> SnapshotInfo:
    """Write all batches to a Parquet file that appears at `path` whole or not at all.

    Memory is that of one row group. The file's bytes depend on the rows alone, not on how they came in batches.

    Args:
        batches: a stream of record batches whose types are those of `standard`.
        path: the file; its folder is made.
        advance: told the number of rows after each row group.

    Raises:
        DiskFull: no space left, quota exceeded or file too large.
        UsageError: a column of a type that a snapshot does not hold, or a folder that cannot be written to.
        Exception: whatever reading `batches` raises; nothing is left behind.
    """
    # Metadata (pandas' index, a driver's notes) is not data and would make equal files differ.
    schema = batches.schema.remove_metadata()
    digest = LogicalDigest(schema)
    with _replacing(path) as stream, _parquet_writer(stream, schema) as writer:
        for batch in _regroup(batches, schema):
            digest.update(batch)
            writer.write_batch(batch, row_group_size=ROW_GROUP)
            advance(batch.num_rows)
    return SnapshotInfo(
        digest.rows, digest.digest(), digest.column_digests(), digest.types(), path.stat().st_size
    )


def read(
    path: Path, expected_digest: str | None = None, expected_columns: Mapping[str, str] | None = None
) -> pa.Table:
    """Read a snapshot into memory, and check it.

    Args:
        path: the Parquet file.
        expected_digest: its logical digest as recorded; None does not check.
        expected_columns: the recorded digest per column, to name the ones that differ.

    Raises:
        IntegrityViolated: the rows are not those that were recorded, or the file is damaged.
        UsageError: there is no such file.
    """
    if not path.is_file():
        raise UsageError("the snapshot is not there", where=str(path))
    try:
        # Not pq.read_table: that would take folder names like month=07 above the file for columns.
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise IntegrityViolated(
            f"the snapshot's file is damaged: {error}", where=str(path), fix="fetch it again, or ingest again"
        ) from error
    if expected_digest is not None:
        _verify(table, expected_digest, expected_columns or {}, str(path))
    return table


def digest_table(table: pa.Table) -> str:
    """Logical digest of a table's rows."""
    return _digest_of(table).digest()


def columns(table: pa.Table) -> Columns:
    """A table in numpy form.

    Returns:
        By name, arrays of equal length: numbers as float64 with NaN for null (integers beyond 2**53 are rounded),
        dates and timestamps as datetime64[us] in UTC with NaT for null, strings and booleans as objects with None.
    """
    return {name: _to_numpy(column) for name, column in zip(table.column_names, table.columns, strict=True)}


@dataclass(slots=True)
class _Streams:
    """Three hashes of one column, none of which knows where a chunk ended."""

    validity: Any = field(default_factory=hashlib.sha256)
    values: Any = field(default_factory=hashlib.sha256)
    lengths: Any = field(default_factory=hashlib.sha256)

    def digest(self) -> str:
        streams = {"validity": self.validity, "values": self.values, "lengths": self.lengths}
        return digest_json({name: f"{ALGORITHM}:{stream.hexdigest()}" for name, stream in streams.items()})


class LogicalDigest:
    """The digest of a stream of record batches, in constant memory.

    Per column: validity (one byte per row, 1 for a value), values (nulls as zero, every NaN as the same NaN,
    little-endian; strings as UTF-8 without separators) and, for strings, lengths in bytes (int64). Their SHA-256
    digests make the column's digest; format, row count, names, types and column digests make the whole.

    Raises:
        UsageError: a column of a type that a snapshot does not hold, or two columns of one name.
    """

    def __init__(self, schema: pa.Schema) -> None:
        for column in schema:
            if column.type not in _TYPES:
                raise UsageError(f"a snapshot cannot hold the type {column.type}", where=f"column '{column.name}'")
            if len(schema.get_all_field_indices(column.name)) > 1:
                raise UsageError("two columns have the same name", where=f"column '{column.name}'")
        self.rows = 0
        self._schema = schema
        self._streams = [_Streams() for _ in schema]

    def update(self, batch: pa.RecordBatch) -> None:
        """Add a batch's rows."""
        self.rows += batch.num_rows
        for array, streams in zip(batch.columns, self._streams, strict=True):
            _hash_array(array, streams)

    def types(self) -> dict[str, str]:
        """Type by column name, in column order."""
        return {column.name: _TYPES[column.type][0] for column in self._schema}

    def column_digests(self) -> dict[str, str]:
        """Digest by column name, in column order."""
        return {
            column.name: streams.digest() for column, streams in zip(self._schema, self._streams, strict=True)
        }

    def digest(self) -> str:
        """Digest of everything so far."""
        digests, types = self.column_digests(), self.types()
        listed = [{"name": name, "type": types[name], "digest": digests[name]} for name in digests]
        return digest_json({"format": FORMAT, "rows": self.rows, "columns": listed})


def _hash_array(array: pa.Array, streams: _Streams) -> None:
    valid = np.ones(len(array), np.uint8) if array.null_count == 0 else _flags(array.is_valid())
    streams.validity.update(valid)
    width = _TYPES[array.type][1]
    if not width:
        lengths, data = _text(array)
        streams.lengths.update(lengths)
        streams.values.update(data)
    elif pa.types.is_boolean(array.type):
        streams.values.update(_flags(array.fill_null(False)))
    else:
        streams.values.update(_numbers(array, width))


def _flags(array: pa.Array) -> NDArray[np.uint8]:
    flags: NDArray[np.uint8] = array.cast(pa.uint8()).to_numpy(zero_copy_only=False)
    return flags


def _numbers(array: pa.Array, width: str) -> NDArray[Any]:
    if pa.types.is_temporal(array.type):
        array = array.view(pa.int32() if pa.types.is_date(array.type) else pa.int64())
    values = array.fill_null(0).to_numpy(zero_copy_only=False).astype(width, copy=False)
    if values.dtype.kind == "f" and (missing := np.isnan(values)).any():
        # NaN has many bit patterns, all of which mean the same.
        values = np.where(missing, np.array(np.nan, values.dtype), values)
    return np.ascontiguousarray(values)


def _text(array: pa.Array) -> tuple[NDArray[np.int64], memoryview]:
    """Lengths in bytes, and the bytes of all strings one after the other; a null is an empty string here."""
    array = array.fill_null("")
    if len(array) == 0:
        return np.empty(0, "<i8"), memoryview(b"")
    _, offsets_buffer, data = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[array.offset : array.offset + len(array) + 1]
    text = memoryview(data or b"")[offsets[0] : offsets[-1]]
    return np.diff(offsets).astype("<i8"), text


def _digest_of(table: pa.Table) -> LogicalDigest:
    digest = LogicalDigest(table.schema)
    for batch in table.to_batches():
        digest.update(batch)
    return digest


def _verify(table: pa.Table, expected: str, expected_columns: Mapping[str, str], where: str) -> None:
    actual = _digest_of(table)
    if actual.digest() == expected:
        return
    digests = actual.column_digests()
    names = dict.fromkeys([*expected_columns, *digests]) if expected_columns else {}
    differing = [name for name in names if digests.get(name) != expected_columns.get(name)]
    which = f"; columns that differ: {', '.join(differing)}" if differing else ""
    raise IntegrityViolated(
        f"the snapshot's rows are not those that were recorded: {actual.digest()}, expected {expected}{which}",
        where=where,
        fix="somebody changed the data after it was recorded: do not use it, ingest again",
    )


def _to_numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    type_ = column.type
    if pa.types.is_string(type_) or pa.types.is_boolean(type_):
        return _objects(column)
    if pa.types.is_temporal(type_):
        column = column.cast(pa.timestamp("us", type_.tz if pa.types.is_timestamp(type_) else None))
        moments: NDArray[Any] = column.to_numpy()
        return moments.astype("datetime64[us]", copy=False)
    numbers: NDArray[Any] = pc.cast(column, pa.float64(), safe=False).to_numpy()
    return numbers


def _objects(column: pa.ChunkedArray) -> NDArray[Any]:
    """Values as Python objects, one object per distinct value."""
    if len(column) == 0:
        return np.empty(0, object)
    encoded = column.combine_chunks().dictionary_encode()
    distinct = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    return distinct[encoded.indices.fill_null(len(distinct) - 1).to_numpy(zero_copy_only=False)]


def _regroup(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly ROW_GROUP rows, the last one shorter."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        while rows >= ROW_GROUP:
            merged = _merge(waiting, schema)
            yield merged.slice(0, ROW_GROUP)
            waiting, rows = [merged.slice(ROW_GROUP)], rows - ROW_GROUP
    if rows:
        yield _merge(waiting, schema)


def _merge(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    table = pa.Table.from_batches([batch.replace_schema_metadata(None) for batch in batches], schema)
    return table.combine_chunks().to_batches()[0]


@contextmanager
def _parquet_writer(stream: IO[bytes], schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    writer = pq.ParquetWriter(stream, schema, version="2.6", compression="zstd", compression_level=1)
    try:
        yield writer
        writer.close()
    finally:
        # After a failure there is no footer to write; otherwise the destructor would try, and fail again.
        writer.is_open = False


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file under a temporary name beside `path`, which takes its place when the block ends well."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        temporary = Path(name)
        with open(handle, "wb", buffering=1 << 20) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _explain(error, path, temporary) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _explain(error: OSError, path: Path, temporary: Path | None) -> GatehouseError:
    if error.errno not in _FULL:
        return UsageError(f"cannot write the snapshot: {error.strerror or error}", where=str(path.parent))
    written = free = 0
    with suppress(OSError):
        written = temporary.stat().st_size if temporary else 0
        free = shutil.disk_usage(path.parent).free
    return DiskFull(
        f"the snapshot does not fit: {error.strerror} after {written / 1e6:.1f} MB, and it was not complete",
        where=f"{path.parent} ({free / 1e6:.1f} MB free)",
        fix=f"make room for more than {written / 1e6:.1f} MB there and run the stage again; nothing was left behind",
    )
