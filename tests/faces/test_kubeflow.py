"""The line as a Kubeflow pipeline: the compiled file, and the same file carried out by Kubeflow's own local runner."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import redirect_stdout

import pytest
import yaml

from pipeline.graph import BY_NAME, STAGES
from tests.faces.carriers import part, run_locally
from tests.faces.late import write_project

pytestmark = pytest.mark.integration

KUBEFLOW = """
image = "registry.example/python-gatehouse:1"
project = "/projects/late"
retries = 3
gate_seconds = 300
settings = { line = "gatehouse-line", approval = "gatehouse-approval", promotion = "gatehouse-promotion" }
secrets = [{ name = "company-ca", path = "/etc/company" }]
volumes = [{ name = "flights", path = "/data", stages = ["ingest"] }]

[resources]
light = { cpu = "250m", memory = "800Mi" }
stages = { train = { cpu = "8", memory = "16Gi" } }
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The walkthrough's project beside a `kubeflow.toml`."""
    project = write_project(tmp_path_factory.mktemp("late project"))
    (project / "kubeflow.toml").write_text(KUBEFLOW)
    return project


@pytest.fixture(scope="module")
def compiled(stack, project):
    stack.gatehouse("export", "kubeflow", "--project", str(project))
    return project / "kubeflow.yaml"


@pytest.fixture(scope="module")
def spec(compiled):
    """The pipeline and its platform spec."""
    return tuple(yaml.safe_load_all(compiled.read_text()))


# --- the file ---------------------------------------------------------------------------------------------


def test_it_is_a_pipeline_with_every_stage_behind_what_it_reads(spec):
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    message = json_format.ParseDict(spec[0], pipeline_spec_pb2.PipelineSpec())
    tasks = message.root.dag.tasks
    assert set(tasks) == {stage.slug for stage in STAGES} | {"name-the-run"}
    for stage in STAGES:
        task = tasks[stage.slug]
        assert task.task_info.name == stage.name
        assert set(task.dependent_tasks) == {BY_NAME[name].slug for name in stage.reads} | {"name-the-run"}
        assert list(task.inputs.parameters["command"].runtime_value.constant.list_value) == list(stage.command)


def test_a_cache_answers_for_data_and_models_only_and_hands_on_what_can_be_checked(spec):
    tasks = spec[0]["root"]["dag"]["tasks"]
    for stage in STAGES:
        task = tasks[stage.slug]
        assert bool(task["cachingOptions"].get("enableCache")) == (stage.environment is None), stage.name
        assert task["retryPolicy"]["maxRetryCount"] == 3
        if stage.reads and BY_NAME[stage.reads[0]].environment is None:
            source = task["inputs"]["parameters"]["digest"]["taskOutputParameter"]
            assert source == {"outputParameterKey": "digest", "producerTask": stage.reads[0]}
    assert not tasks["name-the-run"]["cachingOptions"].get("enableCache")


def test_image_resources_secrets_and_volumes_are_as_configured(spec):
    pipeline, platform = spec
    executors = pipeline["deploymentSpec"]["executors"]
    on_kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for stage in STAGES:
        container = executors[f"exec-{stage.slug}"]["container"]
        assert container["image"] == "registry.example/python-gatehouse:1"
        assert {"name": "GATEHOUSE_SETTINGS", "value": "/etc/gatehouse/settings.toml"} in container["env"]
        wanted = ("8", "16Gi") if stage.name == "train" else ("2", "4Gi") if stage.heavy else ("250m", "800Mi")
        limits = container["resources"]
        assert (limits["resourceCpuLimit"], limits["resourceMemoryLimit"]) == wanted
        assert (limits["resourceCpuRequest"], limits["resourceMemoryRequest"]) == wanted
        mounted = {one["mountPath"]: one["secretName"] for one in on_kubernetes[f"exec-{stage.slug}"]["secretAsVolume"]}
        account = "approval" if stage.gate else "promotion" if stage.environment == "production" else "line"
        assert mounted == {"/etc/gatehouse": f"gatehouse-{account}", "/etc/company": "company-ca"}
        volumes = [one["mountPath"] for one in on_kubernetes[f"exec-{stage.slug}"].get("pvcMount", ())]
        assert volumes == (["/data"] if stage.name == "ingest" else [])
    assert "pip install" not in str(executors)


def test_the_file_is_checked_and_an_edit_by_hand_is_shown_and_never_lost(stack, project, compiled, tmp_path):
    words = ("export", "kubeflow", "--project", str(project))
    stack.gatehouse(*words, "--check")
    edited = tmp_path / "edited.yaml"
    edited.write_text(compiled.read_text().replace("maxRetryCount: 3", "maxRetryCount: 9", 1))
    done = stack.gatehouse(*words, "--check", "--out", str(edited), expected=(5,))
    assert "edited by hand" in done.stderr
    assert "-          maxRetryCount: 9" in done.stderr and "+          maxRetryCount: 3" in done.stderr
    assert "maxRetryCount: 9" in stack.gatehouse(*words, "--out", str(edited), expected=(2,)).stderr
    assert "maxRetryCount: 9" in edited.read_text()


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ("retries = 3", "retrys = 3", "did you mean 'retries'"),
        ('memory = "800Mi"', 'memory = "800 megabytes"', "resources.light.memory"),
        ('stages = ["ingest"]', 'stages = ["ingst"]', "did you mean 'ingest'"),
        ('image = "registry.example/python-gatehouse:1"', "", "image"),
    ],
)
def test_a_wrong_kubeflow_toml_names_the_key(tmp_path, was, now, says):
    from pipeline.config.kubeflow import load_kubeflow
    from pipeline.errors import UsageError

    assert was in KUBEFLOW
    (tmp_path / "kubeflow.toml").write_text(KUBEFLOW.replace(was, now))
    with pytest.raises(UsageError) as refused:
        load_kubeflow(tmp_path / "kubeflow.toml")
    assert says in f"{refused.value.what} {refused.value.where} {refused.value.fix}"


