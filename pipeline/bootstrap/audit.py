"""What auditors ask for: the ledger shown, verified and exported; an environment's history; a version's passport."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from pipeline.bootstrap import anchors
from pipeline.bootstrap.installation import Installation
from pipeline.domain import history as folds
from pipeline.domain.events import GENESIS, Event, Row, preimage, verify
from pipeline.domain.passport import Passport
from pipeline.domain.state import fold_run
from pipeline.errors import GatehouseError, UsageError
from pipeline.graph import BY_NAME
from pipeline.reports import verify_ledger as offline

VERIFIER = "verify_ledger.py"
_EVERY = 10_000


def show(place: Installation, run: str | None) -> list[dict[str, Any]]:
    """Events as rows, each with a few words on what it is about."""
    events = place.reader.events(run=run) if run else [row.event() for row in place.reader.rows()]
    return [{**asdict(event), "about": _about(event)} for event in events]


def fact(place: Installation, run: str, stage: str, expected: str | None) -> str:
    """Digest of what a stage left, and that it is the `expected` one.

    Raises:
        UsageError: no such stage, or it has not been run.
        IntegrityViolated: the ledger has another fact, or none, where one was expected.
    """
    if stage not in BY_NAME:
        raise UsageError(f"no stage '{stage}'", where="--stage", fix=f"one of: {', '.join(BY_NAME)}")
    return fold_run(run, place.reader.events(run=run)).proof(stage, expected)


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
        UsageError: there is a file, and no anchors in it.
    """
    # Each source holds by itself: an anchor from one must not hide that another differs.
    sources = [anchors.known(place), anchors.parse(words, "--anchor")]
    if file is not None:
        sources.append(_anchors_in(file))
    head = place.reader.head()
    count, last = 0, GENESIS
    with place.reporter.track("verifying", head.seq if head else 0) as tracker:
        rows: Iterator[Row] = verify(place.reader.rows())
        for source in sources:
            rows = anchors.held(rows, source)
        for row in _counted(rows, tracker.advance):
            count, last = row.seq, row.hash
    return {"events": count, "hash": last, "anchors": len(set().union(*sources)), "verified": True}


def _anchors_in(file: Path) -> dict[int, str]:
    found = anchors.parse(file.read_text(encoding="utf-8", errors="replace").split(), str(file))
    if not found:
        raise UsageError("there are no anchors in it", where=str(file), fix="anchors look like 57:sha256:3f2a…")
    return found


def export(place: Installation, out: Path, since: int = 0) -> tuple[int, str | None]:
    """Write the ledger as JSON Lines, and beside it the program that verifies it offline.

    Each line is the object whose hash the row carries, with that hash as its last member.

    Args:
        since: leave out the rows up to this one; they are verified all the same.

    Returns:
        How many rows were written, and the anchor that the first of them follows (None: it is the first of all).

    Raises:
        IntegrityViolated: the chain is broken; nothing is left at `out`.
        UsageError: `out` cannot be written, or there is no row `since`.
    """
    partial = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            count, after = _write(place, stream, since)
        partial.replace(out)
        shutil.copyfile(str(offline.__file__), out.with_name(VERIFIER))
    except OSError as error:
        raise UsageError(f"cannot write: {error}", where="--out", fix="name a file in a folder with room") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return count, after


def _write(place: Installation, stream: IO[bytes], since: int) -> tuple[int, str | None]:
    head = place.reader.head()
    last = head.seq if head else 0
    if not 0 <= since <= last:
        raise UsageError(f"there is no row {since}", where="--since", fix=f"rows: 1 to {last}")
    count, after = 0, None
    with place.reporter.track("exporting", last) as tracker:
        for row in _counted(anchors.held(verify(place.reader.rows()), anchors.known(place)), tracker.advance):
            if row.seq > since:
                stream.write(b'%s,"hash":"%s"}\n' % (preimage(row)[:-1], row.hash.encode()))
                count += 1
            elif row.seq == since:
                after = f"{row.seq}:{row.hash}"
    return count, after


def _counted(rows: Iterable[Row], advance: Callable[[float], None]) -> Iterator[Row]:
    for row in rows:
        if row.seq % _EVERY == 0:
            advance(_EVERY)
        yield row


def history(place: Installation, environment: str, model: str | None) -> list[dict[str, Any]]:
    """Every change of an environment, oldest first.

    Raises:
        UsageError: no such environment.
    """
    place.server(environment)
    return folds.changes(place.reader.events(model=model, environment=environment))


def history_at(place: Installation, environment: str, model: str | None, at: str) -> Mapping[str, Any]:
    """What an environment held at a moment, and on whose word.

    Raises:
        UsageError: no such moment or environment, or several models and none named.
    """
    moment = folds.moment_of(at)
    place.server(environment)
    name = place.model_in(environment, model)
    found = folds.at(place.reader.events(model=name, environment=environment), moment)
    return {"model": name, "environment": environment, **asdict(found)}


def passport(place: Installation, environment: str, model: str | None, version: str) -> Passport:
    """Everything behind a version.

    Raises:
        UsageError: no such environment, or no promotion made the version.
    """
    from pipeline.bootstrap.gatekeeping import evidence_of
    from pipeline.domain import passport as pages

    place.server(environment)
    name = place.model_in(environment, model)
    # Alarms about the ledger as a whole carry no model's name.
    whole = place.reader.events(model="-", environment=environment)
    about = sorted([*place.reader.events(model=name, environment=environment), *whole], key=lambda event: event.seq)
    promotion = pages.promotion_of(version, about)
    run = place.reader.events(run=promotion.run)
    try:
        evidence: Mapping[str, Any] | str = evidence_of(place, fold_run(str(promotion.run), run))
    except GatehouseError as error:
        evidence = error.what
    return pages.passport(version, promotion, run, about, evidence)
