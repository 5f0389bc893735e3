"""Takes a signed bundle of another installation in: verified as a whole first, then uploaded, then recorded at once.

What came is a run of this installation from then on, whose data and model were made elsewhere. It is measured anew
against this side's champion, and goes through this side's gate: nobody's approval counts for two installations.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.bootstrap import anchors
from pipeline.bootstrap.bundle_export import CONTENTS, SIGNATURE
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.runner import execute, requester
from pipeline.bootstrap.steps import PARTS, tracked_run
from pipeline.config import project_from_files
from pipeline.config.reading import parse
from pipeline.domain import bundle
from pipeline.domain.canonical import digest_file, digest_json, digest_tree, file_digests
from pipeline.domain.events import Draft, Event
from pipeline.domain.gate import ENVIRONMENT, Gate
from pipeline.domain.passport import promotion_of
from pipeline.domain.state import RunState, fold_run
from pipeline.errors import GatehouseError, IntegrityViolated, UsageError
from pipeline.reports import verify_ledger as offline

GATE = ("policy", "risk_tier", "approvers", "reviews")
_KINDS = {"ingest": "data.ingested", "validate": "data.validated", "train": "model.trained"}


@dataclass(frozen=True, slots=True)
class _Bundle:
    """A bundle that holds: who signed it, what is in it, and what its ledger proves."""

    key: str
    digest: str
    contents: Path
    manifest: bundle.Manifest
    state: RunState
    gate: Gate


def import_(place: Installation, file: Path, gate: Path, words: Sequence[str] = (), build: str | None = None) -> str:
    """Take a bundle in, measure it against this side's champion, and register it; answers the run. Safe to run again.

    Args:
        file: the bundle.
        gate: this side's policy, risk tier, approvers and reviews: a file with these keys, such as a ``project.toml``.
        words: anchors of the source's ledger that came another way.
        build: of Jenkins, whose starter then counts as the one who takes it in.

    Raises:
        IntegrityViolated: signature, a digest, or the ledger in it does not hold. Nothing was taken in.
        PolicyRefused, ApprovalInvalid: it was not approved at its source.
        UsageError: this side's gate is not to be used, or a run of this name is here already.
    """
    from pipeline.adapters import archive

    given = anchors.parse(words, "--anchor")
    with place.cache.scratch() as scratch:
        with place.reporter.track("verifying the bundle"):
            archive.unpack(file, Path(scratch))
            came = _verified(place, Path(scratch), given)
        opened = _opened(came, gate, requester(place, build))
        run = came.state.run
        with place.ledger.exclusive(f"run {run}", lambda: place.reporter.note("somebody else is at it; waiting")):
            if _new(came, place.ledger.events(run=run)):
                _record(place, came, opened, _upload(place, came, opened))
                place.reporter.note(f"taken in: {came.manifest.model} of run {run}, signed by {came.key[:23]}")
            else:
                place.reporter.note(f"run {run} was taken in already; its gate stays as it was")
    for stage in ("evaluate", "register"):
        execute(place, stage, run)
    return run


# --- verifying: nothing outside the scratch folder is touched ---------------------------------------------------------


def _verified(place: Installation, folder: Path, given: Mapping[int, str]) -> _Bundle:
    from pipeline.adapters import signing

    contents, signature = folder / CONTENTS, folder / SIGNATURE
    if {path.name for path in folder.iterdir()} != {CONTENTS, SIGNATURE}:
        raise _not_a_bundle("it is not signed, or has parts that no bundle has")
    trusted = place.settings.signing.sources if place.settings.signing else ()
    try:
        found = json.loads(signature.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _not_a_bundle("its signature cannot be read") from error
    key = signing.verify(contents, found, trusted)
    try:
        manifest = bundle.Manifest.model_validate_json((contents / bundle.MANIFEST).read_bytes())
        manifest.require_files(file_digests(contents))
        state, about = _folded(place, contents, manifest, given)
        gate = _proven(contents, manifest, state, about)
    except (OSError, ValidationError, UsageError, KeyError, TypeError, ValueError) as error:
        raise _not_a_bundle(error.what if isinstance(error, GatehouseError) else str(error)) from error
    return _Bundle(key, digest_tree(contents), contents, manifest, state, gate)


def _not_a_bundle(why: str) -> IntegrityViolated:
    return IntegrityViolated(
        f"this is no bundle that could be taken in: {why}",
        where="bundle",
        fix="nothing of it was taken in; have it exported again",
    )


def _folded(
    place: Installation, contents: Path, manifest: bundle.Manifest, given: Mapping[int, str]
) -> tuple[RunState, list[Event]]:
    """The run and its model's events in production, from the extract, whose chain and anchors hold."""
    source = manifest.source
    since, previous = _row(source.after) if source.after else (0, offline.GENESIS)
    last, _ = _row(source.head)
    early = [seq for seq in given if seq < since]
    if early:
        raise UsageError(f"the bundle's ledger begins after row {since}: row {early[0]} is not in it")
    known = [
        _row(source.head),
        *given.items(),
        *((seq, digest) for seq, digest in _known(place, source.id) if since <= seq <= last),
    ]
    run, about = list[Event](), list[Event]()
    try:
        with (contents / bundle.LEDGER).open("rb") as stream:
            for _, row, digest in offline.linked(stream, offline.by_row(known), since, previous):
                if row["run"] == manifest.run or (row["model"], row["environment"]) == (manifest.model, ENVIRONMENT):
                    event = Event(**row, hash=digest)  # type: ignore[arg-type]  # JSON's own types
                    run += [event] if event.run == manifest.run else []
                    about += [event] if event.environment is not None else []
    except offline.Broken as error:
        raise IntegrityViolated(f"the bundle's ledger does not hold: {error}", where=bundle.LEDGER) from error
    promotion = promotion_of(manifest.version, [event for event in run if event.environment == manifest.environment])
    if promotion.body["package"] != manifest.subject.package:
        raise IntegrityViolated("the version named is of another package", where=bundle.MANIFEST)
    return fold_run(manifest.run, run), [event for event in about if event.environment == ENVIRONMENT]


