"""What was asked and answered, kept for monitoring: rotating Arrow IPC stream segments on bounded disk.

Invariants: appending never waits and never fails a request (what cannot be kept is counted); one background
thread writes; a segment torn by a crash is readable up to the tear; the oldest segments go first when the
disk's share is full. Columns of our own begin with an underscore: ``_time`` (receipt, UTC), ``_event_time``
(the model's own time column, null without one), ``_request``, ``_package`` (digest), ``_probability``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.ports import Columns
from pipeline.serving.signature import Signature

SUFFIX = ".arrows"
_TIME = pa.timestamp("us")
_OURS = pa.schema(
    {
        "_time": _TIME,
        "_event_time": _TIME,
        "_request": pa.string(),
        "_package": pa.string(),
        "_probability": pa.float64(),
    }
)
_ARROW = {
    "double": pa.float64(),
    "long": pa.float64(),
    "string": pa.string(),
    "boolean": pa.bool_(),
    "datetime": _TIME,
}
_log = logging.getLogger("gatehouse.serving")


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """How one model's predictions are laid out. Made once for a loaded model and compared by identity."""

    signature: Signature
    event_time: str | None
    package: str

    def schema(self) -> pa.Schema:
        """Our columns, then the model's."""
        theirs = [pa.field(entry.name, _ARROW[entry.type]) for entry in self.signature.inputs]
        return pa.schema([*_OURS, *theirs])


class Record(NamedTuple):
    """One answered request: `at` in microseconds since 1970, UTC."""

    at: int
    request: str
    layout: Layout
    columns: Columns
    probabilities: NDArray[Any]


class PredictionLog:
    """Writes `folder`.

    Args:
        folder: made when it is not there.
        segment_bytes: a segment that is larger is closed.
        total_bytes: the oldest segments are removed beyond this.
        queue_rows: rows waiting beyond this are dropped and counted.
        flush_seconds: how long rows may wait in memory, the most that ``kill -9`` loses.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = 16 << 20,
        total_bytes: int = 512 << 20,
        queue_rows: int = 200_000,
        flush_seconds: float = 0.5,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._total_bytes = total_bytes
        self._queue_rows = queue_rows
        self._flush_seconds = flush_seconds
        self._queue: deque[Record] = deque()
        self._waiting = 0
        self._counting, self._writing = threading.Lock(), threading.Lock()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._segment: _Segment | None = None
        self.written = self.dropped = self.segments_removed = 0
        self.trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="gatehouse-prediction-log", daemon=True)
        self._thread.start()

    def append(self, record: Record) -> None:
        """Take a record; returns at once and never raises. The arrays must not be changed afterwards."""
        rows = len(record.probabilities)
        with self._counting:
            if self._waiting + rows > self._queue_rows:
                self.dropped += rows
                return
            self._waiting += rows
            self._queue.append(record)
        if not self._wake.is_set():
            self._wake.set()

    def flush(self) -> None:
        """Write what waits."""
        with self._writing:
            with self._counting:
                records, self._queue, self._waiting = list(self._queue), deque(), 0
            for layout, group in groupby(records, key=lambda record: record.layout):
                self._write(layout, list(group))

    def close(self) -> None:
        """Write what waits and end the segment."""
        self._closing.set()
        self._wake.set()
        self._thread.join()
        self.flush()
        with self._writing:
            self._end_segment()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(self._flush_seconds)  # gather: one batch for many requests
            self._wake.clear()
            self.flush()

    def _write(self, layout: Layout, records: Sequence[Record]) -> None:
        rows = sum(len(record.probabilities) for record in records)
        try:
            if self._segment is None or self._segment.layout is not layout:
                self._end_segment()
                self._segment = _Segment(self._folder, layout, records[0].at)
            self._segment.write(records)
            if self._segment.bytes() >= self._segment_bytes:
                self._end_segment()
            self._bound()
        except Exception as error:  # a full disk, or rows Arrow cannot take: monitoring must not end the service
            self._lost(rows, error)
        else:
            self.written += rows
            self.trouble = None

    def _lost(self, rows: int, error: Exception) -> None:
        self.dropped += rows
        if self.trouble is None:
            _log.error("predictions cannot be logged: %s", error)
        self.trouble = str(error)
        self._end_segment()

    def _end_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            try:
                segment.close()
            except (OSError, pa.ArrowException) as error:
                _log.error("a segment of the prediction log could not be ended: %s", error)

    def _bound(self) -> None:
        segments = [(path, path.stat().st_size) for path in _segments(self._folder)]
        total = sum(size for _, size in segments)
        for path, size in segments[:-1]:
            if total <= self._total_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size
            self.segments_removed += 1


class _Segment:
    """One file being written."""

    def __init__(self, folder: Path, layout: Layout, at: int) -> None:
        self.layout = layout
        self._schema = layout.schema()
        self._file = (folder / f"{at:016d}-{time.time_ns():020d}-{os.getpid()}{SUFFIX}").open("xb")
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_stream(self._file, self._schema, options=options)

    def write(self, records: Sequence[Record]) -> None:
        self._writer.write_batch(_batch(self.layout, self._schema, records))
        self._file.flush()

    def bytes(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._file.close()


def _batch(layout: Layout, schema: pa.Schema, records: Sequence[Record]) -> pa.RecordBatch:
    rows = [len(record.probabilities) for record in records]
    columns = {
        entry.name: np.concatenate([record.columns[entry.name] for record in records])
        for entry in layout.signature.inputs
    }
    none = np.full(sum(rows), np.datetime64("NaT"), dtype="datetime64[us]")
    ours = {
        "_time": np.repeat(np.array([record.at for record in records], dtype="datetime64[us]"), rows),
        "_event_time": columns.get(layout.event_time or "", none),
        "_request": np.repeat(np.array([record.request for record in records], dtype=object), rows),
        "_package": np.full(sum(rows), layout.package, dtype=object),
        "_probability": np.concatenate([record.probabilities for record in records]),
    }
    every = {**ours, **columns}
    arrays = [pa.array(every[field.name], field.type, from_pandas=True) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


# --- reading ----------------------------------------------------------------------------------------------


def read(folder: Path, start: datetime, end: datetime) -> pa.Table:
    """Predictions of a window, by event time, or by receipt where there is no event time.

    Args:
        folder: what a `PredictionLog` writes or wrote; it may be writing now.
        start, end: the window, `end` excluded; without a zone they are UTC.

    Returns:
        One row per prediction, oldest segment first; columns that some models do not have are null there.
        Memory grows with the window, not with the log.
    """
    first, last = pa.scalar(_naive(start), _TIME), pa.scalar(_naive(end), _TIME)
    batches: list[pa.Table] = [_OURS.empty_table()]
    for path in _segments(folder):
        for batch in _intact_batches(path):
            moment = pc.coalesce(batch["_event_time"], batch["_time"])
            inside = batch.filter(pc.and_(pc.greater_equal(moment, first), pc.less(moment, last)))
            if inside.num_rows:
                batches.append(pa.Table.from_batches([inside]))
    return pa.concat_tables(batches, promote_options="permissive")


def _intact_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of a segment up to its end or its tear."""
    try:
        with path.open("rb") as stream, pa.ipc.open_stream(stream) as reader:
            for batch in reader:
                batch.validate(full=True)
                yield batch
    except (pa.ArrowException, OSError, EOFError) as error:
        _log.info("%s is read up to its tear: %s", path.name, error)


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []


def _naive(moment: datetime) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
