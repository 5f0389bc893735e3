"""deploy: send the environment's server to what is wanted, and see it arrive. Rollback: send it back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from pipeline.domain.events import Draft, Event
from pipeline.domain.state import Placement, fold_environment
from pipeline.errors import IntegrityViolated, Unreachable, UsageError
from pipeline.ports import Ledger, LedgerTransaction, ModelServer, Reporter

ARRIVE_SECONDS = 60.0
_LOOK_EVERY_SECONDS = 0.1
REPEATED_WITHIN = timedelta(minutes=10)


def request(
    environment: str,
    model: str,
    run: str,
    *,
    recheck: Callable[[LedgerTransaction, Placement], None],
    ledger: Ledger,
    actor: str,
) -> Placement:
    """Record that the server is to serve what is wanted, unless that is recorded already.

    Args:
        recheck: run inside the lock before anything is recorded; raises when the promotion was withdrawn.

    Raises:
        UsageError: something else than this run's package is wanted there now.
    """
    with ledger.transaction() as transaction:
        state = fold_environment(transaction.events(model=model, environment=environment))
        if state.wanted is None or state.wanted.run != run:
            other = state.wanted.run if state.wanted else "nothing"
            raise UsageError(
                f"{environment} wants what run {other} made, not {run}",
                where=f"deploy {environment}",
                fix=f"promote this run first: gatehouse promote --env {environment} --run {run}",
            )
        if state.rolled_out is None or state.rolled_out.serial < state.wanted.serial:
            recheck(transaction, state.wanted)
            body = _body(state.wanted)
            transaction.append(Draft("rollout.requested", actor, body, run, model, environment))
        return state.wanted


def arrive(placement: Placement, *, server: ModelServer, reporter: Reporter) -> Mapping[str, Any]:
    """Wait until the server serves the package.

    Returns:
        The fact: what serves, and how long it took.

    Raises:
        IntegrityViolated: the server refuses the bytes.
        Unreachable: the server does not come to serve it in a minute.
    """
    started = time.monotonic()
    last: Mapping[str, Any] = {}
    with reporter.track(f"waiting for {server.url}") as tracker:
        while time.monotonic() - started < ARRIVE_SECONDS:
            try:
                last = server.version()
            except Unreachable:
                last = {}
            if last.get("package") == placement.package:
                seconds = time.monotonic() - started
                return {**_body(placement), "server": server.url, "seconds": round(seconds, 3)}
            failed = last.get("failed") or {}
            if failed.get("digest") == placement.package:
                raise IntegrityViolated(
                    f"the server refuses the package: {failed.get('reason')}",
                    where=server.url,
                    fix="what serves goes on serving; compare the registry's bytes with the ledger",
                )
            tracker.say(str(last.get("state", "not answering")))
            time.sleep(_LOOK_EVERY_SECONDS)
    raise Unreachable(
        f"the server does not serve version {placement.version} after {ARRIVE_SECONDS:g} s",
        where=server.url,
        fix="look at its log; what it served before it still serves; then run deploy again",
    )


def roll_back(
    environment: str,
    model: str,
    *,
    ledger: Ledger,
    actor: str,
    reason: str,
    only_if_wanted: str | None = None,
    local: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> tuple[Event, Placement]:
    """Make what was there before wanted again and send the server there, in one event.

    Args:
        reason: for the record.
        only_if_wanted: package digest; does nothing different but refuses if another is wanted by now.
        now: the time; the same rollback asked for again within minutes is completed, not made a second time.
        local: id, actor and time of a rollback that was made on the server's machine and is entered now.

    Raises:
        UsageError: there is nothing to go back to.
    """
    with ledger.transaction() as transaction:
        events = transaction.events(model=model, environment=environment)
        state = fold_environment(events)
        wanted, back = state.wanted, state.before
        moves = [event for event in events if event.kind in ("model.promoted", "model.rolled_back")]
        if wanted is not None and now is not None and _is_repeated(moves[-1], actor, reason, now):
            return moves[-1], wanted
        if wanted is None or back is None:
            raise UsageError(
                f"{environment} has nothing to go back to", where=model, fix="gatehouse history shows what was there"
            )
        if only_if_wanted is not None and wanted.package != only_if_wanted:
            raise UsageError(f"{environment} has moved on by itself", where=model)
        body = {**_body(back), "from": wanted.package, "reason": reason, **({"local": dict(local)} if local else {})}
        event = transaction.append(Draft("model.rolled_back", actor, body, back.run, model, environment))
    return event, replace(back, serial=event.seq, since=event.at)


def _is_repeated(last: Event, actor: str, reason: str, now: datetime) -> bool:
    """Whether the newest move is this very rollback: its command was killed, or waited in vain, and is run again."""
    same = last.kind == "model.rolled_back" and (last.actor, last.body["reason"]) == (actor, reason)
    return same and now - datetime.fromisoformat(last.at) < REPEATED_WITHIN


def _body(placement: Placement) -> dict[str, Any]:
    body = asdict(placement)
    del body["serial"], body["since"]
    return body
