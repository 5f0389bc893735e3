"""A version's passport: everything behind it, as titled tables; one shape for page, text and JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.domain.canonical import digest_json
from pipeline.domain.events import Event
from pipeline.errors import UsageError

Rows = tuple[tuple[str, ...], ...]
NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table; without column titles its rows are names and values. `loud`: a reader must not pass it over."""

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
    first = version
    for event in reversed(events):
        if event.kind == "projection.repaired" and (event.body["what"], event.body["now"]) == ("version", first):
            first = event.body["was"]
    promoted = [event for event in events if event.kind == "model.promoted"]
    found = [event for event in promoted if event.body["version"] == first]
    if not found:
        known = ", ".join(str(event.body["version"]) for event in promoted) or "none"
        raise UsageError(f"no promotion made version {version}", where="--version", fix=f"versions: {known}")
    return found[-1]


def passport(
    version: str, promotion: Event, run: Sequence[Event], about: Sequence[Event], evidence: Mapping[str, Any] | str
) -> Passport:
    """Put a passport together.

    Args:
        version: as it was asked for.
        promotion: what made it.
        run: every event of its run, oldest first.
        about: the environment's events, oldest first.
        evidence: what was measured, verified; or why it cannot be had.
    """
    assert promotion.run is not None and promotion.environment is not None
    facts = {event.kind: event for event in run if event.environment in (None, promotion.environment)}
    glass = promotion.body.get("glass")
    decided = [event for event in run if event.kind in _DECIDED]
    decided += [event for event in about if _bears_on(event, decided, promotion)]
    life = [event for event in about if _of_its_life(event, promotion)]
    since = [*_since(about, promotion), *(event for event in run if event.kind == "stage.failed")]
    proven = [*run, *decided, *life, *since]
    sections = (
        *([_glass(glass)] if glass else []),
        _identity(promotion, facts),
        _origin(facts),
        _data(facts),
        _training(facts),
        _measured(facts, evidence),
        *_policy([event for event in run if event.kind == "policy.judged" and event.seq < promotion.seq]),
        Section("Who decided", ("when", "who", "what", "known by", "until", "reason"), _rows(decided, _decision)),
        Section("In production", ("when", "by", "what"), _rows(life, lambda event: _step(event, promotion))),
        *([Section("Incidents and measurements", ("when", "kind", "what"), _rows(since, _incident))] if since else []),
        Section("The ledger's rows", ("row", "when", "kind", "by", "hash"), _rows(proven, _proof)),
    )
    return Passport(promotion.body["model"], version, promotion.environment, promotion.run, sections)


# --- what it is and how it was made ---------------------------------------------------------------------------


def _glass(glass: Mapping[str, Any]) -> Section:
    rows = [("operators", " and ".join(glass["operators"])), *((key, glass[key]) for key in ("incident", "reason"))]
    return _pairs("The glass was broken: it went live without a regular approval", rows, loud=True)


def _identity(promotion: Event, facts: Mapping[str, Event]) -> Section:
    trained = facts["model.trained"].body if "model.trained" in facts else {}
    body = promotion.body
    rows = [
        ("package", body["package"]),
        ("weights", trained.get("weights")),
        ("evidence", body.get("evidence")),
        ("approved subject", body.get("subject")),
        ("bytes", body["uri"]),
        ("promoted", f"{_when(promotion)}, by {promotion.actor}"),
        ("in place of", body.get("previous") or "nothing: it was the first"),
    ]
    return _pairs("What it is", rows)


def _origin(facts: Mapping[str, Event]) -> Section:
    opened = facts["run.opened"].body
    code, changes = opened["code"], opened["changes"]
    state = "the work tree differed from the commit" if code.get("dirty") else "as committed"
    came = opened.get("imported")
    bundle = [("taken in by", f"{came['by']}, from bundle {came['bundle']}")] if came else []
    bundle += [("approved at its source by", ", ".join(came["approved_by"]))] if came else []
    rows = [
        ("asked for by", opened["requester"]),
        *bundle,
        ("code", code["digest"]),
        ("commit", f"{code['commit']}, {state}" if code.get("commit") else "not in a repository"),
        ("author", code.get("author")),
        ("project's files", ", ".join(sorted(opened["files"]))),
        ("their digest", digest_json(opened["files"])),
        ("changed for this run", ", ".join(f"{key} = {_text(changes[key])}" for key in sorted(changes)) or "nothing"),
    ]
    return _pairs("Where it comes from", rows)


