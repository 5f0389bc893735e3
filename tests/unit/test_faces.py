"""Generated files: sealed, never written over somebody's work; dvc.yaml is the stage graph."""

from __future__ import annotations

import pytest
import yaml

from pipeline.errors import IntegrityViolated, UsageError
from pipeline.faces import dvc, generated
from pipeline.graph import STAGES

FILES = {"project.toml": "", "late.py": "", 'a "quoted" name.md': ""}
KEYS = ("name", "source", "window", "training", "policy", "somebodys")
BY_NAME = {stage.name: stage.slug for stage in STAGES}


@pytest.fixture
def stages():
    return yaml.safe_load(dvc.text(FILES, KEYS))["stages"]


def test_dvc_yaml_has_every_stage_of_the_graph_in_its_order_and_one_that_checks(stages):
    assert list(stages) == [*BY_NAME.values(), "ledger"]
    for stage in STAGES:
        found = stages[BY_NAME[stage.name]]
        assert found["cmd"] == f"gatehouse dvc stage {BY_NAME[stage.name]}"
        assert found["outs"] == [f"facts/{BY_NAME[stage.name]}.json"]
        assert found["deps"] == [f"facts/{BY_NAME[name]}.json" for name in stage.reads] or not stage.reads
        assert ("exit code 4" in found.get("desc", "")) is stage.gate


def test_the_first_stage_depends_on_every_file_and_the_last_is_never_skipped(stages):
    assert set(stages["ingest"]["deps"]) == set(FILES)
    assert stages["ledger"]["always_changed"] is True
    assert len(stages["ledger"]["deps"]) == len(STAGES)


def test_every_key_of_the_project_is_a_parameter_of_one_stage(stages):
    claimed = [key for stage in stages.values() for file in stage.get("params", ()) for key in file["project.toml"]]
    assert sorted(claimed) == sorted(KEYS)


def test_a_generated_file_is_written_once(tmp_path):
    file = tmp_path / "a" / "file"
    text = generated.seal("one\n")
    assert generated.write(file, text)
    assert not generated.write(file, text)
    generated.check(file, text)
    assert generated.write(file, generated.seal("two\n"))
    assert file.read_text(encoding="utf-8").endswith("two\n")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text + "mine\n", "edited by hand"),
        (lambda _: "mine\n", "not written by gatehouse"),
        (lambda _: "", "not written by gatehouse"),
    ],
)
def test_somebodys_work_is_never_overwritten(tmp_path, change, why):
    file = tmp_path / "file"
    file.write_text(change(generated.seal("one\n")), encoding="utf-8")
    before = file.read_bytes()
    with pytest.raises(UsageError, match=why):
        generated.write(file, generated.seal("two\n"))
    assert file.read_bytes() == before


def test_the_check_says_what_is_wrong_and_shows_the_difference(tmp_path):
    file = tmp_path / "file"
    with pytest.raises(IntegrityViolated, match="missing"):
        generated.check(file, generated.seal("one\n"))
    generated.write(file, generated.seal("one\n"))
    with pytest.raises(IntegrityViolated, match=r"out of date(.|\n)*-one\n(.|\n)*\+two"):
        generated.check(file, generated.seal("two\n"))
    file.write_text(file.read_text(encoding="utf-8") + "mine\n", encoding="utf-8")
    with pytest.raises(IntegrityViolated, match=r"edited by hand(.|\n)*-mine"):
        generated.check(file, generated.seal("one\n"))
