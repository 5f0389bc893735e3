"""Changes behind Gatehouse's back, each made as somebody with the rights would, and what reconcile does about it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from tests.jenkins.conftest import wait_until

from .conftest import started

pytestmark = pytest.mark.integration

NAME = "prod.flights"


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Of its own: a promotion that other tests let lose its race leaves a version that nobody wants."""
    with started(tmp_path_factory.mktemp("reconciled")) as stack:
        yield stack


@pytest.fixture(scope="module")
def produced(stack):
    """Two versions in production, one after the other; the second serves."""
    for seed, run in enumerate(("reconciled-1", "reconciled-2")):
        stack.until("verify staging", run, "--set", f"training.seed={seed}")
        stack.approve(run)
        for stage in ("promote", "deploy", "verify"):
            stack.gatehouse(stage, "--env", "production", "--run", run)
    return stack


@pytest.fixture
def mlflow(produced):
    uri = produced.place().settings.mlflow.uri
    return MlflowClient(uri, uri)


def reconcile(stack, expected=(0,)):
    return json.loads(stack.gatehouse("reconcile", "--env", "production", "--json", expected=expected).stdout)


def kinds(findings):
    return [finding["kind"] for finding in findings]


def wanted(stack):
    return stack.place().environment("flights", "production").wanted


def recorded(stack, kind):
    return [row for row in stack.json("ledger", "show") if row["kind"] == kind]


def test_where_everything_agrees_nothing_is_found(produced):
    assert reconcile(produced) == []
    assert "agree" in produced.gatehouse("reconcile").stdout


def test_an_alias_moved_by_hand_is_put_back_and_recorded(produced, mlflow):
    right = wanted(produced).version
    other = next(v.version for v in mlflow.search_model_versions(f"name = '{NAME}'") if str(v.version) != right)
    mlflow.set_registered_model_alias(NAME, "champion", other)
    assert kinds(reconcile(produced)) == ["alias"]
    assert str(mlflow.get_model_version_by_alias(NAME, "champion").version) == right
    mlflow.delete_registered_model_alias(NAME, "champion")
    assert kinds(reconcile(produced)) == ["alias"]
    assert reconcile(produced) == []
    assert recorded(produced, "projection.repaired")[-1]["body"]["what"] == "alias"


def test_a_deleted_version_is_registered_again_under_another_number(produced, mlflow):
    before = wanted(produced)
    mlflow.delete_model_version(NAME, before.version)
    assert "version deleted" in kinds(reconcile(produced))
    after = wanted(produced)
    assert (after.package, after.uri) == (before.package, before.uri)
    assert after.version != before.version
    assert str(mlflow.get_model_version_by_alias(NAME, "champion").version) == after.version
    assert reconcile(produced) == []


def test_bytes_overwritten_in_place_are_an_alarm_and_exit_code_5_until_they_are_right_again(produced):
    model = wanted(produced).uri.removeprefix("models:/")
    (file,) = (produced.home / "artifacts").glob(f"**/{model}/artifacts/package/signature.json")
    right = file.read_bytes()
    file.write_bytes(right + b" ")
    try:
        alarms = len(recorded(produced, "alarm.raised"))
        (finding,) = reconcile(produced, expected=(5,))
        assert finding["kind"] == "bytes"
        assert "overwritten" in finding["what"]
        reconcile(produced, expected=(5,))
        assert len(recorded(produced, "alarm.raised")) == alarms + 1
        serving = produced.json("status")["environments"]["production"]["serving"]
        assert serving == wanted(produced).package
    finally:
        file.write_bytes(right)
    assert reconcile(produced) == []


def test_a_rollback_on_the_servers_own_machine_is_entered_once(produced):
    before = produced.place().environment("flights", "production")
    store = produced.home / "servers" / "production"
    done = produced.gatehouse("rollback", "--env", "production", "--reason", "nonsense", "--local", str(store))
    assert "gatehouse reconcile enters it" in done.stdout
    wait_until(lambda: "local rollback" in kinds(reconcile(produced)), 20)  # the server has to look at its disk first
    after = produced.place().environment("flights", "production")
    assert after.wanted.package == before.before.package
    assert len(after.stack) == len(before.stack) - 1
    assert "local rollback" not in kinds(reconcile(produced))
    (entered,) = [row for row in recorded(produced, "model.rolled_back") if "local" in row["body"]]
    assert entered["body"]["reason"] == "nonsense"


def test_garbage_collection_spares_what_the_ledger_needs_and_destroys_the_rest(produced, mlflow):
    needed = wanted(produced).uri.removeprefix("models:/")
    experiment = mlflow.create_experiment("somebody's own")
    unneeded = mlflow.create_run(experiment).info.run_id
    mlflow.delete_run(unneeded)
    mlflow.delete_logged_model(needed)
    backend = produced.place().settings.ledger.uri.replace("gatehouse@", "mlflow@").replace("/gatehouse?", "/mlflow?")
    words = ("gc", "--backend-store-uri", backend, "--artifacts-destination", str(produced.home / "artifacts"))
    (kept,) = json.loads(produced.gatehouse(*words, "--dry-run", "--json").stdout)
    assert (kept["kind"], kept["id"]) == ("logged model", needed)
    produced.gatehouse(*words)
    assert reconcile(produced) == []
    assert mlflow.get_logged_model(needed).model_id == needed
    with pytest.raises(Exception, match="not found"):
        mlflow.get_run(unneeded)


def test_a_champion_destroyed_by_mlflows_own_collection_is_an_alarm(produced, mlflow):
    """Last, because nothing brings the bytes back; the server goes on with its own copy."""
    place = produced.place()
    gone = wanted(produced)
    backend = place.settings.ledger.uri.replace("gatehouse@", "mlflow@").replace("/gatehouse?", "/mlflow?")
    mlflow.delete_logged_model(gone.uri.removeprefix("models:/"))
    words = ["mlflow", "gc", "--backend-store-uri", backend, "--tracking-uri", place.settings.mlflow.uri]
    subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True)
    found = reconcile(produced, expected=(5,))
    assert "bytes" in kinds(found)
    assert place.server("production").version()["package"] == gone.package