def test_without_the_sdk_the_command_that_installs_it_is_named(stack, project, tmp_path):
    (tmp_path / "kfp.py").write_text("raise ImportError('not here')")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "export", "kubeflow", "--project", str(project)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'gatehouse[kubeflow]'" in done.stderr


# --- carried out ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(stack, project, compiled, tmp_path_factory):
    """A run that the whole pipeline brought into production, beside another face; its outputs and what was printed."""
    run, waiting, log = "kubeflow-1", [], tmp_path_factory.mktemp("log") / "other.txt"
    with log.open("w") as stream:
        other = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "run", "--run", run, "--project", str(project), "--until", "ingest"],
            env={**os.environ, "GATEHOUSE_SETTINGS": str(stack.settings_file)},
            stdout=stream,
            stderr=stream,
        )
    ended = threading.Event()

    def approve_when_it_waits():
        place = stack.place()
        while not ended.wait(0.2):
            if any(event.kind == "policy.judged" for event in place.reader.events(run=run)):
                waiting.append(stack.gatehouse("gate", "wait", "--run", run, "--timeout", "0", expected=(4,)).stderr)
                stack.approve(run)
                return

    approver = threading.Thread(target=approve_when_it_waits)
    approver.start()
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            outputs = run_locally(
                compiled, stack.settings_file, tmp_path_factory.mktemp("kfp"), run=run, project=str(project)
            )
    finally:
        ended.set()
        approver.join()
        print(printed.getvalue())
        code = other.wait()
    assert code == 0
    return run, outputs, printed.getvalue(), log.read_text(), waiting


def test_the_pipeline_brings_a_model_into_production(stack, done):
    run, outputs, _, _, _ = done
    assert outputs["run"] == run
    assert (
        outputs["registered"] == stack.gatehouse("ledger", "fact", "--run", run, "--stage", "register").stdout.strip()
    )
    status = stack.json("status")["environments"]["production"]
    assert (status["run"], status["serving"]) == (run, status["package"])


def test_the_gate_waits_for_a_person(stack, done):
    run, _, printed, _, waiting = done
    assert "gate production: waiting; may decide: grace, hedy" in printed
    assert "nobody let this run through within 0 s: 1 approval(s) missing" in waiting[0]
    kinds = stack.kinds(run)
    assert kinds.index("policy.judged") < kinds.index("approval.decided") < kinds.index("gate.opened")


def test_two_faces_at_one_run_take_turns_and_each_stage_is_done_once(stack, done):
    run, _, printed, other, _ = done
    assert "done already" in printed + other
    events = [(row["kind"], row["environment"]) for row in stack.json("ledger", "show", "--run", run)]
    assert all(events.count((stage.writes, stage.environment)) == 1 for stage in STAGES)


def test_what_a_cache_says_is_held_to_the_ledger(stack, done, compiled, tmp_path, capfd):
    run, _, _, _, _ = done
    known = stack.gatehouse("ledger", "fact", "--run", run, "--stage", "ingest").stdout.strip()
    true = part(compiled, tmp_path / "true.yaml", "ingest", "validate", cached={"ingest": known})
    run_locally(true, stack.settings_file, tmp_path, run=run)
    assert "validate: done already" in capfd.readouterr().out

    with pytest.raises(RuntimeError, match=r"FAILURE.*Inner task failed: .*validate"):
        run_locally(true, stack.settings_file, tmp_path, run="a-run-that-never-was")
    said = capfd.readouterr().out
    assert f"is said to have left {known}; the ledger has none" in said
    assert "exit code 5" in said

    lie = part(compiled, tmp_path / "lie.yaml", "ingest", "validate", cached={"ingest": "sha256:" + "0" * 64})
    with pytest.raises(RuntimeError, match=r"FAILURE.*Inner task failed: .*validate"):
        run_locally(lie, stack.settings_file, tmp_path, run=run)
    assert "exit code 5" in capfd.readouterr().out


def test_a_refusal_fails_the_task_with_its_exit_code(stack, project, compiled, tmp_path, capfd):
    strange = tmp_path / "strange"
    shutil.copytree(project, strange)
    text = (strange / "late.py").read_text()
    assert '"JFK", ' in text
    (strange / "late.py").write_text(text.replace('"JFK", ', ""))
    pipeline = part(compiled, tmp_path / "data.yaml", "ingest", "validate")
    with pytest.raises(RuntimeError, match=r"FAILURE.*Inner task failed: .*validate"):
        run_locally(
            pipeline, stack.settings_file, tmp_path, project=str(strange)
        )  # no run is given: it is named after the job
    said = capfd.readouterr().out
    assert "the data fails its checks" in said
    assert re.search(r"gatehouse validate --run \S+: exit code 3", said)


def test_a_rejected_run_fails_at_the_gate_with_exit_code_4(stack, done, compiled, tmp_path, capfd):
    run, _, _, _, _ = done
    stack.gatehouse("gate", "reject", "--run", run, "--reason", "a test", "--demo-identity", "hedy")
    with pytest.raises(RuntimeError, match=r"FAILURE.*Inner task failed: .*gate-production"):
        run_locally(part(compiled, tmp_path / "gate.yaml", "gate-production"), stack.settings_file, tmp_path, run=run)
    said = capfd.readouterr().out
    assert "rejected by hedy" in said
    assert "exit code 4" in said
