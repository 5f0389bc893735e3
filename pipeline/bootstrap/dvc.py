"""DVC: a run's snapshots and package in the company's own remote, and the line as stages of ``dvc.yaml``."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from pipeline.adapters.dvc_remote import DvcRemote
from pipeline.bootstrap.collect import RECENT, keeps
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.runner import execute, open_run
from pipeline.bootstrap.steps import package_folder
from pipeline.config import PROJECT_FILE, DvcSettings, Project, load_project
from pipeline.domain.canonical import digest_json
from pipeline.domain.events import Draft
from pipeline.domain.state import RunState
from pipeline.domain.tracked import COLLECTED, PUSHED, latest, pointer, unneeded
from pipeline.errors import IntegrityViolated, UsageError
from pipeline.faces import dvc as face
from pipeline.faces import generated
from pipeline.graph import STAGES, Stage

REMOTE = "gatehouse"
_ALWAYS = "0001"
_PUSHING = ("ingest", "register")
_LOCK = "dvc remote"


# --- objects ----------------------------------------------------------------------------------------------


def push(place: Installation, run: str) -> Mapping[str, Any]:
    """Bring what the run has so far into the remote, and record it. Run again, it checks what is there.

    Raises:
        IntegrityViolated: the cache, MLflow or the remote has other bytes than the ledger says.
    """
    settings, state = _settings(place), place.state(run)
    things = _things(place, state)
    with place.ledger.exclusive(_LOCK, lambda: place.reporter.note("somebody else works on the DVC remote; waiting")):
        with place.reporter.track(f"pushing run {run} to {settings.remote}"):
            pushed, added = _remote(settings).push(path for path, _ in things.values())
        outputs = [
            {
                "name": name,
                "digest": digest,
                "md5": output.md5,
                "size": output.size,
                "files": output.files,
                "objects": list(output.objects),
            }
            for (name, (_, digest)), output in zip(things.items(), pushed, strict=True)
        ]
        known = latest(run, settings.remote, _history(place))
        if known is None or added or known["outputs"] != outputs:
            body = {"remote": settings.remote, "outputs": outputs, "added": added}
            place.ledger.append(Draft(PUSHED, place.actor, body, run, state.model))
    return {"run": run, "remote": settings.remote, "outputs": outputs, "added": len(added)}


def pointers(place: Installation, run: str, out: Path) -> list[Path]:
    """Write the ``.dvc`` files of a run, and say what the reader's DVC configuration lacks.

    Raises:
        UsageError: nothing of the run is in the remote, or a file is somebody else's.
    """
    settings = _settings(place)
    place.state(run)
    pushed = latest(run, settings.remote, _history(place))
    if pushed is None:
        raise UsageError(
            f"nothing of this run is in {settings.remote}", where=f"run {run}", fix=f"gatehouse dvc push --run {run}"
        )
    name, missing = _configured(out, settings)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for output in pushed["outputs"]:
        path = out / f"{output['name']}.dvc"
        if path.exists() and "gatehouse:" not in path.read_text(encoding="utf-8"):
            raise UsageError("this pointer is not Gatehouse's", where=str(path), fix="name another folder with --out")
        path.write_text(pointer(output, run, name), encoding="utf-8")
        written.append(path)
    for command in missing:
        place.reporter.note(f"once, in that repository: {command}")
    return written


def collect(place: Installation, *, yes: bool) -> list[dict[str, str]]:
    """List, or with `yes` remove, what Gatehouse put into the remote and no run that stays needs; answers what."""
    settings = _settings(place)
    place = place.acting_as("promotion")
    with place.ledger.exclusive(_LOCK, lambda: place.reporter.note("somebody else works on the DVC remote; waiting")):
        since = (place.clock() - RECENT).isoformat()
        about_runs = place.reader.recent(("run.opened", "model.promoted"), _ALWAYS)
        kept = {event.run for event in about_runs if event.run and keeps(event, since)}
        found = unneeded(_history(place), kept, settings.remote)
        if yes and found:
            _remote(settings).remove(found)
            body = {"remote": settings.remote, "objects": sorted(found)}
            place.ledger.append(Draft(COLLECTED, place.actor, body))
    return [{"object": oid, "run": run} for oid, run in sorted(found.items())]


def _settings(place: Installation) -> DvcSettings:
    if place.settings.dvc is None:
        raise UsageError(
            "the installation has no DVC remote",
            where="settings: dvc",
            fix='[dvc] remote = "/a/folder, ssh:// or s3://"',
        )
    return place.settings.dvc


def _remote(settings: DvcSettings) -> DvcRemote:
    return DvcRemote(settings.remote, settings.options)


def _history(place: Installation) -> list[Any]:
    return place.reader.recent((PUSHED, COLLECTED), _ALWAYS)


def _things(place: Installation, state: RunState) -> dict[str, tuple[Path, str]]:
    """By name, each snapshot and the package: verified against the ledger, with its digest."""
    found: dict[str, tuple[Path, str]] = {}
    for part, fact in state.fact("ingest")["parts"].items():
        found[f"{part}.parquet"] = (place.artifact(fact["file"], fact["uri"]), fact["file"])
    if state.done("train"):
        trained = state.fact("train")
        found["package"] = (package_folder(place, trained["package"], trained["uri"]), trained["package"])
    return found


def _configured(out: Path, settings: DvcSettings) -> tuple[str, list[str]]:
    """Name of our remote in the DVC repository around `out`, and the commands that it still needs."""
    folder = out.resolve()
    config = next((up / ".dvc" / "config" for up in (folder, *folder.parents) if (up / ".dvc").is_dir()), None)
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    if config is not None:
        try:
            parser.read(config, encoding="utf-8")
        except configparser.Error as error:
            raise UsageError(f"DVC's configuration cannot be read: {error}", where=str(config)) from error
    for section in parser.sections():
        named = re.fullmatch(r"""'?remote "(.+)"'?""", section)
        if named and parser[section].get("url") == settings.remote:
            return named[1], []
    options = {**settings.options, "verify": "true"}
    return REMOTE, [
        *(() if config else ("dvc init (--no-scm outside git)",)),
        *(f"dvc config core.{key} false" for key in ("analytics", "check_update")),
        f"dvc remote add {REMOTE} {quote(settings.remote)}",
        *(f"dvc remote modify {REMOTE} {key} {quote(str(value))}" for key, value in options.items()),
    ]


# --- the line as dvc.yaml -----------------------------------------------------------------------------------


def export(path: Path) -> tuple[Path, str]:
    """Where a project's ``dvc.yaml`` belongs, and its text."""
    project = load_project(path)
    folder = path if path.is_dir() else path.parent
    keys = tomllib.loads(project.files[PROJECT_FILE])
    return folder / face.FILE, face.text(project.files, keys)