def _known(place: Installation, source: str) -> Iterable[tuple[int, str]]:
    """Heads of the source's ledger that earlier bundles brought."""
    for event in place.reader.recent((bundle.IMPORTED,), ""):
        if event.body["source"]["id"] == source:
            yield _row(event.body["source"]["head"])


def _row(anchor: str) -> tuple[int, str]:
    ((seq, digest),) = anchors.parse((anchor,), bundle.MANIFEST).items()
    return seq, digest


def _proven(contents: Path, manifest: bundle.Manifest, state: RunState, about: Iterable[Event]) -> Gate:
    """The source's gate, asked anew, and everything it was asked about held to the bytes that came."""
    opened = state.opened
    if opened is None or opened["project"] != manifest.model:
        raise _not_a_bundle("its ledger does not open the run")
    project = project_from_files(opened["files"], state.changes, where="bundle")
    settings, trained, data = project.settings, state.fact("train"), state.fact("ingest")
    evidence = json.loads((contents / "evidence/evidence.json").read_bytes())
    digests = {
        "package": (digest_tree(contents / "package"), trained["package"]),
        "evidence": (digest_json(evidence), state.fact("evaluate")["evidence"]),
        "policy": (settings.policy_digest, opened["policy_digest"]),
        "reference.json": (digest_file(contents / "data/reference.json"), trained["profile"]["digest"]),
    }
    for part in PARTS:
        digests[part] = (digest_file(contents / f"data/{part}.parquet"), data["parts"][part]["file"])
    wrong = [name for name, (found, recorded) in digests.items() if found != recorded]
    if wrong:
        raise IntegrityViolated(f"what came is not what was recorded: {', '.join(wrong)}", where="bundle")
    gate = bundle.gate_then(state, about, policy=settings.policy, requirement=manifest.requirement, evidence=evidence)
    bundle.demand(gate)
    bundle.require_gate(
        manifest, state, gate, tier=settings.risk_tier, approvers=settings.approvers, reviews=settings.reviews
    )
    return gate


# --- taking in --------------------------------------------------------------------------------------------------------


