"""Holds registry and servers to the ledger: reports differences, repairs what only shows its state, raises alarms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.bootstrap import anchors
from pipeline.bootstrap.installation import Installation, operating_user
from pipeline.bootstrap.notify import deliver
from pipeline.bootstrap.steps import project_alias
from pipeline.domain.events import Draft
from pipeline.domain.gate import ENVIRONMENT
from pipeline.domain.reconciliation import (
    Expected,
    Finding,
    Observed,
    compare,
    expected,
    expired_approvals,
    in_use,
    new_alarms,
)
from pipeline.errors import IntegrityViolated, Unreachable, UsageError
from pipeline.stages.promote import REGISTERED_AS

ALARM_AGAIN_AFTER = timedelta(days=1)
APPROVALS_LOOKED_AT = timedelta(days=60)


def reconcile(place: Installation, environment: str | None) -> list[Finding]:
    """Compare, repair, raise alarms; answers every difference that was found.

    Raises:
        Unreachable: ledger or registry do not answer.
    """
    place = place.acting_as("promotion")
    if environment is not None:
        place.server(environment)
    chosen = [str(name) for name in place.settings.environments if environment in (None, name)]
    servers = {name: _server(place, name) for name in chosen}
    findings = _ledger(place, servers)
    for name in chosen:
        for model in _models(place, name):
            findings += _one(place, name, model, servers[name])
    _alarm(place, findings)
    _expire(place)
    deliver(place)
    return findings


def _ledger(place: Installation, servers: Mapping[str, Mapping[str, Any] | None]) -> list[Finding]:
    seen = [server["ledger"] for server in servers.values() if server and server.get("ledger")]
    try:
        with place.reporter.track("verifying the ledger"):
            anchors.check(place, *({anchor["seq"]: anchor["hash"]} for anchor in seen))
    except IntegrityViolated as error:
        return [Finding("ledger", ENVIRONMENT, "-", error.what, wrong=True)]
    return []


def _models(place: Installation, environment: str) -> list[str]:
    events = place.reader.events(environment=environment)
    return sorted({event.model for event in events if event.model and event.kind == "model.promoted"})


def _one(place: Installation, environment: str, model: str, server: Mapping[str, Any] | None) -> list[Finding]:
    name = REGISTERED_AS[environment].format(model)
    ledger = expected(model, environment, name, place.reader.events(model=model, environment=environment))
    findings = compare(ledger, _observe(place, ledger, server))
    for finding in findings:
        if finding.repair:
            _repair(place, ledger, finding, server)
    return findings


def _keeper(place: Installation, environment: str) -> Installation:
    """With the account that keeps an environment's registered models in MLflow."""
    return place.acting_as("promotion" if environment == ENVIRONMENT else "line")


def _observe(place: Installation, ledger: Expected, server: Mapping[str, Any] | None) -> Observed:
    from pipeline.adapters import registry_audit

    uris = [placement.uri for placement in in_use(ledger.state)]
    alias, tags = registry_audit.alias_of(place.mlflow, ledger.name)
    with (
        place.cache.scratch() as scratch,
        place.reporter.track(f"reading {ledger.name}'s bytes", len(uris)) as tracker,
    ):
        packages = registry_audit.packages_behind(place.mlflow, uris, Path(scratch), tracker.advance)
    return Observed(alias, tags, registry_audit.versions_of(place.mlflow, ledger.name), packages, server)


def _server(place: Installation, environment: str) -> Mapping[str, Any] | None:
    try:
        return place.server(environment).version()
    except Unreachable:
        return None


def _repair(place: Installation, ledger: Expected, finding: Finding, server: Mapping[str, Any] | None) -> None:
    if finding.kind == "local rollback":
        assert server is not None
        _enter(place, ledger, server["override"])
    elif finding.kind == "version deleted":
        _register_again(place, ledger, str(finding.version))
    else:
        _record(place, ledger, {"what": finding.kind, "was": finding.what, "now": "as the ledger says"})
    project_alias(_keeper(place, ledger.environment), ledger.model, ledger.environment)
    place.reporter.note(f"repaired: {finding.what}")


def _enter(place: Installation, ledger: Expected, override: Mapping[str, Any]) -> None:
    """Enter a rollback that an operator made on the server's own machine while the ledger could not be reached."""
    from pipeline.stages import deploy

    event, _ = deploy.roll_back(
        ledger.environment,
        ledger.model,
        ledger=place.ledger,
        actor=place.actor,
        reason=str(override["reason"]),
        only_if_wanted=ledger.state.wanted.package if ledger.state.wanted else None,
        local={key: override[key] for key in ("id", "actor", "at")},
    )
    anchors.remember(place, event)


def _register_again(place: Installation, ledger: Expected, lost: str) -> None:
    (placement,) = (one for one in in_use(ledger.state) if one.version == lost)
    about = f"Run {placement.run}; version {lost} was deleted and is registered again."
    package = placement.package
    version = _keeper(place, ledger.environment).mlflow.register(
        ledger.name, placement.uri, placement.run, run_id=None, package=package, about=about
    )
    if version != lost:
        _record(place, ledger, {"what": "version", "was": lost, "now": version, "package": package})


def _record(place: Installation, ledger: Expected, body: Mapping[str, Any]) -> None:
    place.ledger.append(Draft("projection.repaired", place.actor, body, None, ledger.model, ledger.environment))


def _alarm(place: Installation, findings: list[Finding]) -> None:
    since = (place.clock() - ALARM_AGAIN_AFTER).isoformat()
    for finding in new_alarms(findings, place.ledger.recent(("alarm.raised",), since)):
        body = {"finding": finding.kind, "what": finding.what, "wrong": finding.wrong, "package": finding.package}
        place.ledger.append(Draft("alarm.raised", place.actor, body, None, finding.model, finding.environment))


def _expire(place: Installation) -> None:
    kinds = ("approval.decided", "approval.expired", "model.promoted")
    since = (place.clock() - APPROVALS_LOOKED_AT).isoformat()
    for decision in expired_approvals(place.ledger.recent(kinds, since), place.clock()):
        subject = decision.subject
        body = {"subject": subject.digest, "version": subject.version, "expired": decision.expires}
        place.ledger.append(Draft("approval.expired", place.actor, body, None, subject.model, ENVIRONMENT))


def rows(findings: list[Finding]) -> list[dict[str, Any]]:
    """Findings as rows of a table, the gravest first."""
    return [asdict(finding) for finding in sorted(findings, key=lambda one: (not one.wrong, one.repair))]


def roll_back_locally(store: Path, reason: str) -> Mapping[str, Any]:
    """Send this machine's server back while the control plane is away; `reconcile` enters it into the ledger later.

    Raises:
        UsageError: there is nothing to go back to, or no reason.
        IntegrityViolated: the kept copy is not what was verified.
    """
    from pipeline.serving.store import rollback_locally

    if not reason.strip():
        raise UsageError("a rollback needs a reason", where="--reason")
    return rollback_locally(store, reason.strip(), operating_user())