def _data(facts: Mapping[str, Event]) -> Section:
    windows = facts["run.opened"].body["windows"]
    body = facts["data.ingested"].body if "data.ingested" in facts else {}
    rows = [
        (name, str(windows.get(name, NOTHING)), _number(part.get("rows")), str(part["digest"]))
        for name, part in body.get("parts", {}).items()
    ]
    whole = [("together", "", "", str(body["digest"]))] if body else []
    return Section("Data", ("part", "window", "rows", "snapshot"), (*rows, *whole))


def _training(facts: Mapping[str, Event]) -> Section:
    body = facts["model.trained"].body if "model.trained" in facts else {}
    training = body.get("training", {})
    rows = [(key, _text(training[key])) for key in ("framework", "seed", "epochs") if key in training]
    rows += [(f"parameter {key}", _text(value)) for key, value in sorted(body.get("parameters", {}).items())]
    rows += [(f"library {key}", value) for key, value in sorted(training.get("libraries", {}).items())]
    return _pairs("Training", rows)


def _measured(facts: Mapping[str, Event], evidence: Mapping[str, Any] | str) -> Section:
    columns = ("metric", "value", "interval", "champion then", "difference")
    if isinstance(evidence, str):
        # The ledger itself keeps the metrics; only their intervals and the comparison are in the evidence.
        known = facts["model.evaluated"].body["metrics"] if "model.evaluated" in facts else {}
        rows = [(name, _number(value), NOTHING, NOTHING, NOTHING) for name, value in known.items()]
        return Section(f"Measured; the evidence cannot be had: {evidence}", columns, tuple(rows), loud=True)
    champion, differences = evidence.get("champion") or {}, evidence.get("differences") or {}
    theirs = champion.get("metrics", {})
    rows = [
        (name, _number(value["value"]), _interval(value), _number(theirs.get(name)), _difference(differences.get(name)))
        for name, value in evidence["candidate"]["intervals"].items()
        if value
    ]
    against = f", against version {champion['version']} of run {champion['run']}" if champion else ""
    sure = f"{evidence.get('confidence', 0.95):.0%} intervals"
    return Section(f"Measured on {evidence['windows']['holdout']}{against} ({sure})", columns, tuple(rows))


def _policy(judged: Sequence[Event]) -> Iterator[Section]:
    for event in judged[-1:]:
        body = event.body
        rows = [
            (one["rule"], _number(one["value"]), one["threshold"], _outcome(one["passed"], one["reason"]))
            for one in body["rules"]
        ]
        refusals = f"{sum(not one['passed'] for one in body['rules'])} rule(s)"
        rows.append(("the whole policy", NOTHING, body["policy_digest"], _outcome(body["passed"], refusals)))
        columns = ("rule", "value", "threshold", "outcome")
        yield Section("Policy, as judged before the promotion", columns, tuple(rows), not body["passed"])


def _outcome(passed: bool, reason: str) -> str:
    return "pass" if passed else f"REFUSE: {reason}"


# --- who decided, and what became of it -------------------------------------------------------------------------

_DECIDED = ("approval.decided", "approval.revoked", "approval.refused", "glass.broken", "gate.opened")


def _bears_on(event: Event, decided: Sequence[Event], promotion: Event) -> bool:
    body = event.body
    if event.kind == "approval.expired":
        return bool(body["subject"] == promotion.body.get("subject"))
    if event.kind != "approval.delegated":
        return False
    pairs = {(one.body["on_behalf_of"], one.body["actor"]) for one in decided if one.body.get("on_behalf_of")}
    return any((body["by"].casefold(), body["to"].casefold()) == (by.casefold(), to.casefold()) for by, to in pairs)


def _decision(event: Event) -> tuple[str, ...]:
    body = event.body
    if event.kind == "approval.decided":
        what = "approved" if body["approved"] else "REJECTED"
        what += f" for {body['on_behalf_of']}" if body.get("on_behalf_of") else ""
    elif event.kind == "approval.delegated":
        what = f"delegated to {body['to']} from {_short(body['starts'])}"
    elif event.kind == "glass.broken":
        what = f"BROKE THE GLASS for {body['incident']}"
    elif event.kind == "gate.opened":
        what = f"the gate opened: {', '.join(body['approved_by']) or 'nobody'} approved"
    else:
        said = {"approval.revoked": "took it back", "approval.expired": "the approval expired"}
        what = said.get(event.kind) or f"REFUSED: {body['what']}"
    proof = body.get("proof") or {}
    known = ", ".join([_assurance(body), *(f"{key} {_text(value)}" for key, value in proof.items())])
    until = body.get("expires") or body.get("ends") or body.get("expired")
    return (_when(event), event.actor, what, known, _short(until), str(body.get("reason", NOTHING)))


