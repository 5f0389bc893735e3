"""Whether measured drift asks for a new model: once for a measurement, not again while one cools down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.domain.events import Event
from pipeline.domain.state import Placement
from pipeline.domain.window import Window

KIND = "retrain.requested"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A new model that a measurement asks for.

    Attributes:
        measured: ledger row of the measurement.
        run: id of the run, the same however often it is asked for.
        window: the window that drifted; the new model is measured on it.
        reason: in words, for people.
    """

    measured: int
    run: str
    window: str
    reason: str


@dataclass(frozen=True, slots=True)
class NotNow:
    """Why nothing is asked for."""

    why: str


def judge(events: Iterable[Event], serving: Placement, cool_down: timedelta, now: datetime) -> Wanted | NotNow:
    """Whether a model's newest measurement asks for a new one.

    Args:
        events: of the model in the environment, in order.
        serving: what is wanted there; drift of another version is its own affair no more.
        cool_down: between two requests for one model.
        now: the time, aware.
    """
    measured = asked = None
    for event in events:
        if event.kind == "drift.measured" and event.body.get("package") == serving.package:
            measured = event
        elif event.kind == KIND:
            asked = event
    if measured is None or not measured.body.get("drifted"):
        return NotNow(f"no drift of version {serving.version} was measured last")
    wanted = Wanted(
        measured.seq,
        f"{serving.model.split('.')[-1]}-drift-{measured.seq}",
        str(measured.body["window"]),
        _words(measured),
    )
    if asked is not None and asked.body["measured"] != measured.seq:
        until = datetime.fromisoformat(asked.at) + cool_down
        if now < until:
            return NotNow(f"row {asked.seq} asked for {asked.run}; the next may come after {until:%Y-%m-%d %H:%M} UTC")
    return wanted


def windows(drifted: Window, trained: Window) -> tuple[Window, Window]:
    """Training and hold-out window of the new model: measured on what drifted, trained on as much as before it."""
    return trained.ending(drifted.start), drifted


def _words(measured: Event) -> str:
    reasons = "; ".join(str(reason) for reason in measured.body.get("reasons", ())[:2])
    return f"drift in {measured.environment}, {measured.body['window']}: {reasons} (ledger row {measured.seq})"
