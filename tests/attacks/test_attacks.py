"""One test for each attack, done as the attacker would. Each is refused by the real command and leaves an event."""

from __future__ import annotations

import shutil

import psycopg2
import pytest
import requests
import sqlalchemy as sa
from mlflow.exceptions import MlflowException

from pipeline.domain.events import Draft, link
from pipeline.embedded.keys import ensure_signing_key

pytestmark = pytest.mark.integration

COLUMNS = "seq, at, kind, actor, run, model, environment, body, previous, hash"
PLACES = ", ".join(["%s"] * 10)


# --- approvals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grace", "GRACE"])
def test_self_approval(unharmed, name):
    run = unharmed.copy("second", f"own work {name}", run_opened={"requester": "grace"})
    assert "nobody approves their own work" in unharmed.approve(run, name, expected=(4,)).stderr
    unharmed.promote(run, expected=(4,))
    assert unharmed.events(run, "approval.refused")[0]["body"]["exit_code"] == 4
    assert unharmed.events(run, "stage.failed")


def test_an_author_known_by_mail_address_approves(unharmed):
    code = unharmed.events("second", "run.opened")[0]["body"]["code"]
    run = unharmed.copy("second", "author", run_opened={"code": {**code, "author": "hedy@corp.example"}})
    assert "nobody approves their own work" in unharmed.approve(run, "hedy", expected=(4,)).stderr
    assert unharmed.events(run, "approval.refused")


def test_approval_of_other_bytes(unharmed):
    """After the approval the trainer's credential writes another training result under the approved run."""
    run = unharmed.copy("second", "other bytes")
    unharmed.approve(run)
    trained = unharmed.events("first", "model.trained")[0]["body"]
    unharmed.ledger("uri").append(Draft("model.trained", "mallory", trained, run, "flights"))
    assert "package" in unharmed.promote(run, expected=(4,)).stderr
    assert unharmed.events(run, "stage.failed")[-1]["body"]["exit_code"] == 4


def test_a_registration_that_points_at_other_bytes(unharmed):
    """The subject stays as it was approved; only the place of the bytes is another one."""
    run = unharmed.copy("second", "other place")
    unharmed.approve(run)
    right, other = (unharmed.events(name, "model.registered")[0]["body"] for name in ("second", "first"))
    forged = {**right, "uri": other["uri"], "package": other["package"]}
    unharmed.ledger("uri").append(Draft("model.registered", "mallory", forged, run, "flights"))
    assert "not the one that was registered" in unharmed.promote(run, expected=(5,)).stderr
    assert unharmed.events(run, "stage.failed")[-1]["body"]["exit_code"] == 5


def test_replay_of_an_old_approval(unharmed):
    """Somebody with the approval's own credential copies an old approval onto a new run."""
    run = unharmed.copy("second", "replay")
    old = unharmed.events("first", "approval.decided")[0]["body"]
    unharmed.ledger("approval_uri").append(Draft("approval.decided", "grace", old, run, "flights", "production"))
    assert "void" in unharmed.gatehouse("gate", "check", "--run", run, expected=(4,)).stderr
    unharmed.promote(run, expected=(4,))
    assert unharmed.events(run, "stage.failed")[-1]["body"]["exit_code"] == 4


def test_forged_approver_written_with_the_trainers_credential(unharmed):
    run = unharmed.copy("second", "forged")
    body = unharmed.events("first", "approval.decided")[0]["body"]
    ledger = unharmed.ledger("uri")
    head = ledger.head()
    at = unharmed.place().clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    draft = Draft("approval.decided", "grace", body, run, "flights", "production")
    row = link(draft, seq=head.seq + 1, at=at, previous=head.hash)
    engine = sa.create_engine(unharmed.place().settings.ledger.uri, poolclass=sa.NullPool)
    with engine.connect() as connection, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        connection.connection.cursor().execute(f"insert into gatehouse.event ({COLUMNS}) values ({PLACES})", tuple(row))
    unharmed.promote(run, expected=(4,))
    assert unharmed.events(run, "stage.failed")


def test_forged_approver_named_on_the_command_line_of_a_real_installation(unharmed):
    run = unharmed.copy("second", "named")
    settings = unharmed.settings("not-embedded.toml", embedded=("embedded = true", "embedded = false"))
    words = ("gate", "approve", "--run", run, "--reason", "x", "--demo-identity", "grace")
    assert "not believed" in unharmed.gatehouse(*words, settings=settings, expected=(4,)).stderr
    assert unharmed.events(run, "approval.refused")[0]["body"]["exit_code"] == 4


