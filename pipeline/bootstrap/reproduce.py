"""Makes a model anew from what the ledger holds, in a clean folder and environment, and compares the weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.adapters import environment
from pipeline.bootstrap import rebuild
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.steps import source_of
from pipeline.domain.passport import promotion_of
from pipeline.domain.reproduction import Reproduction, differences, packages, requirements
from pipeline.domain.state import RunState
from pipeline.domain.window import Window
from pipeline.errors import GatehouseError, Unreachable, UsageError

# What a process needs of the one that starts it: where programs are, where pip finds packages, and the proxy to it.
_HANDED_ON = ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


def reproduce(
    place: Installation, where: str, model: str | None, version: str, *, fresh: bool, out: Path | None
) -> Reproduction:
    """Train a version once more, from its run's record alone.

    Args:
        where: environment whose version it is.
        fresh: install the recorded distributions into an environment of their own even if this one has the same.
        out: folder to work in, kept afterwards; None: one that is removed.

    Raises:
        UsageError: no such version, or the folder is not empty.
        IntegrityViolated: the training data is not there any more as it was recorded.
    """
    place.server(where)
    name = place.model_in(where, model)
    run = str(promotion_of(version, place.reader.events(model=name, environment=where)).run)
    state = place.state(run)
    place.reporter.note(f"version {version} of {name} was made by run {run}")
    if out is not None:
        if out.exists() and any(out.iterdir()):
            raise UsageError("the folder is not empty", where=str(out), fix="name a new one")
        out.mkdir(parents=True, exist_ok=True)
        return _in(place, state, out.resolve(), fresh=fresh)
    with place.cache.scratch() as scratch:
        return _in(place, state, Path(scratch).resolve(), fresh=fresh)


def _in(place: Installation, state: RunState, folder: Path, *, fresh: bool) -> Reproduction:
    trained = state.fact("train")
    _write_job(place, state, folder)
    recorded, here = trained.get("environment"), environment.describe()
    _bring_code(place, recorded, here, (state.opened or {})["code"].get("commit"), folder)
    python = _python(place, recorded, here, folder, fresh=fresh)
    made = _train(folder, python, place.project(state).settings.training.threads)
    return Reproduction(
        (trained["weights"], made["weights"]),
        (trained["package"], made["package"]),
        differences(recorded, made["environment"]),
    )


def _write_job(place: Installation, state: RunState, folder: Path) -> None:
    opened, trained = state.opened or {}, state.fact("train")
    part = state.fact("ingest")["parts"]["train"]
    _bring_rows(place, state, folder / rebuild.ROWS)
    job = {
        "run": state.run,
        "files": opened["files"],
        "changes": state.changes,
        "commit": opened["code"].get("commit"),
        "data": {"digest": part["digest"], "columns": part["columns"]},
        "parameters": {key: value for key, value in trained["parameters"].items() if key != "seed"},
    }
    (folder / rebuild.JOB).write_text(json.dumps(job, indent=2), encoding="utf-8")


def _bring_rows(place: Installation, state: RunState, path: Path) -> None:
    """The training snapshot; where it is gone, the source is read again and must give the same rows."""
    from pipeline.adapters import snapshot, source

    part = state.fact("ingest")["parts"]["train"]
    try:
        shutil.copyfile(place.artifact(part["file"], part["uri"]), path)
    except Unreachable:
        raise
    except GatehouseError as error:
        place.reporter.note(f"the snapshot is gone ({error.what}); reading the source again")
        project = place.project(state)
        with source.read(source_of(place, project), Window.parse(part["window"])) as batches:
            snapshot.write(batches, path)
        snapshot.read(path, part["digest"], part["columns"])  # names the columns that differ


def _bring_code(
    place: Installation,
    recorded: Mapping[str, Any] | None,
    here: Mapping[str, Any],
    commit: str | None,
    folder: Path,
) -> None:
    """Gatehouse's own code as it was: the present one if it is the same, or that of the run's commit."""
    if recorded is None or here["gatehouse"] == recorded["gatehouse"]:
        environment.copy_code(folder)
    elif commit is not None and environment.check_out(commit, folder) == recorded["gatehouse"]:
        place.reporter.note(f"Gatehouse itself has changed since: this is tried with that of {commit[:12]}")
    else:
        environment.copy_code(folder)
        place.reporter.note("Gatehouse has changed since and is not to be had as it was: tried with the present one")


def _python(
    place: Installation, recorded: Mapping[str, Any] | None, here: Mapping[str, Any], folder: Path, *, fresh: bool
) -> Path:
    """A Python with the recorded distributions: this one if it has just those, else a new environment."""
    if recorded is None:
        place.reporter.note("the run did not record its environment: this is tried in the present one")
        return Path(sys.executable)
    if not fresh and packages(here) == packages(recorded) and here["python"] == recorded["python"]:
        place.reporter.note(f"this environment has the {len(packages(recorded))} recorded distributions, no other")
        return Path(sys.executable)
    lock = folder / "requirements.txt"
    lock.write_text("\n".join(requirements(recorded)) + "\n", encoding="utf-8")
    place.reporter.note(f"installing the {len(packages(recorded))} recorded distributions")
    _call([sys.executable, "-m", "venv", str(folder / "venv")], folder, "a new environment cannot be made")
    python = folder / "venv" / "bin" / "python"
    words = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    _call([*words, "-r", str(lock)], folder, "the recorded distributions cannot be installed")
    return python


def _train(folder: Path, python: Path, threads: int) -> dict[str, Any]:
    command = [str(python), "-m", "pipeline.bootstrap.rebuild", str(folder)]
    done = subprocess.run(command, cwd=folder, env=_environment(folder, threads), check=False, stderr=subprocess.PIPE)
    result = folder / rebuild.RESULT
    if done.returncode or not result.is_file():
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it says nothing"]
        raise GatehouseError(f"the training cannot be made anew: {last[0]}", where=str(folder))
    made: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return made


def _environment(folder: Path, threads: int) -> dict[str, str]:
    """Nothing of this process' own variables: a home, a Python path and a number of threads of its own."""
    kept = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    home = folder / "home"
    home.mkdir(exist_ok=True)
    own = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "MPLCONFIGDIR": str(home), "TMPDIR": str(home)}
    return kept | own | {"PYTHONPATH": str(folder), "PYTHONNOUSERSITE": "1", "OMP_NUM_THREADS": str(threads)}


def _call(command: list[str], folder: Path, failed: str) -> None:
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or "proxy" in name.lower()}
    done = subprocess.run(
        command, cwd=folder, env=_environment(folder, 1) | pip, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise UsageError(f"{failed}: {last}", where=str(folder), fix="pip's index must hold the recorded versions")
