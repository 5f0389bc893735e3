"""The whole line against real servers, each stage a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import requests

from pipeline.graph import STAGES

from .conftest import FLIGHTS, LENIENT, QUICK

pytestmark = pytest.mark.integration


def test_every_stage_works_from_a_new_empty_folder_and_the_run_ends_in_production(stack, tmp_path):
    run = "fresh-folders"
    for stage in STAGES:
        workspace = tmp_path / stage.name
        workspace.mkdir()
        if stage.gate:
            stack.gatehouse("gate", "check", "--run", run, cwd=workspace, expected=(4,))
            stack.approve(run)
        options = ("--project", str(FLIGHTS), *QUICK, *LENIENT) if stage.name == "ingest" else ()
        stack.gatehouse(*stage.command, "--run", run, *options, cwd=workspace)
        shutil.rmtree(workspace)
    status = stack.json("status")["environments"]["production"]
    assert status["run"] == run
    assert status["serving"] == status["package"]
    assert stack.evidence(run)["relies_on"][0]["auc_lost"] > 0


def test_a_stage_that_is_done_does_nothing_when_it_is_run_again(stack, staged):
    before = stack.kinds(staged)
    for stage in STAGES[:8]:
        options = ("--project", str(FLIGHTS), *QUICK, *LENIENT) if stage.name == "ingest" else ()
        done = stack.gatehouse(*stage.command, "--run", staged, *options)
        assert "done already" in done.stderr
    assert stack.kinds(staged) == before


def test_a_run_never_changes_what_it_works_on(stack, staged):
    done = stack.open(staged, "--train", "2013-02..2013-06", expected=(2,))
    assert "start a new run" in done.stderr


def test_a_stage_out_of_order_names_the_command_that_is_missing(stack):
    stack.open("out-of-order")
    done = stack.gatehouse("train", "--run", "out-of-order", expected=(2,))
    assert "gatehouse validate --run out-of-order" in done.stderr


def test_an_unknown_run_is_bad_input(stack):
    assert "no run 'nobody'" in stack.gatehouse("train", "--run", "nobody", expected=(2,)).stderr


def test_production_is_refused_without_an_approval_even_when_the_gate_is_skipped(stack, staged):
    done = stack.gatehouse("promote", "--env", "production", "--run", staged, expected=(2, 4))
    assert "Traceback" not in done.stderr
    assert "model.promoted" not in [
        row["kind"] for row in stack.json("ledger", "show", "--run", staged) if row["environment"] == "production"
    ]


def test_somebody_who_is_no_approver_cannot_approve(stack, staged):
    assert "not among the approvers" in stack.approve(staged, "mallory", expected=(4,)).stderr


def test_an_installation_that_is_not_embedded_believes_no_demo_identity(stack, staged, tmp_path):
    text = (stack.home / "settings.toml").read_text().replace("embedded = true", "embedded = false")
    settings = tmp_path / "settings.toml"
    settings.write_text(text)
    words = ("gate", "approve", "--run", staged, "--reason", "x", "--demo-identity", "grace")
    assert "not believed" in stack.gatehouse(*words, settings=settings, expected=(4,)).stderr


def test_a_training_killed_in_the_middle_goes_on_and_gives_the_same_weights(stack, staged):
    run = "killed-in-training"
    stack.until("validate", run)
    place = stack.place()
    env = {**os.environ, "GATEHOUSE_SETTINGS": str(stack.home / "settings.toml")}
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "train", "--run", run], env=env, stderr=subprocess.DEVNULL
    )
    tracked = place.mlflow.ensure_run("flights", run, name=run, tags={})
    while not place.mlflow.artifact_names(tracked, "checkpoints"):
        assert child.poll() is None, "training ended before it could be killed"
        time.sleep(0.02)  # product state that only shows over HTTP
    child.send_signal(signal.SIGKILL)
    child.wait()
    stack.gatehouse("train", "--run", run)
    weights = [place.state(name).fact("train")["weights"] for name in (run, staged)]
    assert weights[0] == weights[1]


def test_an_artifact_changed_in_mlflow_after_register_is_not_promoted(stack):
    run = "tampered"
    stack.until("register", run)
    place = stack.place()
    fact = place.state(run).fact("register")
    model = place.mlflow.client().get_logged_model(fact["uri"].removeprefix("models:/"))
    where = model.artifact_location.removeprefix("mlflow-artifacts:/")
    answer = requests.put(
        f"{place.mlflow.uri}/api/2.0/mlflow-artifacts/artifacts/{where}/package/transformer.json",
        data=b"{}",
        timeout=10,
    )
    assert answer.ok
    done = stack.gatehouse("promote", "--env", "staging", "--run", run, expected=(5,))
    assert "not the one that was registered" in done.stderr
    assert stack.kinds(run)[-1] == "stage.failed"


def test_two_runs_at_once_end_with_one_champion_and_one_clear_refusal(stack):
    runs = ("racer-1", "racer-2")
    for seed, run in enumerate(runs):
        stack.until("verify staging", run, "--set", f"training.seed={seed}")
    for run in runs:
        stack.approve(run)
    first = stack.gatehouse("promote", "--env", "production", "--run", runs[0])
    assert "done" in first.stderr
    second = stack.gatehouse("promote", "--env", "production", "--run", runs[1], expected=(4,))
    assert "moved on" in second.stderr


def test_the_rollback_is_served_within_two_seconds_and_is_in_the_history(stack):
    before = stack.json("history", "--env", "production")
    if len(before) < 2:
        pytest.fail("this test stands behind those that promote twice")
    stack.gatehouse("deploy", "--env", "production", "--run", before[-1]["run"])
    done = stack.gatehouse("rollback", "--env", "production", "--reason", "a test")
    assert "serves version" in done.stderr
    after = stack.json("history", "--env", "production")
    assert after[-1]["what"] == "rolled back"
    assert after[-1]["package"] == before[-2]["package"]
    live = requests.get(stack.json("status")["server"]["production"] + "/version", timeout=5).json()
    assert live["package"] == before[-2]["package"]


def test_the_server_answers_one_curl(stack):
    place = stack.place()
    wanted = place.environment("flights", "production").wanted
    from pipeline.bootstrap.steps import package_folder

    example = (package_folder(place, wanted.package, wanted.uri) / "input_example.json").read_bytes()
    answer = requests.post(
        place.server("production").url + "/invocations",
        data=example,
        headers={"Content-Type": "application/json"},
        timeout=5,
    )
    (probability,) = answer.json()["predictions"]
    assert 0 < probability < 1


@pytest.mark.filterwarnings("ignore:.*type hint")
def test_mlflow_itself_loads_the_registered_model(stack, staged):
    import mlflow
    import pandas as pd

    from pipeline.adapters import snapshot
    from pipeline.bootstrap.steps import load_model, snapshot_table

    place = stack.place()
    place.mlflow.client()
    fact = place.state(staged).fact("register")
    columns = snapshot.columns(snapshot_table(place, place.state(staged), "holdout").slice(0, 50))
    ours = load_model(place, fact["package"], fact["uri"])
    names = [entry.name for entry in ours.signature.inputs]
    frame = pd.DataFrame({name: columns[name] for name in names})
    theirs = mlflow.pyfunc.load_model(f"models:/flights/{fact['version']}")
    assert abs(theirs.predict(frame) - ours.predict(columns)).max() < 1e-9


def test_mlflow_shows_curves_system_metrics_parameters_and_the_data_that_was_read(stack, staged):
    place = stack.place()
    tracked = place.mlflow.get_run(place.state(staged).fact("train")["tracked_run"])
    assert {"train_loss", "valid_auc", "holdout_auc", "system/cpu_utilization_percentage"} <= set(tracked.data.metrics)
    assert tracked.data.params["hidden"] == "16"
    assert tracked.info.status == "FINISHED"
    (point, *_) = place.mlflow.client().get_metric_history(tracked.info.run_id, "train_loss")
    assert tracked.info.start_time <= point.timestamp <= tracked.info.end_time
    assert {entry.dataset.name for entry in tracked.inputs.dataset_inputs} == {"train", "holdout"}


@pytest.mark.filterwarnings("ignore")
def test_mlflow_loads_the_native_network_without_a_pickle(stack, staged):
    import mlflow.pytorch
    import torch

    place = stack.place()
    place.mlflow.client()
    uri = place.state(staged).fact("train")["uri"]
    network = mlflow.pytorch.load_model(uri)
    assert callable(network)
    assert any(isinstance(tensor, torch.Tensor) for tensor in network.state_dict().values())


def test_a_search_is_nested_runs_and_the_best_of_them_is_trained(stack):
    run = "searched"
    space = "{dropout={low=0.1, high=0.4}, hidden={choices=[8, 16]}}"
    search = ("--set", "search={trials=2, space=" + space + "}", "--set", "training.parameters.epochs=1")
    stack.until("train", run, *search)
    place = stack.place()
    parent = place.state(run).fact("train")["tracked_run"]
    (experiment,) = [e for e in place.mlflow.client().search_experiments() if e.name == "flights"]
    nested = place.mlflow.client().search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert len(nested) == 2
    assert all("search_valid_auc" in trial.data.metrics for trial in nested)
    best = max(nested, key=lambda trial: trial.data.metrics["search_valid_auc"])
    chosen = place.state(run).fact("train")["parameters"]
    assert float(best.data.params["dropout"]) == pytest.approx(chosen["dropout"])


@pytest.mark.parametrize(
    ("section", "says"), [("ledger", "Postgres does not answer"), ("mlflow", "MLflow does not answer")]
)
def test_an_unreachable_service_is_said_within_fifteen_seconds(stack, tmp_path, section, says):
    text = (stack.home / "settings.toml").read_text()
    dead = {"ledger": "postgresql+psycopg2://gatehouse@127.0.0.1:1/gatehouse", "mlflow": "http://127.0.0.1:1"}[section]
    head, mark, tail = text.partition(f"[{section}]\nuri = ")
    text = head + mark + f'"{dead}"' + tail[tail.index("\n") :]
    settings = tmp_path / "settings.toml"
    settings.write_text(text)
    run = f"unreachable-{section}"
    began = time.monotonic()
    words = ("ingest", "--run", run, "--project", str(FLIGHTS), *QUICK, *LENIENT)
    done = stack.gatehouse(*words, settings=settings, expected=(6,))
    assert time.monotonic() - began < 15
    assert says in done.stderr
    stack.open(run)  # nothing was lost: the same run goes on when the service is back


def test_a_ledger_row_changed_by_a_superuser_is_named(stack):
    import sqlalchemy as sa

    place = stack.place()
    uri = place.settings.ledger.uri.replace("gatehouse@", "postgres@", 1)
    engine = sa.create_engine(uri, poolclass=sa.NullPool)

    def change(actor):
        with engine.begin() as connection:
            connection.execute(sa.text("alter table gatehouse.event disable trigger all"))
            connection.execute(sa.text("update gatehouse.event set actor = :actor where seq = 3"), {"actor": actor})
            connection.execute(sa.text("alter table gatehouse.event enable trigger all"))

    with engine.begin() as connection:
        actor = connection.scalar(sa.text("select actor from gatehouse.event where seq = 3"))
    change("somebody else")
    try:
        done = stack.gatehouse("ledger", "verify", expected=(5,))
        assert "row 3 " in done.stderr
    finally:
        change(actor)
    assert "every link holds" in stack.gatehouse("ledger", "verify").stdout


@pytest.mark.parametrize(
    "statement", ["update gatehouse.event set actor = 'x'", "delete from gatehouse.event", "truncate gatehouse.event"]
)
def test_not_even_the_owner_changes_the_ledger(stack, statement):
    import sqlalchemy as sa

    engine = sa.create_engine(stack.place().settings.ledger.owner_uri, poolclass=sa.NullPool)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text(statement))
