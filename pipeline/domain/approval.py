"""Approvals of exact bytes.

An approval names everything it was given for: the subject. Change any part of the subject and the approval is
void. Pure: whether promotion may go ahead is a function of the subject, of what people recorded about it so far
(decisions, revocations, delegations, broken glass), of who must approve, and of the time.

People are compared without case, as Jenkins does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from pipeline.domain.canonical import digest_json
from pipeline.domain.events import Event
from pipeline.errors import ApprovalInvalid

Assurance = Literal["jenkins", "github", "oidc", "signed", "demo"]
OPERATORS_TO_BREAK_GLASS = 2


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


# --- what people record: each is the body of a ledger event. Times are UTC, ISO 8601; `subject` is a digest ----


@dataclass(frozen=True, slots=True)
class Decision:
    """``approval.decided``: what one person decided on one subject, for themself or `on_behalf_of` another.

    `proof` says by what the identity was believed: a build and its input, a token's digest, a statement's.
    """

    subject: Subject
    approved: bool
    actor: str
    reason: str
    assurance: Assurance
    at: str
    expires: str
    on_behalf_of: str | None = None
    proof: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Decision:
        """Read a decision back from its ledger event's body."""
        return cls(**{**body, "subject": Subject(**body["subject"])})

    @property
    def principal(self) -> str:
        """Whose approval it is."""
        return self.on_behalf_of or self.actor


@dataclass(frozen=True, slots=True)
class Revocation:
    """``approval.revoked``: somebody takes back what they gave for a subject."""

    subject: str
    actor: str
    reason: str
    assurance: Assurance
    at: str
    proof: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delegation:
    """``approval.delegated``: `by` lets `to` decide in their place between two times. Not handed on further."""

    by: str
    to: str
    starts: str
    ends: str
    reason: str
    assurance: Assurance
    at: str
    proof: Mapping[str, Any] = field(default_factory=dict)

    def holds(self, at: str) -> bool:
        """Whether it is in force at a time."""
        return _time(self.starts) <= _time(at) <= _time(self.ends)


@dataclass(frozen=True, slots=True)
class GlassBroken:
    """``glass.broken``: one operator's half of an emergency promotion."""

    subject: str
    actor: str
    reason: str
    incident: str
    assurance: Assurance
    at: str
    expires: str
    proof: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that people recorded about a run, oldest first, and the delegations of its model."""

    decisions: tuple[Decision, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    delegations: tuple[Delegation, ...] = ()
    glass: tuple[GlassBroken, ...] = ()


def fold_record(events: Iterable[Event]) -> Record:
    """Fold events, oldest first, into what people recorded; other kinds are passed over."""
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(event.kind, []).append(event)
    return Record(
        tuple(Decision.from_body(event.body) for event in found.get("approval.decided", ())),
        tuple(Revocation(**event.body) for event in found.get("approval.revoked", ())),
        tuple(Delegation(**event.body) for event in found.get("approval.delegated", ())),
        tuple(GlassBroken(**event.body) for event in found.get("glass.broken", ())),
    )


# --- who must approve ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """A named group of reviewers, `count` of whom must approve."""

    name: str
    members: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Requirement:
    """Who must approve: at least `count` of `approvers`, none of whom may be in `excluded`, and of each group some.

    `operators` may break the glass.
    """

    approvers: tuple[str, ...]
    count: int
    excluded: tuple[str, ...]
    groups: tuple[Group, ...] = ()
    operators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Glass:
    """An emergency in force: what two operators broke the glass for."""

    operators: tuple[str, ...]
    incident: str
    reason: str
    expires: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the approval of a subject stands, as one value: granted, or who and what is missing."""

    granted: bool
    approved_by: tuple[str, ...]
    missing: int
    may_decide: tuple[str, ...]
    problems: tuple[str, ...]
    rejected_by: str | None = None
    groups_missing: tuple[str, ...] = ()


def principal_of(actor: str, requirement: Requirement, delegations: Sequence[Delegation], at: str) -> str | None:
    """In whose place `actor` may decide at a time: None for themself, else whoever delegated to them.

    Raises:
        ApprovalInvalid: the actor asked for this or wrote it, or is no approver and nobody's delegate.
    """
    if _among(actor, requirement.excluded):
        raise ApprovalInvalid(
            f"{actor} asked for this or wrote it, and nobody approves their own work",
            where=f"requester and author: {', '.join(requirement.excluded)}",
            fix="let another approver decide",
        )
    if _among(actor, requirement.approvers):
        return None
    for given in delegations:
        if _same(given.to, actor) and given.holds(at) and _entitled(given.by, requirement):
            return given.by
    raise ApprovalInvalid(
        f"{actor} is not among the approvers of this project",
        where=f"approvers: {', '.join(requirement.approvers)}",
        fix="let one of them decide, or delegate (gatehouse gate delegate)",
    )


