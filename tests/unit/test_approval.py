"""Approvals are of exact bytes, by somebody entitled, for a time."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.approval import Decision, Requirement, Subject, demand, may_decide, standing
from pipeline.errors import ApprovalInvalid

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SUBJECT = Subject("flights", "3", "production", *(f"sha256:{n:064x}" for n in range(6)), champion=None)
WANTED = Requirement(approvers=("grace", "hedy", "katherine"), count=1, excluded=("ada",))


def decision(actor="grace", subject=SUBJECT, *, approved=True, hours=72.0):
    return Decision(
        subject, approved, actor, "measured", "jenkins", NOW.isoformat(), (NOW + timedelta(hours=hours)).isoformat()
    )


def test_one_entitled_approval_of_this_very_subject_is_enough():
    assert standing(SUBJECT, [decision()], WANTED, NOW).granted


@pytest.mark.parametrize("part", sorted(asdict(SUBJECT)))
def test_changing_any_part_of_the_subject_voids_the_approval_and_names_the_part(part):
    changed = replace(SUBJECT, **{part: "sha256:" + "f" * 64})
    state = standing(changed, [decision()], WANTED, NOW)
    assert not state.granted
    assert f"{part} changed" in state.problems[0]
    with pytest.raises(ApprovalInvalid, match=part):
        demand(state, changed)


def test_an_approval_expires():
    state = standing(SUBJECT, [decision(hours=1)], WANTED, NOW + timedelta(hours=2))
    assert not state.granted
    assert "expired" in state.problems[0]


def test_a_rejection_is_final_for_this_subject_whoever_approves_later():
    decisions = [decision(), decision("hedy", approved=False), decision("katherine")]
    state = standing(SUBJECT, decisions, WANTED, NOW)
    with pytest.raises(ApprovalInvalid, match="rejected by hedy"):
        demand(state, SUBJECT)


def test_one_person_counts_once_towards_a_quorum():
    two = replace(WANTED, count=2)
    assert not standing(SUBJECT, [decision(), decision()], two, NOW).granted
    assert standing(SUBJECT, [decision(), decision("hedy")], two, NOW).granted


@pytest.mark.parametrize(("actor", "why"), [("mallory", "not among"), ("ada", "own work")])
def test_outsiders_and_the_requester_may_not_decide(actor, why):
    with pytest.raises(ApprovalInvalid, match=why):
        may_decide(actor, replace(WANTED, approvers=(*WANTED.approvers, "ada")))


actors = st.sampled_from(["grace", "hedy", "katherine", "ada", "mallory"])
subjects = st.sampled_from([SUBJECT, replace(SUBJECT, package="sha256:" + "e" * 64)])


@given(
    st.lists(st.builds(decision, actors, subjects, approved=st.booleans(), hours=st.floats(-5, 5)), max_size=8),
    st.integers(-1, 4),
)
def test_whatever_is_recorded_promotion_needs_as_many_entitled_unexpired_approvals_as_asked(decisions, count):
    state = standing(SUBJECT, decisions, replace(WANTED, count=count), NOW)
    good = {
        d.actor
        for d in decisions
        if d.approved
        and d.subject == SUBJECT
        and d.actor in WANTED.approvers
        and datetime.fromisoformat(d.expires) > NOW
    }
    rejected = any(not d.approved and d.subject == SUBJECT for d in decisions)
    assert state.granted == (not rejected and len(good) >= max(1, count))
