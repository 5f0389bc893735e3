"""Reading sources, against a real Postgres and real files."""

from __future__ import annotations

import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from pipeline.adapters import postgres_copy, snapshot
from pipeline.adapters.source import Source, read
from pipeline.domain.window import Window
from pipeline.embedded import postgres
from pipeline.errors import IntegrityViolated, Unreachable, UsageError
from tests.jenkins.conftest import wait_until

pytestmark = pytest.mark.integration
JULY = Window.parse("2013-07")
ANY = "%(start)s <= %(end)s"
# Rows that come one by one: a single series of this length would be made whole before the first is sent.
ENDLESS = "generate_series(1, 10000) AS n, generate_series(1, 10000) AS m"
START = (
    "import sys; from pathlib import Path; from pipeline.embedded import postgres; postgres.start(Path(sys.argv[1]))"
)


@pytest.fixture(scope="module")
def cluster_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("a folder with spaces")
    # In a process of its own, as commands do: whoever starts a server does not wait for its end.
    subprocess.run([sys.executable, "-c", START, str(home)], check=True)
    cluster = postgres.start(home)
    cluster.ensure_role("reader")
    cluster.ensure_database("source", "reader")
    yield cluster.uri("source", "reader")
    postgres.stop(home)


@pytest.fixture
def db(cluster_uri: str) -> Iterator[psycopg2.extensions.cursor]:
    connection = psycopg2.connect(cluster_uri.replace("+psycopg2", ""))
    connection.autocommit = True
    yield connection.cursor()
    connection.close()


def table(uri: str, query: str, window: Window = JULY) -> pa.Table:
    with read(Source("postgres", uri=uri, query=query), window) as batches:
        return batches.read_all()


def cells(uri: str, values: str) -> list[Any]:
    """The one column of ``VALUES``, as Python values."""
    rows = table(uri, f"SELECT v FROM (VALUES {values}) AS given (v) WHERE {ANY}")
    found: list[Any] = rows.column("v").to_pylist()
    return found


def copy_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "copy"]


# --- types and values -------------------------------------------------------------------------------------


def test_every_supported_type_arrives_as_itself(cluster_uri: str) -> None:
    got = table(
        cluster_uri,
        f"""SELECT 1::int2 AS a, 2::int4 AS b, 9223372036854775807::int8 AS c, 0.1::float4 AS d, 0.1::float8 AS e,
            12.5::numeric(9, 3) AS f, true AS g, 'x'::text AS h, 'y'::varchar(3) AS i, 'z'::char(2) AS j,
            DATE '2013-07-04' AS k, TIMESTAMP '2013-07-04 10:00:00.25' AS l,
            TIMESTAMPTZ '2013-07-04 10:00:00.000001+02' AS m, 'n'::name AS n
            WHERE {ANY}""",
    )
    assert [str(column.type) for column in got.schema] == [
        "int16", "int32", "int64", "float", "double", "double", "bool", "string", "string", "string",
        "date32[day]", "timestamp[us]", "timestamp[us, tz=UTC]", "string",
    ]  # fmt: skip
    row = got.to_pylist()[0]
    assert row.pop("d") == pytest.approx(0.1)
    assert list(row.values()) == [
        1, 2, 2**63 - 1, 0.1, 12.5, True, "x", "y", "z ", date(2013, 7, 4), datetime(2013, 7, 4, 10, 0, 0, 250_000),
        datetime(2013, 7, 4, 8, 0, 0, 1, tzinfo=UTC), "n",
    ]  # fmt: skip


def test_nulls_and_empty_strings_stay_apart(cluster_uri: str) -> None:
    assert cells(cluster_uri, "(''), (NULL), ('NULL'), ('\\N'), (' '), ('NA'), (NULL)") == [
        "", None, "NULL", "\\N", " ", "NA", None,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["int", "float8", "bool", "date", "timestamptz", "text"])
