"""Approvals: of exact bytes, by the right people, in time; whatever changes voids them."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.approval import (
    Decision,
    Delegation,
    GlassBroken,
    Group,
    Record,
    Requirement,
    Revocation,
    Subject,
    demand,
    glass_broken,
    principal_of,
    standing,
)
from pipeline.errors import ApprovalInvalid

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SUBJECT = Subject("flights", "3", "production", *(f"sha256:{n:064x}" for n in range(6)), champion=None)
WANTED = Requirement(approvers=("grace", "hedy", "katherine"), count=1, excluded=("ada",), operators=("otto", "olga"))
TWO = replace(WANTED, count=2)


def at(hours=0.0):
    return (NOW + timedelta(hours=hours)).isoformat()


def decision(actor="grace", subject=SUBJECT, *, approved=True, hours=72.0, made=0.0, on_behalf_of=None):
    return Decision(subject, approved, actor, "measured", "jenkins", at(made), at(hours), on_behalf_of)


def revocation(actor="grace", made=1.0, subject=SUBJECT):
    return Revocation(subject.digest, actor, "found a fault", "jenkins", at(made))


def delegation(by="grace", to="dorothy", starts=-24.0, ends=24.0):
    return Delegation(by, to, at(starts), at(ends), "on holiday", "jenkins", at(-24))


def glass(actor="otto", incident="INC-7", hours=4.0, subject=SUBJECT):
    return GlassBroken(subject.digest, actor, "production is down", incident, "jenkins", at(), at(hours))


def stand(*decisions, wanted=WANTED, now=NOW, subject=SUBJECT, **more):
    return standing(subject, Record(decisions, **more), wanted, now)


def test_one_entitled_approval_of_this_very_subject_is_enough():
    assert stand(decision()).granted


@pytest.mark.parametrize("part", sorted(asdict(SUBJECT)))
def test_changing_any_part_of_the_subject_voids_the_approval_and_names_the_part(part):
    changed = replace(SUBJECT, **{part: "sha256:" + "f" * 64})
    state = stand(decision(), subject=changed)
    assert not state.granted
    assert f"{part} changed" in state.problems[0]
    with pytest.raises(ApprovalInvalid, match=part):
        demand(state, changed)


def test_an_approval_expires():
    state = stand(decision(hours=1), now=NOW + timedelta(hours=2))
    assert not state.granted
    assert "expired" in state.problems[0]


def test_a_rejection_is_final_for_this_subject_whoever_approves_later():
    state = stand(decision(), decision("hedy", approved=False), decision("katherine"))
    with pytest.raises(ApprovalInvalid, match="rejected by hedy"):
        demand(state, SUBJECT)


@pytest.mark.parametrize("again", ["grace", "Grace", "GRACE"])
def test_one_person_counts_once_towards_a_quorum_however_they_write_their_name(again):
    assert not stand(decision(), decision(again), wanted=TWO).granted
    assert stand(decision(), decision("hedy"), wanted=TWO).granted


@pytest.mark.parametrize(("actor", "why"), [("mallory", "not among"), ("ada", "own work"), ("Ada", "own work")])
def test_outsiders_and_the_requester_may_not_decide(actor, why):
    with pytest.raises(ApprovalInvalid, match=why):
        principal_of(actor, replace(WANTED, approvers=(*WANTED.approvers, "ada")), (), at())


# --- groups -------------------------------------------------------------------------------------------------


def test_a_quorum_without_the_named_group_is_not_enough_and_says_which_group():
    wanted = replace(TWO, groups=(Group("validation", ("katherine",), 1),))
    state = stand(decision(), decision("hedy"), wanted=wanted)
    assert not state.granted
    with pytest.raises(ApprovalInvalid, match="validation"):
        demand(state, SUBJECT)
    assert stand(decision(), decision("katherine"), wanted=wanted).granted


# --- taking back --------------------------------------------------------------------------------------------


def test_an_approval_that_was_taken_back_does_not_count_and_one_given_after_that_does():
    state = stand(decision(), revocations=(revocation(),))
    assert not state.granted
    assert "taken back" in state.problems[0]
    assert stand(decision(), decision(made=2), revocations=(revocation(made=1),)).granted


def test_taking_back_what_was_given_for_something_else_changes_nothing():
    other = replace(SUBJECT, package="sha256:" + "e" * 64)
    assert stand(decision(), revocations=(revocation(subject=other), revocation("hedy"))).granted


# --- delegation ---------------------------------------------------------------------------------------------


def test_a_delegate_decides_for_the_approver_in_the_period_and_only_then():
    assert principal_of("dorothy", WANTED, (delegation(),), at()) == "grace"
    assert stand(decision("dorothy", on_behalf_of="grace"), delegations=(delegation(),)).granted
    for starts, ends in ((1, 24), (-24, -1)):
        outside = (delegation(starts=starts, ends=ends),)
        assert not stand(decision("dorothy", on_behalf_of="grace"), delegations=outside).granted
        with pytest.raises(ApprovalInvalid):
            principal_of("dorothy", WANTED, outside, at())


def test_an_approval_in_somebodys_name_without_their_delegation_does_not_count():
    assert not stand(decision("dorothy", on_behalf_of="grace")).granted
    assert not stand(decision("dorothy", on_behalf_of="grace"), delegations=(delegation(by="hedy"),)).granted


def test_the_requester_can_neither_delegate_nor_be_a_delegate():
    both = replace(WANTED, approvers=(*WANTED.approvers, "ada"))
    for handed, actor, principal in (
        (delegation(by="ada"), "dorothy", "ada"),
        (delegation(to="ada"), "ada", "grace"),
    ):
        assert not stand(decision(actor, on_behalf_of=principal), wanted=both, delegations=(handed,)).granted
        with pytest.raises(ApprovalInvalid):
            principal_of(actor, both, (handed,), at())


def test_a_delegation_is_not_handed_on():
    chain = (delegation(), delegation(by="dorothy", to="mallory"))
    with pytest.raises(ApprovalInvalid):
        principal_of("mallory", WANTED, chain, at())


def test_nobody_makes_a_quorum_of_two_with_a_delegation():
    handed = (delegation(by="grace", to="hedy"),)
    assert not stand(decision("hedy"), decision("hedy", on_behalf_of="grace"), wanted=TWO, delegations=handed).granted
    assert not stand(
        decision("dorothy", on_behalf_of="grace"), decision("grace"), wanted=TWO, delegations=(delegation(),)
    ).granted


# --- broken glass -------------------------------------------------------------------------------------------


def broken(*halves, now=NOW, **more):
    return glass_broken(SUBJECT, Record(glass=halves, **more), WANTED, now)


def test_two_operators_with_one_incident_break_the_glass_for_some_hours():
    found = broken(glass(), glass("olga"))
    assert found is not None
    assert found.operators == ("otto", "olga")
    assert broken(glass(), glass("olga"), now=NOW + timedelta(hours=5)) is None


@pytest.mark.parametrize(
    "halves",
    [
        (glass(),),
        (glass(), glass("Otto")),
        (glass(), glass("olga", incident="INC-8")),
        (glass(), glass("grace")),
        (glass(), glass("olga", subject=replace(SUBJECT, package="sha256:" + "e" * 64))),
    ],
    ids=["one", "the same twice", "two incidents", "no operator", "other bytes"],
)
def test_anything_less_does_not(halves):
    assert broken(*halves) is None


def test_half_a_broken_glass_can_be_taken_back():
    assert broken(glass(), glass("olga"), revocations=(revocation("olga"),)) is None


# --- the law ------------------------------------------------------------------------------------------------

actors = st.sampled_from(["grace", "hedy", "katherine", "ada", "mallory"])
subjects = st.sampled_from([SUBJECT, replace(SUBJECT, package="sha256:" + "e" * 64)])


@given(
    st.lists(st.builds(decision, actors, subjects, approved=st.booleans(), hours=st.floats(-5, 5)), max_size=8),
    st.integers(-1, 4),
)
def test_whatever_is_recorded_promotion_needs_as_many_entitled_unexpired_approvals_as_asked(decisions, count):
    state = stand(*decisions, wanted=replace(WANTED, count=count))
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
