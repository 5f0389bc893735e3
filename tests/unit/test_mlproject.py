"""MLproject follows from the stage graph, and a generated file is never silently another one."""

from __future__ import annotations

import pytest
import yaml

from pipeline.errors import IntegrityViolated, UsageError
from pipeline.faces import generated, mlproject
from pipeline.graph import STAGES

TEXT = mlproject.text("flights", "2013-01..2013-06", "2013-07")


def test_every_stage_is_an_entry_point_with_its_own_command_and_the_run_as_the_only_baton():
    project = yaml.safe_load(TEXT)
    entries = project["entry_points"]
    assert list(entries) == ["main", *(stage.slug for stage in STAGES)]
    for stage in STAGES:
        entry = entries[stage.slug]
        assert entry["command"].startswith(f"gatehouse {' '.join(stage.command)} --run {{run}}")
        assert "default" not in entry["parameters"]["run"]
        assert (set(entry["parameters"]) == {"run"}) == bool(stage.reads)
    main = entries["main"]
    gate = next(number for number, stage in enumerate(STAGES) if stage.gate)
    assert main["parameters"]["until"]["default"] == STAGES[gate - 1].name, "up to the gate, which a person opens"
    assert main["parameters"]["train"]["default"] == "2013-01..2013-06"


def test_mlflow_itself_reads_it(tmp_path):
    from mlflow.projects import utils

    (tmp_path / "MLproject").write_text(TEXT)
    entry = utils.load_project(str(tmp_path)).get_entry_point("main")
    command = entry.compute_command({"train": "2013-01; rm -rf /"}, str(tmp_path))
    assert "--train '2013-01; rm -rf /'" in command and "--until 'verify staging'" in command


def test_an_edit_by_hand_shows_and_is_not_overwritten(tmp_path):
    file = tmp_path / "MLproject"
    with pytest.raises(IntegrityViolated, match="missing"):
        generated.check(file, TEXT)
    assert generated.write(file, TEXT) and not generated.write(file, TEXT)
    generated.check(file, TEXT)
    newer = mlproject.text("flights", "2013-02..2013-06", "2013-07")
    with pytest.raises(IntegrityViolated, match="out of date"):
        generated.check(file, newer)
    assert generated.write(file, newer)
    file.write_text(newer.replace("gatehouse validate", "gatehouse skip"))
    with pytest.raises(IntegrityViolated, match="edited by hand"):
        generated.check(file, newer)
    with pytest.raises(UsageError, match="gatehouse skip"):
        generated.write(file, newer)
