"""When drift asks for a new model: once for a measurement, and not again while one cools down."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.events import Event
from pipeline.domain.retraining import NotNow, Wanted, judge, windows
from pipeline.domain.state import Placement
from pipeline.domain.window import Window

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
WEEK = timedelta(days=7)
SERVING = Placement("prod.flights", "3", "sha256:serving", "uri", "a-run", 5, "2026-11-01T00:00:00Z")


def event(kind, seq, days_ago, **body):
    return Event(
        seq, (NOW - timedelta(days=days_ago)).isoformat(), kind, "x", None, "flights", "production", body, "", ""
    )


def measured(seq, days_ago=0.0, *, drifted=True, package=SERVING.package):
    about = {"drifted": drifted, "package": package, "window": "2013-08", "reasons": ["psi(carrier) 0.31 > 0.2"]}
    return event("drift.measured", seq, days_ago, **about)


def asked(seq, days_ago, about):
    return event("retrain.requested", seq, days_ago, measured=about)


def test_drift_of_what_serves_asks_for_a_run_named_after_the_measurement():
    found = judge([measured(8)], SERVING, WEEK, NOW)
    assert isinstance(found, Wanted)
    assert (found.run, found.window) == ("flights-drift-8", "2013-08")
    assert "psi(carrier) 0.31 > 0.2" in found.reason and "row 8" in found.reason


def test_drift_of_a_version_that_serves_no_more_or_none_asks_for_nothing():
    for events in ([], [measured(8, package="sha256:older")], [measured(7), measured(8, drifted=False)]):
        assert isinstance(judge(events, SERVING, WEEK, NOW), NotNow)


def test_the_same_measurement_asks_for_the_same_run_again():
    assert judge([measured(8, 3), asked(9, 3, 8)], SERVING, WEEK, NOW) == judge([measured(8, 3)], SERVING, WEEK, NOW)


def test_another_measurement_waits_until_the_last_request_has_cooled_down():
    warm, cold = ([measured(8, ago), asked(9, ago, 8), measured(10)] for ago in (6.9, 7.1))
    assert isinstance(judge(warm, SERVING, WEEK, NOW), NotNow)
    assert isinstance(judge(cold, SERVING, WEEK, NOW), Wanted)


@given(st.lists(st.floats(0, 60), min_size=1, max_size=30).map(lambda ages: sorted(ages, reverse=True)))
def test_however_often_drift_is_measured_requests_are_a_cool_down_apart(ages):
    events, requests = [], []
    for number, age in enumerate(ages):
        events.append(measured(2 * number + 1, age))
        found = judge(events, SERVING, WEEK, NOW - timedelta(days=age))
        if isinstance(found, Wanted):
            events.append(asked(2 * number + 2, age, found.measured))
            requests.append(age)
    assert all(earlier - later >= 7 - 1e-9 for earlier, later in pairwise(requests))


def test_the_new_model_is_measured_on_what_drifted_and_trained_on_as_much_as_before():
    drifted, before = Window.parse("2013-08"), Window.parse("2013-01..2013-06")
    assert [str(one) for one in windows(drifted, before)] == ["2013-02..2013-07", "2013-08"]
    days = windows(Window.parse("2013-08-05..2013-08-11"), Window.parse("2013-01"))
    assert [str(one) for one in days] == ["2013-07-05..2013-08-04", "2013-08-05..2013-08-11"]


@given(st.dates(date(1990, 1, 1), date(2100, 1, 1)), st.dates(date(1990, 1, 1), date(2100, 1, 1)), st.integers(1, 900))
def test_a_window_moved_ends_where_it_should_and_is_as_long(start, end, days):
    window = Window(start, start + timedelta(days))
    moved = window.ending(end)
    assert moved.end == end
    on_months = start.day == window.end.day == end.day == 1
    assert (len(moved.months()) == len(window.months())) if on_months else (moved.end - moved.start).days == days


def test_the_month_before_a_day_is_whole():
    assert str(Window.month_before(date(2026, 1, 15))) == "2025-12"
    assert str(Window.month_before(date(2026, 3, 1))) == "2026-02"
