"""Time windows: months or days, both ends inclusive as people write them, half-open as code uses them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta

from pipeline.errors import UsageError

_GRAMMAR = "write months or days, both ends inclusive: 2013-01..2013-06, 2013-07 or 2013-07-01..2013-07-14"
_POINT = re.compile(r"([0-9]{4})-([0-9]{2})(?:-([0-9]{2}))?")
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of days.

    Args:
        start: first day, inclusive.
        end: the day after the last, exclusive; later than `start`.

    Two windows over the same days are equal and print the same text, however they were written.
    """

    start: date
    end: date

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise UsageError(f"a window ends before it starts: {self.start} to {self.end}", fix=_GRAMMAR)

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read ``2013-01..2013-06``, ``2013-07``, ``2013-07-01..2013-07-14`` or ``2013-07-04``.

        Raises:
            UsageError: the text is something else, names a day that does not exist, or ends before it starts.
        """
        first, separator, last = text.strip().partition("..")
        try:
            start, after_start = _days(first)
            return cls(start, _days(last)[1] if separator else after_start)
        except (ValueError, OverflowError) as error:
            raise UsageError(f"'{text}' is not a time window: {error}", fix=_GRAMMAR) from error
        except UsageError as error:
            raise UsageError(f"the time window '{text}' ends before it starts", fix=_GRAMMAR) from error

    def __str__(self) -> str:
        if self.start.day == 1 and self.end.day == 1:
            first, last = _month(self.start), _month(self.end - _DAY)
        else:
            first, last = self.start.isoformat(), (self.end - _DAY).isoformat()
        return first if first == last else f"{first}..{last}"

    def months(self) -> tuple[str, ...]:
        """Every month that has a day in the window, in order, as ``2013-07``."""
        last = self.end - _DAY
        numbers = range(self.start.year * 12 + self.start.month - 1, last.year * 12 + last.month)
        return tuple(f"{number // 12:04}-{number % 12 + 1:02}" for number in numbers)

    def ending(self, end: date) -> Window:
        """A window as long as this one that ends before the day `end`: of as many months where both lie on months."""
        if self.start.day == self.end.day == end.day == 1:
            first = end.year * 12 + end.month - 1 - len(self.months())
            return Window(date(first // 12, first % 12 + 1, 1), end)
        return Window(end - (self.end - self.start), end)

    @classmethod
    def month_before(cls, day: date) -> Window:
        """The last whole month before a day."""
        end = day.replace(day=1)
        return cls((end - _DAY).replace(day=1), end)

    def overlaps(self, other: Window) -> bool:
        """Whether some day is in both."""
        return self.start < other.end and other.start < self.end


def _days(text: str) -> tuple[date, date]:
    """First day of a month or day as written, and the day after its last."""
    found = _POINT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"'{text.strip()}' is neither a month nor a day")
    year, month = int(found[1]), int(found[2])
    if found[3]:
        day = date(year, month, int(found[3]))
        return day, day + _DAY
    first = date(year, month, 1)
    return first, date(year + month // 12, month % 12 + 1, 1)


def _month(day: date) -> str:
    return f"{day.year:04}-{day.month:02}"
