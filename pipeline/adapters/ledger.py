"""The ledger in Postgres: append under an advisory lock, read in order, never change.

Serial numbers do not follow commit order in Postgres, so an ordered ledger cannot rely on them: every append
takes one transaction-level advisory lock, reads the head, and writes the row after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import sqlalchemy as sa
import stamina

from pipeline.adapters.tables import event as table
from pipeline.domain.events import GENESIS, Draft, Event, Row, link
from pipeline.errors import Unreachable, UsageError

CONNECT_SECONDS = 3
RETRY_SECONDS = 10.0
APPEND_LOCK = 0x67617465  # "gate"
APPEND_SECONDS = 60  # an append takes milliseconds: whoever holds its lock longer has stopped, and is put out
_BATCH = 5_000
_COLUMNS = ", ".join(column.name for column in table.columns)
_HEAD = sa.select(table).order_by(table.c.seq.desc()).limit(1)


class Ledger:
    """The ledger at `uri`. Opens a connection per operation and keeps none.

    Raises:
        Unreachable: from every method, when Postgres did not answer for about ten seconds.
    """

    def __init__(self, uri: str, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._address = _address(uri)
        self._engine = sa.create_engine(
            uri,
            poolclass=sa.NullPool,
            connect_args={
                "connect_timeout": CONNECT_SECONDS,
                "application_name": "gatehouse",
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
                "tcp_user_timeout": 60_000,
            },
        )

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Hold the append lock: what is read inside stays true until what is appended inside is there."""
        with self._connected() as connection, connection.begin():
            limits = {"idle_in_transaction_session_timeout": APPEND_SECONDS, "lock_timeout": 2 * APPEND_SECONDS}
            local = (sa.func.set_config(name, f"{seconds}s", True) for name, seconds in limits.items())
            connection.execute(sa.select(*local))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(APPEND_LOCK)))
            yield Transaction(connection, self._clock)

    def append(self, draft: Draft) -> Event:
        """Append one event."""
        with self.transaction() as transaction:
            return transaction.append(draft)

    def events(
        self, *, run: str | None = None, model: str | None = None, environment: str | None = None
    ) -> list[Event]:
        """Events about a run, or about a model in an environment, oldest first."""
        with self._connected() as connection:
            return _events(connection, run, model, environment)

    def rows(self, after: int = 0) -> Iterator[Row]:
        """Every row after row `after`, oldest first, unchecked, in constant memory."""
        # The driver's own cursor: three times as fast as through SQLAlchemy's rows, and a million of them are verified.
        query = f"select {_COLUMNS} from gatehouse.event where seq > %s order by seq"  # noqa: S608  # our own names
        with self._connected() as connection:
            driver: Any = connection.connection
            cursor = driver.cursor(name="gatehouse_rows")
            cursor.itersize = _BATCH
            try:
                cursor.execute(query, (after,))
                yield from map(Row._make, cursor)
            except psycopg2.Error as error:
                raise sa.exc.DBAPIError.instance(query, None, error, psycopg2.Error) from error

    def recent(self, kinds: Collection[str], since: str) -> list[Event]:
        """Events of some kinds from the UTC time `since` on (ISO 8601), oldest first."""
        with self._connected() as connection:
            return _recent(connection, kinds, since)

    def head(self) -> Row | None:
        """The newest row; None in an empty ledger."""
        with self._connected() as connection:
            found = connection.execute(_HEAD).first()
            return Row._make(found) if found else None

    @contextmanager
    def exclusive(self, name: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Be the only one doing `name`; `waiting` is called once if somebody else is at it.

        The lock lives in the database session: it ends with this process, however that ends.
        """
        with self._connected() as connection:
            if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_key(name)))):
                waiting()
                connection.execute(sa.select(sa.func.pg_advisory_lock(_key(name))))
            connection.commit()
            yield

    @contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """As `exclusive`, but without waiting: whether nobody else is doing `name`."""
        with self._connected() as connection:
            taken = connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_key(name))))
            connection.commit()
            yield bool(taken)

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        with connect(self._engine, self._address) as connection:
            yield connection


class Transaction:
    """A read-decide-append that nobody can come between."""

    def __init__(self, connection: sa.Connection, clock: Callable[[], datetime]) -> None:
        self._connection = connection
        self._clock = clock

    def events(
        self, *, run: str | None = None, model: str | None = None, environment: str | None = None
    ) -> list[Event]:
        """As `Ledger.events`, inside the lock."""
        return _events(self._connection, run, model, environment)

    def recent(self, kinds: Collection[str], since: str) -> list[Event]:
        """As `Ledger.recent`, inside the lock."""
        return _recent(self._connection, kinds, since)

    def append(self, draft: Draft) -> Event:
        """Append one event after the head."""
        head = self._connection.execute(_HEAD).first()
        seq, previous = (head.seq + 1, head.hash) if head else (1, GENESIS)
        at = self._clock().astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        new = link(draft, seq=seq, at=at, previous=previous)
        self._connection.execute(table.insert().values(tuple(new)))
        return new.event()


@contextmanager
def connect(engine: sa.Engine, address: str) -> Iterator[sa.Connection]:
    """A connection, tried for about ten seconds.

    Raises:
        Unreachable: Postgres did not answer, or went away in the middle.
        UsageError: it refuses what was asked.
    """
    try:
        for attempt in stamina.retry_context(
            on=sa.exc.OperationalError, timeout=RETRY_SECONDS, attempts=None, wait_max=2.0
        ):
            with attempt:
                connection = engine.connect()
        with connection:
            yield connection
    except sa.exc.DBAPIError as error:
        words = str(error.orig).strip().splitlines()[0]
        if _went_away(error):
            fix = "see whether it runs (gatehouse status), then run the same command again"
            raise Unreachable(f"Postgres does not answer: {words}", where=address, fix=fix) from error
        fix = "gatehouse up migrates the ledger; each account may append the kinds of event that are its own"
        raise UsageError(f"Postgres refuses: {words}", where=address, fix=fix) from error


def _went_away(error: sa.exc.DBAPIError) -> bool:
    """No SQLSTATE: libpq failed. 08, 57P: connection lost, server starting or ending. 55P03, 25P03: our limits."""
    code = getattr(error.orig, "pgcode", None)
    return error.connection_invalidated or code is None or code.startswith(("08", "57P", "53", "55P03", "25P03"))


def migrate(uri: str) -> None:
    """Bring the ledger's database to the newest schema. Run as the owner; safe to run again."""
    from alembic import command
    from alembic.config import Config

    engine = sa.create_engine(uri, poolclass=sa.NullPool, connect_args={"connect_timeout": CONNECT_SECONDS})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with connect(engine, _address(uri)) as connection:
        connection.execute(sa.text("create schema if not exists gatehouse"))
        connection.commit()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def _address(uri: str) -> str:
    url = sa.make_url(uri)
    return f"{url.host}:{url.port}/{url.database}"


def _events(connection: sa.Connection, run: str | None, model: str | None, environment: str | None) -> list[Event]:
    query = sa.select(table).order_by(table.c.seq)
    for column, value in ((table.c.run, run), (table.c.model, model), (table.c.environment, environment)):
        if value is not None:
            query = query.where(column == value)
    return _read(connection, query)


def _recent(connection: sa.Connection, kinds: Collection[str], since: str) -> list[Event]:
    query = sa.select(table).where(table.c.kind.in_(kinds), table.c.at >= since).order_by(table.c.seq)
    return _read(connection, query)


def _read(connection: sa.Connection, query: sa.Select[Any]) -> list[Event]:
    """Events, each checked against its own hash: nothing is decided on an edited row."""
    return [Row._make(found).event() for found in connection.execute(query)]


__all__: Sequence[str] = ("Ledger", "Transaction", "connect", "migrate")
