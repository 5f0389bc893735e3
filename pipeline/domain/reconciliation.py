"""What differs between the ledger and the world: registry and servers. Pure: two descriptions in, findings out.

The ledger is right. What only shows its state (an alias, a tag, a registration) is repaired; bytes that are not what
was promoted, and servers that serve something else, are for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pipeline.domain.approval import Decision
from pipeline.domain.events import Event
from pipeline.domain.state import EnvironmentState, Placement, fold_environment

Kind = Literal[
    "ledger",
    "alias",
    "tags",
    "version deleted",
    "version unknown",
    "bytes",
    "server",
    "server refuses",
    "server silent",
    "local rollback",
]
_BUSY = frozenset({"fetching", "loading"})
LOOKED_AT = 5  # their bytes are read each time


@dataclass(frozen=True, slots=True)
class Expected:
    """What the ledger says of one model in one environment.

    Attributes:
        model, environment: the project's name and where.
        name: registered model there (``prod.flights``).
        state: the fold of its events.
        known: every version that was ever put there, with its package digest.
    """

    model: str
    environment: str
    name: str
    state: EnvironmentState
    known: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Observed:
    """What registry and server show.

    Attributes:
        alias: version that the champion alias points at.
        tags: Gatehouse's tags of that version.
        versions: versions of the registered model.
        packages: digest of the bytes behind each logged model, by its URI; None where they cannot be had.
        server: body of ``/version``; None when it does not answer.
    """

    alias: str | None
    tags: Mapping[str, str] = field(default_factory=dict)
    versions: frozenset[str] = frozenset()
    packages: Mapping[str, str | None] = field(default_factory=dict)
    server: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference.

    Attributes:
        kind: what sort.
        environment, model: where.
        what: in words.
        repair: True where Gatehouse puts it right by itself.
        wrong: True where bytes, or the ledger itself, are not what was recorded: exit code 5.
        package, version: the package digest and the version it is about.
    """

    kind: Kind
    environment: str
    model: str
    what: str
    repair: bool = False
    wrong: bool = False
    package: str | None = None
    version: str | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes two findings the same one."""
        return (self.kind, self.environment, self.model, self.what)


def expected(model: str, environment: str, name: str, events: Iterable[Event]) -> Expected:
    """Fold a model's events in an environment, oldest first."""
    kept = list(events)
    state = fold_environment(kept)
    known = {event.body["version"]: event.body["package"] for event in kept if event.kind == "model.promoted"}
    known |= {event.body["now"]: event.body["package"] for event in kept if _is_renumbering(event)}
    return Expected(model, environment, name, state, known)


def compare(ledger: Expected, world: Observed) -> list[Finding]:
    """Every difference between what the ledger says and what was observed."""
    return [*_bytes(ledger, world), *_alias(ledger, world), *_server(ledger, world)]


def _bytes(ledger: Expected, world: Observed) -> Iterator[Finding]:
    at = (ledger.environment, ledger.model)
    for placement in in_use(ledger.state):
        label = f"{ledger.name} version {placement.version}"
        actual, package = world.packages.get(placement.uri), placement.package
        if actual is None:
            what = f"the bytes of {label} are gone from the registry ({placement.uri})"
            yield Finding("bytes", *at, what, wrong=True, package=package)
        elif actual != package:
            what = f"the bytes of {label} were overwritten: {actual}, promoted was {package}"
            yield Finding("bytes", *at, what, wrong=True, package=package)
        if placement.version not in world.versions:
            what = f"{label} was deleted from the registry"
            same = actual == package
            yield Finding("version deleted", *at, what, repair=same, package=package, version=placement.version)
    for version in sorted(world.versions - set(ledger.known)):
        yield Finding("version unknown", *at, f"{ledger.name} version {version} was not put there by any promotion")


def _alias(ledger: Expected, world: Observed) -> Iterator[Finding]:
    at, wanted = (ledger.environment, ledger.model), ledger.state.wanted
    if wanted is None:
        return
    if world.alias != wanted.version:
        now = f"version {world.alias}" if world.alias else "nothing"
        what = f"{ledger.name}: champion points at {now}, promoted is version {wanted.version}"
        yield Finding("alias", *at, what, repair=True, package=wanted.package)
    elif world.tags != wanted.tags:
        what = f"{ledger.name} version {wanted.version}: its tags say something else than the ledger"
        yield Finding("tags", *at, what, repair=True, package=wanted.package)


def _server(ledger: Expected, world: Observed) -> Iterator[Finding]:
    at, told, server = (ledger.environment, ledger.model), ledger.state.rolled_out, world.server
    if server is None:
        yield Finding("server silent", *at, f"the {ledger.environment} server does not answer")
        return
    if told is None or server.get("state") in _BUSY:
        return
    package, override, failed = server.get("package"), server.get("override"), server.get("failed") or {}
    if override and int(override["serial"]) >= told.serial:
        what = f"rolled back on the spot by {override['actor']}: {override['reason']}"
        known = ledger.state.before is not None and package == ledger.state.before.package
        yield Finding("local rollback", *at, what, repair=known, package=package)
    elif failed.get("digest") == told.package:
        what = f"the {ledger.environment} server refuses version {told.version}: {failed.get('reason')}"
        yield Finding("server refuses", *at, what, wrong=True, package=told.package)
    elif package != told.package and server.get("control_plane") == "reachable":
        what = f"the {ledger.environment} server serves {package}, rolled out is {told.package}"
        yield Finding("server", *at, what, wrong=True, package=told.package)


def in_use(state: EnvironmentState) -> list[Placement]:
    """What serves, is wanted, or a handful of rollbacks could go back to, each once."""
    looked_at = (*state.stack[-LOOKED_AT:], state.rolled_out)
    return list({one.uri: one for one in looked_at if one is not None}.values())


def _is_renumbering(event: Event) -> bool:
    return event.kind == "projection.repaired" and event.body["what"] == "version"


def new_alarms(findings: Iterable[Finding], raised: Iterable[Event]) -> list[Finding]:
    """Findings for people that were not told of among `raised` (the alarms of the last day, say)."""
    known = {(event.body["finding"], event.environment, event.model, event.body["what"]) for event in raised}
    return [finding for finding in findings if not finding.repair and finding.key not in known]


def expired_approvals(events: Iterable[Event], now: datetime) -> list[Decision]:
    """Approvals that ran out before their subject was promoted, each subject once and not if it is recorded already."""
    found: dict[str, Decision] = {}
    for event in events:
        if event.kind == "approval.decided" and event.body["approved"]:
            decision = Decision.from_body(event.body)
            found[decision.subject.digest] = decision
        elif event.kind == "approval.expired" or (event.kind == "model.promoted" and "subject" in event.body):
            found.pop(event.body["subject"], None)
    return [decision for decision in found.values() if datetime.fromisoformat(decision.expires) <= now]
