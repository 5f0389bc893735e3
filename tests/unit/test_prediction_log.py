"""The prediction log: nothing waits for it, a crash loses little, the disk stays bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.serving import prediction_log
from pipeline.serving.prediction_log import Layout, PredictionLog, Record, read
from pipeline.serving.signature import Input, Signature

SIGNATURE = Signature(
    (
        Input("carrier", "string", required=True),
        Input("distance", "double", required=True),
        Input("scheduled", "datetime", required=True),
        Input("holiday", "boolean", required=False),
    )
)
LAYOUT = Layout(SIGNATURE, "scheduled", "sha256:one")
START = datetime(2026, 11, 23, tzinfo=UTC)
EVER = (datetime(1970, 1, 1), datetime(2100, 1, 1))


def record(number: int, *, layout: Layout = LAYOUT, rows: int = 1, day: int = 1) -> Record:
    columns = {
        "carrier": np.array(["UA", None] * rows, dtype=object)[:rows],
        "distance": np.array([1.5, np.nan] * rows)[:rows],
        "scheduled": np.full(rows, np.datetime64(f"2013-07-{day:02d}T12:00", "us")),
        "holiday": np.array([True, None] * rows, dtype=object)[:rows],
    }
    at = int(START.timestamp() * 1e6) + number
    known = {entry.name: columns[entry.name] for entry in layout.signature.inputs}
    return Record(at, f"request-{number}", layout, known, np.full(rows, number / 1000))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PredictionLog]:
    """A log that writes only when told to."""
    made = PredictionLog(tmp_path / "log", flush_seconds=3600)
    yield made
    made.close()


def test_what_was_asked_and_answered_can_be_read_back(log: PredictionLog, tmp_path: Path) -> None:
    log.append(record(1, rows=2))
    log.append(record(2))
    log.flush()

    table = read(tmp_path / "log", *EVER)

    assert table.to_pylist()[1] == {
        "_time": datetime(2026, 11, 23, 0, 0, 0, 1),
        "_event_time": datetime(2013, 7, 1, 12),
        "_request": "request-1",
        "_package": "sha256:one",
        "_probability": 0.001,
        "carrier": None,
        "distance": None,
        "scheduled": datetime(2013, 7, 1, 12),
        "holiday": None,
    }
    assert table["_request"].to_pylist() == ["request-1", "request-1", "request-2"]
    assert table["holiday"].to_pylist() == [True, None, True]
    assert log.written == 3


def test_a_window_is_of_event_time_with_its_end_excluded(log: PredictionLog, tmp_path: Path) -> None:
    for day in (1, 2, 3):
        log.append(record(day, day=day))
    log.flush()

    window = (datetime(2013, 7, 2, 12, tzinfo=UTC), datetime(2013, 7, 3, 12))

    assert read(tmp_path / "log", *window)["_request"].to_pylist() == ["request-2"]


def test_without_an_event_time_the_window_is_of_receipt(log: PredictionLog, tmp_path: Path) -> None:
    log.append(record(1, layout=Layout(SIGNATURE, None, "sha256:one")))
    log.flush()

    assert read(tmp_path / "log", START, START + timedelta(seconds=1)).num_rows == 1
    assert read(tmp_path / "log", datetime(2013, 1, 1), datetime(2014, 1, 1)).num_rows == 0


def test_models_with_different_columns_are_read_together(log: PredictionLog, tmp_path: Path) -> None:
    smaller = Layout(Signature(SIGNATURE.inputs[:1]), None, "sha256:two")
    for number, layout in enumerate([LAYOUT, smaller, LAYOUT]):
        log.append(record(number, layout=layout))
    log.flush()

    table = read(tmp_path / "log", *EVER)

    assert table["_package"].to_pylist() == ["sha256:one", "sha256:two", "sha256:one"]
    assert table["distance"].to_pylist() == [1.5, None, 1.5]


def test_no_log_reads_as_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path / "nothing", *EVER).num_rows == 0


@pytest.mark.parametrize("torn", [1, 100, 0.5, 0.9])
def test_a_torn_segment_is_read_up_to_the_tear(tmp_path: Path, torn: float) -> None:
    folder = tmp_path / "log"
    log = PredictionLog(folder, flush_seconds=3600)
    for number in range(20):
        log.append(record(number, rows=50))
        log.flush()
    (segment,) = folder.iterdir()
    size = segment.stat().st_size
    os.truncate(segment, int(torn * size) if torn < 1 else size - int(torn))
    log.close()

    requests = read(folder, *EVER)["_request"].to_pylist()

    whole = len(requests) // 50
    assert requests == [f"request-{number}" for number in range(whole) for _ in range(50)]
    assert whole >= (18 if torn >= 1 else 20 * torn - 3)


def test_a_segment_torn_at_its_head_is_passed_over(log: PredictionLog, tmp_path: Path) -> None:
    log.append(record(1))
    log.flush()
    (tmp_path / "log" / f"0{prediction_log.SUFFIX}").write_bytes(b"\xff\xff\xff\xff\x10")

    assert read(tmp_path / "log", *EVER).num_rows == 1


def test_the_log_goes_on_after_a_restart(tmp_path: Path) -> None:
    for number in (1, 2):
        log = PredictionLog(tmp_path / "log", flush_seconds=3600)
        log.append(record(number))
        log.close()

    assert read(tmp_path / "log", *EVER)["_request"].to_pylist() == ["request-1", "request-2"]


def test_the_oldest_segments_go_when_the_disks_share_is_full(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = PredictionLog(folder, segment_bytes=4_000, total_bytes=20_000, flush_seconds=3600)
    for number in range(60):
        log.append(record(number, rows=20))
        log.flush()
    log.close()

    requests = read(folder, *EVER)["_request"].to_pylist()

    assert sum(path.stat().st_size for path in folder.iterdir()) <= 24_000
    assert requests[-1] == "request-59"
    assert "request-0" not in requests
    assert log.segments_removed > 0


def test_rows_beyond_the_queue_are_dropped_and_counted(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log", queue_rows=100, flush_seconds=3600)
    for number in range(15):
        log.append(record(number, rows=10))
    log.close()

    assert (log.written, log.dropped) == (100, 50)


def test_a_full_disk_is_counted_and_gets_over(
    log: PredictionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append(record(1))
    log.flush()

    def full(*_: object) -> pa.RecordBatch:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(prediction_log, "_batch", full)
        log.append(record(2))
        log.flush()
    assert (log.dropped, log.trouble) == (1, "[Errno 28] No space left on device")

    log.append(record(3))
    log.flush()
    assert read(tmp_path / "log", *EVER)["_request"].to_pylist() == ["request-1", "request-3"]
    assert log.trouble is None


def test_rows_are_written_without_being_told(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path / "log", flush_seconds=0.01)
    log.append(record(1))
    log.close()

    assert log.written == 1
