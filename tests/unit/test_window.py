"""Time windows as people write them."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.window import Window
from pipeline.errors import UsageError

DAYS = st.dates(date(1900, 1, 1), date(2200, 1, 1))
WINDOWS = st.builds(lambda start, days: Window(start, start + timedelta(days)), DAYS, st.integers(1, 5000))


@pytest.mark.parametrize(
    ("text", "start", "end", "printed"),
    [
        ("2013-07", date(2013, 7, 1), date(2013, 8, 1), "2013-07"),
        ("2013-12", date(2013, 12, 1), date(2014, 1, 1), "2013-12"),
        ("2013-01..2013-06", date(2013, 1, 1), date(2013, 7, 1), "2013-01..2013-06"),
        ("2013-07-04", date(2013, 7, 4), date(2013, 7, 5), "2013-07-04"),
        ("2013-07-01..2013-07-14", date(2013, 7, 1), date(2013, 7, 15), "2013-07-01..2013-07-14"),
        ("2012-02..2012-02-29", date(2012, 2, 1), date(2012, 3, 1), "2012-02"),
        (" 2013-01 .. 2013-02 ", date(2013, 1, 1), date(2013, 3, 1), "2013-01..2013-02"),
    ],
)
def test_both_ends_are_inclusive_as_written(text: str, start: date, end: date, printed: str) -> None:
    window = Window.parse(text)
    assert (window.start, window.end, str(window)) == (start, end, printed)


@settings(deadline=None)
@given(WINDOWS)
def test_what_is_printed_reads_back_as_the_same_window(window: Window) -> None:
    assert Window.parse(str(window)) == window


@pytest.mark.parametrize(
    "text",
    ["", "..", "July", "2013", "2013-7", "2013-13", "2013-02-30", "2013-01..", "..2013-02", "2013-01...2013-02",
     "2013-02..2013-01", "2013-01..2013-02..2013-03", "0000-01", "9999-12", "２０１３-07"],
)  # fmt: skip
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        Window.parse(text)
    assert f"'{text}'" in refused.value.what
    assert "2013-01..2013-06" in refused.value.fix


def test_a_window_that_ends_before_it_starts_says_so() -> None:
    with pytest.raises(UsageError, match=r"'2013-06\.\.2013-01' ends before it starts"):
        Window.parse("2013-06..2013-01")


def test_months_are_those_with_a_day_inside() -> None:
    assert Window.parse("2012-11-30..2013-02-01").months() == ("2012-11", "2012-12", "2013-01", "2013-02")
    assert Window.parse("2013-12").months() == ("2013-12",)


@settings(deadline=None)
@given(WINDOWS, WINDOWS)
def test_windows_overlap_when_they_share_a_day(one: Window, other: Window) -> None:
    shared = max(one.start, other.start) < min(one.end, other.end)
    assert one.overlaps(other) == other.overlaps(one) == shared


def test_neighbouring_months_do_not_overlap() -> None:
    assert not Window.parse("2013-01..2013-06").overlaps(Window.parse("2013-07"))
