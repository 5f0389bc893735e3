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
        assert found.promotion is None
    else:
        assert found.promotion["package"] == found.serving.package
        assert found.promotion["approved_by"] == "grace"


def test_changes_are_promotions_and_rollbacks_with_who_and_why():
    rows = history.changes(events(["promote", "roll out", "promote", "roll out", "back"]))
    assert [row["what"] for row in rows] == ["promoted", "promoted", "rolled back"]
    assert rows[0]["approved_by"] == "grace"
    assert rows[2]["package"] == rows[0]["package"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-24", datetime(2026, 11, 24, 23, 59, 59, 999999, UTC)),
        ("2026-11-24T18:00", datetime(2026, 11, 24, 18, tzinfo=UTC)),
        ("2026-11-24T18:00Z", datetime(2026, 11, 24, 18, tzinfo=UTC)),
        ("2026-11-24T18:00+01:00", datetime(2026, 11, 24, 17, tzinfo=UTC)),
    ],
)
def test_a_day_means_its_end_and_no_zone_means_utc(text, moment):
    assert history.moment_of(text) == moment


def test_what_is_no_moment_is_bad_input():
    with pytest.raises(UsageError, match="no moment"):
        history.moment_of("yesterday")
