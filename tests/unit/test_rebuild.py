"""A training that is made anew begins as the first one did: what a library reads of the environment is told it first."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from pipeline.adapters import snapshot
from pipeline.bootstrap import rebuild
from pipeline.frameworks import registry
from pipeline.stages import train
from tests.faces.late import LATE


class FarEnough(Exception):
    pass


def test_the_framework_is_told_before_the_projects_own_module_imports_it(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise FarEnough

    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    for name in ("KERAS_BACKEND", "KERAS_HOME", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(registry, "import_module", lambda _: SimpleNamespace(Keras=lambda: None))
    monkeypatch.setattr(snapshot, "read", lambda *_: None)
    monkeypatch.setattr(snapshot, "columns", lambda _: {})
    monkeypatch.setattr(train, "fit", stop)
    files = {name: (LATE / name).read_text() for name in ("late.py", "project.toml")}
    files["late.py"] = f'import os\nassert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"\n{files["late.py"]}'
    files["project.toml"] = files["project.toml"].replace('"torch"', '"keras"')
    data = {"digest": "sha256:0", "columns": []}
    job = {"files": files, "changes": {}, "data": data, "parameters": {}}
    (tmp_path / rebuild.JOB).write_text(json.dumps(job))
    with pytest.raises(FarEnough):
        rebuild.rebuild(tmp_path)
