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
    began, rows = time.monotonic(), []
    for event, channel in notices.due(place.ledger.recent(notices.KINDS, since), wants, now):
        if time.monotonic() - began > LIMIT_SECONDS:
            place.reporter.note("more is to be told; the next stage or gatehouse reconcile goes on with it")
            break
        rows.append(_send(place, event, channel))
    return rows


def _send(place: Installation, event: Event, channel: str) -> dict[str, Any]:
    from pipeline.adapters import notifier

    assert place.settings.notifications is not None
    about: dict[str, Any] = {"event": event.seq, "channel": channel}
    try:
        title = notices.message(event).title
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # An account may append an event of its kind with anything in it.
        _record(place, event, "notification.failed", about | {"reason": f"cannot be said: {error!r}"[:200]})
        return about | {"title": event.kind, "sent": False}
    try:
        notifier.send(channel, place.settings.notifications.channels[channel], notices.message(event))
    except GatehouseError as error:
        place.reporter.note(f"channel {channel} was not told ({title}): {error.what}")
        _record(place, event, "notification.failed", about | {"reason": error.what})
        return about | {"title": title, "sent": False}
    _record(place, event, "notification.sent", about)
    return about | {"title": title, "sent": True}


def _record(place: Installation, event: Event, kind: str, body: dict[str, Any]) -> None:
    place.ledger.append(Draft(kind, place.actor, body, event.run, event.model, event.environment))