def _opened(came: _Bundle, file: Path, by: str) -> dict[str, Any]:
    """What the run is opened with here: as at its source, with this side's gate, and where it came from.

    Raises:
        UsageError: the file names no whole gate.
    """
    if not file.is_file():
        raise UsageError(
            "there is no such file", where=f"--gate {file}", fix="this side's project.toml, or its gate alone"
        )
    given = {key: value for key, value in parse(file.read_text(encoding="utf-8"), str(file)).items() if key in GATE}
    if isinstance(given.get("policy"), str):
        given["policy"] = parse((file.parent / given["policy"]).read_text(encoding="utf-8"), given["policy"])
    missing = [key for key in GATE if key not in given and key != "reviews"]
    if missing:
        raise UsageError(f"it lacks {', '.join(missing)}", where=str(file), fix="this side decides by its own gate")
    theirs = came.state.opened or {}
    gate = {"reviews": {}, **given}
    settings = project_from_files(theirs["files"], {**theirs["changes"], **gate}, where=str(file)).settings
    return {
        **theirs,
        "gate": settings.gate,
        "policy_digest": settings.policy_digest,
        "imported": {
            "bundle": came.digest,
            "key": came.key,
            "by": by,
            "source": came.manifest.source.model_dump(),
            "approved_by": list(came.gate.standing.approved_by),
        },
    }


def _new(came: _Bundle, events: Sequence[Event]) -> bool:
    """Whether the run is not here yet.

    Raises:
        UsageError: another run of this name is.
    """
    taken = [event.body["subject"] for event in events if event.kind == bundle.IMPORTED]
    if not events or taken == [came.gate.subject.digest]:
        return not events
    raise UsageError(
        "a run of this name is here already, and is not what the bundle holds",
        where=f"run {came.state.run}",
        fix="a bundle goes to another installation than the one that it comes from",
    )


def _upload(place: Installation, came: _Bundle, opened: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Bring everything to this side's MLflow; answers the facts of the stages that were done elsewhere."""
    from pipeline.stages.promote import verify_package

    contents, mlflow = came.contents, place.mlflow
    state = RunState(came.state.run, opened, came.state.facts)
    project = place.project(state)
    facts = {stage: state.recorded(stage) for stage in _KINDS}
    run_id = tracked_run(place, state, project)
    with place.reporter.track("uploading", total=4) as tracker:
        parts = facts["ingest"]["parts"] = dict(facts["ingest"]["parts"])
        for part in PARTS:
            uri = mlflow.upload(run_id, contents / f"data/{part}.parquet", "data")
            parts[part] = {**parts[part], "uri": uri}
            mlflow.log_dataset(run_id, name=part, digest=parts[part]["digest"], source=facts["ingest"]["source"])
        tracker.advance()
        reference = mlflow.upload(run_id, contents / "data/reference.json")
        for folder in ("evidence", "passport"):
            mlflow.upload(run_id, contents / folder, f"source/{folder}")
        for file in (bundle.MANIFEST, bundle.LEDGER, "verify_ledger.py"):
            mlflow.upload(run_id, contents / file, "source")
        tracker.advance()
        with place.cache.scratch() as scratch:
            model = Path(scratch) / "model"
            shutil.copytree(contents / "model", model)
            shutil.copytree(contents / "package", model / "package")
            uri = mlflow.log_model(
                came.manifest.model, state.run, run_id=run_id, name=came.manifest.model, folder=model
            )
            tracker.advance()
            verify_package(mlflow.download(f"{uri}/package", Path(scratch) / "back"), came.gate.subject.package, uri)
        mlflow.log(run_id, parameters=facts["train"]["parameters"], tags={"gatehouse.bundle": came.digest})
        tracker.advance()
    facts["train"] |= {"uri": uri, "tracked_run": run_id, "profile": {**facts["train"]["profile"], "uri": reference}}
    return facts


def _record(
    place: Installation, came: _Bundle, opened: Mapping[str, Any], facts: Mapping[str, Mapping[str, Any]]
) -> None:
    """Enter the run into the ledger, all of it or nothing."""
    manifest, run = came.manifest, came.state.run
    body = {
        **opened["imported"],
        "subject": came.gate.subject.digest,
        "version": manifest.version,
        "environment": manifest.environment,
        "digests": {name: getattr(manifest.subject, name) for name in ("package", "weights", "data", "code", "policy")},
        "evidence": manifest.subject.evidence,
        "files": dict(manifest.files),
    }
    drafts = [("run.opened", opened), (bundle.IMPORTED, body)]
    drafts += [(kind, facts[stage]) for stage, kind in _KINDS.items()]
    with place.ledger.transaction() as transaction:
        if not _new(came, transaction.events(run=run)):
            return
        for kind, content in drafts:
            event = transaction.append(Draft(kind, place.actor, content, run, manifest.model))
    anchors.remember(place, event)
