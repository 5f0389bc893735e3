"""The program that auditors run: alone, on any Python, on nothing but the export."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.domain.events import GENESIS, Draft, link, preimage
from pipeline.reports import verify_ledger

VERIFIER = Path(verify_ledger.__file__)


def rows(count=6):
    made, previous = [], GENESIS
    for seq in range(1, count + 1):
        body = {"n": seq, "x": 1e-7, "text": 'ü "quoted"\n</script>', "none": None}
        draft = Draft("model.promoted", "jenkins", body, "run-1", "flights", "production" if seq % 2 else None)
        made.append(link(draft, seq=seq, at="2026-11-24T00:00:00.000000Z", previous=previous))
        previous = made[-1].hash
    return made


def line(row):
    return preimage(row)[:-1] + b',"hash":"' + row.hash.encode() + b'"}\n'


def check(tmp_path, data, *options):
    file = tmp_path / "ledger.jsonl"
    file.write_bytes(data)
    command = [sys.executable, "-I", "-S", str(VERIFIER), str(file), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={})


LINES = [line(row) for row in rows()]
HEAD = f"6:{rows()[-1].hash}"


def test_an_untouched_export_holds_and_says_its_head(tmp_path):
    done = check(tmp_path, b"".join(LINES), "--anchor", HEAD)
    assert done.returncode == 0
    assert f"6 rows, every link holds; head {HEAD}" in done.stdout


def test_every_line_is_json_that_people_can_read(tmp_path):
    first = json.loads(LINES[0])
    assert list(first)[-1] == "hash"
    assert first["body"]["text"].startswith("ü")


BROKEN = {
    "a changed byte in a body": b"".join(LINES).replace(b'"n":3', b'"n":4'),
    "a changed hash": b"".join(LINES).replace(rows()[2].hash.encode(), b"sha256:" + b"0" * 64),
    "a row taken out": b"".join(LINES[:2] + LINES[3:]),
    "the first row taken out": b"".join(LINES[1:]),
    "two rows exchanged": b"".join([LINES[0], LINES[2], LINES[1], *LINES[3:]]),
    "a row twice": b"".join([*LINES[:3], LINES[2], *LINES[3:]]),
    "two rows in one line": LINES[0].rstrip() + LINES[1],
    "a line of nonsense": b"".join(LINES[:3]) + b"nonsense\n",
    "an empty line": b"\n" + b"".join(LINES),
    "half a line": b"".join(LINES)[:-20],
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_whatever_was_changed_is_found(tmp_path, data):
    done = check(tmp_path, data)
    assert done.returncode == 5
    assert "DOES NOT HOLD: line" in done.stderr


def test_rows_cut_off_at_the_end_are_found_with_an_anchor_only(tmp_path):
    short = b"".join(LINES[:4])
    assert check(tmp_path, short).returncode == 0
    done = check(tmp_path, short, "--anchor", HEAD)
    assert done.returncode == 5
    assert "last rows were deleted" in done.stderr
    assert check(tmp_path, b"", "--anchor", HEAD).returncode == 5


def test_another_history_is_found_with_an_anchor(tmp_path):
    done = check(tmp_path, b"".join(LINES), "--anchor", "3:sha256:" + "ab" * 32)
    assert done.returncode == 5
    assert "rewritten" in done.stderr


def test_an_export_of_the_rest_begins_after_a_trusted_row(tmp_path):
    rest = b"".join(LINES[3:])
    assert check(tmp_path, rest).returncode == 5
    assert check(tmp_path, rest, "--after", f"3:{rows()[2].hash}").returncode == 0


def test_a_file_that_is_not_there_and_an_anchor_that_is_none_are_bad_usage(tmp_path):
    command = [sys.executable, "-I", "-S", str(VERIFIER), str(tmp_path / "none")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
    assert check(tmp_path, b"", "--anchor", "soon").returncode == 2