def standing(subject: Subject, record: Record, requirement: Requirement, now: datetime) -> Standing:
    """Fold what was recorded on a run into where its approval stands.

    A rejection of this very subject is final. An approval counts when it is of this very subject, by somebody
    who may decide or their delegate at that time, was not taken back, and has not expired; each person counts
    once, whether they acted or were acted for. An empty requirement is never met.
    """
    problems: list[str] = []
    counted: dict[str, str] = {}
    seen: set[str] = set()
    for decision in record.decisions:
        changed = subject.differences(decision.subject)
        if not changed and not decision.approved:
            return Standing(False, (), 0, (), (f"{decision.actor}: {decision.reason}",), decision.actor)
        problem = f"is void: {', '.join(changed)} changed since" if changed else _problem(decision, record, now)
        problem = problem or _not_entitled(decision, requirement, record.delegations)
        people = {decision.actor.casefold(), decision.principal.casefold()}
        if problem:
            problems.append(f"{decision.actor}'s {'approval' if decision.approved else 'rejection'} {problem}")
        elif not people & seen:
            seen |= people
            counted[decision.principal] = decision.actor
    missing = max(0, max(1, requirement.count) - len(counted))
    lacking = tuple(group.name for group in requirement.groups if _votes(group, counted) < group.count)
    others = tuple(
        name for name in requirement.approvers if _entitled(name, requirement) and name.casefold() not in seen
    )
    granted = missing == 0 and not lacking
    return Standing(granted, tuple(counted.values()), missing, others, tuple(problems), groups_missing=lacking)


def glass_broken(subject: Subject, record: Record, requirement: Requirement, now: datetime) -> Glass | None:
    """The emergency in force for a subject: two operators, one incident, neither half expired or taken back."""
    halves = [
        half
        for half in record.glass
        if half.subject == subject.digest
        and _among(half.actor, requirement.operators)
        and _time(half.expires) > now
        and not _taken_back(half.actor, half.at, subject.digest, record)
    ]
    for incident in dict.fromkeys(half.incident for half in halves):
        mine = {half.actor.casefold(): half for half in halves if half.incident == incident}
        if len(mine) >= OPERATORS_TO_BREAK_GLASS:
            both = tuple(mine.values())
            reasons = "; ".join(dict.fromkeys(half.reason for half in both))
            return Glass(tuple(half.actor for half in both), incident, reasons, min(half.expires for half in both))
    return None


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
    if state.groups_missing:
        waiting += f", none of the group(s) {', '.join(state.groups_missing)}"
    problems = f" ({'; '.join(state.problems)})" if state.problems else ""
    raise ApprovalInvalid(
        waiting + problems,
        where=where,
        fix=f"may be given by: {', '.join(state.may_decide) or 'nobody: name more approvers in project.toml'}",
    )


def _problem(decision: Decision, record: Record, now: datetime) -> str:
    """Why an approval of this very subject does not stand any more."""
    if _taken_back(decision.actor, decision.at, decision.subject.digest, record) or _taken_back(
        decision.principal, decision.at, decision.subject.digest, record
    ):
        return "was taken back"
    if _time(decision.expires) <= now:
        return f"expired at {decision.expires}"
    return ""


def _not_entitled(decision: Decision, requirement: Requirement, delegations: Sequence[Delegation]) -> str:
    if _among(decision.actor, requirement.excluded) or not _entitled(decision.principal, requirement):
        return "does not count: they may not approve this"
    if decision.on_behalf_of is None:
        return ""
    given = any(
        _same(one.by, decision.principal) and _same(one.to, decision.actor) and one.holds(decision.at)
        for one in delegations
    )
    return "" if given else f"does not count: {decision.principal} had not delegated to them"


def _taken_back(actor: str, at: str, subject: str, record: Record) -> bool:
    return any(
        one.subject == subject and _same(one.actor, actor) and _time(one.at) >= _time(at) for one in record.revocations
    )


def _votes(group: Group, principals: Iterable[str]) -> int:
    return sum(_among(name, group.members) for name in principals)


def _entitled(name: str, requirement: Requirement) -> bool:
    return _among(name, requirement.approvers) and not _among(name, requirement.excluded)


def _among(name: str, names: Iterable[str]) -> bool:
    return any(_same(name, other) for other in names)


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
