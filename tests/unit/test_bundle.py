"""What may leave as a bundle: what policy and quorum let through, and nobody has taken back since."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

import pytest

from pipeline.domain import bundle
from pipeline.domain.approval import Decision, Delegation, GlassBroken, Requirement, Revocation
from pipeline.domain.events import Draft
from pipeline.domain.policy import Policy
from pipeline.domain.state import fold_run, subject_of
from pipeline.errors import ApprovalInvalid, PolicyRefused
from tests.unit.test_gate_machine import Memory

NEEDED = Requirement(("grace", "hedy", "katherine"), 2, ("ada",), operators=("otto", "olga"))
POLICY = Policy.model_validate({"metric": [{"metric": "auc", "min": 0.7}]})


class Line:
    """One run in a ledger, and what people record about it."""

    def __init__(self, auc=0.8, before=()):
        self.ledger = Memory()
        for delegation in before:
            self.put("approval.delegated", delegation, "production", run=None)
        code = {"digest": "sha256:code", "author": "ada"}
        self.put("run.opened", {"code": code, "policy_digest": "sha256:policy", "requester": "ada"})
        self.put("data.ingested", {"digest": "sha256:data"})
        self.put("model.trained", {"package": "sha256:package", "weights": "sha256:weights"})
        self.put("model.evaluated", {"evidence": "sha256:evidence", "champion": None})
        self.put("model.registered", {"model": "flights", "version": "7"})
        metrics = {"metrics": {"auc": auc}}
        self.evidence = {"created": self.time(), "candidate": metrics, "data": {"checks_passed": True}}

    def put(self, kind, body, environment=None, run="r"):
        self.ledger.append(Draft(kind, "somebody", body, run, "flights", environment))

    def time(self, hours=0):
        return (self.ledger.now + timedelta(hours=hours)).isoformat()

    @property
    def subject(self):
        return subject_of(fold_run("r", self.ledger.events(run="r")), "production")

    def decide(self, who, approved=True, for_=None):
        body = Decision(self.subject, approved, who, "why", "jenkins", self.time(), self.time(1), for_)
        self.put("approval.decided", asdict(body), "production")

    def open(self):
        self.put("gate.opened", {"subject": asdict(self.subject)}, "production")

    def demand(self):
        state, about = fold_run("r", self.ledger.events(run="r")), self.ledger.events(environment="production")
        gate = bundle.gate_then(state, about, policy=POLICY, requirement=NEEDED, evidence=self.evidence)
        bundle.demand(gate)


def approved():
    line = Line()
    line.decide("grace")
    line.decide("hedy")
    line.open()
    return line


def test_what_was_approved_may_leave_even_when_the_approval_has_been_used_long_ago():
    line = approved()
    line.ledger.now += timedelta(days=400)
    line.demand()


def test_one_approval_of_two_is_none():
    line = Line()
    line.decide("grace")
    line.open()
    with pytest.raises(ApprovalInvalid, match="1 approval"):
        line.demand()


def test_what_was_taken_back_or_rejected_since_stays():
    line = approved()
    line.put("approval.revoked", asdict(Revocation(line.subject.digest, "hedy", "a fault", "jenkins", line.time())))
    with pytest.raises(ApprovalInvalid, match="taken back"):
        line.demand()
    line = approved()
    line.decide("katherine", approved=False)
    with pytest.raises(ApprovalInvalid, match="rejected"):
        line.demand()


def test_an_emergency_of_one_installation_is_no_approval_of_another():
    for auc, refused in ((0.8, ApprovalInvalid), (0.6, ApprovalInvalid)):
        line = Line(auc)
        for who in NEEDED.operators:
            half = GlassBroken(line.subject.digest, who, "down", "INC-1", "jenkins", line.time(), line.time(4))
            line.put("glass.broken", asdict(half), "production")
        line.open()
        with pytest.raises(refused, match="INC-1"):
            line.demand()


def test_what_the_policy_refuses_stays():
    line = Line(0.6)
    line.decide("grace")
    line.decide("hedy")
    line.open()
    with pytest.raises(PolicyRefused, match="auc"):
        line.demand()


def test_the_extract_begins_with_the_run_or_with_the_delegation_that_was_decided_by():
    given = [
        asdict(Delegation(by, to, "2026-11-01T00:00:00+00:00", "2026-12-31T00:00:00+00:00", "away", "jenkins", ""))
        for by, to in (("katherine", "x"), ("hedy", "dorothy"))
    ]
    line = Line(before=given)
    about = line.ledger.events(environment="production")
    assert bundle.first_row(line.ledger.events(run="r"), about) == 3
    line.decide("dorothy", for_="hedy")
    assert bundle.first_row(line.ledger.events(run="r"), about) == 2
