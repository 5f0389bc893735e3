"""The production gate as one value: what the policy says, where the approval stands, whether the glass is broken.

Pure: everything that holds a promotion back is decided here, from the run's own events, its evidence and the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from pipeline.domain.approval import (
    Delegation,
    Glass,
    Record,
    Requirement,
    Standing,
    Subject,
    demand,
    glass_broken,
    standing,
)
from pipeline.domain.policy import Policy, Verdict, judge
from pipeline.domain.state import RunState, subject_of
from pipeline.errors import ApprovalInvalid, PolicyRefused

ENVIRONMENT = "production"


@dataclass(frozen=True, slots=True)
class Gate:
    """Where one run stands before production."""

    run: str
    subject: Subject
    verdict: Verdict
    standing: Standing
    record: Record
    glass: Glass | None = None

    @property
    def open(self) -> bool:
        """Whether the run may pass."""
        passed = self.glass is not None or (self.verdict.passed and self.standing.granted)
        return passed and self.standing.rejected_by is None

    def demand(self) -> None:
        """Let nothing through but what the policy passes and people approved, or two operators answer for.

        Raises:
            PolicyRefused: with every rule that refuses.
            ApprovalInvalid: saying what is missing, and that a rejection stands even against broken glass.
        """
        if self.standing.rejected_by:
            demand(self.standing, self.subject)
        if self.glass is None:
            refuse(self.verdict, self.run)
            demand(self.standing, self.subject)

    def fact(self) -> Mapping[str, Any]:
        """What is recorded of the gate when it opens."""
        counted = {name.casefold() for name in self.standing.approved_by}
        decided = (one.assurance for one in self.record.decisions if one.approved and one.actor.casefold() in counted)
        return {
            "subject": asdict(self.subject),
            "subject_digest": self.subject.digest,
            "approved_by": list(self.standing.approved_by),
            "assurance": sorted(set(decided)),
            "glass": asdict(self.glass) if self.glass else None,
        }


def stands(
    state: RunState,
    delegations: Sequence[Delegation],
    *,
    policy: Policy,
    requirement: Requirement,
    evidence: Mapping[str, Any],
    now: datetime,
) -> Gate:
    """Where a run stands before production at a time.

    Args:
        state: the run, folded from its events.
        delegations: of the run's model.
        policy: the project's, as the run was opened with.
        requirement: who must approve.
        evidence: JSON of the evidence, verified against the run's own digest of it.
        now: the time, aware.

    Raises:
        UsageError: the run has not come as far as register.
    """
    assert state.opened is not None
    subject = subject_of(state, ENVIRONMENT)
    record = replace(state.record, delegations=tuple(delegations))
    # The run's digest also covers tier and approvers: that is the policy which an approval is of.
    verdict = judge(policy, evidence, now).model_copy(update={"policy_digest": state.opened["policy_digest"]})
    stand = standing(subject, record, requirement, now)
    return Gate(state.run, subject, verdict, stand, record, glass_broken(subject, record, requirement, now))


def refuse(verdict: Verdict, run: str) -> None:
    """Let only a verdict that passes through.

    Raises:
        PolicyRefused: with every rule that refuses.
    """
    if not verdict.passed:
        lines = [f"  {rule.rule}: {rule.reason}" for rule in verdict.refusals]
        raise PolicyRefused(
            "the evidence does not meet the policy:\n" + "\n".join(lines),
            where=f"run {run}, production gate",
            fix="train a better challenger; gatehouse gate show lists every rule",
        )


def not_withdrawn(gate: Gate) -> None:
    """Let a promotion go on to its roll-out only while nobody took back what it rests on.

    Args:
        gate: as it stood when the promotion was recorded, with everything that was recorded since.

    Raises:
        ApprovalInvalid: it was taken back, or rejected after all.
    """
    if gate.standing.rejected_by or not (gate.glass or gate.standing.granted):
        why = "; ".join(gate.standing.problems) or "its approval does not stand"
        raise ApprovalInvalid(
            f"promoted, and withdrawn before it was rolled out: {why}",
            where=f"run {gate.run}",
            fix="gatehouse rollback --env production puts back what was wanted before",
        )
