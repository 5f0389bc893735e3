"""The logical digest of rows.

It covers every row, in order, and depends on values, nulls, names and types only: not on chunks, row groups,
compression or the version of Parquet. So a snapshot written years later by other software has the same digest
when, and only when, it holds the same data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.domain.canonical import ALGORITHM, digest_json
from pipeline.errors import UsageError

FORMAT = 1

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


def digest_table(table: pa.Table) -> LogicalDigest:
    """Logical digest of a table's rows."""
    digest = LogicalDigest(table.schema)
    for batch in table.to_batches():
        digest.update(batch)
    return digest


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
        return {column.name: streams.digest() for column, streams in zip(self._schema, self._streams, strict=True)}

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
