"""Anchors: hashes of ledger rows, kept where whoever can rewrite the database cannot reach.

A chain proves that nothing inside it was changed; that its end was not cut off, or that the whole was not made anew,
only a hash kept elsewhere proves. Gatehouse says the anchor of every decision and promotion in the command's output
(the Jenkins build), in notifications, on each model server, and in a file of this machine, and holds the ledger to
all of them that it can see.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from pipeline.bootstrap.installation import Installation
from pipeline.domain.events import Event, Row, verify
from pipeline.errors import IntegrityViolated, UsageError

FILE = "anchors"
_ANCHOR = re.compile(r"([1-9][0-9]{0,17}):(sha256:[0-9a-f]{64})")


def remember(place: Installation, event: Event) -> None:
    """Say an event's anchor and keep it on this machine."""
    line = f"{event.seq}:{event.hash}"
    place.reporter.note(f"ledger anchor {line}")
    with (place.settings.home / FILE).open("a+", encoding="ascii") as stream:
        stream.seek(0)
        stream.truncate(len(_whole_lines(stream.read())))
        stream.write(f"{line}\n")
        stream.flush()
        os.fsync(stream.fileno())


def known(place: Installation) -> dict[int, str]:
    """The anchors kept on this machine, by row."""
    file = place.settings.home / FILE
    return parse(_whole_lines(file.read_text(encoding="ascii")).split(), str(file)) if file.exists() else {}


def _whole_lines(text: str) -> str:
    """Without a last line that a crash has torn."""
    return text[: text.rfind("\n") + 1]


def parse(words: Iterable[str], where: str) -> dict[int, str]:
    """Anchors written as ``SEQ:sha256:<hex>``.

    Raises:
        UsageError: a word is no anchor.
        IntegrityViolated: two are of the same row and differ. Were the later one believed, whoever cut off the last
            rows would only have to wait until others take their place and are anchored in turn.
    """
    found: dict[int, str] = {}
    for word in words:
        match = _ANCHOR.fullmatch(word)
        if match is None:
            raise UsageError(f"'{word}' is no anchor", where=where, fix="anchors look like 57:sha256:3f2a…")
        seq, digest = int(match[1]), match[2]
        if found.setdefault(seq, digest) != digest:
            raise IntegrityViolated(
                f"history was rewritten: row {seq} was anchored twice, as two different rows",
                where=where,
                fix="compare both with the backup and find out who could write the ledger anew",
            )
    return found


def held(rows: Iterable[Row], anchors: Mapping[int, str]) -> Iterator[Row]:
    """Pass a verified chain through, from its first row, and hold it to anchors.

    Raises:
        IntegrityViolated: a row is not the one that was anchored, or is not there any more.
    """
    last = 0
    for row in rows:
        last = row.seq
        if row.seq in anchors and anchors[row.seq] != row.hash:
            raise IntegrityViolated(
                f"history was rewritten: row {row.seq} is not the one that was anchored",
                where=f"ledger row {row.seq}",
                fix="restore the ledger from its backup and find out who could write it anew",
            )
        yield row
    lost = sorted(seq for seq in anchors if seq > last)
    if lost:
        raise IntegrityViolated(
            f"the last rows were deleted: row {lost[-1]} was anchored, and the ledger ends with row {last}",
            where=f"ledger row {last + 1}",
            fix="restore the ledger from its backup and find out who could delete rows",
        )


def check(place: Installation, *more: Mapping[int, str]) -> Row | None:
    """Verify the whole chain and hold it to this machine's anchors and to each of `more`; answers its head.

    Raises:
        IntegrityViolated: something in it is not what was recorded.
    """
    rows: Iterator[Row] = verify(place.reader.rows())
    for source in (known(place), *more):  # one after the other: no anchor of one hides that another differs
        rows = held(rows, source)
    last = deque(rows, maxlen=1)
    return last[0] if last else None
