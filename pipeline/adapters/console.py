"""The reporter: rich progress bars on a terminal, plain lines in a log.

Everything goes to standard error, so that standard output stays a command's answer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from pipeline.ports import Tracker

_LINE_EVERY_SECONDS = 5.0


class ConsoleReporter:
    """Talks to whoever watches."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())

    def note(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False)

    @contextmanager
    def track(self, what: str, total: float | None = None) -> Iterator[Tracker]:
        """A bar on a terminal; in a log a line at the start, every few seconds, and at the end."""
        started = time.monotonic()
        if self._console.is_terminal:
            with _progress(self._console) as progress:
                yield _Bar(progress, progress.add_task(what, total=total, words=""))
            self.note(f"  {what}: {time.monotonic() - started:.1f} s")
            return
        lines = _Lines(self, what, total)
        yield lines
        words = f", {lines.words}" if lines.words else ""
        self.note(f"  {what}: done in {time.monotonic() - started:.1f} s{words}")


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[words]}"),
        console=console,
        transient=True,
    )


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, amount: float = 1.0) -> None:
        self._progress.advance(self._task, amount)

    def say(self, text: str) -> None:
        self._progress.update(self._task, words=text)


class _Lines:
    def __init__(self, reporter: ConsoleReporter, what: str, total: float | None) -> None:
        self._reporter, self._what, self._total = reporter, what, total
        self._done, self._last, self.words = 0.0, time.monotonic(), ""

    def advance(self, amount: float = 1.0) -> None:
        self._done += amount
        if time.monotonic() - self._last > _LINE_EVERY_SECONDS:
            self._last = time.monotonic()
            of = f" of {self._total:g}" if self._total else ""
            words = f" {self.words}" if self.words else ""
            self._reporter.note(f"  {self._what}: {self._done:g}{of}{words}")

    def say(self, text: str) -> None:
        self.words = text
