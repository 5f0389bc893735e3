"""History: for any moment, what the ledger's rows up to then say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import history
from pipeline.domain.events import GENESIS, Draft, link
from pipeline.domain.state import fold_environment
from pipeline.errors import UsageError

START = datetime(2026, 11, 24, tzinfo=UTC)


def events(moves):
    """Promotions, roll-outs and rollbacks, one an hour."""
    made, stack, previous = [], [], GENESIS
    for hour, move in enumerate(moves):
        if move == "promote":
            stack.append(str(hour))
        elif move == "back" and len(stack) > 1:
            stack.pop()
        elif not (move == "roll out" and stack):
            continue
        version = stack[-1]
        body = {
            "model": "prod.flights",
            "version": version,
            "package": f"sha256:{version}",
            "uri": f"models:/m-{version}",
        }
        body |= {"run": f"run-{version}", "approved_by": ["grace"], "evidence": "sha256:e", "reason": "r"}
        kind = {"promote": "model.promoted", "back": "model.rolled_back", "roll out": "rollout.requested"}[move]
        at = (START + timedelta(hours=hour)).isoformat()
        draft = Draft(kind, "jenkins", body, body["run"], "flights", "production")
        row = link(draft, seq=len(made) + 1, at=at, previous=previous)
        made.append(row.event())
        previous = row.hash
    return made


moves = st.lists(st.sampled_from(["promote", "roll out", "back"]), max_size=15)


@given(moves, st.floats(-2, 20))
def test_a_moment_is_the_fold_of_what_had_happened_by_then(some, hours):
    all_events = events(some)
    moment = START + timedelta(hours=hours)
    past = fold_environment(e for e in all_events if datetime.fromisoformat(e.at) <= moment)
    found = history.at(all_events, moment)
    assert (found.wanted, found.serving) == (past.wanted, past.rolled_out)
    if found.serving is None:
        assert found.promotion is found.change is None
    else:
        assert found.change["row"] == found.serving.serial
        assert found.promotion["package"] == found.serving.package
        assert found.promotion["approved_by"] == "grace"


def event(seq, kind, hour, run, package, **body):
    body = {"model": "prod.flights", "version": str(seq), "package": package, "uri": "models:/m", "run": run, **body}
    at = (START + timedelta(hours=hour)).isoformat()
    return link(Draft(kind, "jenkins", body, run, "flights", "production"), seq=seq, at=at, previous=GENESIS).event()


def test_evidence_approval_and_policy_are_those_of_the_run_that_serves_not_of_another_that_made_the_same_bytes():
    story = [
        event(1, "gate.opened", 0, "first", "", subject={"policy": "sha256:policy"}),
        event(2, "model.promoted", 1, "first", "sha256:p", approved_by=["grace"], evidence="sha256:e1"),
        event(3, "rollout.requested", 2, "first", "sha256:p"),
        event(4, "gate.opened", 3, "second", "", subject={"policy": "sha256:other"}),
        event(5, "model.promoted", 4, "second", "sha256:p", approved_by=["alan"], evidence="sha256:e2"),
    ]
    found = history.at(story, START + timedelta(hours=9))
    promotion = found.promotion
    assert (found.wanted.run, found.serving.run) == ("second", "first")
    assert (promotion["approved_by"], promotion["evidence"]) == ("grace", "sha256:e1")
    assert promotion["policy"] == "sha256:policy"


def test_after_a_rollback_it_is_said_who_rolled_back_and_why():
    story = [
        *(event(1, "model.promoted", 0, "a", "sha256:a"), event(2, "rollout.requested", 0, "a", "sha256:a")),
        *(event(3, "model.promoted", 1, "b", "sha256:b"), event(4, "rollout.requested", 1, "b", "sha256:b")),
        event(5, "model.rolled_back", 2, "a", "sha256:a", reason="wrong gate", local={"actor": "otto"}),
    ]
    found = history.at(story, START + timedelta(hours=3))
    change = found.change
    assert (change["what"], change["actor"], change["reason"]) == ("rolled back", "otto", "wrong gate")
    assert found.promotion["row"] == 1


def test_rows_count_in_the_ledgers_order_though_a_clock_was_slow():
    story = [event(1, "model.promoted", 5, "a", "sha256:a"), event(2, "rollout.requested", 3, "a", "sha256:a")]
    assert history.at(story, START + timedelta(hours=4)).serving is None
    assert history.at(story, START + timedelta(hours=5)).serving.run == "a"


def test_changes_are_promotions_and_rollbacks_with_who_and_why():
    rows = history.changes(events(["promote", "roll out", "promote", "roll out", "back"]))
    assert [row["what"] for row in rows] == ["promoted", "promoted", "rolled back"]
    assert rows[0]["approved_by"] == "grace"
    assert rows[2]["package"] == rows[0]["package"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-24", datetime(2026, 11, 24, 23, 59, 59, 999999, UTC)),
        ("20261124", datetime(2026, 11, 24, 23, 59, 59, 999999, UTC)),
        ("9999-12-31", datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
        ("2026-11-24T18:00", datetime(2026, 11, 24, 18, tzinfo=UTC)),
        ("2026-11-24T18:00Z", datetime(2026, 11, 24, 18, tzinfo=UTC)),
        ("2026-11-24T18:00+01:00", datetime(2026, 11, 24, 17, tzinfo=UTC)),
    ],
)
def test_a_day_means_its_end_and_no_zone_means_utc(text, moment):
    assert history.moment_of(text) == moment


@pytest.mark.parametrize("text", ["yesterday", "", "2026-13-01", "0001-01-01T00:00+14:00"])
def test_what_is_no_moment_is_bad_input(text):
    with pytest.raises(UsageError, match="no moment"):
        history.moment_of(text)
