"""Postgres to Arrow: the server sends COPY as CSV, and Arrow decodes it while the server is still sending.

A thread receives the server's bytes in blocks of about a megabyte, which Arrow's CSV reader decodes as they come.
Nothing is held but a few blocks, and whoever reads slowly slows the server. CSV keeps what must not be lost: a null
is an empty field, an empty string is a quoted one.
"""

from __future__ import annotations

import io
import queue
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from typing import Any

import psycopg2
import pyarrow as pa
import stamina
from psycopg2 import extensions
from pyarrow import csv

from pipeline.errors import GatehouseError, IntegrityViolated, Unreachable, UsageError

# Two addresses of one host, both silent, must still be given up within 15 s.
CONNECT_SECONDS = 3
RETRY_SECONDS = 8.0
BLOCK = 1 << 20
_AHEAD = 4

# pg_type.oid, which never changes for built-in types.
_TYPES: Mapping[int, pa.DataType] = {
    16: pa.bool_(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    700: pa.float32(),
    701: pa.float64(),
    1700: pa.float64(),
    19: pa.string(),
    25: pa.string(),
    1042: pa.string(),
    1043: pa.string(),
    1082: pa.date32(),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", "UTC"),
}
_SETTINGS = """
SET LOCAL timezone = 'UTC';
SET LOCAL datestyle = 'ISO, YMD';
SET LOCAL extra_float_digits = 1;
SET LOCAL synchronize_seqscans = off;
"""
# SQLSTATE classes that say something about the server and nothing about the query.
_SERVER_CLASSES = ("08", "53", "57", "58", "XX")
_CANCELED = "57014"
_REFUSED = ("authentication failed", "does not exist", "pg_hba.conf", "permission denied", "no password supplied")
_PLACEHOLDERS = "use %(start)s (first day) and %(end)s (day after the last), and write %% for a percent sign"


@contextmanager
def read_query(uri: str, query: str, start: date, end: date) -> Iterator[pa.RecordBatchReader]:
    """Stream a query's rows, in one read-only transaction.

    Args:
        uri: SQLAlchemy's or libpq's.
        query: SQL with ``%(start)s`` and ``%(end)s``.
        start, end: first day, and the day after the last.

    Raises:
        Unreachable: no connection within 15 s, or it broke.
        UsageError: the query fails, at once or halfway; a column's type is not supported; login refused.
    """
    connection, where = connect(uri)
    try:
        with connection.cursor() as cursor, _asking(where):
            cursor.execute(_SETTINGS)
            sql = _bind(cursor, query, start, end)
            schema = _describe(cursor, sql)
        copy = _Copy(connection, f"COPY (\n{sql}\n) TO STDOUT (FORMAT csv)", where)
        try:
            yield pa.RecordBatchReader.from_batches(schema, copy.batches(schema))
        finally:
            copy.stop()
    finally:
        connection.close()


def connect(uri: str) -> tuple[extensions.connection, str]:
    """Open a read-only connection in UTF-8, trying again for about eight seconds.

    Returns:
        The connection, and the server's address without secrets.

    Raises:
        Unreachable: nobody answered.
        UsageError: the address cannot be read, or the server refused the login.
    """
    dsn = _libpq(uri)
    where = _address(dsn)
    try:
        for attempt in stamina.retry_context(on=_worth_retrying, timeout=RETRY_SECONDS, attempts=None, wait_max=2.0):
            with attempt:
                connection = psycopg2.connect(
                    dsn,
                    connect_timeout=CONNECT_SECONDS,
                    client_encoding="UTF8",
                    application_name="gatehouse",
                    # A server that vanishes while a stage waits for rows is noticed within half a minute.
                    keepalives_idle=10,
                    keepalives_interval=5,
                    keepalives_count=4,
                )
                connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
    except psycopg2.Error as error:
        if not _worth_retrying(error):
            raise UsageError(f"Postgres refused the login: {_first_line(error)}", where=where) from error
        raise _unreachable(error, where) from error
    return connection, where


class _Copy:
    """One COPY under way: a thread that receives blocks of whole rows, and their decoding."""

    def __init__(self, connection: extensions.connection, statement: str, where: str) -> None:
        self._connection = connection
        self._where = where
        self._error: Exception | None = None
        self._rows = 0
        self._blocks = _Blocks()
        self._thread = threading.Thread(target=self._receive, args=(statement,), name="copy")
        self._thread.start()

    def _receive(self, statement: str) -> None:
        try:
            # psycopg2 hands over a row at a time: a buffer written in C is what makes that cheap.
            with self._connection.cursor() as cursor, io.BufferedWriter(self._blocks, BLOCK) as buffer:
                cursor.copy_expert(statement, buffer)
                self._rows = cursor.rowcount
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the thread that reads
            self._error = error
        finally:
            self._blocks.end()

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Decoded batches. The last block is the end of the rows only if the server said so."""
        rows = 0
        for block in self._blocks.received():
            table = _decode(block, schema, self._where)
            rows += table.num_rows
            yield from table.to_batches()
        self._thread.join()
        if self._error is not None:
            raise _explain(self._error, self._where) from self._error
        if rows != self._rows:
            raise IntegrityViolated(f"Postgres sent {self._rows} rows, {rows} were decoded", where=self._where)

    def stop(self) -> None:
        """End the statement if it is still running; never raises."""
        self._blocks.abandon()
        if self._thread.is_alive():
            with suppress(psycopg2.Error):
                self._connection.cancel()
        self._thread.join()


class _Blocks(io.RawIOBase):
    """Blocks of CSV on their way from the thread that receives them to the one that decodes them.

    The buffer before it passes on what it has when the next row does not fit, so a block is whole rows; should
    that ever change, the count of rows would tell. What it passes on is copied into Arrow's own memory: a Python
    object that Arrow's threads still hold when the interpreter ends would abort the process.
    """

    def __init__(self) -> None:
        super().__init__()
        self._queue: queue.Queue[pa.Buffer | None] = queue.Queue(_AHEAD)
        self._abandoned = threading.Event()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with pa.BufferOutputStream() as stream:
            # A byte order mark at the very start of a block would be taken for one, not for text.
            stream.write(b"\n")
            stream.write(data)
            self._put(stream.getvalue())
        return len(data)

    def end(self) -> None:
        """Say that there are no more blocks."""
        with suppress(BrokenPipeError):
            self._put(None)

    def received(self) -> Iterator[pa.Buffer]:
        """The blocks, to the end."""
        while (block := self._queue.get()) is not None:
            yield block

    def abandon(self) -> None:
        """Say that nobody takes blocks any more: whoever brings the next one is told so."""
        self._abandoned.set()
        with suppress(queue.Empty):
            while True:  # One who waits for room gets it.
                self._queue.get_nowait()

    def _put(self, block: pa.Buffer | None) -> None:
        if self._abandoned.is_set():
            raise BrokenPipeError
        self._queue.put(block)


def _decode(block: pa.Buffer, schema: pa.Schema, where: str) -> pa.Table:
    try:
        return csv.read_csv(
            pa.BufferReader(block),
            # One block for Arrow too, so that no row is cut; the first line is the one added to each block.
            csv.ReadOptions(block_size=block.size + 1, column_names=schema.names, skip_rows=1, use_threads=False),
            csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            csv.ConvertOptions(
                column_types=schema,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                true_values=["t"],
                false_values=["f"],
            ),
        )
    except pa.ArrowInvalid as error:
        raise _undecodable(error, schema, where) from error


def _bind(cursor: extensions.cursor, query: str, start: date, end: date) -> str:
    if "%(start)s" not in query or "%(end)s" not in query:
        raise UsageError("the query does not say which window it reads", where="source.query", fix=_PLACEHOLDERS)
    try:
        bound = cursor.mogrify(query.strip().rstrip(";"), {"start": start, "end": end})
    except (KeyError, ValueError, TypeError, IndexError, psycopg2.ProgrammingError) as error:
        raise UsageError(
            f"the query's placeholders are wrong: {error!r}", where="source.query", fix=_PLACEHOLDERS
        ) from error
    return bound.decode()


def _describe(cursor: extensions.cursor, sql: str) -> pa.Schema:
    """Arrow's schema of a query's result.

    Raises:
        UsageError: no columns, two of one name, or a type that is not supported.
    """
    # The query is the project's own code, and the transaction is read-only.
    cursor.execute(f"SELECT * FROM (\n{sql}\n) AS source LIMIT 0")  # noqa: S608
    described = [(column.name, column.type_code) for column in cursor.description or ()]
    names = [name for name, _ in described]
    if not names:
        raise UsageError("the query returns no columns", where="source.query")
    for name, oid in described:
        if names.count(name) > 1:
            raise UsageError("two columns have the same name", where=f"source.query, column '{name}'")
        if oid not in _TYPES:
            cursor.execute("SELECT format_type(%s, NULL)", (oid,))
            (type_name,) = cursor.fetchone() or ("unknown",)
            raise UsageError(
                f"columns of type {type_name} are not supported",
                where=f"source.query, column '{name}'",
                fix=f'cast it in the query: "{name}"::text, ::float8 or ::timestamptz',
            )
    return pa.schema([(name, _TYPES[oid]) for name, oid in described])


@contextmanager
def _asking(where: str) -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        raise _explain(error, where) from error


def _libpq(uri: str) -> str:
    """SQLAlchemy's URI as libpq reads it: no driver, and in the parameters a space is %20 and not +."""
    head, mark, parameters = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", uri).partition("?")
    return head + mark + parameters.replace("+", "%20")


def _address(dsn: str) -> str:
    try:
        parts: dict[str, Any] = extensions.parse_dsn(dsn)
    except psycopg2.ProgrammingError:
        # libpq's message quotes the address, which may hold a password.
        raise UsageError(
            "the address of the source's database cannot be read",
            fix="write it as postgresql+psycopg2://user@host:5432/database",
        ) from None
    return f"Postgres at {parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def _worth_retrying(error: Exception) -> bool:
    return isinstance(error, psycopg2.OperationalError) and not any(text in str(error) for text in _REFUSED)


def _explain(error: Exception, where: str) -> GatehouseError:
    code = getattr(error, "pgcode", None)
    if not isinstance(error, psycopg2.Error):
        return UsageError(f"reading from Postgres failed: {error}", where=where)
    if code is None or (code[:2] in _SERVER_CLASSES and code != _CANCELED):
        return _unreachable(error, where)
    hint = error.diag.message_hint or ""
    return UsageError(f"the query fails: {_first_line(error)}", where=f"source.query, {where}", fix=hint)


def _unreachable(error: Exception, where: str) -> Unreachable:
    return Unreachable(
        f"Postgres cannot be reached: {_first_line(error)}",
        where=where,
        fix="check that the server runs and can be reached from here, then run the stage again",
    )


def _undecodable(error: Exception, schema: pa.Schema, where: str) -> UsageError:
    found = re.search(r"In CSV column #(\d+): (?:\w+: )*(.*)", str(error), re.DOTALL)
    if found is None:
        return UsageError(f"rows cannot be decoded: {error}", where=where)
    name = schema.names[int(found[1])]
    return UsageError(
        f"a value does not fit its column: {found[2].splitlines()[0]}",
        where=f"source.query, column '{name}'",
        fix="infinite and very distant times cannot be held: filter or cast them in the query",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
