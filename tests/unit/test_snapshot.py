"""Snapshots on disk, and the digest of their rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.adapters import snapshot
from pipeline.adapters.data_digest import digest_table, standard
from pipeline.errors import IntegrityViolated, UsageError

# A busy machine must not fail a test that is right.
RELAXED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SCHEMA = pa.schema(
    [
        ("small", pa.int16()),
        ("number", pa.int64()),
        ("measure", pa.float64()),
        ("flag", pa.bool_()),
        ("text", pa.string()),
        ("day", pa.date32()),
        ("moment", pa.timestamp("us", "UTC")),
    ]
)
ROW = {
    "small": st.integers(-(2**15), 2**15 - 1),
    "number": st.integers(-(2**63), 2**63 - 1),
    "measure": st.floats(allow_nan=False),
    "flag": st.booleans(),
    "text": st.text(max_size=5),
    "day": st.dates(),
    "moment": st.datetimes(timezones=st.just(UTC)),
}
ROWS = st.lists(st.fixed_dictionaries({name: st.none() | cell for name, cell in ROW.items()}), max_size=12)
SOME_ROWS = ROWS.filter(bool)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


def digest(rows: list[dict[str, Any]]) -> str:
    return digest_table(table(rows)).digest()


def example(rows: int = 7) -> pa.Table:
    return table(
        [
            {
                "small": i,
                "number": None if i == 2 else i * 10**12,
                "measure": i / 3,
                "flag": None if i == 3 else i % 2 == 0,
                "text": None if i == 4 else "" if i == 5 else "é" * i,
                "day": date(2013, 1, 1 + i % 28),
                "moment": datetime(2013, 7, 1, i % 24, tzinfo=UTC),
            }
            for i in range(rows)
        ]
    )


# --- the digest -------------------------------------------------------------------------------------------


@RELAXED
@given(ROWS, st.lists(st.integers(0, 12), max_size=4))
def test_the_digest_does_not_depend_on_chunks(rows: list[dict[str, Any]], cuts: list[int]) -> None:
    whole = table(rows)
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    # Slices keep their parent's buffers and an offset into them, which is where a digest most easily goes wrong.
    pieces = [whole.slice(low, high - low) for low, high in pairwise(edges)]
    assert digest_table(pa.concat_tables([*pieces, whole.slice(0, 0)])).digest() == digest(rows)


@RELAXED
@given(st.data())
def test_any_changed_cell_changes_the_digest(data: st.DataObject) -> None:
    rows = data.draw(SOME_ROWS)
    index = data.draw(st.integers(0, len(rows) - 1))
    name = data.draw(st.sampled_from(list(ROW)))
    value = data.draw((st.none() | ROW[name]).filter(lambda value: repr(value) != repr(rows[index][name])))
    changed = [*rows[:index], rows[index] | {name: value}, *rows[index + 1 :]]
    before, after = digest_table(table(rows)), digest_table(table(changed))
    assert before.digest() != after.digest()
    assert [key for key in ROW if before.column_digests()[key] != after.column_digests()[key]] == [name]


@RELAXED
@given(ROWS)
def test_the_order_of_rows_is_part_of_the_digest(rows: list[dict[str, Any]]) -> None:
    numbered = [row | {"small": number} for number, row in enumerate([{}, *rows, {}])]
    assert digest([numbered[-1], *numbered[1:-1], numbered[0]]) != digest(numbered)


@RELAXED
@given(SOME_ROWS)
def test_a_row_more_or_less_changes_the_digest(rows: list[dict[str, Any]]) -> None:
    assert len({digest(rows), digest(rows[:-1]), digest([*rows, rows[-1]])}) == 3


def test_text_cannot_move_from_one_row_to_the_next() -> None:
    assert digest([{"text": "ab"}, {"text": "c"}]) != digest([{"text": "a"}, {"text": "bc"}])


def test_null_zero_false_and_empty_text_are_different_things() -> None:
    for name, zero in (("small", 0), ("measure", 0.0), ("flag", False), ("text", ""), ("measure", float("nan"))):
        assert digest([{name: None}]) != digest([{name: zero}])


def test_a_nan_is_a_nan_whatever_its_bits() -> None:
    bits = np.array([0x7FF8000000000000, 0xFFF8000000000001], np.uint64).view(np.float64)
    one, other = (digest_table(pa.table({"x": pa.array(bits[i : i + 1])})).digest() for i in (0, 1))
    assert one == other


def test_values_under_a_null_do_not_count() -> None:
    mask = np.array([True, False])
    one = pa.table({"x": pa.array(np.array([5, 1]), mask=mask)})
    other = pa.table({"x": pa.array(np.array([9, 1]), mask=mask)})
    assert digest_table(one).digest() == digest_table(other).digest()


def test_names_types_and_column_order_are_part_of_the_digest() -> None:
    tables = [
        pa.table({"a": pa.array([1], pa.int32()), "b": pa.array([1], pa.int32())}),
        pa.table({"a": pa.array([1], pa.int64()), "b": pa.array([1], pa.int32())}),
        pa.table({"a": pa.array([1], pa.int32()), "c": pa.array([1], pa.int32())}),
        pa.table({"c": pa.array([1], pa.int32()), "a": pa.array([1], pa.int32())}),
    ]
    assert len({digest_table(each).digest() for each in tables}) == len(tables)


def test_the_digest_of_known_rows_never_changes() -> None:
    """Recorded digests stand in ledgers: other code or another Arrow must come to the same one."""
    assert digest_table(example()).digest() == "sha256:ece1cc02888d32c1c3f008d8b4cead8cc3264f0aca78732aebda684c87ae2189"


def test_a_type_that_cannot_be_held_is_named_with_its_column() -> None:
    with pytest.raises(UsageError, match="binary") as refused:
        digest_table(pa.table({"blob": pa.array([b"x"])}))
    assert "blob" in refused.value.where


@pytest.mark.parametrize(
    ("given_type", "held"),
    [
        (pa.int8(), pa.int16()),
        (pa.uint32(), pa.int64()),
        (pa.decimal128(9, 2), pa.float64()),
        (pa.large_string(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.date64(), pa.date32()),
        (pa.timestamp("ns"), pa.timestamp("us")),
        (pa.timestamp("s", "Europe/Berlin"), pa.timestamp("us", "UTC")),
        (pa.uint64(), None),
        (pa.list_(pa.int8()), None),
    ],
)
def test_types_are_reduced_to_those_a_snapshot_holds(given_type: pa.DataType, held: pa.DataType | None) -> None:
    assert standard(given_type) == held


# --- the file ---------------------------------------------------------------------------------------------


def test_what_was_written_reads_back_equal_and_verified(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "month=07" / "rows.parquet"
    info = snapshot.write(example().to_reader(), path)
    assert snapshot.read(path, info.digest, info.column_digests).equals(example())
    assert (info.rows, info.bytes, info.schema["moment"]) == (7, path.stat().st_size, "timestamptz")
    assert info.digest == digest_table(example()).digest()


def test_no_rows_make_a_snapshot_with_its_columns(tmp_path: Path) -> None:
    info = snapshot.write(example(0).to_reader(), tmp_path / "rows.parquet")
    assert info.rows == 0
    assert snapshot.read(tmp_path / "rows.parquet", info.digest).schema.equals(SCHEMA)


def test_the_same_rows_make_the_same_file_whatever_batches_they_came_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "ROW_GROUP", 100)
    rows = example(1234)
    for name, size in (("one", 1234), ("two", 7), ("three", 333)):
        snapshot.write(rows.to_reader(max_chunksize=size), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == (tmp_path / "three").read_bytes()
    assert pq.ParquetFile(tmp_path / "one").num_row_groups == 13


def test_progress_counts_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "ROW_GROUP", 100)
    seen: list[float] = []
    snapshot.write(example(250).to_reader(max_chunksize=30), tmp_path / "rows", advance=seen.append)
    assert seen == [100, 100, 50]


def test_changed_rows_are_found_and_their_columns_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    info = snapshot.write(example().to_reader(), path)
    changed = example().set_column(0, "small", pa.array([9] * 7, pa.int16()))
    pq.write_table(changed, path)
    with pytest.raises(IntegrityViolated, match=r"columns that differ: small$") as found:
        snapshot.read(path, info.digest, info.column_digests)
    assert found.value.exit_code == 5


@pytest.mark.parametrize("keep", [0, 10, 600, -1])
def test_a_damaged_file_is_an_integrity_error(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "rows.parquet"
    info = snapshot.write(example().to_reader(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(IntegrityViolated, match="damaged"):
        snapshot.read(path, info.digest)


def test_a_missing_file_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        snapshot.read(tmp_path / "gone.parquet")
    assert "gone.parquet" in refused.value.where


def test_a_source_that_fails_halfway_leaves_nothing_and_keeps_the_old_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "ROW_GROUP", 3)
    path = tmp_path / "rows.parquet"
    info = snapshot.write(example().to_reader(), path)

    def failing() -> Iterator[pa.RecordBatch]:
        yield from example().to_batches()
        raise UsageError("the query fails: division by zero")

    with pytest.raises(UsageError, match="division by zero"):
        snapshot.write(pa.RecordBatchReader.from_batches(SCHEMA, failing()), path)
    assert list(tmp_path.iterdir()) == [path]
    assert snapshot.read(path, info.digest).num_rows == 7


FILL = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from pipeline.adapters import snapshot
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
noise = pa.table({"x": np.random.default_rng(0).random(400_000)})
try:
    snapshot.write(noise.to_reader(max_chunksize=10_000), Path(sys.argv[1]))
except snapshot.DiskFull as error:
    print(error.what, "|", error.where, "|", error.fix)
"""


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """The limit on a file's size stands in for the disk: the write fails in the same place."""
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path / "rows.parquet")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "does not fit" in done.stdout
    assert str(tmp_path) in done.stdout
    assert "more than 0." in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_a_device_without_space_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, mode, **more: real(Path("/dev/full"), mode.replace("x", "w"), **more)
    )
    with pytest.raises(snapshot.DiskFull, match="No space left on device"):
        snapshot.write(example().to_reader(), tmp_path / "rows.parquet")


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write the snapshot"):
        snapshot.write(example().to_reader(), tmp_path / "file" / "rows.parquet")


# --- numpy form -------------------------------------------------------------------------------------------


def test_columns_have_the_form_that_features_expect() -> None:
    columns = snapshot.columns(example())
    assert {name: values.dtype.str for name, values in columns.items()} == {
        "small": "<f8",
        "number": "<f8",
        "measure": "<f8",
        "flag": "|O",
        "text": "|O",
        "day": "<M8[us]",
        "moment": "<M8[us]",
    }
    assert np.isnan(columns["number"][2])
    assert columns["flag"].tolist() == [True, False, True, None, True, False, True]
    assert columns["text"].tolist() == ["", "é", "éé", "ééé", None, "", "éééééé"]
    assert columns["moment"][1] == np.datetime64("2013-07-01T01:00:00")


def test_missing_times_are_nat_and_an_empty_table_has_empty_columns() -> None:
    columns = snapshot.columns(table([{"small": 1}]))
    assert np.isnat(columns["moment"][0])
    assert np.isnat(columns["day"][0])
    assert {len(values) for values in snapshot.columns(example(0)).values()} == {0}
