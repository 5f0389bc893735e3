"""The walk from a notebook to a pipeline, as its README tells it: every block of commands, in order, in one folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

WALK = Path(__file__).parents[2] / "pipeline" / "examples" / "walkthrough"
STEPS = (WALK / "README.md").read_text().split("\n### ")[1:]
BLOCKS = [(step.partition(".")[0], "".join(re.findall(r"```sh\n(.*?)```", step, re.DOTALL))) for step in STEPS]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk") / "my own place"
    shutil.copytree(WALK, folder)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "GATEHOUSE_SETTINGS": str(folder / ".gatehouse" / "settings.toml")}
    said = {}
    try:
        for step, commands in BLOCKS:
            words = ["bash", "-euo", "pipefail", "-c", commands]
            done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300)
            assert done.returncode == 0, f"step {step}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            said[int(step)] = done.stdout + done.stderr
        yield folder, said
    finally:
        subprocess.run([sys.executable, "-m", "pipeline", "down"], cwd=folder, env=env, check=False)


def test_every_step_that_has_commands_was_run(walked):
    assert list(walked[1]) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_the_notebook_flatters_itself_and_production_is_approved_by_somebody_else(walked):
    folder, said = walked
    assert float(re.search(r"AUC (0\.\d+)", said[1])[1]) > 0.6
    assert (folder / "first-evidence" / "evidence.html").is_file()
    assert "1 approval(s) missing" in said[3] and "approved by grace" in said[3]
    assert "the same weights" in said[4]


def test_august_is_drift_and_its_challenger_waits_beside_the_champion(walked):
    folder, said = walked
    assert "drift was found" in said[5] and "a loss of 0.07" in said[5]
    assert (folder / "august" / "monitor.html").is_file()
    assert "second: " in said[6]
    evidence = (folder / "third-evidence" / "evidence.html").read_text()
    assert "hidden" in evidence


def test_other_runners_get_files_that_are_held_to_the_graph_and_reviewers_a_report(walked):
    folder, said = walked
    assert (folder / ".github" / "workflows" / "gatehouse.yml").is_file()
    assert "+    cmd: gatehouse dvc stage gate-production" in said[7]
    report = (folder / "report.md").read_text()
    assert "The target branch's newest run is `second`." in report
    assert "| auc |" in report