def test_expired_approval(unharmed):
    changes = unharmed.events("second", "run.opened")[0]["body"]["changes"]
    unharmed.copy("second", "short", run_opened={"changes": {**changes, "policy.approval_valid_hours": 0.0002}})
    unharmed.approve("short", expected=(0, 4))
    while unharmed.gatehouse("gate", "check", "--run", "short", expected=(0, 4)).returncode == 0:
        pass
    unharmed.promote("short", expected=(4,))
    assert "expired" in unharmed.gatehouse("gate", "show", "--run", "short").stdout
    assert unharmed.events("short", "stage.failed")
    unharmed.gatehouse("reconcile")
    rows = unharmed.json("ledger", "show")
    assert any(row["kind"] == "approval.expired" for row in rows)


def test_policy_loosened_after_approval(unharmed):
    """A second opening with a policy that lets everything pass, for a run that the policy refuses."""
    changes = unharmed.events("second", "run.opened")[0]["body"]["changes"]
    strict = {**changes, "policy.metric": [{"metric": "auc", "min": 0.999}]}
    run = unharmed.copy("second", "loosened", run_opened={"changes": strict})
    unharmed.approve(run, expected=(3,))
    opened = unharmed.events("second", "run.opened")[0]["body"]
    unharmed.ledger("uri").append(Draft("run.opened", "mallory", opened, run, "flights"))
    unharmed.approve(run, expected=(3,))
    unharmed.gatehouse("gate", "check", "--run", run, expected=(3,))
    assert unharmed.events(run, "stage.failed")[-1]["body"]["exit_code"] == 3
    unharmed.promote(run, expected=(4,))


def test_policy_changed_under_an_approved_run(unharmed):
    """A run opened with another policy has another subject: the approval of the first is void for it."""
    first = unharmed.copy("second", "policy 1")
    unharmed.approve(first)
    given = unharmed.events(first, "approval.decided")[0]["body"]
    second = unharmed.copy("second", "policy 2", run_opened={"policy_digest": "sha256:" + "0" * 64})
    unharmed.ledger("approval_uri").append(Draft("approval.decided", "grace", given, second, "flights", "production"))
    assert "policy changed" in unharmed.gatehouse("gate", "check", "--run", second, expected=(4,)).stderr
    unharmed.promote(second, expected=(4,))
    assert unharmed.events(second, "stage.failed")


# --- MLflow -------------------------------------------------------------------------------------------------


def test_moved_alias(unharmed):
    line = unharmed.mlflow("line")
    with pytest.raises(MlflowException, match="403"):
        line.set_registered_model_alias("prod.flights", "champion", "1")
    unharmed.mlflow("promotion").delete_registered_model_alias("prod.flights", "champion")
    unharmed.gatehouse("reconcile", "--env", "production")
    wanted = unharmed.place().environment("flights", "production").wanted
    alias = unharmed.mlflow("line").get_model_version_by_alias("prod.flights", "champion")
    assert str(alias.version) == wanted.version
    rows = unharmed.json("ledger", "show")
    assert any(row["kind"] == "projection.repaired" and row["body"]["what"] == "alias" for row in rows)


def test_promoted_bytes_overwritten_through_mlflow_with_the_trainers_account(unharmed):
    line = unharmed.mlflow("line")
    wanted = unharmed.place().environment("flights", "production").wanted
    model = line.get_logged_model(wanted.uri.removeprefix("models:/"))
    path = model.artifact_location.removeprefix("mlflow-artifacts:/")
    user, _, password = (unharmed.home / "mlflow-line").read_text().strip().partition(":")
    address = f"{unharmed.place().settings.mlflow.uri}/api/2.0/mlflow-artifacts/artifacts/{path}/package/signature.json"
    for method in ("put", "delete"):
        answer = getattr(requests, method)(address, auth=(user, password), data=b"{}", timeout=10)
        assert answer.status_code == 403
    assert requests.get(address, timeout=10).status_code == 401


def test_challenger_overwritten_after_its_approval(unharmed):
    """The trainer's account may write its own model; what is promoted is held to what was approved."""
    run = unharmed.copy("second", "overwritten")
    unharmed.approve(run)
    uri = unharmed.events(run, "model.registered")[0]["body"]["uri"]
    (file,) = (unharmed.home / "artifacts").glob(f"**/{uri.removeprefix('models:/')}/artifacts/package/signature.json")
    right = file.read_bytes()
    line = unharmed.mlflow("line")
    folder = unharmed.home / "forged"
    (folder / "package").mkdir(parents=True, exist_ok=True)
    (folder / "package" / "signature.json").write_bytes(right + b" ")
    line.log_model_artifacts(uri.removeprefix("models:/"), str(folder))
    assert file.read_bytes() != right
    try:
        unharmed.promote(run, expected=(5,))
        assert unharmed.events(run, "stage.failed")[-1]["body"]["exit_code"] == 5
    finally:
        file.write_bytes(right)


