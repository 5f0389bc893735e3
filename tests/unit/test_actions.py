"""The workflow is the stage graph, is what GitHub's published schema allows, and hands nothing typed to a shell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.adapters.github_reviews import collect
from pipeline.bootstrap.faces import actions_text
from pipeline.bootstrap.runner import account_of
from pipeline.errors import ApprovalInvalid, UsageError
from pipeline.faces import actions
from pipeline.graph import STAGES

ROOT = Path(__file__).parents[2]
TEXT = actions.text("late", "projects/late train's", account_of)
JOBS = yaml.safe_load(TEXT)["jobs"]


def review(user, state="approved", comment="", environment="gatehouse-approval", kind="User"):
    about = [{"name": environment}]
    return {"state": state, "comment": comment, "environments": about, "user": {"login": user, "type": kind}}


def test_the_published_schema_allows_it(tmp_path):
    file = tmp_path / "gatehouse.yml"
    file.write_text(TEXT)
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(file)]
    assert subprocess.run(words, capture_output=True).returncode == 0
    file.write_text(TEXT.replace("runs-on", "runs_on"))
    assert subprocess.run(words, capture_output=True).returncode == 1


def test_it_has_every_stage_behind_what_it_reads_with_the_account_it_needs():
    assert list(JOBS) == ["tests", *(stage.slug for stage in STAGES)]
    for stage in STAGES:
        job = JOBS[stage.slug]
        assert job["name"] == stage.name
        assert job.get("needs", []) == [name.replace(" ", "-") for name in stage.reads]
        last = job["steps"][-1]
        assert f"pipeline {' '.join(stage.command)} --run" in last["run"]
        secret = {"line": "GATEHOUSE_SETTINGS", "approval": "GATEHOUSE_SETTINGS_APPROVAL"}
        wanted = secret.get(account_of(stage), "GATEHOUSE_SETTINGS_PRODUCTION")
        assert last["env"]["SETTINGS"] == f"${{{{ secrets.{wanted} }}}}"
        assert job.get("environment") == actions.ENVIRONMENTS.get(account_of(stage))


def test_no_expression_stands_in_a_script_and_no_action_is_used():
    for job in JOBS.values():
        for step in job["steps"]:
            assert "${{" not in step["run"]
            assert "uses" not in step
    assert all("secrets" not in json.dumps(step) for step in JOBS["tests"]["steps"])


def test_what_was_typed_reaches_the_command_whole(tmp_path):
    script = JOBS["ingest"]["steps"][-1]["run"].replace(".venv/bin/python -m pipeline", "show")
    show = tmp_path / "show"
    show.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    show.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RUNNER_TEMP": str(tmp_path), "SETTINGS": "a\nb"}
    env |= {"GATEHOUSE_RUN": "r", "PROJECT": "a b", "TRAIN": "$(touch hacked); '", "HOLDOUT": "", "SEED": "8"}
    env |= {"GITHUB_SERVER_URL": "https://git.example", "GITHUB_REPOSITORY": "mlops/flights", "GITHUB_RUN_ID": "7"}
    words = ["bash", "-eo", "pipefail", "-c", script]
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        *("ingest", "--run", "r", "--project", "a b"),
        *("--build", "https://git.example/mlops/flights/actions/runs/7"),
        *("--train", "$(touch hacked); '", "--set", "training.seed=8"),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["show"]


def test_a_project_is_named_from_the_top_of_the_repository():
    for path in (Path("/somewhere"), Path("../late")):
        with pytest.raises(UsageError, match="top of the repository"):
            actions_text(path)


def test_reviews_of_one_person_are_one_and_a_rejection_among_them_counts():
    found = collect(
        [
            review("hedy", comment="better"),
            review("grace", comment="looked at JFK"),
            review("grace", "rejected", "not this"),
            review("grace", environment="elsewhere"),
            review("ada", "pending"),
        ],
        "gatehouse-approval",
        "here",
    )
    assert [(one.user, one.approved, one.comment, one.count) for one in found] == [
        ("grace", False, "looked at JFK; not this", 2),
        ("hedy", True, "better", 1),
    ]


def test_an_app_is_no_person():
    with pytest.raises(ApprovalInvalid, match="no person"):
        collect([review("ci[bot]", kind="Bot")], "gatehouse-approval", "here")
