"""Snapshots: one window's rows as a Parquet file, recorded under the logical digest of the rows themselves."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.adapters.data_digest import LogicalDigest, digest_table
from pipeline.errors import GatehouseError, IntegrityViolated, UsageError
from pipeline.ports import Columns

ROW_GROUP = 131_072
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def write(
    batches: pa.RecordBatchReader, path: Path, *, advance: Callable[[float], None] = lambda _: None
) -> SnapshotInfo:
    """Write all batches to a Parquet file that appears at `path` whole or not at all.

    Memory is that of one row group. The file's bytes depend on the rows alone, not on how they came in batches.

    Args:
        batches: a stream of record batches whose types are those of `data_digest.standard`.
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
    return SnapshotInfo(digest.rows, digest.digest(), digest.column_digests(), digest.types(), path.stat().st_size)


def read(path: Path, expected_digest: str | None = None, expected_columns: Mapping[str, str] | None = None) -> pa.Table:
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


def columns(table: pa.Table) -> Columns:
    """A table in numpy form.

    Returns:
        By name, arrays of equal length: numbers as float64 with NaN for null (integers beyond 2**53 are rounded),
        dates and timestamps as datetime64[us] in UTC with NaT for null, strings and booleans as objects with None.
    """
    return {name: _to_numpy(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def _verify(table: pa.Table, expected: str, expected_columns: Mapping[str, str], where: str) -> None:
    actual = digest_table(table)
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
    objects: NDArray[Any] = distinct[encoded.indices.fill_null(len(distinct) - 1).to_numpy(zero_copy_only=False)]
    return objects


def _regroup(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of ROW_GROUP rows (fewer where strings would not fit one array, and in the last)."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch.replace_schema_metadata(None))
        rows += batch.num_rows
        while rows >= ROW_GROUP:
            table = pa.Table.from_batches(waiting, schema)
            yield from table.slice(0, ROW_GROUP).combine_chunks().to_batches()
            waiting, rows = table.slice(ROW_GROUP).to_batches(), rows - ROW_GROUP
    if rows:
        yield from pa.Table.from_batches(waiting, schema).combine_chunks().to_batches()


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
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb", buffering=1 << 20) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _explain(error, path, temporary) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _explain(error: OSError, path: Path, temporary: Path) -> GatehouseError:
    if error.errno not in _FULL:
        return UsageError(f"cannot write the snapshot: {error.strerror or error}", where=str(path.parent))
    written = free = 0
    with suppress(OSError):
        written = temporary.stat().st_size
        free = shutil.disk_usage(path.parent).free
    return DiskFull(
        f"the snapshot does not fit: {error.strerror} after {written / 1e6:.1f} MB, and it was not complete",
        where=f"{path.parent} ({free / 1e6:.1f} MB free)",
        fix=f"make room for more than {written / 1e6:.1f} MB there and run the stage again; nothing was left behind",
    )
