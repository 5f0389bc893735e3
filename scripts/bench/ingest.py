"""How fast rows come out of Postgres: Gatehouse beside what else one could use, on the real flights of 2013.

    .venv/bin/python scripts/bench/ingest.py [--size small|large|both] [--json FILE]

Starts a Postgres of its own in a temporary folder, loads 336,776 flights (20 columns) and the same ten times over,
and reads each table in fresh processes. Seconds are from connecting to the last row, without imports: the best of
the repetitions, which take turns. Memory is the reading process's peak, imports and all.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

QUERY = "SELECT * FROM {table} WHERE time_hour >= {start} AND time_hour < {end}"
FIRST, LAST = "2013-01", "2013-12"
LITERALS = {"start": "'2013-01-01'", "end": "'2014-01-02'"}
PLACEHOLDERS = {"start": "%(start)s", "end": "%(end)s"}
SIZES = {"small": ("flights_once", 1, 3), "large": ("flights_tenfold", 10, 2)}
BASELINE, FLOOR = "pandas.read_sql", "COPY to nowhere"
NEEDS = {"connectorx": "connectorx", "ADBC": "adbc_driver_postgresql"}
PROBE = """
import sys
sys.path.insert(0, sys.argv[1])
import ingest
ingest.probe(*sys.argv[2:])
"""


# --- the ways to read; each imports what it needs, and answers the function that is timed ------------------


def pandas_read_sql(uri: str, table: str) -> Callable[[], int]:
    """A data frame, over SQLAlchemy and psycopg2."""
    import pandas as pd
    import psycopg2  # noqa: F401 - SQLAlchemy would import it inside the measured time
    import sqlalchemy as sa

    engine = sa.create_engine(uri.replace("postgresql://", "postgresql+psycopg2://"))

    def read() -> int:
        with engine.connect() as connection:
            return len(pd.read_sql(sa.text(QUERY.format(table=table, **LITERALS)), connection))

    return read


def connectorx(uri: str, table: str) -> Callable[[], int]:
    """An Arrow table, one connection."""
    import connectorx as cx
    import pyarrow as pa  # noqa: F401 - as above

    return lambda: int(cx.read_sql(uri, QUERY.format(table=table, **LITERALS), return_type="arrow").num_rows)


def adbc(uri: str, table: str) -> Callable[[], int]:
    """An Arrow table, over binary COPY."""
    import pyarrow as pa  # noqa: F401 - as above
    from adbc_driver_postgresql import dbapi

    def read() -> int:
        with dbapi.connect(uri) as connection, connection.cursor() as cursor:
            cursor.execute(QUERY.format(table=table, **LITERALS))
            return int(cursor.fetch_arrow_table().num_rows)

    return read


def copy_to_nowhere(uri: str, table: str) -> Callable[[], int]:
    """The same COPY as ours, its bytes thrown away: no reader that goes through psycopg2 can be faster."""
    import psycopg2

    class Nowhere:
        def write(self, data: bytes) -> int:
            return len(data)

    def read() -> int:
        connection = psycopg2.connect(uri)
        with connection.cursor() as cursor:
            query = QUERY.format(table=table, **LITERALS)
            cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)", Nowhere())
            rows = cursor.rowcount
        connection.close()
        return rows

    return read


def gatehouse_stream(uri: str, table: str) -> Callable[[], int]:
    """Arrow record batches, each thrown away."""
    from pipeline.adapters.source import Source, read
    from pipeline.domain.window import Window

    source = Source("postgres", uri=uri, query=QUERY.format(table=table, **PLACEHOLDERS))

    def run() -> int:
        with read(source, Window.parse(f"{FIRST}..2014-01-01")) as batches:
            return sum(batch.num_rows for batch in batches)

    return run


def gatehouse_snapshot(uri: str, table: str) -> Callable[[], int]:
    """What the ingest stage does: a Parquet file on disk, synced, with its logical digest."""
    from pipeline.adapters import snapshot
    from pipeline.adapters.source import Source, read
    from pipeline.domain.window import Window

    source = Source("postgres", uri=uri, query=QUERY.format(table=table, **PLACEHOLDERS))

    def run() -> int:
        with (
            tempfile.TemporaryDirectory() as folder,
            read(source, Window.parse(f"{FIRST}..2014-01-01")) as batches,
        ):
            return snapshot.write(batches, Path(folder) / "snapshot.parquet").rows

    return run


METHODS: dict[str, Callable[[str, str], Callable[[], int]]] = {
    BASELINE: pandas_read_sql,
    "connectorx": connectorx,
    "ADBC": adbc,
    FLOOR: copy_to_nowhere,
    "gatehouse, stream": gatehouse_stream,
    "gatehouse, snapshot": gatehouse_snapshot,
}


# --- measuring --------------------------------------------------------------------------------------------


def probe(method: str, uri: str, table: str) -> None:
    """Run one method once, in this process, and print what it took as JSON."""
    read = METHODS[method](uri, table)
    started = time.perf_counter()
    rows = read()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "rows": rows, "peak_mb": _peak_megabytes()}))


def _peak_megabytes() -> float:
    # Not getrusage: its maximum includes what the parent process had before exec.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(uri: str, table: str, repetitions: int, methods: list[str]) -> dict[str, dict[str, Any]]:
    """Best time and largest memory per method; a method that did not come to its end says how it ended."""
    found: dict[str, dict[str, Any]] = {}
    for repetition in range(repetitions):
        for method in methods:
            if repetition and ((method == BASELINE and repetitions < 3) or "failed" in found[method]):
                continue
            _say(f"{table}: {method}, {repetition + 1} of {repetitions}")
            one = _run(method, uri, table)
            before = found.get(method, one)
            found[method] = one | {
                key: pick(one[key], before[key])
                for key, pick in (("seconds", min), ("peak_mb", max))
                if key in one and key in before
            }
    return found


def _run(method: str, uri: str, table: str) -> dict[str, Any]:
    argv = [sys.executable, "-c", PROBE, str(Path(__file__).parent), method, uri, table]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"failed": lines[-1] if lines else f"ended by signal {-done.returncode} (out of memory?)"}
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def available() -> list[str]:
    """Methods that can be measured here; says how to get the others."""
    missing = [name for name, module in NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        _say(f"not installed: {', '.join(missing)}. To compare: {sys.executable} -m pip install -e '.[bench]'")
    return [method for method in METHODS if method not in missing]


@contextmanager
def scratch_database(sizes: list[str]) -> Iterator[str]:
    """A Postgres with the tables, gone afterwards; gives libpq's address with the password in it."""
    from pipeline.adapters.console import ConsoleReporter
    from pipeline.embedded import postgres, warehouse

    with tempfile.TemporaryDirectory(prefix="gatehouse-bench-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # Postgres may have to run as another user.
        cluster = postgres.start(home)
        try:
            cluster.ensure_role("bench")
            cluster.ensure_database("bench", "bench")
            uri = _with_password(cluster.uri("bench", "bench"))
            warehouse.load(uri, FIRST, LAST, ConsoleReporter())
            for size in sizes:
                _make_table(uri, *SIZES[size][:2])
            yield uri
        finally:
            postgres.stop(home)


def _with_password(uri: str) -> str:
    # connectorx knows no password files.
    address, _, parameters = uri.replace("+psycopg2", "").partition("?passfile=")
    lines = Path(unquote(parameters)).read_text(encoding="utf-8").splitlines()
    password = next(line.rpartition(":")[2] for line in lines if ":bench:" in line)
    return address.replace("bench@", f"bench:{password}@")


def _make_table(uri: str, table: str, times: int) -> None:
    import psycopg2

    _say(f"making {table}")
    connection = psycopg2.connect(uri)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE {table} AS SELECT row_number() OVER () AS id, flights.* "
            f"FROM flights CROSS JOIN generate_series(1, {times})"
        )
        cursor.execute(f"VACUUM ANALYZE {table}")
    connection.close()