def test_nulls_of_every_type_are_nulls(cluster_uri: str, kind: str) -> None:
    assert cells(cluster_uri, f"(NULL::{kind}), (NULL)") == [None, None]


def test_quotes_newlines_and_unicode_survive(cluster_uri: str, db: psycopg2.extensions.cursor) -> None:
    texts = ['"', 'a"b', "a,b", "line\nbreak", "\r\n", "\r", "\\.", "tab\t", "🛫 München", "\ufeffmark", "'", "%s"]
    db.execute("CREATE TABLE IF NOT EXISTS texts (n int, v text); TRUNCATE texts")
    db.executemany("INSERT INTO texts VALUES (%s, %s)", list(enumerate(texts)))
    for columns in ("v", "v, n", "n, v"):
        query = f"SELECT {columns} FROM texts WHERE {ANY} ORDER BY n"
        assert table(cluster_uri, query).column("v").to_pylist() == texts


def test_numbers_that_are_not_finite_arrive_as_such(cluster_uri: str) -> None:
    values = cells(cluster_uri, "('NaN'::float8), ('Infinity'), ('-Infinity'), (1e-300), (-0.0)")
    assert math.isnan(values[0])
    assert values[1:4] == [math.inf, -math.inf, 1e-300]
    assert math.isnan(cells(cluster_uri, "('NaN'::numeric)")[0])


def test_floats_arrive_to_the_last_bit(cluster_uri: str) -> None:
    assert cells(cluster_uri, "(0.1::float8 + 0.2::float8), (pi()), (1e22)") == [0.1 + 0.2, math.pi, 1e22]


def test_an_empty_result_has_its_columns(cluster_uri: str) -> None:
    got = table(cluster_uri, f"SELECT 1 AS a, 'x'::text AS b WHERE NOT ({ANY})")
    assert (got.num_rows, got.schema) == (0, pa.schema([("a", pa.int32()), ("b", pa.string())]))


def test_the_window_s_days_are_read_and_no_others(cluster_uri: str) -> None:
    query = """SELECT t FROM generate_series(timestamptz '2013-06-30 00:00+00', '2013-08-02', '1 hour') AS t
        WHERE t >= %(start)s AND t < %(end)s -- half-open; 100%% of July
        ;"""
    got = table(cluster_uri, query).column("t").to_pylist()
    assert (len(got), got[0], got[-1]) == (
        31 * 24,
        datetime(2013, 7, 1, tzinfo=UTC),
        datetime(2013, 7, 31, 23, tzinfo=UTC),
    )


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "what", "where"),
    [
        (f"SELECT 1 AS a, '{{}}'::jsonb AS extra WHERE {ANY}", "type jsonb", "'extra'"),
        (f"SELECT interval '1 day' AS late WHERE {ANY}", "type interval", "'late'"),
        (f"SELECT ARRAY[1] AS many WHERE {ANY}", "type integer[]", "'many'"),
        (f"SELECT 1 AS a, 2 AS a WHERE {ANY}", "same name", "'a'"),
        (f"SELECT nothing FROM nowhere WHERE {ANY}", "nowhere", "source.query"),
        (f"SELEKT 1 WHERE {ANY}", "syntax error", "source.query"),
        ("SELECT 1 AS a", "which window", "source.query"),
        (f"SELECT 1 AS a WHERE {ANY} AND 'x' LIKE 'a%'", "placeholders", "source.query"),
        (f"SELECT %(who)s AS a WHERE {ANY}", "placeholders", "source.query"),
        (f"SELECT WHERE {ANY}", "no columns", "source.query"),
        (f"SELECT 1 AS a WHERE {ANY}; DROP TABLE texts", "syntax error", "source.query"),
        (f"SELECT setval('n', 1) AS a WHERE {ANY}", "does not exist", "source.query"),
    ],
)
def test_a_query_that_cannot_be_read_is_bad_input(cluster_uri: str, query: str, what: str, where: str) -> None:
    with pytest.raises(UsageError) as refused:
        table(cluster_uri, query)
    assert what in refused.value.what
    assert where in refused.value.where