def test_promoted_bytes_overwritten_on_mlflows_own_disk(unharmed):
    wanted = unharmed.place().environment("flights", "production").wanted
    model = wanted.uri.removeprefix("models:/")
    (file,) = (unharmed.home / "artifacts").glob(f"**/{model}/artifacts/package/model.onnx")
    right = file.read_bytes()
    file.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    try:
        unharmed.gatehouse("reconcile", "--env", "production", expected=(5,))
        rows = unharmed.json("ledger", "show")
        assert any(row["kind"] == "alarm.raised" and row["body"]["finding"] == "bytes" for row in rows)
    finally:
        file.write_bytes(right)


# --- the ledger itself --------------------------------------------------------------------------------------


def test_edited_ledger_row(unharmed):
    run = unharmed.copy("second", "edited")
    unharmed.approve(run, "hedy")
    (row,) = unharmed.events(run, "approval.decided")

    def write(actor):
        with unharmed.superuser() as cursor:
            cursor.execute("update gatehouse.event set actor = %s where seq = %s", (actor, row["seq"]))

    write("katherine")
    try:
        done = unharmed.promote(run, expected=(5,))
        assert f"row {row['seq']} " in done.stderr
        unharmed.gatehouse("ledger", "verify", expected=(5,))
    finally:
        write("hedy")
    assert unharmed.events(run, "stage.failed")[-1]["body"]["exit_code"] == 5


def test_deleted_last_rows(unharmed):
    """The chain that is left holds; the anchors of this machine and of the model servers do not."""
    run = unharmed.copy("second", "cut off")
    unharmed.approve(run)
    first = unharmed.events(run, "approval.decided")[0]["seq"]
    with unharmed.superuser() as cursor:
        cursor.execute(f"select {COLUMNS} from gatehouse.event where seq >= %s order by seq", (first,))
        kept = cursor.fetchall()
        cursor.execute("delete from gatehouse.event where seq >= %s", (first,))
    try:
        assert "deleted" in unharmed.gatehouse("ledger", "verify", expected=(5,)).stderr
        assert "deleted" in unharmed.gatehouse("reconcile", expected=(5,)).stdout
        rows = unharmed.json("ledger", "show")
        assert any(row["kind"] == "alarm.raised" and row["body"]["finding"] == "ledger" for row in rows)
    finally:
        with unharmed.superuser() as cursor:
            cursor.execute("delete from gatehouse.event where seq >= %s", (first,))
            for row in kept:
                cursor.execute(f"insert into gatehouse.event ({COLUMNS}) values ({PLACES})", row)


# --- signatures ---------------------------------------------------------------------------------------------


def test_swapped_signature_key(castle):
    """Last, because it is promoted before anybody looks at the signature: the roll-out and the server refuse it."""
    before = castle.production()
    run = castle.copy("second", "swapped key")
    private, _ = ensure_signing_key(castle.home / "attacker")
    right = castle.home / "keys" / "approval.pem"
    settings = castle.settings("swapped.toml", key=(f'"{right}"', f'"{private}"'))
    words = ("gate", "approve", "--run", run, "--reason", "x", "--demo-identity", "grace")
    castle.gatehouse(*words, settings=settings)
    castle.promote(run, expected=(0,))
    done = castle.gatehouse("deploy", "--env", "production", "--run", run, expected=(5,))
    assert "signature does not hold" in done.stderr
    assert castle.events(run, "stage.failed")[-1]["body"]["exit_code"] == 5
    assert castle.production()[1] == before[1]

    # Somebody with promotion's credential sends the server there all the same: it looks for itself.
    wanted = castle.place().environment("flights", "production").wanted
    body = {key: getattr(wanted, key) for key in ("model", "version", "package", "uri", "run")}
    castle.ledger("promotion_uri").append(Draft("rollout.requested", "mallory", body, run, "flights", "production"))
    server = castle.place().server("production")
    while (server.version()["failed"] or {}).get("digest") != wanted.package:
        pass
    assert server.version()["package"] == before[1]
    castle.gatehouse("reconcile", "--env", "production", expected=(5,))
    castle.gatehouse("rollback", "--env", "production", "--reason", "the attack is over")
    assert castle.production() == before
    shutil.rmtree(castle.home / "attacker")
