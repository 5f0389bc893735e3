"""Killed at any moment: running it again completes it, nothing is done twice, nothing is half done for good."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from dataclasses import asdict
from unittest.mock import patch

import pytest

from pipeline.bootstrap import anchors, embedded, runner
from pipeline.bootstrap.steps import STEPS
from pipeline.domain.events import Draft
from pipeline.domain.state import fold_run
from pipeline.embedded import mlflow_server, postgres
from pipeline.errors import Unreachable
from pipeline.graph import BY_NAME, STAGES
from tests.attacks.conftest import Castle
from tests.integration.conftest import FLIGHTS, LENIENT, QUICK, SAMPLE

from .killer import Killer
from .proxy import Wire

pytestmark = pytest.mark.integration

KILLS = int(os.environ.get("GATEHOUSE_FAULT_KILLS", "16"))
SEED = int(os.environ.get("GATEHOUSE_FAULT_SEED", "20261124"))
PRODUCTION = ("--env", "production")
APPROVE = ("--reason", "a test", "--demo-identity", "grace")


@pytest.fixture(scope="module")
def castle(tmp_path_factory):
    from pipeline.adapters.console import ConsoleReporter
    from pipeline.embedded import warehouse

    home = tmp_path_factory.mktemp("faults") / ".gatehouse"
    place = embedded.up(home)
    warehouse.load(place.settings.sources["warehouse"], "2013-01", "2013-07", ConsoleReporter(), sample=SAMPLE)
    castle = Castle(home)
    for seed, run in enumerate(("first", "second")):
        castle.until("verify staging", run, "--set", f"training.seed={seed}")
    castle.approve("first")
    for stage in ("promote", "deploy", "verify"):
        castle.gatehouse(stage, *PRODUCTION, "--run", "first")
    yield castle
    embedded.down(home)


@pytest.fixture(scope="module")
def killer(castle):
    made = Killer(castle.home)
    yield made
    made.close()


def fresh(castle, name, killer=None):
    """A run before the gate, compared with what production wants now, and approved if there is somebody to do it."""
    wanted = castle.place().environment("flights", "production").wanted
    evaluated = castle.events("second", "model.evaluated")[0]["body"]
    champion = {**(evaluated["champion"] or {}), "package": wanted.package}
    castle.copy("second", name, model_evaluated={"champion": champion})
    if killer is not None:
        assert killer.run("gate", "approve", "--run", name, *APPROVE)[0] == 0, killer.said()
    return name


def holds(castle, run):
    """The chain holds; the run was promoted once; one version is registered for it, and the alias is the ledger's."""
    anchors.check(castle.place())
    promoted = [e for e in castle.events(run, "model.promoted") if e["environment"] == "production"]
    assert len(promoted) == 1
    client = castle.place().mlflow.client()
    versions = client.search_model_versions("name = 'prod.flights'")
    assert sum(v.tags.get("gatehouse.run") == run for v in versions) == 1
    wanted = castle.place().environment("flights", "production").wanted
    assert str(client.get_model_version_by_alias("prod.flights", "champion").version) == wanted.version


def counted(castle, killer, name):
    """Outside calls of an undisturbed promotion."""
    code, calls = killer.run("promote", *PRODUCTION, "--run", fresh(castle, name, killer))
    assert code == 0, killer.said()
    return calls


def test_two_racing_promotions_end_with_one_winner_and_one_clear_refusal(castle, killer):
    """First, while production has other bytes than the two that race."""
    runs = [fresh(castle, f"racing-{n}", killer) for n in (1, 2)]
    env = {**os.environ, "GATEHOUSE_SETTINGS": str(castle.home / "settings.toml")}
    commands = [[sys.executable, "-m", "pipeline", "promote", *PRODUCTION, "--run", run] for run in runs]
    both = [subprocess.Popen(c, env=env, stderr=subprocess.PIPE, text=True, cwd=castle.home) for c in commands]
    said = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 4], said
    promoted = [e for run in runs for e in castle.events(run, "model.promoted") if e["environment"] == "production"]
    assert len(promoted) == 1
    assert sum("has moved on" in words for words in said) == 1
    holds(castle, promoted[0]["run"])


