"""Runs stages: opens a run, executes one stage exactly once, or the whole line with a process per stage."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.bootstrap import anchors
from pipeline.bootstrap.installation import Account, Installation
from pipeline.bootstrap.notify import deliver
from pipeline.bootstrap.tracing import traced
from pipeline.config import load_project
from pipeline.domain.canonical import digest_json
from pipeline.domain.events import Draft
from pipeline.domain.state import RunState, fold_run
from pipeline.errors import ApprovalInvalid, GatehouseError, IntegrityViolated, Unreachable, UsageError
from pipeline.graph import BY_NAME, STAGES, Stage


def open_run(
    place: Installation,
    path: Path,
    run: str,
    train: str | None,
    holdout: str | None,
    sets: Sequence[str],
    build: str | None = None,
) -> None:
    """Record what a run works on: the project's own text, the windows, who asked. Safe to run again.

    A run that came in a bundle works on what came with it, whatever is here.

    Raises:
        UsageError: the project is wrong, or the run was opened with another one.
    """
    changes = _changes(train, holdout, sets)
    project = load_project(path, changes)
    body: dict[str, Any] = {
        "project": project.settings.name,
        "files": project.files,
        "changes": changes,
        "code": {"digest": digest_json({"files": project.files, "changes": changes}), **_commit(path)},
        "policy_digest": project.settings.policy_digest,
        "requester": requester(place, build),
        "windows": project.settings.window.model_dump(),
    }
    with place.ledger.transaction() as transaction:
        opened = fold_run(run, transaction.events(run=run)).opened
        if opened is None:
            transaction.append(Draft("run.opened", place.actor, body, run, project.settings.name))
        elif "imported" not in opened and opened["code"]["digest"] != body["code"]["digest"]:
            raise UsageError(
                "this run was opened with another project, other windows or other parameters",
                where=f"run {run}",
                fix="what a run works on never changes: start a new run",
            )


def requester(place: Installation, build: str | None) -> str:
    """Who asked: whom Jenkins or GitHub names as the build's starter; without them, the operating system's user."""
    if build is None:
        return place.actor
    from pipeline.bootstrap.identity import starter

    return starter(place, build) or place.actor


def account_of(stage: Stage) -> Account:
    """Whose credentials a stage needs: production's are not the line's, and decisions are neither's."""
    if stage.gate:
        return "approval"
    return "promotion" if stage.environment == "production" else "line"


def execute(place: Installation, name: str, run: str) -> None:
    """Execute one stage, unless the ledger says that it is done.

    Two processes at the same run take turns: the second one finds the work done.
    """
    stage = BY_NAME.get(name)
    if stage is None:
        raise UsageError(f"no stage '{name}'", where="stage", fix=f"one of: {', '.join(BY_NAME)}")

    place = place.acting_as(account_of(stage))

    def waiting() -> None:
        place.reporter.note(f"{name}: somebody else is working on run {run}; waiting for them")

    with place.ledger.exclusive(f"run {run}", waiting):
        try:
            state = place.state(run)
        except IntegrityViolated as error:
            _record_failure(place, stage, run, None, error)
            raise
        if state.done(name):
            _confirm(place, stage, state)
            place.reporter.note(f"{name}: done already, at {state.fact(name)['at']}")
            return
        try:
            state.require(stage)
        except ApprovalInvalid as error:
            _record_failure(place, stage, run, str((state.opened or {}).get("project")), error)
            raise
        try:
            _execute(place, stage, state)
        finally:
            deliver(place)  # also of what a failed verification rolled back by itself


