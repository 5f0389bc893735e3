"""Events of the ledger and the hash chain that binds them.

Each event's hash covers its own content and the hash of the event before it, so that a change, a removal
or an insertion anywhere breaks every link after it. Pure: no database, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.domain.canonical import digest_json
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
    """One link of the chain. `seq` counts from 1 without gaps; `at` is UTC, ISO 8601 with microseconds."""

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


def link(draft: Draft, *, seq: int, at: str, previous: str) -> Event:
    """Give `draft` its place in the chain after the event with hash `previous`."""
    fields = {"seq": seq, "at": at, **asdict(draft), "previous": previous}
    return Event(**fields, hash=digest_json(fields))


def expected_hash(event: Event) -> str:
    """The hash that `event`'s own content demands."""
    fields = asdict(event)
    del fields["hash"]
    return digest_json(fields)


def verify(events: Iterable[Event], *, previous: str = GENESIS, seq: int = 0) -> Iterator[Event]:
    """Pass events through, in order, each after its link to the one before was checked.

    Args:
        events: the chain from the event after `seq` on.
        previous, seq: the last event already trusted; the defaults start at the beginning.

    Raises:
        IntegrityViolated: naming the first row that is missing, out of place or changed.
    """
    for event in events:
        seq += 1
        if event.seq != seq:
            raise IntegrityViolated(
                f"row {seq} is missing: row {event.seq} stands in its place",
                where=f"ledger row {seq}",
                fix="restore the ledger from its backup and find out who could delete rows",
            )
        if event.previous != previous or event.hash != expected_hash(event):
            raise IntegrityViolated(
                f"row {seq} ({event.kind}, {event.at}) is not what was recorded",
                where=f"ledger row {seq}",
                fix="compare the row with the backup and find out who could change it",
            )
        previous = event.hash
        yield event
