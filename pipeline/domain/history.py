"""Who put what into an environment when, on what evidence: folds of the ledger for auditors. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from pipeline.domain.events import Event
from pipeline.domain.state import EnvironmentState, Placement, fold_environment
from pipeline.errors import UsageError

_CHANGES: Mapping[str, str] = {
    "model.promoted": "promoted",
    "model.rolled_back": "rolled back",
    "rollout.requested": "rolled out",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """One environment of one model at a moment.

    Attributes:
        at: the moment.
        wanted, serving: what was promoted, and what the server had been told to serve.
        promotion: body of the promotion that put `serving` there, with its row, time and actor; None where nothing
            was.
    """

    at: str
    wanted: Placement | None
    serving: Placement | None
    promotion: Mapping[str, Any] | None


def changes(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Every promotion and rollback, oldest first, as rows."""
    return [_row(event) for event in events if event.kind in ("model.promoted", "model.rolled_back")]


def at(events: Sequence[Event], moment: datetime) -> Moment:
    """The environment as it was at a moment.

    Args:
        events: of one model in one environment, oldest first.
        moment: aware.
    """
    past = [event for event in events if datetime.fromisoformat(event.at) <= moment]
    state: EnvironmentState = fold_environment(past)
    serving = state.rolled_out
    promotions = [
        event
        for event in past
        if event.kind == "model.promoted" and serving is not None and event.body["package"] == serving.package
    ]
    promotion = {**promotions[-1].body, **_row(promotions[-1])} if promotions else None
    return Moment(moment.astimezone(UTC).isoformat(), state.wanted, serving, promotion)


def moment_of(text: str) -> datetime:
    """A moment that somebody wrote: a date means its end, a time without an offset is UTC.

    Raises:
        UsageError: it is neither.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"'{text}' is no moment", where="--at", fix="2026-11-24, or 2026-11-24T18:00Z") from error
    if len(text) == len("2026-11-24"):
        found = datetime.combine(found, time.min) + timedelta(days=1) - timedelta(microseconds=1)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _row(event: Event) -> dict[str, Any]:
    body = event.body
    local = body.get("local") or {}
    return {
        "at": event.at,
        "what": _CHANGES[event.kind],
        "model": body["model"],
        "version": body["version"],
        "package": body["package"],
        "run": event.run,
        "actor": local.get("actor", event.actor),
        "approved_by": ", ".join(body.get("approved_by", ())) or None,
        "assurance": body.get("assurance"),
        "glass": (body.get("glass") or {}).get("incident"),
        "evidence": body.get("evidence"),
        "reason": body.get("reason"),
        "row": event.seq,
    }
