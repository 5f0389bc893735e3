"""What a bundle says and proves: an approved version on its way to another installation. Pure.

A bundle carries the part of its source's ledger that proves the approval, from the first row that matters to the
ledger's end. Whoever takes it in folds those rows and asks the same gate that the source asked, as of the moment when
it opened; what was taken back since then counts, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pipeline.domain.approval import Requirement, Subject, fold_record
from pipeline.domain.events import Event
from pipeline.domain.evidence import Digest
from pipeline.domain.gate import ENVIRONMENT, Gate, stands
from pipeline.domain.policy import REVIEWERS_BY_TIER, Policy
from pipeline.domain.state import RunState
from pipeline.errors import ApprovalInvalid, IntegrityViolated

MANIFEST = "manifest.json"
LEDGER = "ledger.jsonl"
# A package has none of these folders, and a bundle no model at its top: a signature of one is none of the other.
PARTS = frozenset({"package", "model", "evidence", "passport", "data", MANIFEST, LEDGER, "verify_ledger.py"})
IMPORTED = "bundle.imported"


class Source(BaseModel):
    """The ledger that a bundle comes from.

    Attributes:
        id: hash of its first row, which no other ledger has.
        after: anchor of the row before the extract.
        head: anchor of the extract's last row, which was the ledger's head.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Digest
    after: str | None
    head: str


class Manifest(BaseModel):
    """``manifest.json``: what is in a bundle and where it stood. `files` has the digest of every other file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    model: str
    version: str
    environment: Literal["staging", "production"]
    run: str
    subject: Subject
    approved_by: tuple[str, ...]
    requirement: Requirement
    source: Source
    files: Mapping[str, Digest]

    def require_files(self, found: Mapping[str, str]) -> None:
        """Check the files that came, by name and digest, the manifest's own left out.

        Raises:
            IntegrityViolated: naming what differs, is missing or was not listed.
        """
        theirs = {name: digest for name, digest in found.items() if name != MANIFEST}
        wrong = sorted(name for name in {*self.files, *theirs} if self.files.get(name) != theirs.get(name))
        strange = sorted({name.split("/")[0] for name in found} - PARTS)
        if wrong or strange:
            raise IntegrityViolated(
                f"the bundle's files are not those of its manifest: {', '.join((wrong or strange)[:5])}",
                where=MANIFEST,
                fix="nothing of it was taken in; have it exported again",
            )


def first_row(run: Sequence[Event], about: Iterable[Event]) -> int:
    """Row from which on a ledger proves a run's approval: its opening, or an earlier delegation that was decided by.

    Args:
        run: the run's events.
        about: those of its model in production.
    """
    givers = {event.body["on_behalf_of"] for event in run if event.kind == "approval.decided"} - {None}
    given = (event.seq for event in about if event.kind == "approval.delegated" and event.body["by"] in givers)
    return min([run[0].seq, *given])


def gate_then(
    state: RunState,
    about: Iterable[Event],
    *,
    policy: Policy,
    requirement: Requirement,
    evidence: Mapping[str, Any],
) -> Gate:
    """The gate of a run as of the moment when it opened, with everything that people have recorded since.

    Args:
        state: the run.
        about: its model's events in production.
        policy: the project's.
        requirement: who had to approve.
        evidence: the run's.

    Raises:
        UsageError: the gate has not been passed.
    """
    now = datetime.fromisoformat(state.fact("gate production")["at"])
    given = fold_record(event for event in about if event.kind == "approval.delegated").delegations
    return stands(state, given, policy=policy, requirement=requirement, evidence=evidence, now=now)


def demand(gate: Gate) -> None:
    """Let only what was approved by policy and quorum leave one installation, or enter another.

    Raises:
        PolicyRefused: the policy refused it.
        ApprovalInvalid: the approval is missing or was taken back, or there was only broken glass.
    """
    if gate.glass is not None and not gate.standing.granted:
        raise ApprovalInvalid(
            f"two operators broke the glass for {gate.glass.incident}: an emergency here is no approval elsewhere",
            where=f"run {gate.run}",
            fix="have the run approved by those who may (gatehouse gate show)",
        )
    Gate(gate.run, gate.subject, gate.verdict, gate.standing, gate.record).demand()


def require_gate(
    manifest: Manifest, state: RunState, gate: Gate, *, tier: str, approvers: Sequence[str], reviews: Mapping[str, int]
) -> None:
    """Hold what a manifest claims to what its ledger extract proves.

    Args:
        manifest: signed by the source.
        state: the run, folded from the extract.
        gate: as it stood.
        tier, approvers, reviews: of the project as the run was opened with.

    Raises:
        IntegrityViolated: the manifest says something else.
    """
    opened, required = state.opened or {}, manifest.requirement
    people = {name.casefold() for name in required.approvers}
    own = {name for name in (opened["requester"], opened["code"].get("author")) if name}
    claims = {
        "the subject": manifest.subject == gate.subject == Subject(**state.fact("gate production")["subject"]),
        "who approved": manifest.approved_by == gate.standing.approved_by,
        "how many must approve": required.count == REVIEWERS_BY_TIER[tier],
        "the groups": {group.name: group.count for group in required.groups} == dict(reviews),
        "the approvers": people >= {name.casefold() for name in approvers if not name.startswith("@")},
        "who may not approve": own <= set(required.excluded),
        "the environment": gate.subject.environment == ENVIRONMENT,
    }
    wrong = [name for name, holds in claims.items() if not holds]
    if wrong:
        raise IntegrityViolated(
            f"the bundle's manifest and its ledger differ: {', '.join(wrong)}",
            where=MANIFEST,
            fix="nothing of it was taken in; ask whoever exported it",
        )