def test_a_promotion_killed_at_every_ledger_write_and_every_mlflow_call_is_completed_by_the_next_try(castle, killer):
    calls = counted(castle, killer, "undisturbed")
    assert calls > 10
    for number in range(1, calls + 1):
        run = fresh(castle, f"killed-{number}", killer)
        moment = "before" if number % 2 else "after"
        code, _ = killer.run("promote", *PRODUCTION, "--run", run, kill=(number, moment))
        assert code == -9, killer.said()
        code, _ = killer.run("promote", *PRODUCTION, "--run", run)
        assert code == 0, f"call {number}, {moment}: {killer.said()}"
        holds(castle, run)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_decision_a_roll_out_and_a_rollback_killed_at_every_call_are_completed_and_done_once(castle, killer, moment):
    base = f"steps-{moment}"
    _, calls = killer.run("gate", "approve", "--run", fresh(castle, f"{base}-0"), *APPROVE)
    for number in range(1, calls + 1):
        run = fresh(castle, f"{base}-{number}")
        words = ("gate", "approve", "--run", run, *APPROVE)
        assert killer.run(*words, kill=(number, moment))[0] == -9
        assert killer.run(*words)[0] == 0, killer.said()
        assert len(castle.events(run, "approval.decided")) == 1
        assert len(castle.events(run, "gate.opened")) == 1
    run = f"{base}-1"
    assert killer.run("promote", *PRODUCTION, "--run", run)[0] == 0, killer.said()
    for words, kind in (
        (("deploy", *PRODUCTION, "--run", run), "model.deployed"),
        (("verify", *PRODUCTION, "--run", run), "model.verified"),
    ):
        for number in (1, 2, 3, 4):
            killer.run(*words, kill=(number, moment))
        assert killer.run(*words)[0] == 0, killer.said()
        assert len([e for e in castle.events(run, kind) if e["environment"] == "production"]) == 1
    before = castle.place().environment("flights", "production")
    rollback = ("rollback", *PRODUCTION, "--reason", "a test")
    code, _ = killer.run(*rollback, kill=(2, moment))
    assert code == -9
    if castle.place().environment("flights", "production") == before:
        assert killer.run(*rollback)[0] == 0, killer.said()
    assert killer.run("reconcile", *PRODUCTION)[0] == 0, killer.said()
    after = castle.place().environment("flights", "production")
    assert after.wanted.package == before.before.package
    assert len(after.stack) == len(before.stack) - 1


def test_a_promotion_prepared_against_an_older_champion_is_refused(castle, killer):
    run = fresh(castle, "late", killer)
    other = {**(castle.events("second", "model.evaluated")[0]["body"]["champion"] or {}), "package": "sha256:0"}
    old = castle.copy("second", "too-late", model_evaluated={"champion": other})
    castle.approve(old)
    assert "has moved on" in castle.promote(old, expected=(4,)).stderr
    castle.promote(run, expected=(0,))


def test_a_stage_done_by_somebody_else_after_the_lock_was_lost_is_entered_once(castle, killer):
    castle.copy("second", "unfenced")
    place = castle.place()
    body = castle.events("second", "model.evaluated")[0]["body"]
    stage, state = BY_NAME["evaluate"], fold_run("unfenced", place.ledger.events(run="unfenced"))
    before = len(castle.events("unfenced", "model.evaluated"))
    with patch.dict(STEPS, {"evaluate": lambda *_: body}):
        runner._execute(place, stage, state)
    assert len(castle.events("unfenced", "model.evaluated")) == before == 1


def test_who_stops_while_holding_the_append_lock_is_put_out_and_holds_up_nobody(castle, monkeypatch):
    monkeypatch.setattr("pipeline.adapters.ledger.APPEND_SECONDS", 1)
    stopped, other = castle.place().ledger, castle.place().ledger
    draft = Draft("stage.failed", "test", {"stage": "train"}, "stopped")
    entered = []

    def stop_in_the_middle():
        with stopped.transaction() as transaction:
            entered.append(other.append(draft).seq)
            transaction.append(draft)

    with pytest.raises(Unreachable):
        stop_in_the_middle()
    assert [e["seq"] for e in castle.events("stopped", "stage.failed")] == entered


