"""No sequence of events reaches production without a valid approval, whoever appends what in which order.

The machine plays everybody at once: trainers, approvers, outsiders, operators and the clock. It promotes through the
same pure core as the real command. What a valid approval is, the test says again in its own words.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.domain.approval import (
    Decision,
    Delegation,
    GlassBroken,
    Group,
    Requirement,
    Revocation,
    fold_record,
)
from pipeline.domain.events import GENESIS, Draft, link, verify
from pipeline.domain.gate import stands
from pipeline.domain.policy import Policy
from pipeline.domain.state import fold_environment, fold_run, subject_of
from pipeline.errors import GatehouseError
from pipeline.stages import deploy, promote

START = datetime(2026, 11, 24, tzinfo=UTC)
PEOPLE = ("grace", "hedy", "katherine", "ada", "mallory", "otto", "olga", "Grace")
APPROVERS, REQUESTER, OPERATORS = ("grace", "hedy", "katherine", "ada"), "ada", ("otto", "olga")
NEEDED = Requirement(APPROVERS, 2, (REQUESTER,), (Group("validation", ("katherine",), 1),), OPERATORS)
POLICY = Policy.model_validate({"metric": [{"metric": "auc", "min": 0.7}], "max_evidence_age_hours": 50})
people = st.sampled_from(PEOPLE)
hours = st.sampled_from([1, 3, 10, 30, 60])


class Memory:
    """The ledger's port over a list."""

    def __init__(self):
        self.kept = []
        self.now = START

    def append(self, draft):
        previous = self.kept[-1].hash if self.kept else GENESIS
        self.kept.append(link(draft, seq=len(self.kept) + 1, at=self.now.isoformat(), previous=previous))
        return self.kept[-1].event()

    def events(self, *, run=None, model=None, environment=None):
        wanted = {"run": run, "model": model, "environment": environment}
        found = (row.event() for row in self.kept)
        return [e for e in found if all(getattr(e, key) == value for key, value in wanted.items() if value)]

    @contextmanager
    def transaction(self):
        yield self


