"""Delivers what people are to be told. A channel that fails never fails what was to be told."""

from __future__ import annotations

import time
from typing import Any

from pipeline.bootstrap.installation import Installation
from pipeline.domain import notices
from pipeline.domain.events import Draft, Event
from pipeline.errors import GatehouseError

LIMIT_SECONDS = 20.0


def deliver(place: Installation) -> list[dict[str, Any]]:
    """Send what is due, and enter into the ledger what was sent and what failed; answers a row for each.

    One process at a time delivers; another one finds it at work and leaves it to that. Nothing is raised: what people
    are told about has happened, whether they hear of it or not.
    """
    if place.settings.notifications is None:
        return []
    try:
        with place.ledger.alone("notify") as alone:
            return _deliver(place) if alone else []
    except GatehouseError as error:
        place.reporter.note(f"nobody could be told: {error.what}")
        return []


def _deliver(place: Installation) -> list[dict[str, Any]]:
    settings = place.settings.notifications
    assert settings is not None
    wants = {
        name: frozenset(str(notice) for notice in settings.events[name]) if name in settings.events else None
        for name in settings.channels
    }
    now = place.clock()
    since = (now - notices.MAX_AGE).isoformat()
    events = place.ledger.recent(notices.KINDS, since)
    began, rows, failed = time.monotonic(), list[dict[str, Any]](), set[str]()
    for event, channel in notices.due(events, wants, now):
        if channel in failed:  # a dead channel is waited for once, not once for each message
            continue
        if time.monotonic() - began > LIMIT_SECONDS:
            place.reporter.note("more is to be told; the next stage or gatehouse reconcile goes on with it")
            break
        rows.append(_send(place, event, channel, notices.reached(events, event.seq, channel)))
        failed |= set() if rows[-1]["sent"] else {channel}
    return rows


def _send(place: Installation, event: Event, channel: str, reached: frozenset[int]) -> dict[str, Any]:
    from pipeline.adapters import notifier

    assert place.settings.notifications is not None
    about: dict[str, Any] = {"event": event.seq, "channel": channel}
    message = notices.message(event)
    title, file, problem = message.title, place.settings.notifications.channels[channel], None
    try:
        for number, address in enumerate(notifier.addresses(file), 1):
            if number in reached:
                continue
            try:
                notifier.send(channel, number, address, message)
                reached |= {number}
            except GatehouseError as error:
                problem = problem or error.what
    except GatehouseError as error:
        problem = error.what
    if problem is not None:
        place.reporter.note(f"channel {channel} was not told ({title}): {problem}")
        _record(place, event, "notification.failed", about | {"reason": problem, "reached": sorted(reached)})
        return about | {"title": title, "sent": False}
    _record(place, event, "notification.sent", about)
    return about | {"title": title, "sent": True}


def _record(place: Installation, event: Event, kind: str, body: dict[str, Any]) -> None:
    place.ledger.append(Draft(kind, place.actor, body, event.run, event.model, event.environment))
