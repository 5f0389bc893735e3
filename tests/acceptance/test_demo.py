"""The demo itself, on a sample: what the README promises is what happens."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request

import pytest

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def played(outside, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo in a folder with spaces")
    command = [sys.executable, "-m", "pipeline", "demo", "--sample", "0.15"]
    done = subprocess.run(
        command, cwd=folder, env=own(folder), capture_output=True, text=True, timeout=900, check=False
    )
    yield folder, done
    subprocess.run([sys.executable, "-m", "pipeline", "down"], cwd=folder, env=own(folder), check=False)


def own(folder):
    """An environment that names this folder's stack, whatever stack the checkout around it has."""
    return {**os.environ, "GATEHOUSE_SETTINGS": str(folder / ".gatehouse" / "settings.toml")}


def gatehouse(folder, *words):
    command = [sys.executable, "-m", "pipeline", *words]
    done = subprocess.run(command, cwd=folder, env=own(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_ends_well(played):
    _, done = played
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_production_saw_two_promotions_each_approved_by_a_marked_demo_identity_and_one_rollback(played):
    folder, _ = played
    rows = json.loads(gatehouse(folder, "history", "--env", "production", "--json"))
    assert [row["what"] for row in rows] == ["promoted", "promoted", "rolled back"]
    assert [row["approved_by"] for row in rows[:2]] == ["grace", "grace"]
    assert all(row["assurance"] == ["demo"] for row in rows[:2])
    assert rows[2]["package"] == rows[0]["package"] != rows[1]["package"]


def test_the_refused_challenger_reached_no_environment(played):
    folder, done = played
    assert "the policy refuses" in done.stdout
    events = json.loads(gatehouse(folder, "ledger", "show", "--json"))
    opened = [row["run"] for row in events if row["kind"] == "run.opened"]
    promoted = {row["run"] for row in events if row["kind"] == "model.promoted"}
    assert len(opened) == 3
    assert promoted == {opened[0], opened[2]}


def test_septembers_drift_is_found_and_is_in_the_ledger(played):
    folder, _ = played
    (measured,) = [
        row for row in json.loads(gatehouse(folder, "ledger", "show", "--json")) if row["kind"] == "drift.measured"
    ]
    assert measured["body"]["drifted"]
    assert any("2013-09" in reason for reason in measured["body"]["reasons"])
    assert measured["body"]["asked"] > 1000
    assert (folder / ".gatehouse" / "pages" / "monitor" / "monitor.html").stat().st_size > 10_000


def test_the_curl_line_that_it_prints_returns_a_prediction(played):
    _, done = played
    url, data = re.search(r"curl -s (\S+) -H 'Content-Type: application/json' -d '(.*)'", done.stdout).groups()
    request = urllib.request.Request(url, data.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        (probability,) = json.load(answer)["predictions"]
    assert 0 < probability < 1


def test_the_ledger_verifies_and_the_evidence_page_is_there(played):
    folder, _ = played
    assert "every link holds" in gatehouse(folder, "ledger", "verify")
    pages = list((folder / ".gatehouse" / "pages").glob("flights-*/evidence.html"))
    assert len(pages) == 2


def test_no_secret_stands_in_its_output(played):
    folder, done = played
    secrets = [line.split(":")[4] for line in (folder / ".gatehouse" / "pgpass").read_text().splitlines()]
    assert len(secrets) >= 5
    assert not any(secret in done.stdout + done.stderr for secret in secrets)


def test_no_stage_and_no_server_looks_for_anything_beyond_this_machine(played, watched):
    assert watched.attempts() == 0, "find out who: strace -f -e trace=connect,sendto python -m pipeline demo"
    reach = (
        "import socket, contextlib\nwith contextlib.suppress(OSError): socket.create_connection(('192.0.2.1', 80), 1)"
    )
    subprocess.run([sys.executable, "-c", reach], check=True)
    assert watched.attempts() > 0, "the kernel has not counted what was tried: this test proves nothing here"
