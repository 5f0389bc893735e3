"""Notices: everybody who wants one gets it, once, however often sending fails, until it is given up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import notices
from pipeline.domain.events import Event
from pipeline.domain.notices import due, message

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
BODIES = {
    "model.promoted": {"model": "prod.flights", "version": "3", "approved_by": ["grace"], "glass": None},
    "model.rolled_back": {"model": "prod.flights", "version": "2", "reason": "nonsense"},
    "model.verified": {},
    "approval.decided": {
        "approved": True,
        "actor": "grace",
        "assurance": "oidc",
        "reason": "good",
        "on_behalf_of": None,
    },
    "approval.revoked": {"actor": "grace", "reason": "a fault"},
    "approval.expired": {"version": "3", "expired": "2026-11-24T10:00:00Z"},
    "gate.opened": {"approved_by": ["grace"], "glass": None},
    "glass.broken": {"actor": "otto", "incident": "INC-7", "reason": "down", "expires": "2026-11-24T16:00:00Z"},
    "alarm.raised": {"finding": "bytes", "what": "overwritten"},
    "drift.measured": {"drifted": True, "reasons": ["wind: PSI 0.4"]},
}


def event(kind, seq=1, hours=-1.0, environment="production", **body):
    at = (NOW + timedelta(hours=hours)).isoformat()
    return Event(
        seq, at, kind, "jenkins", "run-1", "flights", environment, BODIES.get(kind, {}) | body, "p", f"sha256:{seq}"
    )


def outcome(kind, seq, about, channel, hours):
    return event(kind, seq, hours, event=about, channel=channel)


@pytest.mark.parametrize(
    ("kind", "environment", "notice"),
    [
        ("model.verified", "staging", "approval wanted"),
        ("model.verified", "production", None),
        ("approval.decided", "production", "decided"),
        ("approval.revoked", "production", "decided"),
        ("gate.opened", "production", "decided"),
        ("approval.expired", "production", "expired"),
        ("model.promoted", "production", "promoted"),
        ("model.promoted", "staging", None),
        ("model.rolled_back", "production", "rolled back"),
        ("glass.broken", "production", "alarm"),
        ("alarm.raised", "production", "alarm"),
        ("drift.measured", None, "drift"),
        ("model.trained", None, None),
    ],
)
def test_people_are_told_of_what_matters_to_them(kind, environment, notice):
    found = due([event(kind, environment=environment)], {"ops": None}, NOW)
    assert notices.notice_of(event(kind, environment=environment)) == notice
    assert len(found) == (notice is not None)


def test_a_channel_gets_what_it_asked_for():
    wants = {"ops": frozenset({"alarm"}), "all": None}
    assert [channel for _, channel in due([event("model.promoted")], wants, NOW)] == ["all"]
    assert [channel for _, channel in due([event("alarm.raised")], wants, NOW)] == ["ops", "all"]


def test_a_measurement_without_drift_is_no_news_and_last_months_is_none_any_more():
    assert due([event("drift.measured", drifted=False)], {"ops": None}, NOW) == []
    assert due([event("alarm.raised", hours=-24 * 8)], {"ops": None}, NOW) == []


def test_what_failed_is_tried_again_after_growing_pauses_and_given_up_at_last():
    told, failed = event("alarm.raised"), "notification.failed"
    for attempts, minutes in ((1, 1), (2, 2), (3, 4)):
        history = [told, *(outcome(failed, 2 + n, 1, "ops", -minutes / 60 + 0.001) for n in range(attempts))]
        assert due(history, {"ops": None}, NOW) == []
        history = [told, *(outcome(failed, 2 + n, 1, "ops", -minutes / 60) for n in range(attempts))]
        assert len(due(history, {"ops": None}, NOW)) == 1
    given_up = [told, *(outcome(failed, 2 + n, 1, "ops", -20) for n in range(notices.MAX_ATTEMPTS))]
    assert due(given_up, {"ops": None}, NOW) == []


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["a", "b"]), st.booleans()), max_size=20))
def test_nothing_is_sent_twice_and_nothing_is_forgotten_before_it_is_given_up(outcomes):
    told = [event("alarm.raised", seq) for seq in range(1, 5)]
    kinds = {True: "notification.sent", False: "notification.failed"}
    rest = [outcome(kinds[sent], 10 + n, seq, channel, -0.9) for n, (seq, channel, sent) in enumerate(outcomes)]
    found = {(e.seq, channel) for e, channel in due([*told, *rest], {"a": None, "b": None}, NOW + timedelta(hours=7))}
    sent = {(seq, channel) for seq, channel, ok in outcomes if ok}
    given_up = {
        pair
        for pair in ((s, c) for s in range(1, 5) for c in "ab")
        if sum((s, c) == pair for s, c, ok in outcomes if not ok) >= notices.MAX_ATTEMPTS
    }
    assert found == {(s, c) for s in range(1, 5) for c in "ab"} - sent - given_up


@pytest.mark.parametrize("kind", BODIES)
def test_a_message_says_what_happened_and_proves_its_place_in_history(kind):
    made = message(event(kind, seq=57))
    assert "ledger anchor 57:sha256:57" in made.text
    assert made.title
    assert made.loud == (kind in ("glass.broken", "alarm.raised"))


def test_broken_glass_is_loud_wherever_it_is_told():
    glass = {"operators": ["otto", "olga"], "incident": "INC-7"}
    for kind in ("model.promoted", "gate.opened"):
        assert "GLASS BROKEN by otto and olga" in message(event(kind, glass=glass)).text
    assert message(event("glass.broken")).title.startswith("!!! GLASS BROKEN")


@pytest.mark.parametrize("body", [{}, {"event": 1}, {"event": [], "channel": {}}, {"event": "1", "channel": "ops"}])
def test_an_outcome_that_says_nothing_silences_nobody(body):
    outcome_ = Event(2, NOW.isoformat(), "notification.sent", "x", None, None, None, body, "p", "h")
    assert len(due([event("alarm.raised"), outcome_], {"ops": None}, NOW)) == 1


JSON = st.sampled_from([None, True, 0, 7, -1, "", "ops", [], [1], ["x", None], {}, {"operators": 1}, [[1]], 0.5])
FIELDS = ("event", "channel", "reached", "reason", "reasons", "approved", "drifted", "version", "glass", "finding")


@given(st.sampled_from(notices.KINDS), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_no_record_that_an_account_may_write_keeps_others_from_being_told(kind, body):
    forged = Event(1, NOW.isoformat(), kind, "mallory", None, None, "production", body, "p", "sha256:1")
    alarm = event("alarm.raised", 2)
    assert (alarm, "ops") in due([forged, alarm], {"ops": None}, NOW)
    notices.reached([forged, alarm], 2, "ops")
    if notices.notice_of(forged):
        assert message(forged).text.endswith("ledger anchor 1:sha256:1")


def test_nobody_says_in_advance_that_an_alarm_was_told():
    foretold = outcome("notification.sent", 1, 2, "ops", -2)
    assert len(due([event("alarm.raised", 2), foretold], {"ops": None}, NOW)) == 1


def test_a_reason_forges_no_line_of_a_message_and_takes_no_password_with_it():
    reason = "x\nledger anchor 1:sha256:00\u202e see postgresql://u:pass/word@db/x"
    made = message(event("approval.revoked", seq=57, reason=reason))
    assert [line for line in made.text.splitlines() if line.startswith("ledger anchor")] == [
        "ledger anchor 57:sha256:57"
    ]
    assert "word" not in made.text
    assert "\u202e" not in made.text
