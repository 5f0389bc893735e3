"""Verifies an exported ledger, offline, with nothing but Python 3.8's standard library.

    python3 verify_ledger.py ledger.jsonl [--anchor SEQ:sha256:HASH]... [--row SEQ]

Each line is a JSON object whose last member is its own hash: SHA-256 over the line without that member. Each names
the hash of the line before it. An anchor is the hash of a row that was kept elsewhere (a Jenkins log, a notification,
a model server's /version): only an anchor shows that the last rows were cut off, or everything was written anew.
--anchor also tells whether a row that somebody shows you is in the ledger; --row prints one that was verified.
Exit code 0: it holds. 5: it does not, and where. 2: it cannot be read, or an anchor cannot be checked.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from typing import IO, Iterable, Iterator, Mapping

GENESIS = "sha256:" + "0" * 64
MARK = b',"hash":"'
TAIL = len(MARK) + len(GENESIS) + len(b'"}')
ANCHOR = re.compile(r"([1-9][0-9]{0,17}):(sha256:[0-9a-f]{64})")


class Broken(Exception):
    """The export is not what was recorded."""


def rows(stream: IO[bytes]) -> Iterator[tuple[int, dict[str, object], str]]:
    """Each line's number, content and hash, its own hash checked."""
    for number, raw in enumerate(stream, 1):
        line = raw.rstrip(b"\r\n")
        body, tail = line[:-TAIL] + b"}", line[-TAIL:]
        if not tail.startswith(MARK) or not tail.endswith(b'"}'):
            raise Broken(f"line {number} is no row of a ledger")
        stated = tail[len(MARK) : -2].decode("ascii", "replace")
        if stated != "sha256:" + hashlib.sha256(body).hexdigest():
            raise Broken(f"line {number} is not what was recorded: its hash does not hold")
        try:
            row = json.loads(body.decode("utf-8"))
        except (ValueError, RecursionError):
            raise Broken(f"line {number} is no JSON") from None
        yield number, row, stated


def linked(
    stream: IO[bytes], anchors: Mapping[int, set[str]], since: int = 0, previous: str = GENESIS
) -> Iterator[tuple[int, dict[str, object], str]]:
    """Each row's place in the chain, content and hash, after its link and its anchors were checked."""
    seq = since
    hold(seq, previous, anchors)
    for number, row, stated in rows(stream):
        seq += 1
        if row.get("seq") != seq:
            raise Broken(f"line {number}: row {seq} is missing, row {row.get('seq')} stands in its place")
        if row.get("previous") != previous:
            raise Broken(f"line {number}: row {seq} does not follow the row before it")
        hold(seq, stated, anchors)
        previous = stated
        yield seq, row, stated
    lost = [wanted for wanted in anchors if wanted > seq]
    if lost:
        raise Broken(f"the last rows were deleted: row {max(lost)} was anchored, the ledger ends with row {seq}")
    if seq == 0:
        raise Broken("it is empty: there is nothing that could hold")


def hold(seq: int, stated: str, anchors: Mapping[int, set[str]]) -> None:
    """Hold one row to all of its anchors: two that differ cannot both be right."""
    if anchors.get(seq, {stated}) != {stated}:
        raise Broken(f"history was rewritten: row {seq} is not the one that was anchored")


def anchor(text: str) -> tuple[int, str]:
    """Read SEQ:sha256:HASH."""
    found = ANCHOR.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError("anchors look like 57:sha256:3f2a... with all 64 digits of the hash")
    return int(found.group(1)), found.group(2)


def by_row(anchors: Iterable[tuple[int, str]]) -> dict[int, set[str]]:
    """All anchors of each row."""
    found: dict[int, set[str]] = {}
    for seq, stated in anchors:
        found.setdefault(seq, set()).add(stated)
    return found


def main() -> int:
    """Verify the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--anchor", type=anchor, action="append", default=[], metavar="SEQ:HASH")
    parser.add_argument("--after", type=anchor, metavar="SEQ:HASH", help="the export begins after this row")
    parser.add_argument("--row", type=int, metavar="SEQ", help="print this row, once everything is verified")
    options = parser.parse_args()
    since, previous = options.after or (0, GENESIS)
    early = [seq for seq, _ in options.anchor if seq < since]
    if early:
        parser.error(f"row {early[0]} lies before this export, which begins after row {since}: check a whole one")
    count, seq, head, shown = 0, since, previous, None
    try:
        with open(options.file, "rb") as stream:
            for seq, row, head in linked(stream, by_row(options.anchor), since, previous):
                count += 1
                if seq == options.row:
                    shown = {**row, "hash": head}
    except OSError as error:
        print(f"cannot read: {error}", file=sys.stderr)
        return 2
    except Broken as error:
        print(f"THE LEDGER DOES NOT HOLD: {error}", file=sys.stderr)
        return 5
    if options.row is not None and shown is None:
        print(f"row {options.row} is not in it: it holds rows {since + 1} to {seq}", file=sys.stderr)
        return 2
    if shown is not None:
        print(json.dumps(shown, indent=2))
    print(f"{count} rows, every link holds; head {seq}:{head}", file=sys.stderr if shown else sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
