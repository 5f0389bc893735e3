"""The graph: one order, every stage reachable, every stage a command."""

from __future__ import annotations

import subprocess
import sys

from pipeline.bootstrap.steps import STEPS
from pipeline.graph import BY_NAME, STAGES


def test_every_stage_reads_only_stages_before_it():
    seen = set()
    for stage in STAGES:
        assert set(stage.reads) <= seen
        seen.add(stage.name)


def test_every_stage_has_its_step_and_no_step_is_left_over():
    assert list(STEPS) == [stage.name for stage in STAGES]


def test_production_is_behind_the_gate_and_the_gate_is_behind_staging():
    assert BY_NAME["promote production"].reads == ("gate production",)
    assert BY_NAME["gate production"].reads == ("verify staging",)
    assert [stage.name for stage in STAGES if stage.gate] == ["gate production"]


def test_every_stage_is_a_command_that_takes_the_run_id():
    for command in {stage.command[:2] if stage.gate else stage.command[:1] for stage in STAGES}:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *command, "--help"], capture_output=True, text=True, check=True
        )
        assert "--run" in done.stdout
