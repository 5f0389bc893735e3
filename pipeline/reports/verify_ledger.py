"""Verifies an exported ledger, offline, with nothing but Python 3.8's standard library.

    python3 verify_ledger.py ledger.jsonl [--anchor SEQ:sha256:HASH]...

Each line is a JSON object whose last member is its own hash: SHA-256 over the line without that member. Each names
the hash of the line before it. An anchor is the hash of a row that was kept elsewhere (a Jenkins log, a notification,
a model server's /version): only an anchor shows that the last rows were cut off, or everything was written anew.
Exit code 0: it holds. 5: it does not, and where. 2: it cannot be read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from typing import IO, Iterator, Mapping

GENESIS = "sha256:" + "0" * 64
MARK = b',"hash":"'
TAIL = len(MARK) + len(GENESIS) + len(b'"}')


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
        except ValueError:
            raise Broken(f"line {number} is no JSON") from None
        yield number, row, stated


def verify(
    stream: IO[bytes], anchors: Mapping[int, str], since: int = 0, previous: str = GENESIS
) -> tuple[int, int, str]:
    """Check every link and every anchor; answers how many rows, the last row's number and hash."""
    seq, count = since, 0
    for number, row, stated in rows(stream):
        seq += 1
        count += 1
        if row.get("seq") != seq:
            raise Broken(f"line {number}: row {seq} is missing, row {row.get('seq')} stands in its place")
        if row.get("previous") != previous:
            raise Broken(f"line {number}: row {seq} does not follow the row before it")
        if anchors.get(seq, stated) != stated:
            raise Broken(f"line {number}: history was rewritten: row {seq} is not the one that was anchored")
        previous = stated
    lost = [wanted for wanted in anchors if wanted > seq]
    if lost:
        raise Broken(f"the last rows were deleted: row {max(lost)} was anchored, the ledger ends with row {seq}")
    return count, seq, previous


def anchor(text: str) -> tuple[int, str]:
    """Read SEQ:sha256:HASH."""
    seq, _, stated = text.partition(":")
    if not seq.isdigit() or not stated.startswith("sha256:"):
        raise argparse.ArgumentTypeError("anchors look like 57:sha256:3f2a...")
    return int(seq), stated


def main() -> int:
    """Verify the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--anchor", type=anchor, action="append", default=[], metavar="SEQ:HASH")
    parser.add_argument("--after", type=anchor, metavar="SEQ:HASH", help="the export begins after this row")
    options = parser.parse_args()
    since, previous = options.after or (0, GENESIS)
    try:
        with open(options.file, "rb") as stream:
            count, seq, head = verify(stream, dict(options.anchor), since, previous)
    except OSError as error:
        print(f"cannot read: {error}", file=sys.stderr)
        return 2
    except Broken as error:
        print(f"THE LEDGER DOES NOT HOLD: {error}", file=sys.stderr)
        return 5
    print(f"{count} rows, every link holds; head {seq}:{head}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
