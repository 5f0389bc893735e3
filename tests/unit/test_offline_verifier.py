"""The program that auditors run: alone, on any Python, on nothing but the export."""

from __future__ import annotations

import hashlib
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


def test_a_row_of_another_history_does_not_follow_though_its_own_hash_and_number_hold(tmp_path):
    other = link(Draft("x", "jenkins", {}), seq=4, at="2026-11-24T00:00:00Z", previous="sha256:" + "ab" * 32)
    done = check(tmp_path, b"".join([*LINES[:3], line(other)]))
    assert done.returncode == 5
    assert "does not follow" in done.stderr


def test_a_number_left_out_is_found_though_the_links_hold(tmp_path):
    other = link(Draft("x", "jenkins", {}), seq=5, at="2026-11-24T00:00:00Z", previous=rows()[2].hash)
    done = check(tmp_path, b"".join([*LINES[:3], line(other)]))
    assert done.returncode == 5
    assert "row 4 is missing" in done.stderr


def test_rows_cut_off_at_the_end_are_found_with_an_anchor_only(tmp_path):
    short = b"".join(LINES[:4])
    assert check(tmp_path, short).returncode == 0
    done = check(tmp_path, short, "--anchor", HEAD)
    assert done.returncode == 5
    assert "last rows were deleted" in done.stderr
    assert check(tmp_path, b"", "--anchor", HEAD).returncode == 5


def test_nothing_at_all_never_holds(tmp_path):
    done = check(tmp_path, b"")
    assert done.returncode == 5
    assert "empty" in done.stderr


def test_another_history_is_found_with_an_anchor(tmp_path):
    done = check(tmp_path, b"".join(LINES), "--anchor", "3:sha256:" + "ab" * 32)
    assert done.returncode == 5
    assert "rewritten" in done.stderr


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_anchors_of_one_row_neither_hides_the_other(tmp_path, order):
    both = ["3:sha256:" + "ab" * 32, f"3:{rows()[2].hash}"][::order]
    done = check(tmp_path, b"".join(LINES), *(word for one in both for word in ("--anchor", one)))
    assert done.returncode == 5
    assert "rewritten" in done.stderr


def test_an_anchor_that_the_export_cannot_answer_is_not_passed_over(tmp_path):
    rest, after = b"".join(LINES[3:]), ("--after", f"3:{rows()[2].hash}")
    done = check(tmp_path, rest, *after, "--anchor", f"2:{rows()[1].hash}")
    assert done.returncode == 2
    assert "lies before this export" in done.stderr
    assert check(tmp_path, rest, *after, "--anchor", "3:sha256:" + "ab" * 32).returncode == 5


def test_one_row_is_printed_once_everything_is_verified(tmp_path):
    done = check(tmp_path, b"".join(LINES), "--row", "3")
    assert json.loads(done.stdout) == {**json.loads(LINES[2]), "hash": rows()[2].hash}
    assert check(tmp_path, b"".join(LINES), "--row", "7").returncode == 2
    assert check(tmp_path, b"".join([*LINES[:4], LINES[5]]), "--row", "3").stdout == ""


def test_json_too_deep_to_read_is_no_row_and_no_traceback(tmp_path):
    body = b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    digest = hashlib.sha256(body).hexdigest().encode()
    done = check(tmp_path, body[:-1] + b',"hash":"sha256:' + digest + b'"}\n')
    assert done.returncode == 5
    assert "Traceback" not in done.stderr


def test_an_export_of_the_rest_begins_after_a_trusted_row(tmp_path):
    rest = b"".join(LINES[3:])
    assert check(tmp_path, rest).returncode == 5
    assert check(tmp_path, rest, "--after", f"3:{rows()[2].hash}").returncode == 0


def test_a_file_that_is_not_there_and_an_anchor_that_is_none_are_bad_usage(tmp_path):
    command = [sys.executable, "-I", "-S", str(VERIFIER), str(tmp_path / "none")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
    for word in ("soon", "3:sha256:ab", "0:sha256:" + "ab" * 32, "²:sha256:" + "ab" * 32):
        assert check(tmp_path, b"".join(LINES), "--anchor", word).returncode == 2
