"""What operators and auditors ask for: rollback, history, the ledger itself, the state of the installation."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pipeline.bootstrap import anchors
from pipeline.bootstrap.audit import verify_ledger
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.notify import deliver
from pipeline.domain.events import Event
from pipeline.errors import GatehouseError, Unreachable, UsageError

MINIMUM_FREE_BYTES = 2 * 1024**3


def roll_back(place: Installation, environment: str, model: str | None, reason: str) -> None:
    """Go back to what was there before, and see the server serve it."""
    from pipeline.bootstrap.steps import project_alias
    from pipeline.stages import deploy

    if not reason.strip():
        raise UsageError("a rollback needs a reason", where="--reason")
    place = place.acting_as("promotion" if environment == "production" else "line")
    server = place.server(environment)
    name = place.model_in(environment, model)
    event, placed = deploy.roll_back(
        environment, name, ledger=place.ledger, actor=place.actor, reason=reason.strip(), now=place.clock()
    )
    anchors.remember(place, event)
    fact = deploy.arrive(placed, server=server, reporter=place.reporter)
    place.reporter.note(f"{environment} serves version {placed.version} again, after {fact['seconds']:.2f} s")
    project_alias(place, name, environment)
    deliver(place)


# --- the installation -------------------------------------------------------------------------------------


def status(place: Installation) -> dict[str, Any]:
    """Addresses, whether they answer, and per environment what is wanted and what serves."""
    environments: dict[str, Any] = {}
    answers = {"postgres": True, "mlflow": _answers(place.mlflow.check_health)}
    placements: dict[str, Any] = {}
    try:
        events = place.reader.events()
        placements = _placements(events)
    except Unreachable:
        answers["postgres"] = False
    for name in place.settings.environments:
        server = place.server(name)
        try:
            serving = server.version()
        except Unreachable:
            serving = {}
        wanted = placements.get(name, {})
        environments[name] = {
            "model": wanted.get("model"),
            "version": wanted.get("version"),
            "package": wanted.get("package"),
            "run": wanted.get("run"),
            "since": wanted.get("since"),
            "server": server.url,
            "serving": serving.get("package"),
            "state": serving.get("state", "does not answer"),
        }
    return {
        "postgres": place.settings.ledger.uri,
        "mlflow": place.settings.mlflow.uri,
        "server": {name: entry["server"] for name, entry in environments.items()},
        "answers": answers,
        "environments": environments,
    }


def _placements(events: list[Event]) -> dict[str, Any]:
    from pipeline.domain.state import fold_environment

    found: dict[str, Any] = {}
    for environment in ("staging", "production"):
        mine = [event for event in events if event.environment == environment]
        models = sorted({event.model for event in mine if event.model})
        for model in models:
            wanted = fold_environment(event for event in mine if event.model == model).wanted
            if wanted is not None:
                found[environment] = asdict(wanted)
    return found


def _answers(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except GatehouseError:
        return False
    return True


def doctor(place: Installation) -> list[dict[str, Any]]:
    """Check machine and installation."""
    free = shutil.disk_usage(place.settings.home).free
    rows = [
        _row("Python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer"),
        _row("free disk", free > MINIMUM_FREE_BYTES, f"{free / 1024**3:.1f} GiB", "free at least 2 GiB"),
    ]
    seen = status(place)
    for name, ok in seen["answers"].items():
        rows.append(_row(name, ok, seen[name], "gatehouse up, or ask whoever runs it"))
    for name, entry in seen["environments"].items():
        same = entry["package"] is None or entry["package"] == entry["serving"]
        found = entry["state"] if same else f"serves {entry['serving']}, wanted {entry['package']}"
        ok = same and entry["state"] != "does not answer"
        rows.append(_row(f"{name} server", ok, found, "look at the server's log"))
    try:
        rows.append(_row("ledger", True, f"{verify_ledger(place, (), None)['events']} events, chain holds", ""))
    except GatehouseError as error:
        rows.append(_row("ledger", False, error.what, error.fix))
    return rows


def _row(check: str, ok: bool, found: str, fix: str) -> dict[str, Any]:
    return {"ok": ok, "check": check, "found": found, "fix": "" if ok else fix}