# --- servers that go away -----------------------------------------------------------------------------------


def test_postgres_restarted_in_the_middle(castle, killer):
    run = fresh(castle, "restarted", killer)
    stopper = threading.Thread(target=lambda: (postgres.stop(castle.home), postgres.start(castle.home)))
    stopper.start()
    code, _ = killer.run("promote", *PRODUCTION, "--run", run)
    stopper.join()
    assert code in (0, 6), killer.said()
    assert killer.run("promote", *PRODUCTION, "--run", run)[0] == 0, killer.said()
    holds(castle, run)


def test_mlflow_away_in_the_middle(castle, killer):
    run = fresh(castle, "without-mlflow", killer)
    mlflow_server.stop(castle.home)
    code, _ = killer.run("promote", *PRODUCTION, "--run", run)
    assert code == 6, killer.said()
    place = embedded.up(castle.home)
    assert place.mlflow.check_health() is None
    assert killer.run("promote", *PRODUCTION, "--run", run)[0] == 0, killer.said()
    holds(castle, run)


@pytest.mark.parametrize(("which", "cut_at"), [("postgres", 2), ("postgres", 6), ("mlflow", 6)])
def test_the_network_cut_in_the_middle(castle, killer, which, cut_at):
    run = fresh(castle, f"cut-{which}-{cut_at}", killer)
    settings = castle.place().settings
    text = (castle.home / "settings.toml").read_text()
    port = settings.ledger.uri.split(":")[2].split("/")[0] if which == "postgres" else settings.mlflow.uri.split(":")[2]
    wire = Wire(int(port), cut_at)
    file = castle.home / "cut.toml"
    file.write_text(text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{wire.port}"))
    try:
        code = castle.gatehouse("promote", *PRODUCTION, "--run", run, settings=file, expected=(0, 6)).returncode
        assert (code == 6) == wire.cut
    finally:
        wire.close()
    assert killer.run("promote", *PRODUCTION, "--run", run)[0] == 0, killer.said()
    holds(castle, run)


# --- everything -------------------------------------------------------------------------------------------


def test_random_kills_across_the_whole_line_end_with_a_valid_ledger_and_the_right_version_served(castle, killer):
    chance = random.Random(SEED)
    print(f"seed {SEED}, {KILLS} kills")
    killed, number, typical = 0, 0, {stage.name: 12 for stage in STAGES}
    while killed < KILLS:
        number += 1
        run = f"random-{number}"
        opening = ("--project", str(FLIGHTS), *QUICK, *LENIENT, "--set", f"training.seed={number}")
        for stage in STAGES:
            words = (*stage.command, "--run", run, *(opening if stage.name == "ingest" else ()))
            if stage.gate:
                words = ("gate", "approve", "--run", run, *APPROVE)
            while True:
                kill = (chance.randint(1, typical[stage.name]), chance.choice(["before", "after"]))
                code, calls = killer.run(*words, kill=kill if killed < KILLS else None)
                if code != -9:
                    break
                killed += 1
            assert code == 0, f"{stage.name}: {killer.said()}"
            typical[stage.name] = max(2, calls)
        facts = [asdict(event) for event in castle.place().reader.events(run=run)]
        for stage in STAGES:
            found = [e for e in facts if (e["kind"], e["environment"]) == (stage.writes, stage.environment)]
            assert len(found) == 1, f"{run}: {stage.name} {len(found)} times"
        wanted = castle.place().environment("flights", "production").wanted
        assert wanted.run == run
        assert castle.place().server("production").version()["package"] == wanted.package
    anchors.check(castle.place())
    assert castle.gatehouse("reconcile").returncode == 0


def test_the_harness_counts_what_goes_out(castle, killer):
    """A command that only reads makes no outside call; one that writes to the ledger makes at least two."""
    assert killer.run("ledger", "verify") == (0, 0)
    castle.ledger("uri").append(Draft("data.refused", "x", {}, "nothing", "flights"))
    assert killer.run(
        "gate", "break-glass", "--run", "second", "--incident", "I", "--reason", "x", "--demo-identity", "otto"
    ) == (0, 2)
