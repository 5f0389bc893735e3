"""Events of the ledger and the hash chain that binds them.

Each row's hash covers its own content and the hash of the row before it, so that a change, a removal or an
insertion anywhere breaks every link after it. Pure: no database, no clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from json.encoder import encode_basestring as _quoted
from typing import Any, NamedTuple

from pipeline.domain.canonical import canonical
from pipeline.errors import IntegrityViolated

GENESIS = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody wants recorded: an event before it has a place in the chain.

    Attributes:
        kind: what happened, past tense (``model.promoted``).
        actor: who did it, as the identity provider named them.
        body: a JSON object with everything that must be known later.
        run, model, environment: what it is about; None where it does not apply.
    """

    kind: str
    actor: str
    body: Mapping[str, Any]
    run: str | None = None
    model: str | None = None
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What one row says. `seq` counts from 1 without gaps; `at` is UTC, ISO 8601 with microseconds."""

    seq: int
    at: str
    kind: str
    actor: str
    run: str | None
    model: str | None
    environment: str | None
    body: Mapping[str, Any]
    previous: str
    hash: str


class Row(NamedTuple):
    """One link of the chain as it is kept: an event whose body is `text`, the canonical JSON that was hashed."""

    seq: int
    at: str
    kind: str
    actor: str
    run: str | None
    model: str | None
    environment: str | None
    text: str
    previous: str
    hash: str

    def event(self) -> Event:
        """What it says, its hash checked.

        Raises:
            IntegrityViolated: the row is not what was recorded.
        """
        if self.hash != expected_hash(self):
            raise _changed(self)
        seq, at, kind, actor, run, model, environment, text, previous, digest = self
        return Event(seq, at, kind, actor, run, model, environment, json.loads(text), previous, digest)


def link(draft: Draft, *, seq: int, at: str, previous: str) -> Row:
    """Give `draft` its place in the chain after the row with hash `previous`."""
    text = canonical(draft.body).decode()
    row = Row(seq, at, draft.kind, draft.actor, draft.run, draft.model, draft.environment, text, previous, "")
    return row._replace(hash=expected_hash(row))


def preimage(row: Row) -> bytes:
    """What a row's hash is taken of: the whole row without its hash, as one JSON object (RFC 8785)."""
    seq, at, kind, actor, run, model, environment, text, previous, _ = row
    return (
        f'{{"actor":{_quoted(actor)},"at":{_quoted(at)},"body":{text},'
        f'"environment":{"null" if environment is None else _quoted(environment)},"kind":{_quoted(kind)},'
        f'"model":{"null" if model is None else _quoted(model)},"previous":{_quoted(previous)},'
        f'"run":{"null" if run is None else _quoted(run)},"seq":{seq}}}'
    ).encode()


def expected_hash(row: Row) -> str:
    """The hash that `row`'s own content demands."""
    return "sha256:" + sha256(preimage(row)).hexdigest()


def verify(rows: Iterable[Row], *, previous: str = GENESIS, seq: int = 0) -> Iterator[Row]:
    """Pass rows through, in order, each after its link to the one before was checked.

    Args:
        rows: the chain from the row after `seq` on.
        previous, seq: the last row already trusted; the defaults start at the beginning.

    Raises:
        IntegrityViolated: naming the first row that is missing, out of place or changed.
    """
    for row in rows:
        seq += 1
        if row.seq != seq:
            raise IntegrityViolated(
                f"row {seq} is missing: row {row.seq} stands in its place",
                where=f"ledger row {seq}",
                fix="restore the ledger from its backup and find out who could delete rows",
            )
        if row.previous != previous or row.hash != expected_hash(row):
            raise _changed(row)
        previous = row.hash
        yield row


def _changed(row: Row) -> IntegrityViolated:
    return IntegrityViolated(
        f"row {row.seq} ({row.kind}, {row.at}) is not what was recorded",
        where=f"ledger row {row.seq}",
        fix="compare the row with the backup and find out who could change it",
    )
