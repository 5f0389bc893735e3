"""Waiting at the gate: for faces whose tasks cannot be left and come back to. Everything is asked of the ledger."""

from __future__ import annotations

import time

from pipeline.bootstrap.gatekeeping import gate_of, record_verdict
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.notify import deliver
from pipeline.bootstrap.runner import account_of
from pipeline.domain.gate import Gate
from pipeline.errors import ApprovalInvalid, Unreachable
from pipeline.graph import GATE

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


def wait(place: Installation, run: str, seconds: float) -> None:
    """Wait until the gate is open, at most `seconds` from now. A ledger that is away for a while is waited for too.

    Raises:
        PolicyRefused: the policy refuses: no approval would open the gate.
        ApprovalInvalid: it was rejected, or nobody entitled let it through in time.
        Unreachable: the ledger was away when the time was over.
    """
    place = place.acting_as(account_of(GATE))
    deadline, pause, told = time.monotonic() + seconds, FIRST_PAUSE, False
    while True:
        try:
            gate = _look(place, run, tell=not told)
            if gate.open:
                return
            if gate.standing.rejected_by or not gate.verdict.passed:
                gate.demand()
            if not told:
                place.reporter.note(f"{GATE.name}: waiting; may decide: {', '.join(gate.standing.may_decide)}")
            told = True
            if time.monotonic() >= deadline:
                raise _too_late(gate, seconds)
        except Unreachable:
            if time.monotonic() >= deadline:
                raise
            place.reporter.note(f"{GATE.name}: the ledger does not answer; still waiting")
        time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        pause = min(2 * pause, LONGEST_PAUSE)


def _look(place: Installation, run: str, *, tell: bool) -> Gate:
    """Where the run stands now; the first look is recorded, so that people are told."""
    state = place.state(run)
    state.require(GATE)
    project = place.project(state)
    gate = gate_of(place, state, project)
    if tell:
        record_verdict(place, state, project, gate.verdict)
        deliver(place)
    return gate


def _too_late(gate: Gate, seconds: float) -> ApprovalInvalid:
    why = "; ".join(gate.standing.problems) or f"{gate.standing.missing} approval(s) missing"
    return ApprovalInvalid(
        f"nobody let this run through within {seconds:g} s: {why}",
        where=f"run {gate.run}",
        fix=f"may decide: {', '.join(gate.standing.may_decide) or 'nobody'}; then wait again, it goes on from here",
    )
