"""A version's passport: everything behind it, as titled tables; one shape for page, text and JSON. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.domain.events import Event
from pipeline.errors import UsageError

Rows = tuple[tuple[str, ...], ...]
Words = Mapping[str, Callable[[Mapping[str, Any]], str]]


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table; `loud` where a reader must not pass it over."""

    title: str
    columns: tuple[str, ...]
    rows: Rows
    loud: bool = False


@dataclass(frozen=True, slots=True)
class Passport:
    """Everything behind one version."""

    model: str
    version: str
    environment: str
    run: str
    sections: tuple[Section, ...]


def promotion_of(version: str, events: Sequence[Event]) -> Event:
    """The promotion that made a version, among an environment's events.

    Raises:
        UsageError: none did.
    """
    renumbered = {event.body["now"]: event.body["was"] for event in events if _renumbers(event)}
    first = renumbered.get(version, version)
    promoted = [event for event in events if event.kind == "model.promoted"]
    found = [event for event in promoted if event.body["version"] == first]
    if not found:
        known = ", ".join(str(event.body["version"]) for event in promoted) or "none"
        raise UsageError(f"no promotion made version {version}", where="--version", fix=f"versions: {known}")
    return found[-1]


def passport(
    version: str, promotion: Event, run: Sequence[Event], about: Sequence[Event], evidence: Mapping[str, Any] | None
) -> Passport:
    """Put a passport together.

    Args:
        version: as it was asked for.
        promotion: what made it.
        run: every event of its run, oldest first.
        about: the environment's events, oldest first.
        evidence: what was measured, verified; None where it cannot be had any more.
    """
    assert promotion.run is not None and promotion.environment is not None
    facts = {event.kind: event for event in run if event.environment in (None, promotion.environment)}
    package = promotion.body["package"]
    mine = [event for event in about if event.body.get("package") == package or event.run == promotion.run]
    later = [event for event in about if event.seq > promotion.seq and event.kind in ("alarm.raised", "drift.measured")]
    sections = (
        _identity(promotion, facts),
        _origin(facts),
        _data(facts),
        *_measured(evidence),
        *_policy(run),
        *_decisions([*run, *(event for event in about if event.kind == "approval.delegated")], promotion),
        _life([event for event in mine if event.seq >= promotion.seq or event.kind == "package.signed"]),
        *_since([*later, *(event for event in run if event.kind == "stage.failed")]),
        _proof(sorted({event.seq: event for event in (*run, *mine, *later)}.values(), key=lambda event: event.seq)),
    )
    return Passport(promotion.body["model"], version, promotion.environment, promotion.run, sections)


def _identity(promotion: Event, facts: Mapping[str, Event]) -> Section:
    trained = facts["model.trained"].body if "model.trained" in facts else {}
    rows = [
        ("package", promotion.body["package"]),
        ("weights", trained.get("weights")),
        ("evidence", promotion.body.get("evidence")),
        ("approved subject", promotion.body.get("subject")),
        ("bytes", promotion.body["uri"]),
    ]
    return _table(
        "What it is", [*rows, ("promoted", promotion.at), ("before it", promotion.body.get("previous") or "nothing")]
    )


def _origin(facts: Mapping[str, Event]) -> Section:
    opened = facts["run.opened"].body
    code = opened["code"]
    state = "the work tree differed from the commit" if code.get("dirty") else "as committed"
    rows = [
        ("asked for by", opened["requester"]),
        ("code", code["digest"]),
        ("commit", f"{code['commit']}, {state}" if code.get("commit") else "not in a repository"),
        ("author", code.get("author")),
        ("project's files", ", ".join(sorted(opened["files"]))),
        (
            "changed for this run",
            ", ".join(f"{key} = {value}" for key, value in opened["changes"].items()) or "nothing",
        ),
    ]
    return _table("Where it comes from", rows)


def _data(facts: Mapping[str, Event]) -> Section:
    windows = facts["run.opened"].body["windows"]
    parts = facts["data.ingested"].body["parts"] if "data.ingested" in facts else {}
    rows = tuple(
        (name, str(windows.get(name, "–")), f"{part.get('rows', '–')}", str(part["digest"]))
        for name, part in parts.items()
    )
    return Section("Data", ("part", "window", "rows", "snapshot"), rows)


