"""Folds: what a run has done and what an environment should serve."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.events import GENESIS, Draft, link
from pipeline.domain.state import fold_environment, fold_run
from pipeline.errors import IntegrityViolated, UsageError
from pipeline.graph import STAGES


def events(*drafts):
    made, previous = [], GENESIS
    for seq, draft in enumerate(drafts, 1):
        made.append(link(draft, seq=seq, at=f"2026-11-23T20:00:{seq:02d}.000000Z", previous=previous))
        previous = made[-1].hash
    return [row.event() for row in made]


def placed(kind, name):
    body = {
        "model": "prod.flights",
        "version": name,
        "package": f"sha256:{name}",
        "uri": f"models:/m-{name}",
        "run": f"run-{name}",
    }
    return Draft(kind, "jenkins", body, f"run-{name}", "flights", "production")


def fact(stage):
    return Draft(stage.writes, "jenkins", {"n": stage.name}, "r", "flights", stage.environment)


def test_each_stage_is_proved_by_its_own_event_and_by_no_other():
    for stage in STAGES:
        state = fold_run("r", events(fact(stage)))
        assert [name.name for name in STAGES if state.done(name.name)] == [stage.name]


@given(st.integers(0, len(STAGES)))
def test_the_next_stage_is_the_first_without_its_fact(done):
    state = fold_run("r", events(*(fact(stage) for stage in STAGES[:done])))
    expected = STAGES[done] if done < len(STAGES) else None
    assert state.next_stage() == expected


def test_a_stage_that_is_not_ready_names_the_command_that_is_missing():
    state = fold_run("r", events(fact(STAGES[0])))
    with pytest.raises(UsageError) as refused:
        state.require(STAGES[2])
    assert refused.value.fix == "gatehouse validate --run r"


def test_a_rollback_goes_back_one_promotion_and_no_further():
    state = fold_environment(
        events(placed("model.promoted", "1"), placed("model.promoted", "2"), placed("model.rolled_back", "1"))
    )
    assert state.wanted is not None
    assert state.wanted.version == "1"
    assert state.rolled_out == state.wanted
    assert state.before is None


def test_promotion_alone_does_not_move_the_server():
    state = fold_environment(
        events(placed("model.promoted", "1"), placed("rollout.requested", "1"), placed("model.promoted", "2"))
    )
    assert state.wanted is not None
    assert state.rolled_out is not None
    assert (state.wanted.version, state.rolled_out.version) == ("2", "1")


moves = st.lists(st.sampled_from(["promote", "back"]), max_size=12)


@given(moves)
def test_promotions_and_rollbacks_behave_as_a_stack(sequence):
    drafts, stack, version = [], [], 0
    for move in sequence:
        if move == "promote":
            version += 1
            stack.append(str(version))
            drafts.append(placed("model.promoted", str(version)))
        elif len(stack) > 1:
            stack.pop()
            drafts.append(placed("model.rolled_back", stack[-1]))
    state = fold_environment(events(*drafts))
    assert [place.version for place in state.stack] == stack


def test_a_proof_is_of_one_fact_in_one_place_of_the_ledger():
    def ingested(rows):
        return Draft("data.ingested", "jenkins", {"rows": rows}, "r", "flights")

    other = Draft("run.opened", "jenkins", {}, "r", "flights")
    proof = fold_run("r", events(ingested(5))).proof("ingest")
    assert fold_run("r", events(ingested(5))).proof("ingest", proof) == proof
    for ledger in (events(ingested(6)), events(other, ingested(5)), []):
        with pytest.raises(IntegrityViolated, match=r"is said to have left"):
            fold_run("r", ledger).proof("ingest", proof)
    with pytest.raises(UsageError, match=r"has not finished"):
        fold_run("r", []).proof("ingest")