def _execute(place: Installation, stage: Stage, state: RunState) -> None:
    from pipeline.bootstrap.steps import STEPS

    began = time.monotonic()
    project = place.project(state)
    try:
        with traced(place, stage, state) as outputs:
            body = STEPS[stage.name](place, state, project)
            outputs.update(body or {})
    except GatehouseError as error:
        _record_failure(place, stage, state.run, project.settings.name, error)
        raise
    if body is not None:
        fact = {**body, "seconds": round(time.monotonic() - began, 3)}
        draft = Draft(stage.writes, place.actor, fact, state.run, project.settings.name, stage.environment)
        with place.ledger.transaction() as transaction:
            # The lock on the run is lost when Postgres restarts: another process may have done the stage meanwhile.
            if fold_run(state.run, transaction.events(run=state.run)).done(stage.name):
                place.reporter.note(f"{stage.name}: somebody else has finished it meanwhile; theirs stands")
                return
            event = transaction.append(draft)
        if stage.environment == "production":
            anchors.remember(place, event)
    place.reporter.note(f"{stage.name}: done in {time.monotonic() - began:.1f} s")


def _confirm(place: Installation, stage: Stage, state: RunState) -> None:
    """What a stage that is done still owes: the gate may have closed again, an alias may not have been written."""
    project = place.project(state)
    if stage.gate:
        from pipeline.bootstrap.gatekeeping import gate_of

        gate_of(place, state, project).demand()
    if stage.writes == "model.promoted":
        from pipeline.bootstrap.steps import project_alias

        assert stage.environment is not None
        project_alias(place, project.settings.name, stage.environment)
    if stage.environment == "production":
        head = place.ledger.head()
        if head is not None and head.seq not in anchors.known(place):
            anchors.remember(place, head.event())  # the process that did it may have ended before it could


def _record_failure(place: Installation, stage: Stage, run: str, model: str | None, error: GatehouseError) -> None:
    body = {"stage": stage.name, "family": error.family, "what": error.what[:2000], "exit_code": error.exit_code}
    try:
        place.ledger.append(Draft("stage.failed", place.actor, body, run, model))
    except Unreachable:
        # The ledger itself may be what cannot be reached; the first error is the one to show.
        place.reporter.note("the failure could not be recorded: the ledger does not answer")


def run_line(
    place: Installation,
    path: Path,
    run: str | None,
    until: str | None,
    train: str | None,
    holdout: str | None,
    sets: Sequence[str],
) -> None:
    """Run every stage that is not done, each as a process of its own, as Jenkins does.

    Raises:
        SystemExit: with the exit code of the first stage that fails.
    """
    if until is not None and until not in BY_NAME:
        raise UsageError(f"no stage '{until}'", where="--until", fix=f"one of: {', '.join(BY_NAME)}")
    if run is None:
        name = load_project(path, _changes(train, holdout, sets)).settings.name
        run = new_run_id(name, place)
    place.reporter.note(f"run {run}")
    options = ["--project", str(path), *_option("--train", train), *_option("--holdout", holdout)]
    options += [word for text in sets for word in ("--set", text)]
    facts = fold_run(run, place.ledger.events(run=run)).facts
    for stage in STAGES:
        if stage.name not in facts:
            run_stage(stage, run, options if stage.name == "ingest" else [])
        if stage.name == until:
            return


def run_stage(stage: Stage, run: str, options: Sequence[str] = ()) -> None:
    """Run one stage in a process of its own; exit as it exits when it fails."""
    command = [sys.executable, "-m", "pipeline", *stage.command, "--run", run, *options]
    code = subprocess.run(command, check=False, env=os.environ).returncode
    if code:
        raise SystemExit(code)


def new_run_id(name: str, place: Installation) -> str:
    """A run id that people can read and that does not repeat."""
    return f"{name}-{place.clock():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _changes(train: str | None, holdout: str | None, sets: Sequence[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"'{text}' is not key=value", where="--set", fix="--set training.parameters.epochs=3")
        changes[key.strip()] = _value(value.strip())
    windows: Mapping[str, str | None] = {"window.train": train, "window.holdout": holdout}
    return changes | {key: value for key, value in windows.items() if value is not None}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _option(name: str, value: str | None) -> list[str]:
    return [] if value is None else [name, value]


def _commit(path: Path) -> dict[str, Any]:
    """Commit, author, and whether the folder differs from the commit; nulls outside a repository."""
    folder = path if path.is_dir() else path.parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    return {
        "commit": git("rev-parse", "HEAD"),
        "author": git("log", "-1", "--format=%ae", "--", "."),
        "dirty": bool(git("status", "--porcelain", "--", ".")),
    }