def show(results: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Print a table per size."""
    from rich.console import Console
    from rich.table import Table

    for size, found in results.items():
        rows = next((one["rows"] for one in found.values() if "rows" in one), 0)
        table = Table(title=f"{size}: {rows:,} rows of 20 columns", title_justify="left")
        for heading in ("", "seconds", "pandas / this", "this / COPY", "peak MB"):
            table.add_column(heading, justify="right" if heading else "left")
        for method, one in found.items():
            if "failed" in one:
                table.add_row(method, "failed", "", "", one["failed"])
                continue
            faster, share = _ratio(found, BASELINE, one, 1), _ratio(found, FLOOR, one, -1)
            table.add_row(method, f"{one['seconds']:.2f}", faster, share, f"{one['peak_mb']:.0f}")
        Console().print(table)


def _ratio(found: dict[str, dict[str, Any]], other: str, one: dict[str, Any], power: int) -> str:
    if "seconds" not in found.get(other, {}):
        return "-"
    return f"{(found[other]['seconds'] / one['seconds']) ** power:.2f} x"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*SIZES, "both"], default="both")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    options = parser.parse_args()
    sizes = list(SIZES) if options.size == "both" else [options.size]
    methods = available()
    with scratch_database(sizes) as uri:
        results = {size: measure(uri, SIZES[size][0], SIZES[size][2], methods) for size in sizes}
    show(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
