"""What an auditor gets, without having to trust the operator."""

from __future__ import annotations

import json
import shlex
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
    opened = next(e for e in stack.json("ledger", "show", "--run", live["run"]) if e["kind"] == "run.opened")
    for word in ("approved by", "grace", live["body"]["evidence"], opened["body"]["policy_digest"]):
        assert word in shown
    assert "nothing had been promoted" in stack.gatehouse(*words[:3], "--at", "2020-01-01").stdout
    assert "no moment" in stack.gatehouse(*words[:3], "--at", "soon", expected=(2,)).stderr
    assert "no environment" in stack.gatehouse("history", "--env", "prod", expected=(2,)).stderr


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
    (tmp_path / "file").write_text("")
    done = stack.gatehouse("passport", "--version", version, "--out", str(tmp_path / "file"), expected=(2,))
    assert "cannot write" in done.stderr


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


def test_only_the_rest_is_exported_and_follows_the_row_that_was_kept(stack, live, tmp_path):
    file = tmp_path / "the rest.jsonl"
    said = stack.gatehouse("ledger", "export", "--out", str(file), "--since", str(live["seq"])).stdout
    command = shlex.split(said.partition("verify it anywhere: ")[2])
    assert command[-2:] == ["--after", f"{live['seq']}:{live['hash']}"]
    assert json.loads(file.read_text().splitlines()[0])["previous"] == live["hash"]
    command = [sys.executable, "-I", "-S", *command[1:]]
    assert subprocess.run(command, capture_output=True, env={}, check=False).returncode == 0
    assert subprocess.run(command[:-2], capture_output=True, env={}, check=False).returncode == 5


def test_an_export_that_cannot_be_made_leaves_nothing_behind(stack, live, tmp_path):
    file = tmp_path / "ledger.jsonl"
    assert "no row" in stack.gatehouse("ledger", "export", "--out", str(file), "--since", "99999", expected=(2,)).stderr
    assert list(tmp_path.iterdir()) == []
    assert "cannot write" in stack.gatehouse("ledger", "export", "--out", str(tmp_path), expected=(2,)).stderr
    below = stack.home / "anchors" / "ledger.jsonl"
    assert "cannot write" in stack.gatehouse("ledger", "export", "--out", str(below), expected=(2,)).stderr


def test_the_ledger_is_held_to_anchors_from_elsewhere(stack, live, tmp_path):
    anchor = f"{live['seq']}:{live['hash']}"
    stack.gatehouse("ledger", "verify", "--anchor", anchor)
    other = f"{live['seq']}:sha256:{'ab' * 32}"
    assert "rewritten" in stack.gatehouse("ledger", "verify", "--anchor", other, expected=(5,)).stderr
    late = tmp_path / "anchors"
    late.write_text(f"{anchor}\n999999:sha256:{'ab' * 32}\n")
    assert "last rows were deleted" in stack.gatehouse("ledger", "verify", "--anchors", str(late), expected=(5,)).stderr
    assert "no anchor" in stack.gatehouse("ledger", "verify", "--anchor", "soon", expected=(2,)).stderr
    late.write_text("")
    assert "no anchors" in stack.gatehouse("ledger", "verify", "--anchors", str(late), expected=(2,)).stderr
    # An anchor given by hand does not hide that the one this machine kept differs, nor the other way round.
    late.write_text(other)
    done = stack.gatehouse("ledger", "verify", "--anchor", anchor, "--anchors", str(late), expected=(5,))
    assert "rewritten" in done.stderr


def test_commands_say_the_anchor_of_what_they_did_and_the_server_keeps_one(stack, live):
    kept = (stack.home / "anchors").read_text().split()
    assert f"{live['seq']}:{live['hash']}" in kept
    server = stack.place().server("production").version()
    assert server["ledger"]["hash"].startswith("sha256:")
    assert server["ledger"]["seq"] > live["seq"]
