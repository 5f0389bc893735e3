"""The line with each framework beside PyTorch: from the data to a server that answers, on the real stack."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.bootstrap.scaffold import scaffold
from tests.integration.conftest import started

ROOT = str(Path(__file__).parents[2])
SETS = (
    "evaluation.resamples=50",
    "policy.metric=[{metric='auc', min=0.5}]",
    "policy.slice=[]",
    "window.train='2013-01-01..2013-02-10'",
    "window.holdout='2013-02-11..2013-02-20'",
)
SMALL = {
    "keras": ("training.parameters={epochs=2, refit=true, hidden=8}", "keras", "tensorflow"),
    "sklearn": ("training.parameters={max_iter=10}", "sklearn", "skl2onnx"),
    "lightgbm": ("training.parameters={n_estimators=20, learning_rate=0.05}", "lightgbm", "lightgbm"),
    "pyfunc": ("training.parameters={strength=20.0}", None, "mlflow"),
}
# The stages in one process: what each alone costs is told by the tests of the line.
LINE = """
    import os, sys
    from pathlib import Path
    sys.path.insert(0, {root!r})
    from pipeline.bootstrap import runner
    from pipeline.bootstrap.installation import Installation
    from pipeline.config import load_settings
    from pipeline.graph import STAGES
    place = Installation(load_settings(Path(os.environ["GATEHOUSE_SETTINGS"])))
    run, project, until, *sets = sys.argv[1:]
    runner.open_run(place, Path(project), run, None, None, sets)
    for stage in STAGES:
        runner.execute(place, stage.name, run)
        if stage.name == until:
            break
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with started(tmp_path_factory.mktemp("frameworks")) as stack:
        yield stack


@pytest.fixture(scope="module")
def run(stack, tmp_path_factory):
    """A run of a framework's small project until a stage, made once; answers the facts by kind of event."""
    home = tmp_path_factory.mktemp("projects")

    def run(name, until="verify staging"):
        parameters, extra, module = SMALL[name]
        if find_spec(module) is None:
            pytest.skip(f"needs pip install 'gatehouse[{extra}]'")
        project = f"small-{name}"
        if not (home / project).exists():
            scaffold(home, project, name)
            words = [f"run-{name}", str(home / project), until, *SETS, parameters]
            done = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(LINE.format(root=ROOT)), *words],
                env={**os.environ, "GATEHOUSE_SETTINGS": str(stack.home / "settings.toml")},
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr
        events = stack.json("ledger", "show", "--run", f"run-{name}")
        return {event["kind"]: event["body"] for event in events}

    return run


@pytest.mark.parametrize("name", SMALL)
def test_the_line_carries_it_to_a_server_that_answers_as_it_did_offline(name, run, stack):
    facts = run(name)
    trained = facts["model.trained"]
    assert trained["training"]["framework"] == name
    assert trained["parity"]["max_abs_difference"] <= 1e-5
    assert facts["model.evaluated"]["metrics"]["auc"] > 0.5
    assert facts["model.verified"]["package"] == trained["package"]
    assert {"numpy", "onnx", "onnxruntime"} <= set(trained["training"]["libraries"])
    assert trained.get("isolated", False) == (name == "pyfunc")
    assert stack.evidence(f"run-{name}")["relies_on"][0]["auc_lost"] > 0


@pytest.mark.parametrize(
    ("name", "flavor", "kind"), [("keras", "keras", "Functional"), ("lightgbm", "lightgbm", "Booster")]
)
def test_mlflow_reads_the_frameworks_own_format(name, flavor, kind, run, stack, tmp_path):
    uri = run(name)["model.trained"]["uri"]
    folder = stack.place().mlflow.download(uri, tmp_path)
    code = f"import mlflow.{flavor} as f; print(type(f.load_model({str(folder)!r})).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split()[-1:] == [kind], done.stderr


def test_production_refuses_a_pickle_until_its_operators_allow_it(run, stack):
    run("pyfunc")
    refused = stack.gatehouse("gate", "check", "--run", "run-pyfunc", expected=(3,))
    assert "pickle" in refused.stderr and "production = true" in refused.stderr
    assert "gate.opened" not in stack.kinds("run-pyfunc")
    settings = (stack.home / "settings.toml").read_text()
    allowing = stack.home / "allowing.toml"
    allowing.write_text(f"{settings}\n[pyfunc]\nproduction = true\n")
    missing = stack.gatehouse("gate", "check", "--run", "run-pyfunc", settings=allowing, expected=(4,))
    assert "approval" in missing.stderr


def test_each_environments_server_is_told_whether_it_may_run_a_pickle(stack, monkeypatch):
    from pipeline.bootstrap import server as wiring
    from pipeline.bootstrap.installation import Installation
    from pipeline.config import load_settings
    from pipeline.serving import server

    told = []
    monkeypatch.setattr(server, "serve", lambda *words, isolated, **named: told.append(isolated))
    allowing = stack.home / "allowing.toml"
    allowing.write_text(f"{(stack.home / 'settings.toml').read_text()}\n[pyfunc]\nproduction = true\n")
    for environment, settings in (("staging", "settings"), ("production", "settings"), ("production", "allowing")):
        place = Installation(load_settings(stack.home / f"{settings}.toml"))
        wiring.serve(place, environment, "127.0.0.1", 0, None, None)
    assert told == [True, False, True]


def test_the_evidence_says_that_a_package_runs_isolated(run, stack, tmp_path):
    uri = run("pyfunc")["model.evaluated"]["uri"]
    page = stack.place().mlflow.download(uri.rpartition("/")[0], tmp_path)
    pages = "".join(path.read_text() for path in Path(page).rglob("*.html"))
    assert "runs isolated" in pages


def test_a_run_whose_lock_names_another_version_is_refused(stack, tmp_path):
    scaffold(tmp_path, "locked", "torch")
    (tmp_path / "locked" / "requirements.lock").write_text("torch==1.0.0\n")
    options = [word for text in SETS for word in ("--set", text)]
    project = str(tmp_path / "locked")
    done = stack.gatehouse(
        "run", "--run", "run-locked", "--project", project, "--until", "train", *options, expected=(2,)
    )
    assert "1.0.0 is locked" in done.stderr and "pip install -r requirements.lock" in done.stderr