def test_a_query_cannot_write(cluster_uri: str, db: psycopg2.extensions.cursor) -> None:
    db.execute("CREATE SEQUENCE IF NOT EXISTS counter")
    with pytest.raises(UsageError, match="read-only"):
        table(cluster_uri, f"SELECT nextval('counter') AS n FROM generate_series(1, 2) WHERE {ANY}")


def test_a_time_that_arrow_cannot_hold_names_its_column(cluster_uri: str) -> None:
    with pytest.raises(UsageError, match="infinity") as refused:
        table(cluster_uri, f"SELECT 1 AS a, 'infinity'::timestamptz AS forever WHERE {ANY}")
    assert "'forever'" in refused.value.where


def test_a_row_may_be_larger_than_a_block(cluster_uri: str) -> None:
    got = table(cluster_uri, f"SELECT repeat(E'x\\n\"', n) AS big FROM unnest(ARRAY[1, 3000000, 2]) AS n WHERE {ANY}")
    assert [len(text) for text in got.column("big").to_pylist()] == [3, 9_000_000, 6]


def test_rows_stay_whole_across_many_blocks(cluster_uri: str) -> None:
    query = f"""SELECT n, chr(65279) || n || CASE WHEN n %% 2 = 0 THEN E'\\n' ELSE '"' END AS t
        FROM generate_series(1, 200000) AS n WHERE {ANY}"""
    got = table(cluster_uri, query)
    assert got.column("n").num_chunks > 3
    assert got.column("n").to_pylist() == list(range(1, 200_001))
    assert got.column("t").to_pylist() == [f"\ufeff{n}" + ('"', "\n")[n % 2 == 0] for n in range(1, 200_001)]


def test_a_lost_row_would_be_noticed(cluster_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = postgres_copy._decode
    monkeypatch.setattr(postgres_copy, "_decode", lambda *words: decode(*words).slice(1))
    with pytest.raises(IntegrityViolated, match="sent 3 rows, 2 were decoded"):
        cells(cluster_uri, "(1), (2), (3)")


def test_a_query_that_fails_halfway_leaves_nothing_on_disk(cluster_uri: str, tmp_path: Path) -> None:
    query = f"SELECT n, 1 / (n - 100000) AS q FROM generate_series(1, 300000) AS n WHERE {ANY}"
    with (
        pytest.raises(UsageError, match="division by zero"),
        read(Source("postgres", uri=cluster_uri, query=query), JULY) as batches,
    ):
        snapshot.write(batches, tmp_path / "rows.parquet")
    assert list(tmp_path.iterdir()) == []
    assert copy_threads() == []


# --- the server ------------------------------------------------------------------------------------------


def test_a_stream_that_is_left_early_ends_the_server_s_work(cluster_uri: str, db: psycopg2.extensions.cursor) -> None:
    query = f"SELECT n, repeat('x', 500) AS t FROM {ENDLESS} WHERE {ANY}"
    started = time.monotonic()
    with read(Source("postgres", uri=cluster_uri, query=query), JULY) as batches:
        assert batches.read_next_batch().num_rows > 0
    assert time.monotonic() - started < 10
    assert copy_threads() == []

    def still_copying() -> bool:
        db.execute("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY%%'")
        return db.fetchone() != (0,)

    wait_until(lambda: not still_copying(), 10)


def test_a_stream_is_left_at_once_while_the_server_is_busy_with_the_next_row(cluster_uri: str) -> None:
    # A block and a half of rows, then none for a minute.
    query = f"""SELECT repeat('x', 1000) AS t FROM generate_series(1, 1500) AS n WHERE {ANY}
        UNION ALL SELECT pg_sleep(60)::text"""
    started = time.monotonic()
    with read(Source("postgres", uri=cluster_uri, query=query), JULY) as batches:
        assert batches.read_next_batch().num_rows > 0
    assert time.monotonic() - started < 10


def test_an_error_while_writing_ends_the_server_s_work_too(cluster_uri: str, tmp_path: Path) -> None:
    query = f"SELECT n FROM {ENDLESS} WHERE {ANY}"

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        read(Source("postgres", uri=cluster_uri, query=query), JULY) as batches,
    ):
        snapshot.write(batches, tmp_path / "rows.parquet", advance=stop)
    assert list(tmp_path.iterdir()) == []
    assert copy_threads() == []


