"""What an auditor gets, without having to trust the operator."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration


def test_for_any_moment_it_is_known_who_put_what_there_on_what_evidence(stack, live):
    before = stack.json("history", "--env", "production", "--at", "2020-01-01")
    assert before["serving"] is None
    now = stack.json("history", "--env", "production", "--at", "2099-01-01")
    assert now["serving"] is not None
    words = ("history", "--env", "production", "--at", live["at"])
    there = stack.json(*words)
    assert there["wanted"]["version"] == live["body"]["version"]
    shown = stack.gatehouse("history", "--env", "production", "--at", "2099-01-01").stdout
    assert "approved by" in shown
    assert "sha256:" in shown


def test_a_passport_says_everything_behind_a_version(stack, live, tmp_path):
    version = live["body"]["version"]
    stack.gatehouse("passport", "--version", version, "--out", str(tmp_path))
    page = (tmp_path / "passport.html").read_text()
    opened = next(e for e in stack.json("ledger", "show", "--run", live["run"]) if e["kind"] == "run.opened")
    for word in (
        live["body"]["package"],
        live["body"]["evidence"],
        opened["body"]["code"]["digest"],
        opened["body"]["requester"],
        "2013-01..2013-06",
        "grace",
        "demo",
        "signed by sha256:",
        "parameter epochs",
        "library torch",
        live["hash"],
    ):
        assert word in page, word
    assert "<script" not in page
    titles = [section["title"] for section in stack.json("passport", "--version", version)["sections"]]
    assert titles[0] == "What it is"
    assert titles[-1] == "The ledger's rows"
    assert "What it is" in stack.gatehouse("passport", "--version", version).stdout
    done = stack.gatehouse("passport", "--version", "999", expected=(2,))
    assert "no promotion made version 999" in done.stderr


def test_an_export_verifies_without_gatehouse_and_against_what_jenkins_logged(stack, live, tmp_path):
    file = tmp_path / "ledger.jsonl"
    stack.gatehouse("ledger", "export", "--out", str(file))
    anchor = f"{live['seq']}:{live['hash']}"
    command = [sys.executable, "-I", "-S", str(tmp_path / "verify_ledger.py"), str(file), "--anchor", anchor]
    assert subprocess.run(command, capture_output=True, text=True, env={}, check=False).returncode == 0
    lines = file.read_text().splitlines(keepends=True)
    assert json.loads(lines[live["seq"] - 1])["body"] == live["body"]
    file.write_text("".join(lines[: live["seq"] - 1]))
    done = subprocess.run(command, capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 5
    assert "deleted" in done.stderr


def test_the_ledger_is_held_to_anchors_from_elsewhere(stack, live, tmp_path):
    anchor = f"{live['seq']}:{live['hash']}"
    stack.gatehouse("ledger", "verify", "--anchor", anchor)
    other = f"{live['seq']}:sha256:{'ab' * 32}"
    assert "rewritten" in stack.gatehouse("ledger", "verify", "--anchor", other, expected=(5,)).stderr
    late = tmp_path / "anchors"
    late.write_text(f"{anchor}\n999999:sha256:{'ab' * 32}\n")
    assert "last rows were deleted" in stack.gatehouse("ledger", "verify", "--anchors", str(late), expected=(5,)).stderr
    assert "no anchor" in stack.gatehouse("ledger", "verify", "--anchor", "soon", expected=(2,)).stderr


def test_commands_say_the_anchor_of_what_they_did_and_the_server_keeps_one(stack, live):
    kept = (stack.home / "anchors").read_text().split()
    assert f"{live['seq']}:{live['hash']}" in kept
    server = stack.place().server("production").version()
    assert server["ledger"]["hash"].startswith("sha256:")
    assert server["ledger"]["seq"] > live["seq"]
