"""The gate against real servers: who may write what, and what people can do about a run before production."""

from __future__ import annotations

from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa

from pipeline.adapters.ledger import Ledger
from pipeline.bootstrap.installation import utc_now
from pipeline.domain.events import GENESIS, Draft, link

pytestmark = pytest.mark.integration

REFUSING = ("--set", "policy.metric=[{metric='auc', min=0.99}]")


def may_append(uri, kind, environment):
    """Whether Postgres takes it; what was tried is rolled back."""
    row = link(Draft(kind, "mallory", {}, "rights", "rights", environment), **after_the_head(uri))
    engine = sa.create_engine(uri, poolclass=sa.NullPool)
    with engine.connect() as connection:
        try:
            insert(connection, row)
        except psycopg2.errors.InsufficientPrivilege:
            return False
        finally:
            connection.rollback()
    return True


def after_the_head(uri):
    head = Ledger(uri, utc_now).head()
    at = utc_now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {"seq": head.seq + 1 if head else 1, "previous": head.hash if head else GENESIS, "at": at}


def insert(connection, row):
    columns = "seq, at, kind, actor, run, model, environment, body, previous, hash"
    connection.connection.cursor().execute(
        f"insert into gatehouse.event ({columns}) values ({', '.join(['%s'] * 10)})", tuple(row)
    )


LINE_ONLY = ("run.opened", "data.ingested", "model.trained", "model.evaluated", "model.registered")
DECISIONS = (
    "approval.decided",
    "approval.revoked",
    "approval.delegated",
    "glass.broken",
    "gate.opened",
    "package.signed",
)
MOVES = ("model.promoted", "rollout.requested", "model.deployed", "model.verified", "model.rolled_back")


@pytest.mark.parametrize(
    ("account", "staging", "production"),
    [
        ("uri", {*LINE_ONLY, *MOVES}, {*LINE_ONLY}),
        ("approval_uri", set(), {*DECISIONS}),
        ("promotion_uri", {*MOVES, "alarm.raised"}, {*MOVES, "alarm.raised"}),
        ("reader_uri", set(), set()),
    ],
)
def test_postgres_itself_holds_every_account_to_its_own_kinds_of_event(stack, account, staging, production):
    uri = getattr(stack.place().settings.ledger, account)
    kinds = (*LINE_ONLY, *DECISIONS, *MOVES, "alarm.raised")
    assert {kind for kind in kinds if may_append(uri, kind, "staging")} == staging
    assert {kind for kind in kinds if may_append(uri, kind, "production")} == production


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hash": "sha256:" + "0" * 64}, "not that of its content"),
        ({"at": "2020-01-01T00:00:00.000000Z"}, "is dated"),
        ({"at": "yesterday"}, "is dated"),
        ({"previous": GENESIS}, "does not follow"),
        ({"seq": 10_000_000}, "does not follow"),
    ],
    ids=["a hash of something else", "another day", "no time", "another chain", "a gap"],
)
def test_a_row_that_would_spoil_the_chain_or_tell_another_time_does_not_enter(stack, staged, changes, says):
    uri = stack.place().settings.ledger.uri
    hashed = changes.get("hash")
    fields = after_the_head(uri) | {key: value for key, value in changes.items() if key != "hash"}
    row = link(Draft("run.opened", "mallory", {}, "forged"), **fields)
    engine = sa.create_engine(uri, poolclass=sa.NullPool)
    with engine.connect() as connection, pytest.raises(psycopg2.Error, match=says):
        insert(connection, row._replace(hash=hashed or row.hash))


def test_an_approval_by_delegation_taken_back_given_again_and_taken_back_after_promotion(stack):
    run = "withdrawn"
    stack.until("verify staging", run)
    gate = ("gate", "check", "--run", run)
    why = ("--reason", "a test")
    assert "not among the approvers" in stack.approve(run, "dorothy", expected=(4,)).stderr
    until = ("--until", "2099-12-31", "--demo-identity", "grace", *why)
    stack.gatehouse("gate", "delegate", "--model", "flights", "--to", "dorothy", *until)
    assert "for grace" in stack.approve(run, "dorothy").stderr
    stack.gatehouse(*gate)

    stack.gatehouse("gate", "revoke", "--run", run, *why, "--demo-identity", "dorothy")
    assert "taken back" in stack.gatehouse(*gate, expected=(4,)).stderr
    promote = ("promote", "--env", "production", "--run", run)
    assert "taken back" in stack.gatehouse(*promote, expected=(4,)).stderr

    stack.approve(run, "hedy")
    stack.gatehouse(*promote)
    before = stack.json("status")["environments"]["production"]["serving"]
    stack.gatehouse("gate", "revoke", "--run", run, *why, "--demo-identity", "hedy")
    done = stack.gatehouse("deploy", "--env", "production", "--run", run, expected=(4,))
    assert "gatehouse rollback" in done.stderr
    assert stack.json("status")["environments"]["production"]["serving"] == before

    stack.approve(run, "katherine")
    stack.gatehouse("deploy", "--env", "production", "--run", run)
    served = ("gate", "revoke", "--run", run, *why, "--demo-identity", "katherine")
    assert "serves already" in stack.gatehouse(*served, expected=(2,)).stderr
    assert stack.kinds(run).count("approval.refused") == 1


def test_two_operators_break_the_glass_for_what_the_policy_refuses_and_everybody_can_see_it(stack):
    run = "emergency"
    stack.until("verify staging", run, *REFUSING)
    why = ("--incident", "INC-4711", "--reason", "production answers nonsense")

    def operator(name, expected=(0,)):
        return stack.gatehouse("gate", "break-glass", "--run", run, *why, "--demo-identity", name, expected=expected)

    stack.approve(run, expected=(3,))
    assert "not one of the operators" in operator("grace", expected=(4,)).stderr
    operator("otto")
    assert "said this already" in operator("otto").stderr
    stack.gatehouse("gate", "check", "--run", run, expected=(3,))
    operator("olga")
    assert "GLASS BROKEN by otto and olga" in stack.gatehouse("gate", "show", "--run", run, expected=(3,)).stdout
    for stage in ("promote", "deploy", "verify"):
        stack.gatehouse(stage, "--env", "production", "--run", run)
    (promoted,) = [
        row
        for row in stack.json("ledger", "show", "--run", run)
        if row["kind"] == "model.promoted" and row["environment"] == "production"
    ]
    assert promoted["body"]["glass"]["operators"] == ["otto", "olga"]
    assert promoted["body"]["glass"]["incident"] == "INC-4711"


def test_a_dry_run_judges_a_past_run_by_another_policy_and_records_nothing(stack, staged, tmp_path):
    policy = Path(tmp_path) / "stricter.toml"
    policy.write_text("metric = [{ metric = 'auc', min = 0.999 }]\n")
    before = stack.kinds(staged)
    done = stack.gatehouse("gate", "show", "--run", staged, "--policy", str(policy), expected=(3,))
    assert "would be refused" in done.stdout
    policy.write_text("metric = [{ metric = 'auc', min = 0.001 }]\n")
    stack.gatehouse("gate", "show", "--run", staged, "--policy", str(policy))
    policy.write_text("metrik = []\n")
    assert (
        "did you mean 'metric'"
        in stack.gatehouse("gate", "show", "--run", staged, "--policy", str(policy), expected=(2,)).stderr
    )
    assert stack.kinds(staged) == before