def test_a_connection_that_breaks_while_reading_is_unreachable(
    cluster_uri: str, db: psycopg2.extensions.cursor, tmp_path: Path
) -> None:
    query = f"SELECT n FROM {ENDLESS} WHERE {ANY}"

    def cut(_: float) -> None:
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gatehouse'")

    with (
        pytest.raises(Unreachable) as lost,
        read(Source("postgres", uri=cluster_uri, query=query), JULY) as batches,
    ):
        snapshot.write(batches, tmp_path / "rows.parquet", advance=cut)
    assert lost.value.exit_code == 6
    assert list(tmp_path.iterdir()) == []


def test_a_closed_port_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_copy, "RETRY_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unreachable) as lost:
        table(f"postgresql+psycopg2://someone:secret@127.0.0.1:{port}/db", f"SELECT 1 AS a WHERE {ANY}")
    assert f"127.0.0.1:{port}/db" in lost.value.where
    assert "secret" not in lost.value.what + lost.value.where + lost.value.fix


def test_a_server_that_accepts_and_never_answers_is_given_up_within_fifteen_seconds() -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(Unreachable, match="timeout"):
        table(f"postgresql://someone@127.0.0.1:{server.getsockname()[1]}/db", f"SELECT 1 AS a WHERE {ANY}")
    assert time.monotonic() - started < 15


def test_a_refused_login_is_said_at_once(cluster_uri: str) -> None:
    started = time.monotonic()
    address = cluster_uri.partition("?")[0].replace("reader@", "reader:wrong@")
    with pytest.raises(UsageError, match="refused the login") as refused:
        table(address, f"SELECT 1 AS a WHERE {ANY}")
    assert time.monotonic() - started < 3
    assert "wrong" not in refused.value.what + refused.value.where


def test_an_unreadable_address_does_not_show_its_password() -> None:
    with pytest.raises(UsageError) as refused:
        table("postgresql+psycopg2://me:hunter2@[broken/db", f"SELECT 1 AS a WHERE {ANY}")
    assert "hunter2" not in refused.value.what + refused.value.where + refused.value.fix
    assert refused.value.__suppress_context__


# --- files ------------------------------------------------------------------------------------------------


HOURS = [datetime(2013, 6, 30, 22, tzinfo=UTC), datetime(2013, 7, 1, tzinfo=UTC), datetime(2013, 7, 31, 23, tzinfo=UTC)]
HOURS.append(datetime(2013, 8, 1, tzinfo=UTC))


def rows() -> pa.Table:
    return pa.table(
        {
            "n": pa.array([1, 2, 3, 4], pa.uint8()),
            "carrier": pa.array(["UA", None, "", "AA"]).dictionary_encode(),
            "price": pa.array([1, 2, 3, 4], pa.decimal128(9, 2)),
            "time": pa.array(HOURS, pa.timestamp("ns", "UTC")),
        }
    )


def from_file(kind: Any, path: Path, window: Window = JULY, time_column: str = "time") -> pa.Table:
    with read(Source(kind, path=str(path), time=time_column), window) as batches:
        return batches.read_all()


