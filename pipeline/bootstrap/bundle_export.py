"""Writes an approved version as one signed file, for an installation that this one cannot reach."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.bootstrap import anchors, audit
from pipeline.bootstrap.gatekeeping import evidence_of, gate_of, requirement, write_report
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.signatures import signer_of
from pipeline.bootstrap.steps import PARTS, package_folder
from pipeline.config import Project
from pipeline.domain import bundle
from pipeline.domain.canonical import canonical, digest_tree, file_digests
from pipeline.domain.events import Draft, Event
from pipeline.domain.gate import ENVIRONMENT, Gate
from pipeline.domain.passport import promotion_of
from pipeline.domain.state import RunState
from pipeline.errors import IntegrityViolated
from pipeline.graph import BY_NAME
from pipeline.reports import passport as pages

CONTENTS, SIGNATURE = "contents", "signature.json"


def export(place: Installation, environment: str, model: str | None, version: str, out: Path) -> str:
    """Write the bundle of a version that stands in an environment and was approved for production; answers its digest.

    The same version and the same ledger give the same contents; only the signature differs.

    Raises:
        UsageError: no such version, no key to sign with, or `out` cannot be written.
        PolicyRefused, ApprovalInvalid: it did not pass the production gate, or would not any more.
        IntegrityViolated: ledger or bytes are not what was recorded.
    """
    from pipeline.adapters import archive, signing

    place = place.acting_as("approval")
    signer = signer_of(place.settings.signing)
    place.server(environment)
    name = place.model_in(environment, model)
    promotion = promotion_of(version, place.reader.events(model=name, environment=environment))
    state = place.state(str(promotion.run))
    project = place.project(state)
    anchors.check(place)
    gate = _approved(place, state, project, environment)
    with place.cache.scratch() as scratch:
        whole = Path(scratch) / "bundle"
        contents = whole / CONTENTS
        _collect(place, state, gate, contents)
        pages.write(audit.passport(place, environment, name, version), contents / "passport")
        source = _ledger(place, state, contents)
        manifest = bundle.Manifest(
            model=name,
            version=version,
            environment=environment,
            run=state.run,
            subject=gate.subject,
            approved_by=gate.standing.approved_by,
            requirement=requirement(place, state, project),
            source=source,
            files=file_digests(contents),
        )
        (contents / bundle.MANIFEST).write_bytes(canonical(manifest.model_dump(mode="json")))
        with place.reporter.track("signing"):
            work = Path(scratch) / "work"
            work.mkdir()
            (whole / SIGNATURE).write_bytes(canonical(signing.sign(contents, signer, work)))
        digest = digest_tree(contents)
        body = {"bundle": digest, "version": version, "from": environment, "package": gate.subject.package}
        body |= {"subject": gate.subject.digest, "head": source.head, "key": signing.key_id(signer)}
        # Before the file is there: nothing leaves that the ledger does not know of.
        place.ledger.append(Draft("bundle.exported", place.actor, body, state.run, name, ENVIRONMENT))
        archive.pack(whole, out)
    return digest


def _approved(place: Installation, state: RunState, project: Project, environment: str) -> Gate:
    """The gate as it opened, if it still stands; before production, an approval must not have expired either."""
    state.require(BY_NAME["promote production"])
    about = place.reader.events(model=project.settings.name, environment=ENVIRONMENT)
    gate = bundle.gate_then(
        state,
        about,
        policy=project.settings.policy,
        requirement=requirement(place, state, project),
        evidence=evidence_of(place, state),
    )
    bundle.demand(gate)
    if environment != ENVIRONMENT:
        gate_of(place, state, project).demand()
    return gate


def _collect(place: Installation, state: RunState, gate: Gate, contents: Path) -> None:
    """Package, model files, evidence page and data: each verified against the ledger."""
    trained, data = state.fact("train"), state.fact("ingest")
    with place.reporter.track("collecting", total=4) as tracker:
        shutil.copytree(package_folder(place, gate.subject.package, trained["uri"]), contents / "package")
        if digest_tree(contents / "package") != gate.subject.package:
            raise IntegrityViolated("the package changed while it was copied", where=trained["uri"])
        tracker.advance()
        for file in ("MLmodel", "requirements.txt"):
            place.mlflow.download(f"{trained['uri']}/{file}", contents / "model")
        tracker.advance()
        write_report(place, state.run, contents / "evidence", None)
        tracker.advance()
        wanted = {f"{part}.parquet": (data["parts"][part]["file"], data["parts"][part]["uri"]) for part in PARTS}
        wanted["reference.json"] = (trained["profile"]["digest"], trained["profile"]["uri"])
        (contents / "data").mkdir()
        for file, (digest, uri) in wanted.items():
            shutil.copyfile(place.artifact(digest, uri), contents / "data" / file)
        tracker.advance()


def _ledger(place: Installation, state: RunState, contents: Path) -> bundle.Source:
    """Write the rows that prove the approval, up to the ledger's head, with the program that verifies them."""
    run: Sequence[Event] = place.reader.events(run=state.run)
    about = place.reader.events(model=run[0].model, environment=ENVIRONMENT)
    first = bundle.first_row(run, about)
    file = contents / bundle.LEDGER
    count, after = audit.export(place, file, since=first - 1)
    last = file.read_bytes().rstrip(b"\n").rpartition(b"\n")[2]
    head = last[-len('sha256:"}') - 64 : -2].decode()
    genesis = next(iter(place.reader.rows()))
    return bundle.Source(id=genesis.hash, after=after, head=f"{first - 1 + count}:{head}")
