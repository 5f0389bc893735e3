"""What auditors ask for: the ledger shown, verified and exported; an environment's history; a version's passport."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.bootstrap import anchors
from pipeline.bootstrap.installation import Installation
from pipeline.domain import history as folds
from pipeline.domain.events import GENESIS, Event, Row, preimage, verify
from pipeline.domain.passport import Passport
from pipeline.errors import GatehouseError
from pipeline.reports import verify_ledger as offline

VERIFIER = "verify_ledger.py"
_EVERY = 10_000


def show(place: Installation, run: str | None) -> list[dict[str, Any]]:
    """Events as rows, each with a few words on what it is about."""
    events = place.reader.events(run=run) if run else [row.event() for row in place.reader.rows()]
    return [{**asdict(event), "about": _about(event)} for event in events]


def _about(event: Event) -> str:
    body = event.body
    for key in ("reason", "what", "version", "digest", "evidence", "window"):
        if isinstance(body.get(key), str):
            return f"{key} {body[key][:60]}"
    return ""


def verify_ledger(place: Installation, words: Iterable[str], file: Path | None) -> dict[str, Any]:
    """Check every link, and hold the chain to anchors: given ones, those in a file, and this machine's own.

    Raises:
        IntegrityViolated: naming the first row that is not what was recorded.
    """
    wanted = anchors.known(place) | anchors.parse(words, "--anchor")
    if file is not None:
        wanted |= anchors.parse(file.read_text(encoding="utf-8").split(), str(file))
    head = place.reader.head()
    count, last = 0, GENESIS
    with place.reporter.track("verifying", head.seq if head else 0) as tracker:
        for row in _counted(anchors.held(verify(place.reader.rows()), wanted), tracker.advance):
            count, last = row.seq, row.hash
    return {"events": count, "hash": last, "anchors": len(wanted), "verified": True}


def export(place: Installation, out: Path) -> int:
    """Write the ledger as JSON Lines, and beside it the program that verifies it offline; answers how many rows.

    Each line is the object whose hash the row carries, with that hash as its last member.

    Raises:
        IntegrityViolated: the chain is broken; nothing is left at `out`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".part")
    head, count = place.reader.head(), 0
    try:
        with (
            partial.open("wb") as stream,
            place.reporter.track("exporting", head.seq if head else 0) as tracker,
        ):
            for row in _counted(anchors.held(verify(place.reader.rows()), anchors.known(place)), tracker.advance):
                stream.write(b'%s,"hash":"%s"}\n' % (preimage(row)[:-1], row.hash.encode()))
                count += 1
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    shutil.copyfile(str(offline.__file__), out.with_name(VERIFIER))
    return count


def _counted(rows: Iterable[Row], advance: Callable[[float], None]) -> Iterator[Row]:
    for row in rows:
        if row.seq % _EVERY == 0:
            advance(_EVERY)
        yield row


def history(place: Installation, environment: str, model: str | None) -> list[dict[str, Any]]:
    """Every change of an environment, oldest first."""
    return folds.changes(place.reader.events(model=model, environment=environment))


def history_at(place: Installation, environment: str, model: str | None, at: str) -> Mapping[str, Any]:
    """What an environment held at a moment, and on whose word.

    Raises:
        UsageError: no such moment, or several models and none named.
    """
    moment = folds.moment_of(at)
    name = place.model_in(environment, model)
    found = folds.at(place.reader.events(model=name, environment=environment), moment)
    return {"model": name, "environment": environment, **asdict(found)}


def passport(place: Installation, environment: str, model: str | None, version: str) -> Passport:
    """Everything behind a version.

    Raises:
        UsageError: no promotion made it.
    """
    from pipeline.bootstrap.gatekeeping import evidence_of
    from pipeline.domain import passport as pages

    name = place.model_in(environment, model)
    about = place.reader.events(model=name, environment=environment)
    promotion = pages.promotion_of(version, about)
    run = place.reader.events(run=promotion.run)
    try:
        evidence: Mapping[str, Any] | None = evidence_of(place, place.state(str(promotion.run)))
    except GatehouseError as error:
        place.reporter.note(f"the evidence cannot be had: {error.what}")
        evidence = None
    return pages.passport(version, promotion, run, about, evidence)
