"""Who is told what: which events are worth a message, in which words, and which are still to be sent. Pure.

The ledger is the outbox. A message is due for every such event and every channel that wants it, until the ledger says
that it was sent there; what failed is tried again after growing pauses, and given up at last.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pipeline.domain.events import Event

MAX_AGE = timedelta(days=7)
MAX_ATTEMPTS = 30
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=6)
LONGEST_LINE = 500
OUTCOMES = ("notification.sent", "notification.failed")
_NOTICES: Mapping[str, str] = {
    "approval.decided": "decided",
    "approval.revoked": "decided",
    "gate.opened": "decided",
    "approval.expired": "expired",
    "glass.broken": "alarm",
    "alarm.raised": "alarm",
}
_IN: Mapping[tuple[str, str], str] = {
    ("model.verified", "staging"): "approval wanted",
    ("model.promoted", "production"): "promoted",
    ("model.rolled_back", "production"): "rolled back",
}
KINDS = (*_NOTICES, *(kind for kind, _ in _IN), "drift.measured", *OUTCOMES)


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: a title, a text of a few lines, and whether it is loud."""

    title: str
    text: str
    loud: bool = False


def notice_of(event: Event) -> str | None:
    """The name of the notice that an event is, None for one that nobody is told about."""
    if event.kind == "drift.measured":
        return "drift" if event.body.get("drifted") else None
    return _NOTICES.get(event.kind) or _IN.get((event.kind, event.environment or ""))


def due(
    events: Iterable[Event], channels: Mapping[str, frozenset[str] | None], now: datetime
) -> list[tuple[Event, str]]:
    """Event and channel of every message that is to be sent now, oldest first.

    Args:
        events: in order; those of `KINDS`, of the last days.
        channels: the notices that each channel wants; None: all.
        now: the time, aware.
    """
    open_: dict[tuple[int, str], Event] = {}
    failures: dict[tuple[int, str], list[str]] = {}
    for event in events:
        notice = notice_of(event)
        if notice is not None and now - datetime.fromisoformat(event.at) <= MAX_AGE:
            wanting = (name for name, wants in channels.items() if wants is None or notice in wants)
            open_ |= {(event.seq, channel): event for channel in wanting}
        elif event.kind in OUTCOMES:
            key = _about(event)
            if key is None:
                continue
            if event.kind == "notification.sent":
                open_.pop(key, None)
            else:
                failures.setdefault(key, []).append(event.at)
    return [(event, key[1]) for key, event in open_.items() if _may_try(failures.get(key, []), now)]


def reached(events: Iterable[Event], seq: int, channel: str) -> frozenset[int]:
    """Places, from 1, of a channel's addresses that took the message about row `seq` while others failed."""
    failed = (event for event in events if event.kind == "notification.failed" and _about(event) == (seq, channel))
    places = (event.body.get("reached") for event in failed)
    return frozenset(place for some in places if isinstance(some, list) for place in some if isinstance(place, int))


def _about(event: Event) -> tuple[int, str] | None:
    """Row and channel that an outcome is about. Every account may record one: nonsense counts for nothing."""
    seq, channel = event.body.get("event"), event.body.get("channel")
    return (seq, channel) if isinstance(seq, int) and isinstance(channel, str) and seq < event.seq else None


def _may_try(failed: list[str], now: datetime) -> bool:
    if not failed:
        return True
    pause = min(FIRST_PAUSE * 2 ** (len(failed) - 1), LONGEST_PAUSE)
    return len(failed) < MAX_ATTEMPTS and now - datetime.fromisoformat(failed[-1]) >= pause


def message(event: Event) -> Message:
    """An event in words, with what to look at and the anchor that proves its place in history."""
    try:
        title, lines = _words(event)
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ):  # the ledger holds accounts to kinds, not to what a body looks like
        title, lines = f"{event.kind}: {event.model}", ["Its record is not as Gatehouse writes it: look at it."]
    loud = notice_of(event) == "alarm"
    if event.run:
        lines = [*lines, f"run: {event.run}", f"look: gatehouse gate show --run {shlex.quote(event.run)}"]
    title, lines = _line(title), [_line(line) for line in lines]
    text = "\n".join([*lines, f"ledger anchor {event.seq}:{event.hash}"])
    return Message(f"!!! {title}" if loud else title, text, loud)


def _line(text: object) -> str:
    """What people wrote, on one line: nobody forges an anchor, or a line of ours, and no password goes out."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    line = re.sub(r"://\S*@", "://…@", line)
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…"


def _words(event: Event) -> tuple[str, list[str]]:  # noqa: PLR0911  # one sentence for each kind
    body, model, where = event.body, event.model or "", event.environment or ""
    what = f"{body.get('model', model)} version {body.get('version', '?')}"
    match event.kind:
        case "model.verified":
            return f"Approval wanted: {model}", ["It is verified in staging and waits for a decision."]
        case "approval.decided":
            word = "Approved" if body["approved"] else "Rejected"
            for_whom = f" for {body['on_behalf_of']}" if body.get("on_behalf_of") else ""
            return f"{word}: {model}", [f"by {body['actor']}{for_whom} ({body['assurance']}): {body['reason']}"]
        case "approval.revoked":
            return f"Approval taken back: {model}", [f"by {body['actor']}: {body['reason']}"]
        case "approval.expired":
            return f"Approval expired: {model}", [f"of version {body['version']}, at {body['expired']}"]
        case "gate.opened":
            return f"The gate is open: {model}", [
                f"approved by {', '.join(body['approved_by']) or 'nobody'}",
                *_glass(body),
            ]
        case "glass.broken":
            lines = [f"by {body['actor']} for {body['incident']}: {body['reason']}", f"until {body['expires']}"]
            return f"GLASS BROKEN: {model}", lines
        case "model.promoted":
            return f"Promoted: {what} in {where}", [f"approved by {', '.join(body['approved_by'])}", *_glass(body)]
        case "model.rolled_back":
            return f"Rolled back: {where} to {what}", [f"by {event.actor}: {body['reason']}"]
        case "alarm.raised":
            return f"Alarm: {body['finding']}", [body["what"], f"{model} {where}".strip()]
        case _:
            return f"Drift: {model}", list(body.get("reasons", ()))[:5]


def _glass(body: Mapping[str, Any]) -> list[str]:
    glass = body.get("glass")
    return [f"GLASS BROKEN by {' and '.join(glass['operators'])}: {glass['incident']}"] if glass else []