def run_of(project: Project) -> str:
    """The run of a project as it is now: its name and the digest of its text, so that a changed one is a new run."""
    digest = digest_json({"files": project.files, "changes": {}})
    return f"{project.settings.name}-{digest.partition(':')[2][:12]}"


def stage(place: Installation, path: Path, name: str) -> None:
    """Execute one stage of the project's own run for ``dvc repro``, and write its outputs.

    Raises:
        UsageError: no such stage.
        IntegrityViolated: ``dvc.yaml`` or an output of a stage before is not what Gatehouse wrote.
    """
    found = next((known for known in STAGES if known.slug == name), None)
    if found is None:
        listed = ", ".join(known.slug for known in STAGES)
        raise UsageError(f"no stage '{name}'", where="stage", fix=f"one of: {listed}")
    file, text = export(path)
    generated.check(file, text)
    run = run_of(load_project(path))
    if not found.reads:
        open_run(place, path, run, None, None, [])
    else:
        state = place.state(run)
        for needed in STAGES:
            if needed.name in found.reads:
                _hold(place, file.parent, state, needed)
    place.reporter.note(f"run {run}")
    execute(place, found.name, run)
    if place.settings.dvc is not None and found.name in _PUSHING:
        push(place, run)
    for output, content in _outputs(place, place.state(run), found).items():
        where = file.parent / output
        _make(where.parent)
        # A link into DVC's cache must not be written through.
        where.unlink(missing_ok=True)
        where.write_text(content, encoding="utf-8")


def _make(folder: Path) -> None:
    """The outputs' folder. DVC keeps git from them only after a whole repro, and that may wait days at the gate."""
    folder.mkdir(exist_ok=True)
    ignored = folder / ".gitignore"
    if not ignored.exists():
        names = "".join(f"/{Path(face.fact_file(known)).name}\n" for known in STAGES)
        ignored.write_text(names, encoding="utf-8")


def check(place: Installation, path: Path) -> str:
    """Hold ``dvc.yaml`` and every output that is there to the ledger; answers the run.

    Raises:
        IntegrityViolated: one of them is not what the ledger says.
    """
    file, text = export(path)
    generated.check(file, text)
    state = place.state(run_of(load_project(path)))
    for known in STAGES:
        if state.done(known.name):
            _hold(place, file.parent, state, known)
        elif (file.parent / face.fact_file(known)).exists():
            raise _lie(file.parent / face.fact_file(known), state)
    return state.run


def _hold(place: Installation, folder: Path, state: RunState, known: Stage) -> None:
    for output, content in _outputs(place, state, known).items():
        where = folder / output
        if not where.is_file() or where.read_bytes() != content.encode():
            raise _lie(where, state)


def _lie(where: Path, state: RunState) -> IntegrityViolated:
    return IntegrityViolated(
        f"an output is missing, or is not what the ledger says of run {state.run}",
        where=str(where),
        fix="dvc repro brings it up to date if the project has changed; else find out where it came from (DVC's "
        "cache, a checkout), and dvc repro --force writes it anew from the ledger",
    )


def _outputs(place: Installation, state: RunState, known: Stage) -> dict[str, str]:
    """A finished stage's outputs by path, from the ledger and what it names: the same on every machine."""
    fact = state.fact(known.name)
    body = state.recorded(known.name)
    digests = {key: value for key, value in body.items() if str(value).startswith("sha256:")}
    written = {"run": state.run, "stage": known.name, "row": fact["seq"], "fact": digest_json(body), **digests}
    outputs = {face.fact_file(known): _json(written)}
    if known.name == "evaluate":
        curves = _evidence(place, fact)["candidate"]["curves"]
        roc = [{"false_positive_rate": x, "true_positive_rate": y} for x, y in curves["roc"]]
        outputs |= {
            face.METRICS: _json(fact["metrics"]),
            face.ROC: _json(roc),
            face.RELIABILITY: _json(curves["reliability"]),
        }
    return outputs


def _evidence(place: Installation, fact: Mapping[str, Any]) -> Any:
    return json.loads(place.artifact(fact["evidence_file"], fact["uri"]).read_bytes())


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