def _measured(evidence: Mapping[str, Any] | None) -> Iterator[Section]:
    if evidence is None:
        yield Section(
            "Measurements", ("",), (("the evidence is gone from MLflow; its digest stands below",),), loud=True
        )
        return
    training = evidence["training"]
    rows = [(key, training[key]) for key in ("framework", "seed", "epochs")]
    rows += [(f"parameter {key}", value) for key, value in sorted(evidence["parameters"].items())]
    rows += [(f"library {key}", value) for key, value in sorted(training.get("libraries", {}).items())]
    yield _table("Training", rows)
    differences = evidence.get("differences") or {}
    yield Section(
        f"Measured on {evidence['windows']['holdout']}",
        ("metric", "value", "interval", "difference to the champion"),
        tuple(
            (name, _number(value["value"]), _interval(value), _difference(differences.get(name)))
            for name, value in evidence["candidate"]["intervals"].items()
            if value
        ),
    )


def _policy(run: Sequence[Event]) -> Iterator[Section]:
    judged = [event for event in run if event.kind == "policy.judged"]
    if judged:
        body = judged[-1].body
        rows = tuple(
            (
                rule["rule"],
                _number(rule["value"]),
                rule["threshold"],
                "pass" if rule["passed"] else f"REFUSE: {rule['reason']}",
            )
            for rule in body["rules"]
        )
        yield Section(
            f"Policy {body['policy_digest']}", ("rule", "value", "threshold", "outcome"), rows, not body["passed"]
        )


def _decisions(events: Sequence[Event], promotion: Event) -> Iterator[Section]:
    words: Words = {
        "approval.decided": lambda body: "approved" if body["approved"] else "rejected",
        "approval.revoked": lambda _: "took it back",
        "approval.delegated": lambda body: f"delegated to {body['to']} until {body['ends']}",
        "approval.refused": lambda body: f"REFUSED: {body['what']}",
        "glass.broken": lambda body: f"BROKE THE GLASS for {body['incident']}",
    }
    rows = tuple(
        (
            event.at,
            str(event.body.get("actor") or event.body.get("by") or event.actor),
            words[event.kind](event.body) + _for(event.body),
            str(event.body.get("assurance", "–")),
            str(event.body.get("reason", "–")),
        )
        for event in events
        if event.kind in words
    )
    yield Section("Who decided", ("when", "who", "what", "known by", "reason"), rows)
    glass = promotion.body.get("glass")
    if glass:
        yield _table(
            "The glass was broken",
            [
                ("operators", " and ".join(glass["operators"])),
                ("incident", glass["incident"]),
                ("reason", glass["reason"]),
            ],
            loud=True,
        )


def _life(events: Sequence[Event]) -> Section:
    words: Words = {
        "package.signed": lambda body: f"signed by {body['key']}",
        "model.promoted": lambda body: f"promoted as version {body['version']}",
        "rollout.requested": lambda _: "roll-out requested",
        "model.deployed": lambda body: f"served by {body['server']} after {body['seconds']} s",
        "model.verified": lambda body: f"verified: {body['rows']} rows, p95 {body['single_row_p95_ms']} ms",
        "model.rolled_back": lambda body: f"rolled back to: {body['reason']}",
        "projection.repaired": lambda body: f"repaired: {body['what']} {body['was']} → {body['now']}",
    }
    rows = tuple((event.at, event.actor, words[event.kind](event.body)) for event in events if event.kind in words)
    return Section("In production", ("when", "by", "what"), rows)


def _since(events: Sequence[Event]) -> Iterator[Section]:
    rows = tuple(
        (event.at, event.kind, str(event.body.get("what") or event.body.get("window") or "–")) for event in events
    )
    if rows:
        yield Section("Incidents and measurements since", ("when", "kind", "what"), rows)


def _proof(events: Sequence[Event]) -> Section:
    rows = tuple((str(event.seq), event.at, event.kind, event.actor, event.hash) for event in events)
    return Section("The ledger's rows", ("row", "when", "kind", "by", "hash"), rows)


def _table(title: str, rows: Iterable[tuple[str, Any]], *, loud: bool = False) -> Section:
    shown = tuple((name, "–" if value is None else str(value)) for name, value in rows)
    return Section(title, ("", ""), shown, loud)


def _for(body: Mapping[str, Any]) -> str:
    return f" for {body['on_behalf_of']}" if body.get("on_behalf_of") else ""


def _renumbers(event: Event) -> bool:
    return event.kind == "projection.repaired" and event.body["what"] == "version"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _interval(value: Mapping[str, Any]) -> str:
    return "–" if value.get("low") is None else f"{value['low']:.4f} – {value['high']:.4f}"


def _difference(value: Mapping[str, Any] | None) -> str:
    return "–" if not value or value.get("value") is None else f"{value['value']:+.4f} ({_interval(value)})"
