"""What carries a face of the line: a machine with DVC, Kubeflow's local runner."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml


class Machine:
    """One machine with DVC: a home of its own, a cache of its own, and an installation's settings."""

    def __init__(self, folder, settings):
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.settings = settings

    def __call__(self, *words, cwd, expected=(0,), **more):
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home),
            "DVC_SITE_CACHE_DIR": str(self.home / "site"),
            "DVC_NO_ANALYTICS": "true",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GATEHOUSE_SETTINGS": str(self.settings),
            **more.pop("env", {}),
        }
        done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, **more)
        assert done.returncode in expected, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def init_dvc(self, folder, *words):
        """A repository of DVC's that asks nobody for news."""
        self("dvc", "init", "-q", *words, cwd=folder)
        config = folder / ".dvc" / "config"
        before = config.read_text(encoding="utf-8") or "[core]\n"
        config.write_text(f"{before}    analytics = false\n    check_update = false\n", encoding="utf-8")


def run_locally(path, settings, tmp_path, **arguments):
    """Carry a compiled Kubeflow pipeline out in processes on this machine; answers its outputs."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATEHOUSE_SETTINGS", str(settings))
        # It puts this into a shell's command as it is, and a checkout may stand in a folder with a space.
        patch.setattr(sys, "executable", shlex.quote(sys.executable))
        warnings.simplefilter("ignore", UserWarning)
        from kfp import components, local

        local.init(
            runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"), raise_on_error=True
        )
        return components.load_component_from_file(str(path))(**arguments).outputs


def part(compiled, path, *stages, cached=None):
    """A compiled pipeline with some of its stages only, of which some are answered by a cache: name and digest."""
    pipeline, platform = yaml.safe_load_all(compiled.read_text())
    dag = pipeline["root"]["dag"]
    kept = {"name-the-run", *stages}
    dag["tasks"] = {name: task for name, task in dag["tasks"].items() if name in kept}
    for task in dag["tasks"].values():
        task["dependentTasks"] = [name for name in task.get("dependentTasks", ()) if name in kept]
    if "register" not in kept:
        del (
            dag["outputs"]["parameters"]["registered"],
            pipeline["root"]["outputDefinitions"]["parameters"]["registered"],
        )
    for stage, digest in (cached or {}).items():
        command = pipeline["deploymentSpec"]["executors"][f"exec-{stage}"]["container"]["command"]
        body = command[-1].index("def first_stage")
        command[-1] = command[-1][:body] + (
            "def first_stage(stage: str, command: list[str], run: str, project: str, train: str, holdout: str)"
            f" -> NamedTuple('Outputs', [('digest', str)]):\n    return ({digest!r},)\n"
        )
    path.write_text(yaml.safe_dump_all([pipeline, platform]))
    return path
