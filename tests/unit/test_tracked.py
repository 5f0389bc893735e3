"""What a run has in a DVC remote, and what collection may take."""

from __future__ import annotations

import sys

import pytest
import yaml

from pipeline.adapters.dvc_remote import DvcRemote
from pipeline.config.reading import validate
from pipeline.config.settings import DvcSettings
from pipeline.domain.events import GENESIS, Draft, link
from pipeline.domain.tracked import COLLECTED, PUSHED, latest, pointer, unneeded
from pipeline.errors import UsageError


def push(run, oids, added, remote="/a"):
    output = {"name": "train.parquet", "md5": oids[-1], "size": 1, "files": None, "digest": "sha256:0", "objects": oids}
    return Draft(PUSHED, "line", {"remote": remote, "outputs": [output], "added": added}, run)


def collected(oids, remote="/a"):
    return Draft(COLLECTED, "ops", {"remote": remote, "objects": oids})


def events(*drafts):
    made = [
        link(draft, seq=seq, at="2026-11-23T20:00:00.000000Z", previous=GENESIS) for seq, draft in enumerate(drafts)
    ]
    return [row.event() for row in made]


def test_only_what_gatehouse_put_there_and_nobody_needs_goes():
    history = events(push("old", ["a", "b", "theirs"], ["a", "b"]), push("new", ["b", "c"], ["c"]))
    assert unneeded(history, {"new"}, "/a") == {"a": "old"}
    assert unneeded(history, {"old", "new"}, "/a") == {}
    assert unneeded(history, set(), "/b") == {}


def test_what_is_needed_under_another_address_of_the_same_storage_stays():
    history = events(push("old", ["a"], ["a"]), push("new", ["a"], [], remote="/mounted/elsewhere"))
    assert unneeded(history, {"new"}, "/a") == {}


def test_what_was_collected_is_gone_until_it_is_pushed_again():
    first = (push("old", ["a"], ["a"]), collected(["a"]))
    assert unneeded(events(*first), set(), "/a") == {}
    assert latest("old", "/a", events(*first)) is None
    again = events(*first, push("old", ["a"], ["a"]))
    assert unneeded(again, set(), "/a") == {"a": "old"}
    assert latest("old", "/a", again) is not None
    assert latest("old", "/a", events(*first[:1], collected(["a"], remote="/b"))) is not None


def test_without_dvc_the_fix_is_the_one_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dvc", None)
    monkeypatch.setitem(sys.modules, "dvc.fs", None)
    with pytest.raises(UsageError) as refused:
        DvcRemote(str(tmp_path), {}).push([])
    assert refused.value.fix == "pip install 'gatehouse[dvc]'"


def test_a_pointer_is_what_dvc_reads():
    output = {"name": "package", "md5": "ab.dir", "size": 7, "files": 3, "digest": "sha256:0"}
    found = yaml.safe_load(pointer(output, 'a "run"', "ours"))
    assert found["outs"] == [
        {"md5": "ab.dir", "size": 7, "nfiles": 3, "hash": "md5", "path": "package", "remote": "ours"}
    ]
    assert found["meta"] == {"gatehouse": {"run": 'a "run"', "digest": "sha256:0"}}


@pytest.mark.parametrize(
    ("remote", "options", "why"),
    [
        ("gs://bucket", {}, "absolute folder"),
        ("a/folder", {}, "absolute folder"),
        ("ssh://ada:hunter2@host/x", {}, "credentials"),
        ("ssh://host/x", {"password": "hunter2"}, "credentials"),
        ("s3://bucket", {"endpointurl": "https://s3", "secret_access_key": "hunter2"}, "credentials"),
        ("s3://bucket", {"endpointurl": "https://ada:hunter2@s3"}, "credentials"),
        ("s3://bucket", {}, "endpointurl"),
    ],
)
def test_a_remote_elsewhere_or_with_credentials_is_refused(remote, options, why):
    with pytest.raises(UsageError) as refused:
        validate(DvcSettings, {"remote": remote, "options": options}, "settings.toml")
    assert why in refused.value.what
    assert "hunter2" not in refused.value.what + refused.value.where + refused.value.fix
