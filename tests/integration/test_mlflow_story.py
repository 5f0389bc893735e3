"""What people see in MLflow's own pages: each stage in the run's trace, a card with each version, data and metrics."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from pipeline.domain.canonical import digest_tree
from pipeline.embedded import processes
from pipeline.graph import STAGES
from tests.integration.conftest import FLIGHTS

pytestmark = pytest.mark.integration
WORKSPACE = "team-a"
IN_ONE_PROCESS = """
import sys
from pathlib import Path
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.runner import execute
from pipeline.config import load_settings

_, settings, run, *stages = sys.argv
for stage in stages:
    execute(Installation(load_settings(Path(settings))), stage, run)
"""


@pytest.fixture(scope="module")
def client(stack):
    return stack.place().mlflow.client()


def trace_of(client, model, run):
    place = client.get_experiment_by_name(model).experiment_id
    (found,) = client.search_traces(locations=[place], filter_string=f"tags.`gatehouse.run` = '{run}'")
    return found


def test_a_run_is_one_trace_with_a_span_for_each_stage(stack, client, live):
    trace = trace_of(client, "flights", live["run"])
    root, *spans = sorted(trace.data.spans, key=lambda span: (span.parent_id is not None, span.start_time_ns))
    assert {span.name for span in spans} == {stage.name for stage in STAGES}
    assert all(span.parent_id == root.span_id and span.status.status_code == "OK" for span in spans)
    assert root.start_time_ns <= spans[0].start_time_ns and root.end_time_ns == spans[-1].end_time_ns
    (trained,) = (span for span in spans if span.name == "train")
    assert trained.outputs["package"] == live["body"]["package"]
    assert trained.inputs["validate"]["passed"] is True
    tracked = stack.place().state(live["run"]).fact("train")["tracked_run"]
    (shown,) = client.search_traces(locations=[trace.info.experiment_id], run_id=tracked)
    assert shown.info.trace_id == trace.info.trace_id, "on the page of the run as well"


def test_a_stage_that_fails_says_why_in_its_span(stack, client, staged):
    stack.gatehouse("gate", "check", "--run", staged, expected=(4,))
    (span,) = (one for one in trace_of(client, "flights", staged).data.spans if one.name == "gate production")
    assert span.status.status_code == "ERROR"
    assert "approval(s) missing" in span.status.description


def test_every_version_has_its_card_beside_bytes_that_are_still_the_approved_ones(stack, client, live, tmp_path):
    place, package = stack.place(), live["body"]["package"]
    own = next(row for row in stack.json("ledger", "show", "--run", live["run"]) if row["kind"] == "model.registered")
    for body, words in ((own["body"], "None yet"), (live["body"], "| grace |")):
        version = client.get_model_version(body["model"], body["version"])
        assert words in version.description and "Intended use" in version.description
        folder = place.mlflow.download(body["uri"], tmp_path / body["model"])
        assert (folder / "README.md").read_text() == version.description
        assert digest_tree(folder / "package") == package
        family = client.get_registered_model(body["model"])
        assert "Gatehouse's ledger" in family.description and family.tags["gatehouse.project"] == "flights"
    assert client.get_registered_model("prod.flights").tags["gatehouse.environment"] == "production"


def test_run_and_model_lead_to_each_other_to_their_data_and_to_what_was_measured(stack, client, live):
    facts = {row["kind"]: row["body"] for row in stack.json("ledger", "show", "--run", live["run"])}
    trained = facts["model.trained"]
    run = client.get_run(trained["tracked_run"])
    assert {entry.dataset.name for entry in run.inputs.dataset_inputs} == {"train", "holdout"}
    assert [f"models:/{output.model_id}" for output in run.outputs.model_outputs] == [trained["uri"]]
    assert any(name.startswith("system/") for name in run.data.metrics)
    model = client.get_logged_model(trained["uri"].removeprefix("models:/"))
    shown = {metric.key: metric.value for metric in model.metrics}
    assert shown["holdout_auc"] == pytest.approx(facts["model.evaluated"]["metrics"]["auc"])


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory):
    """An MLflow server with workspaces, one of them ours."""
    home = tmp_path_factory.mktemp("workspaces")
    port = processes.port("workspaces", home)
    url = f"http://{processes.HOST}:{port}"
    argv = [sys.executable, "-m", "mlflow", "server", "--host", processes.HOST, "--port", str(port), "--workers", "1"]
    argv += ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", str(home / "artifacts")]
    env = processes.clean_environment(home) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    processes.spawn("workspaces", [*argv, "--serve-artifacts", "--enable-workspaces"], home, env)
    processes.wait_for_http(f"{url}/health", "workspaces", home, 180)
    requests.post(f"{url}/api/3.0/mlflow/workspaces", json={"name": WORKSPACE}, timeout=30).raise_for_status()
    yield url
    processes.stop("workspaces", home)


def test_it_works_in_a_workspace_of_its_own_and_leaves_nothing_in_another(stack, workspaces):
    settings = stack.home / "workspace.toml"
    text = (stack.home / "settings.toml").read_text()
    line = f'uri = "{stack.place().settings.mlflow.uri}"'
    assert line in text
    settings.write_text(text.replace(line, f'uri = "{workspaces}"\nworkspace = "{WORKSPACE}"'))
    run = "in-a-workspace"
    stack.open(run, "--train", "2013-01..2013-02", "--holdout", "2013-03", settings=settings)
    stages = ("validate", "train", "evaluate", "register")
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS, str(settings), run, *stages], capture_output=True, text=True
    )
    assert done.returncode == 0 and "trace" not in done.stderr, done.stderr

    def names(workspace):
        found = requests.get(
            f"{workspaces}/api/2.0/mlflow/registered-models/search",
            headers={"X-MLFLOW-WORKSPACE": workspace},
            timeout=30,
        )
        return [model["name"] for model in found.json().get("registered_models", [])]

    assert names(WORKSPACE) == ["flights"]
    assert names("default") == []


def test_a_project_runs_as_an_mlflow_project(stack, client, tmp_path):
    project = tmp_path / "flights"
    shutil.copytree(FLIGHTS, project, ignore=shutil.ignore_patterns("__pycache__"))
    stack.gatehouse("export", "mlproject", "--project", str(project))
    stack.gatehouse("export", "mlproject", "--project", str(project), "--check")
    env = {
        **os.environ,
        "GATEHOUSE_SETTINGS": str(stack.home / "settings.toml"),
        "GATEHOUSE_RUN": "as-an-mlproject",
        "MLFLOW_TRACKING_URI": stack.place().settings.mlflow.uri,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    words = ["-P", "until=validate", "-P", "train=2013-01..2013-02", "-P", "holdout=2013-03"]
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "run", ".", "--env-manager", "local", *words],
        cwd=project,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    opened, *rest = stack.json("ledger", "show", "--run", "as-an-mlproject")
    assert opened["body"]["windows"] == {"train": "2013-01..2013-02", "holdout": "2013-03"}
    assert [row["kind"] for row in rest] == ["data.ingested", "data.validated"]