class Line(RuleBasedStateMachine):
    """One model's whole life."""

    runs = Bundle("runs")

    @initialize()
    def begin(self):
        self.ledger = Memory()
        self.evidence = {}
        self.promoted = []

    def put(self, kind, body, run=None, environment=None, actor="somebody"):
        return self.ledger.append(Draft(kind, actor, body, run, "flights", environment))

    def state(self, run):
        return fold_run(run, self.ledger.events(run=run))

    def subject(self, run):
        return subject_of(self.state(run), "production")

    def champion(self):
        return fold_environment(self.ledger.events(model="flights", environment="production")).wanted

    def time(self, shift=0):
        return (self.ledger.now + timedelta(hours=shift)).isoformat()

    # --- what can happen ------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.evidence) < 3)
    @rule(target=runs, auc=st.sampled_from([0.6, 0.75, 0.8]))
    def measure(self, auc):
        run = f"run-{len(self.evidence)}"
        champion = self.champion()
        code = {"digest": f"sha256:code-{run}", "author": "ada@corp.example"}
        self.put("run.opened", {"code": code, "policy_digest": "sha256:policy", "requester": REQUESTER}, run)
        self.put("data.ingested", {"digest": f"sha256:data-{run}"}, run)
        self.put("model.trained", {"package": f"sha256:package-{run}", "weights": f"sha256:weights-{run}"}, run)
        self.evidence[run] = {
            "created": self.ledger.now.isoformat(),
            "candidate": {"metrics": {"auc": auc}},
            "data": {"checks_passed": True},
        }
        compared = {"package": champion.package} if champion else None
        self.put("model.evaluated", {"evidence": f"sha256:evidence-{run}", "champion": compared}, run)
        self.put("model.registered", {"model": "flights", "version": run}, run)
        return run

    @rule(run=runs, field=st.sampled_from(["evidence", "package", "data"]))
    def measure_again(self, run, field):
        """A fact is written anew: whatever was approved before was of something else."""
        kind = {"evidence": "model.evaluated", "package": "model.trained", "data": "data.ingested"}[field]
        stage = {"evidence": "evaluate", "package": "train", "data": "ingest"}[field]
        fact = {key: value for key, value in self.state(run).fact(stage).items() if key not in ("at", "seq")}
        key = "digest" if field == "data" else field
        self.put(kind, {**fact, key: f"{fact[key]}+"}, run)

    @rule(run=runs, actor=people, approved=st.booleans() | st.just(True), valid=hours, whom=st.none() | people)
    def decide(self, run, actor, approved, valid, whom):
        body = Decision(
            self.subject(run), approved, actor, "because", "signed", self.time(), self.time(valid), on_behalf_of=whom
        )
        self.put("approval.decided", asdict(body), run, "production", actor)

    @rule(run=runs, other=runs, actor=people)
    def replay(self, run, other, actor):
        """Somebody's approval of one run is copied onto another."""
        old = [event.body for event in self.ledger.events(run=other) if event.kind == "approval.decided"]
        if old:
            self.put("approval.decided", old[-1], run, "production", actor)

    @rule(run=runs, actor=people)
    def take_back(self, run, actor):
        body = Revocation(self.subject(run).digest, actor, "because", "signed", self.time())
        self.put("approval.revoked", asdict(body), run, "production", actor)

    @rule(by=people, to=people, starts=st.integers(-5, 5), length=hours)
    def delegate(self, by, to, starts, length):
        body = Delegation(by, to, self.time(starts), self.time(starts + length), "away", "signed", self.time())
        self.put("approval.delegated", asdict(body), None, "production", by)

    @rule(run=runs, actor=people, incident=st.sampled_from(["INC-1", "INC-2"]))
    def break_glass(self, run, actor, incident):
        body = GlassBroken(self.subject(run).digest, actor, "down", incident, "signed", self.time(), self.time(4))
        self.put("glass.broken", asdict(body), run, "production", actor)

    @rule(run=runs, pair=st.permutations(["grace", "hedy", "katherine"]), valid=hours)
    def two_approve(self, run, pair, valid):
        for actor in pair[:2]:
            self.decide(run, actor, True, valid, None)

    @rule(run=runs, by=st.sampled_from(["grace", "katherine"]), to=st.sampled_from(["mallory", "hedy"]), early=hours)
    def the_delegate_approves(self, run, by, to, early):
        self.delegate(by, to, -early, early + 1 if early % 2 else early - 1)
        self.decide(run, to, True, 20, by)

    @rule(run=runs)
    def both_operators_break_the_glass(self, run):
        for actor in OPERATORS:
            self.break_glass(run, actor, "INC-1")

    @rule(passed=hours)
    def wait(self, passed):
        self.ledger.now += timedelta(hours=passed)

    @rule()
    def roll_back(self):
        state = fold_environment(self.ledger.events(model="flights", environment="production"))
        if state.before:
            body = {key: getattr(state.before, key) for key in ("model", "version", "package", "uri", "run")}
            self.put("model.rolled_back", body, state.before.run, "production")

    @rule(run=runs)
    def promote(self, run):
        """As the command does: the gate and the comparison with the champion, inside the lock."""
        subject = self.subject(run)
        champion = self.champion()
        expected = self.valid(run) and subject.champion == (champion.package if champion else None)
        body = {"model": "prod.flights", "version": "1", "package": subject.package, "uri": "models:/m", "run": run}

        def recheck(_reader):
            gate = self.gate(run)
            gate.demand()
            return gate.fact()

        try:
            promote.swap(
                "production",
                "flights",
                body,
                champion=subject.champion,
                recheck=recheck,
                ledger=self.ledger,
                actor="jenkins",
            )
        except GatehouseError:
            assert not expected, f"{run} was refused and is approved"
        else:
            assert expected, f"{run} reached production without a valid approval"
            self.promoted.append(run)

    def gate(self, run):
        return stands(
            self.state(run),
            fold_record(self.ledger.events(model="flights", environment="production")).delegations,
            policy=POLICY,
            requirement=NEEDED,
            evidence=self.evidence[run],
            now=self.ledger.now,
        )

    # --- what a valid approval is, in other words -----------------------------------------------------------

    def valid(self, run):
        subject, now = asdict(self.subject(run)), self.ledger.now
        mine = self.ledger.events(run=run)
        about = [e for e in mine if e.kind == "approval.decided" and e.body["subject"] == subject]
        if any(not e.body["approved"] for e in about):
            return False
        return self.emergency(run, mine, now) or (self.measured_well(run, now) and self.quorum(run, about, mine, now))

    def measured_well(self, run, now):
        age = now - datetime.fromisoformat(self.evidence[run]["created"])
        return self.evidence[run]["candidate"]["metrics"]["auc"] >= 0.7 and age <= timedelta(hours=50)

    def taken_back(self, run, name, since, mine):
        digest = self.subject(run).digest
        return any(
            e.kind == "approval.revoked"
            and e.body["subject"] == digest
            and e.body["actor"].lower() == name.lower()
            and e.body["at"] >= since
            for e in mine
        )

    def quorum(self, run, about, mine, now):
        given = [e.body for e in self.ledger.events() if e.kind == "approval.delegated"]
        busy, principals = set(), []
        for body in (e.body for e in about):
            actor, whom = body["actor"].lower(), (body["on_behalf_of"] or body["actor"]).lower()
            in_place = whom == actor and body["on_behalf_of"] is None
            in_place = in_place or any(
                d["by"].lower() == whom and d["to"].lower() == actor and d["starts"] <= body["at"] <= d["ends"]
                for d in given
            )
            withdrawn = any(self.taken_back(run, name, body["at"], mine) for name in (actor, whom))
            entitled = whom in APPROVERS and REQUESTER not in (whom, actor)
            fresh = datetime.fromisoformat(body["expires"]) > now
            if in_place and entitled and fresh and not withdrawn and not {actor, whom} & busy:
                busy |= {actor, whom}
                principals.append(whom)
        return len(principals) >= 2 and "katherine" in principals

    def emergency(self, run, mine, now):
        digest = self.subject(run).digest
        halves = {
            (e.body["incident"], e.body["actor"].lower())
            for e in mine
            if e.kind == "glass.broken"
            and e.body["subject"] == digest
            and datetime.fromisoformat(e.body["expires"]) > now
            and e.body["actor"].lower() in OPERATORS
            and not self.taken_back(run, e.body["actor"], e.body["at"], mine)
        }
        return any((incident, "otto") in halves and (incident, "olga") in halves for incident, _ in halves)

    # --- what always holds ----------------------------------------------------------------------------------

    @invariant()
    def the_chain_holds_and_every_promotion_is_one_that_was_let_through(self):
        if hasattr(self, "ledger"):
            rows = list(verify(self.ledger.kept))
            assert [row.run for row in rows if row.kind == "model.promoted"] == self.promoted

    @invariant()
    def the_gate_is_open_for_exactly_those_that_are_validly_approved(self):
        for run in getattr(self, "evidence", ()):
            assert self.gate(run).open == self.valid(run), run


Line.TestCase.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)
TestNothingReachesProductionUnapproved = Line.TestCase


def test_the_machine_does_promote_when_two_approve():
    machine = Line()
    machine.begin()
    run = machine.measure(0.8)
    for actor in ("grace", "katherine"):
        machine.decide(run, actor, True, 10, None)
    machine.promote(run)
    assert machine.promoted == [run]
    assert machine.champion().package == machine.subject(run).package


def test_the_same_rollback_asked_for_again_goes_back_one_step_and_a_later_one_another():
    ledger = Memory()
    for version in "123":
        body = {"model": "prod.flights", "version": version, "package": version, "uri": version, "run": version}
        ledger.append(Draft("model.promoted", "jenkins", body, version, "flights", "production"))

    def back(reason="nonsense"):
        how = {"ledger": ledger, "actor": "otto", "reason": reason, "now": ledger.now}
        return deploy.roll_back("production", "flights", **how)[1].version

    assert [back(), back()] == ["2", "2"]
    assert back("another reason") == "1"