def _assurance(body: Mapping[str, Any]) -> str:
    found = body.get("assurance") or NOTHING
    return ", ".join(found) if isinstance(found, list) else str(found)


_LIFE = ("model.promoted", "rollout.requested", "model.deployed", "model.verified")


def _of_its_life(event: Event, promotion: Event) -> bool:
    package, body = promotion.body["package"], event.body
    if event.kind == "package.signed":
        return bool(body["package"] == package)
    if event.seq < promotion.seq:
        return False
    if event.kind == "model.rolled_back":
        return package in (body["package"], body.get("from"))
    if event.kind == "projection.repaired":
        return bool(body.get("package") == package)
    return event.kind in _LIFE and package in (body.get("package"), body.get("previous"))


def _step(event: Event, promotion: Event) -> tuple[str, ...]:
    body, local = event.body, event.body.get("local") or {}
    away = body.get("package") != promotion.body["package"]
    if event.kind == "model.rolled_back":
        what = f"ROLLED BACK to version {body['version']}" if away else "wanted again: its successor was rolled back"
        what += f": {body['reason']}" + (f" (on the server's machine, {_short(local['at'])})" if local else "")
    elif event.kind == "model.promoted":
        what = f"replaced by version {body['version']} of run {event.run}" if away else _promoted(event, promotion)
    elif event.kind == "package.signed":
        what = f"signed by {body['key']}"
    elif event.kind == "model.deployed":
        what = f"served by {body['server']} after {_number(body['seconds'])} s"
    elif event.kind == "model.verified":
        what = f"verified: {_number(body['rows'])} rows, single row p95 {_number(body['single_row_p95_ms'])} ms"
    elif event.kind == "projection.repaired":
        what = f"repaired: {body['what']} {body['was']} → {body['now']}"
    else:
        what = "roll-out requested"
    return (_when(event), str(local.get("actor", event.actor)), what)


def _promoted(event: Event, promotion: Event) -> str:
    again = "" if event.seq == promotion.seq else f": the same bytes again, by run {event.run}"
    return f"promoted as version {event.body['version']}{again}"


def _since(about: Sequence[Event], promotion: Event) -> Iterator[Event]:
    """Alarms and measurements about the package, and those that name none while the package was wanted there."""
    package, wanted = promotion.body["package"], None
    for event in about:
        if event.kind in ("model.promoted", "model.rolled_back"):
            wanted = event.body["package"]
        if event.kind in ("alarm.raised", "drift.measured") and event.seq > promotion.seq:
            named = event.body.get("package")
            if named == package or (named is None and wanted == package):
                yield event


def _incident(event: Event) -> tuple[str, ...]:
    body = event.body
    if event.kind == "drift.measured":
        found = "drifted" if body.get("drifted") else "no drift"
        what = f"{body['window']}: {'; '.join([found, *body.get('reasons', ())])}"
    else:
        what = f"{body['stage']}: {body['what']}" if "stage" in body else str(body.get("what", NOTHING))
    return (_when(event), event.kind, what)


def _proof(event: Event) -> tuple[str, ...]:
    return (str(event.seq), event.at, event.kind, event.actor, event.hash)


# --- words ------------------------------------------------------------------------------------------------------


def _rows(events: Iterable[Event], words: Callable[[Event], tuple[str, ...]]) -> Rows:
    """Each event once, in the ledger's order."""
    once = {event.seq: event for event in events}
    return tuple(words(once[seq]) for seq in sorted(once))


def _pairs(title: str, rows: Iterable[tuple[str, Any]], *, loud: bool = False) -> Section:
    shown = tuple((name, NOTHING if value is None else str(value)) for name, value in rows)
    return Section(title, ("", ""), shown, loud)


def _when(event: Event) -> str:
    return _short(event.at)


def _short(at: str | None) -> str:
    """A time to the second; the ledger's rows show it in full."""
    return f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M:%S}Z" if at else NOTHING


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _interval(value: Mapping[str, Any]) -> str:
    return NOTHING if value.get("low") is None else f"{value['low']:.4f} to {value['high']:.4f}"


def _difference(value: Mapping[str, Any] | None) -> str:
    return NOTHING if not value or value.get("value") is None else f"{value['value']:+.4f} ({_interval(value)})"