@pytest.mark.parametrize("folder", [False, True])
def test_a_parquet_file_or_folder_is_filtered_and_reduced_to_known_types(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "data.parquet"
    if folder:
        path.mkdir()
        pq.write_table(rows().slice(0, 2), path / "1.parquet")
        pq.write_table(rows().slice(2), path / "2.parquet")
    else:
        pq.write_table(rows(), path)
    got = from_file("parquet", path)
    assert [str(column.type) for column in got.schema] == ["int16", "string", "double", "timestamp[us, tz=UTC]"]
    assert got.to_pylist() == [
        {"n": 2, "carrier": None, "price": 2.0, "time": HOURS[1]},
        {"n": 3, "carrier": "", "price": 3.0, "time": HOURS[2]},
    ]


@pytest.mark.parametrize("type_", [pa.date32(), pa.timestamp("us"), pa.timestamp("s", "Europe/Berlin")])
def test_the_time_column_may_be_a_date_or_any_timestamp(tmp_path: Path, type_: pa.DataType) -> None:
    times = pa.array([hour.replace(tzinfo=None) for hour in HOURS], pa.timestamp("us")).cast(type_)
    pq.write_table(pa.table({"n": [1, 2, 3, 4], "time": times}), tmp_path / "data.parquet")
    assert from_file("parquet", tmp_path / "data.parquet").column("n").to_pylist() == [2, 3]


CSV = """n,carrier,wind,late,time
1,UA,1.5,true,2013-06-30T22:00:00Z
2,,NA,false,2013-07-01T00:00:00Z
3,"",,true,2013-07-31T23:00:00Z
4,"a ""quoted""
line",2,,2013-07-04T00:00:00Z
5,AA,3,true,2013-08-01T00:00:00Z
"""


def test_a_csv_file_is_filtered_and_keeps_nulls_and_empty_strings_apart(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(CSV)
    assert from_file("csv", tmp_path / "data.csv").drop_columns("time").to_pylist() == [
        {"n": 2, "carrier": None, "wind": None, "late": False},
        {"n": 3, "carrier": "", "wind": None, "late": True},
        {"n": 4, "carrier": 'a "quoted"\nline', "wind": 2.0, "late": None},
    ]


def test_all_sources_of_the_same_rows_have_the_same_digest(cluster_uri: str, tmp_path: Path) -> None:
    query = """SELECT n::int8, (ARRAY['x', NULL, ''])[n %% 3 + 1] AS t, n / 7.0::float8 AS f, time
        FROM generate_series(1, 50) AS n, LATERAL (SELECT timestamptz '2013-07-01 00:00+00' + n * interval '1 h') AS x (time)
        WHERE time >= %(start)s AND time < %(end)s ORDER BY n"""
    origin = table(cluster_uri, query)
    pq.write_table(origin, tmp_path / "data.parquet")
    csv.write_csv(origin, tmp_path / "data.csv")
    digests = set()
    for source in (
        Source("postgres", uri=cluster_uri, query=query),
        Source("parquet", path=str(tmp_path / "data.parquet"), time="time"),
        Source("csv", path=str(tmp_path / "data.csv"), time="time"),
    ):
        with read(source, JULY) as batches:
            digests.add(snapshot.write(batches, tmp_path / "snapshot").digest)
    assert len(digests) == 1


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_file_that_is_not_there_or_not_what_it_says_is_bad_input(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UsageError, match="not there"):
        from_file(kind, tmp_path / "gone")
    (tmp_path / "empty").write_text("")
    with pytest.raises(UsageError, match="cannot read the source"):
        from_file(kind, tmp_path / "empty")
    (tmp_path / "times.csv").write_text("n,time\n1,noon\n")
    pq.write_table(pa.table({"n": [1], "time": ["noon"]}), tmp_path / "times.parquet")
    with pytest.raises(UsageError, match="not a date or a timestamp"):
        from_file(kind, tmp_path / f"times.{kind}")
    with pytest.raises(UsageError, match="no column 'when'"):
        from_file(kind, tmp_path / f"times.{kind}", time_column="when")


def test_a_csv_value_that_does_not_fit_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.adapters.source._INFERENCE_BLOCK", 60)
    (tmp_path / "data.csv").write_text("n,time\n" + "1,2013-07-01\n" * 20 + "many,2013-07-02\n")
    with pytest.raises(UsageError, match="many"):
        from_file("csv", tmp_path / "data.csv")
