"""A version made anew from the ledger's record: the same weights, or a difference that is explained."""

from __future__ import annotations

import json
import shutil

import psycopg2
import pytest

from pipeline.domain.events import Draft

from .conftest import started

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Of its own: forged records would make its staging unusable for others."""
    with started(tmp_path_factory.mktemp("reproduced")) as stack:
        yield stack


@pytest.fixture(scope="module")
def made(stack):
    stack.until("promote staging", "made")
    return "made"


def forged(stack, version, **changed):
    """A version whose run is a copy of `made`, with parts of its training record replaced."""
    place = stack.place()
    with place.ledger.transaction() as transaction:
        for event in transaction.events(run="made"):
            body = dict(event.body)
            if event.kind == "model.trained":
                body |= {
                    key: {**body[key], **value} if isinstance(value, dict) else value for key, value in changed.items()
                }
            if event.kind == "model.promoted":
                body["version"] = version
            transaction.append(Draft(event.kind, event.actor, body, version, event.model, event.environment))
    return version


def reproduce(stack, version, *words, expected=(0,)):
    return stack.gatehouse("reproduce", "--version", version, "--env", "staging", *words, expected=expected)


def test_the_weights_and_the_package_come_out_the_same_in_an_empty_folder(stack, made, tmp_path):
    found = json.loads(reproduce(stack, "1", "--out", str(tmp_path / "anew"), "--json").stdout)
    assert found["same"] and found["differences"] == []
    assert found["package"]["recorded"] == found["package"]["made anew"]
    assert found["weights"]["made anew"] == json.loads((tmp_path / "anew" / "result.json").read_text())["weights"]
    job = json.loads((tmp_path / "anew" / "job.json").read_text())
    assert job["commit"] and "flights.py" in job["files"]


def test_other_weights_are_said_to_be_other_with_what_differed(stack, made):
    other = "sha256:" + "0" * 64
    hardware = forged(stack, "other-machine", weights=other, environment={"hardware": {"machine": "riscv64"}})
    assert "hardware machine: riscv64 then" in reproduce(stack, hardware, expected=(5,)).stderr


def test_libraries_that_cannot_be_had_any_more_are_named(stack, made):
    packages = stack.place().state("made").fact("train")["environment"]["packages"]
    version = forged(stack, "old-library", environment={"packages": {**packages, "numpy": "1.0.0.dev0"}})
    refused = reproduce(stack, version, expected=(2,)).stderr
    assert "the recorded distributions cannot be installed" in refused and "numpy" in refused


def test_a_snapshot_that_is_gone_is_read_from_the_source_again_and_must_be_the_same(stack, made):
    fact = stack.place().state("made").fact("ingest")["parts"]["train"]
    shutil.rmtree(stack.home / "cache")
    gone = [path for path in (stack.home / "artifacts").rglob("*") if path.name == fact["uri"].rsplit("/", 1)[1]]
    assert gone
    for path in gone:
        path.unlink()
    said = reproduce(stack, "1")
    assert "reading the source again" in said.stderr + said.stdout
    assert "the same weights" in said.stdout

    with psycopg2.connect(stack.place().settings.sources["warehouse"].replace("+psycopg2", "")) as connection:
        cursor = connection.cursor()
        cursor.execute("UPDATE flights SET distance = distance + 1")
        assert cursor.rowcount > 0
    changed = reproduce(stack, "1", expected=(5,)).stderr
    assert "columns that differ: distance" in changed.replace("\n", " ")
