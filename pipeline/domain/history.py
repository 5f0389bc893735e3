"""Who put what into an environment when, on what evidence: folds of the ledger for auditors. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from itertools import takewhile
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
        promotion: body of the promotion that first brought `serving` there, with its row, time and actor, and the
            digest of the policy it was approved under; None where nothing serves.
        change: the roll-out or rollback since which `serving` serves, as a row; None where nothing serves.
    """

    at: str
    wanted: Placement | None
    serving: Placement | None
    promotion: Mapping[str, Any] | None
    change: Mapping[str, Any] | None


def changes(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Every promotion and rollback, oldest first, as rows."""
    return [_row(event) for event in events if event.kind in ("model.promoted", "model.rolled_back")]


def at(events: Sequence[Event], moment: datetime) -> Moment:
    """The environment as it was at a moment.

    The ledger's order counts, not its clocks: machines that append may differ by seconds, and a row whose clock was
    slow has still been written after the rows before it.

    Args:
        events: of one model in one environment, oldest first.
        moment: aware.
    """
    past = list(takewhile(lambda event: datetime.fromisoformat(event.at) <= moment, events))
    state: EnvironmentState = fold_environment(past)
    text, serving = moment.astimezone(UTC).isoformat(), state.rolled_out
    if serving is None:
        return Moment(text, state.wanted, None, None, None)
    (change,) = (event for event in past if event.seq == serving.serial)
    return Moment(text, state.wanted, serving, _promotion(past, serving), _row(change))


def _promotion(past: Sequence[Event], serving: Placement) -> dict[str, Any] | None:
    # By run as well: training is deterministic, so two runs can make the same package, each with its own approval.
    made = [event for event in past if event.run == serving.run]
    promotions = [e for e in made if e.kind == "model.promoted" and e.body["package"] == serving.package]
    if not promotions:
        return None
    gates = [e.body["subject"]["policy"] for e in made if e.kind == "gate.opened"]
    return {**promotions[-1].body, **_row(promotions[-1]), "policy": gates[-1] if gates else None}


def moment_of(text: str) -> datetime:
    """A moment that somebody wrote: a date means its end, a time without an offset is UTC.

    Raises:
        UsageError: it is neither.
    """
    try:
        found = _read(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"'{text}' is no moment", where="--at", fix="2026-11-24, or 2026-11-24T18:00Z") from error


def _read(text: str) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(text), time.max)
    except ValueError:
        return datetime.fromisoformat(text)


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
