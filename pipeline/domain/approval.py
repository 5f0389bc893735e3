"""Approvals of exact bytes.

An approval names everything it was given for: the subject. Change any part of the subject and the approval is
void. Pure: whether promotion may go ahead is a function of the subject, the decisions recorded so far, who
asked, who wrote the code, who may decide, and the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from pipeline.domain.canonical import digest_json
from pipeline.errors import ApprovalInvalid

Assurance = Literal["jenkins", "demo"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What an approval is of. Every digest carries its algorithm.

    Attributes:
        model, version: registered model and version under which it stands for approval.
        environment: where it is to go.
        package, weights, data, code, policy, evidence: digests.
        champion: package digest of what it was compared with; None when nothing served.
    """

    model: str
    version: str
    environment: str
    package: str
    weights: str
    data: str
    code: str
    policy: str
    evidence: str
    champion: str | None

    @property
    def digest(self) -> str:
        """Digest of the whole subject."""
        return digest_json(asdict(self))

    def differences(self, other: Subject) -> list[str]:
        """Names of the parts in which two subjects differ."""
        mine, theirs = asdict(self), asdict(other)
        return [name for name in mine if mine[name] != theirs[name]]


@dataclass(frozen=True, slots=True)
class Decision:
    """What one person decided on one subject. `at` and `expires` are UTC, ISO 8601."""

    subject: Subject
    approved: bool
    actor: str
    reason: str
    assurance: Assurance
    at: str
    expires: str

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> Decision:
        """Read a decision back from its ledger event's body."""
        return cls(**{**body, "subject": Subject(**body["subject"])})


@dataclass(frozen=True, slots=True)
class Requirement:
    """Who must approve: at least `count` of `approvers`, none of whom may be in `excluded`."""

    approvers: tuple[str, ...]
    count: int
    excluded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the approval of a subject stands, as one value: granted, or who and what is missing."""

    granted: bool
    approved_by: tuple[str, ...]
    missing: int
    may_decide: tuple[str, ...]
    problems: tuple[str, ...]
    rejected_by: str | None = None


def may_decide(actor: str, requirement: Requirement) -> None:
    """Check that `actor` may decide at all.

    Raises:
        ApprovalInvalid: the actor is not an approver, or is the requester or the author.
    """
    if actor not in requirement.approvers:
        raise ApprovalInvalid(
            f"{actor} is not among the approvers of this project",
            where=f"approvers: {', '.join(requirement.approvers)}",
            fix="let one of them decide",
        )
    if actor in requirement.excluded:
        raise ApprovalInvalid(
            f"{actor} asked for this or wrote it, and nobody approves their own work",
            where=f"requester and author: {', '.join(requirement.excluded)}",
            fix="let another approver decide",
        )


def standing(subject: Subject, decisions: Sequence[Decision], requirement: Requirement, now: datetime) -> Standing:
    """Fold the decisions on a run into where its approval stands.

    A rejection of this very subject is final. An approval counts when it is of this very subject, by somebody
    who may decide, and has not expired; each person counts once. An empty requirement is never met.
    """
    problems: list[str] = []
    counted: dict[str, None] = {}
    for decision in decisions:
        changed = subject.differences(decision.subject)
        if changed:
            problems.append(f"{decision.actor}'s decision is void: {', '.join(changed)} changed since")
        elif not decision.approved:
            return Standing(False, (), 0, (), (f"{decision.actor}: {decision.reason}",), decision.actor)
        elif datetime.fromisoformat(decision.expires) <= now:
            problems.append(f"{decision.actor}'s approval expired at {decision.expires}")
        elif decision.actor in requirement.excluded or decision.actor not in requirement.approvers:
            problems.append(f"{decision.actor} may not approve this")
        else:
            counted[decision.actor] = None
    needed = max(1, requirement.count)
    missing = max(0, needed - len(counted))
    others = tuple(name for name in requirement.approvers if name not in requirement.excluded and name not in counted)
    return Standing(missing == 0, tuple(counted), missing, others, tuple(problems))


def demand(state: Standing, subject: Subject) -> None:
    """Let only a granted approval through.

    Raises:
        ApprovalInvalid: saying whether it was rejected, is void, has expired or is missing, and who can give it.
    """
    if state.granted:
        return
    where = f"{subject.model} version {subject.version} for {subject.environment}"
    if state.rejected_by:
        raise ApprovalInvalid(
            f"rejected by {state.problems[0]}", where=where, fix="a rejection is final: train another challenger"
        )
    waiting = f"{state.missing} approval(s) missing"
    problems = f" ({'; '.join(state.problems)})" if state.problems else ""
    raise ApprovalInvalid(
        waiting + problems,
        where=where,
        fix=f"may be given by: {', '.join(state.may_decide) or 'nobody: name more approvers in project.toml'}",
    )
