"""The production gate: shows what waits, opens when policy and approvals hold, and holds promotion to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pipeline.bootstrap.installation import Installation
from pipeline.config import Project, load_policy
from pipeline.domain.approval import Group, Requirement, fold_record
from pipeline.domain.canonical import digest_json
from pipeline.domain.events import Draft
from pipeline.domain.gate import ENVIRONMENT, Gate, not_withdrawn, stands
from pipeline.domain.policy import REVIEWERS_BY_TIER, Verdict, judge
from pipeline.domain.state import Placement, RunState, fold_run
from pipeline.errors import IntegrityViolated, UsageError
from pipeline.ports import EventReader

OPERATORS = "operators"


def evidence_of(place: Installation, state: RunState) -> Mapping[str, Any]:
    """The evidence, verified against the digest in the ledger.

    Raises:
        IntegrityViolated: it is not what was recorded.
    """
    fact = state.fact("evaluate")
    path = place.artifact(fact["evidence_file"], fact["uri"])
    evidence: Mapping[str, Any] = json.loads(path.read_bytes())
    if digest_json(evidence) != fact["evidence"]:
        raise IntegrityViolated("the evidence is not what was recorded", where=fact["uri"])
    return evidence


def requirement(place: Installation, state: RunState, project: Project) -> Requirement:
    """Who must approve: by risk tier and named groups, never the requester, never the author.

    Raises:
        UsageError: the project names a group that the installation does not know.
    """
    settings = project.settings
    assert state.opened is not None
    author = state.opened["code"].get("author") or ""
    # git knows an author by mail address, Jenkins by what stands before the @.
    importer = state.opened.get("imported", {}).get("by")
    names = (state.opened["requester"], author, author.partition("@")[0], importer)
    own = tuple(dict.fromkeys(name for name in names if name))
    approvers = [
        person
        for name in settings.approvers
        for person in (_members(place, name[1:]) if name.startswith("@") else (name,))
    ]
    return Requirement(
        approvers=tuple(dict.fromkeys(approvers)),
        count=REVIEWERS_BY_TIER[settings.risk_tier],
        excluded=own,
        groups=tuple(Group(name, _members(place, name), count) for name, count in settings.reviews.items()),
        operators=place.settings.approval.groups.get(OPERATORS, ()),
    )


def _members(place: Installation, group: str) -> tuple[str, ...]:
    known = place.settings.approval.groups
    if group not in known:
        raise UsageError(
            f"the installation knows no group '{group}'",
            where="settings: approval.groups",
            fix=f"known: {', '.join(sorted(known)) or 'none'}; people are put into groups there, not in project.toml",
        )
    return known[group]


def gate_of(
    place: Installation,
    state: RunState,
    project: Project,
    reader: EventReader | None = None,
    now: datetime | None = None,
) -> Gate:
    """Where a run stands before production, by default now."""
    about = (reader or place.ledger).events(model=project.settings.name, environment=ENVIRONMENT)
    return stands(
        state,
        fold_record(event for event in about if event.kind == "approval.delegated").delegations,
        policy=project.settings.policy,
        requirement=requirement(place, state, project),
        evidence=evidence_of(place, state),
        now=now or place.clock(),
    )


def open_gate(place: Installation, state: RunState, project: Project) -> Mapping[str, Any]:
    """The gate stage: passes when policy and approvals hold, and signs the package that it lets through.

    Raises:
        PolicyRefused: the evidence does not meet the policy.
        ApprovalInvalid: nobody entitled has approved, or the approval is void.
    """
    gate = gate_of(place, state, project)
    record_verdict(place, state, project, gate.verdict)
    gate.demand()
    if gate.glass:
        place.reporter.note(f"!!! GLASS BROKEN by {' and '.join(gate.glass.operators)}: {gate.glass.incident}")
    if place.settings.signing is not None and place.settings.signing.key is not None:
        from pipeline.bootstrap.signatures import sign_run

        sign_run(place, state, project)
    return gate.fact()


def still_approved(place: Installation, state: RunState, project: Project, reader: EventReader) -> Mapping[str, Any]:
    """What promotion demands, whatever the Jenkinsfile says: read anew from the ledger.

    Returns:
        What is recorded with the promotion.

    Raises:
        PolicyRefused, ApprovalInvalid: as the gate does.
    """
    fresh = fold_run(state.run, reader.events(run=state.run))
    gate = gate_of(place, fresh, project, reader)
    gate.demand()
    fresh.fact("gate production")
    found = gate.fact()
    return {
        "subject": gate.subject.digest,
        "evidence": gate.subject.evidence,
        "approved_by": found["approved_by"],
        "assurance": found["assurance"],
        "glass": found["glass"],
    }


def still_standing(
    place: Installation, state: RunState, project: Project, reader: EventReader, promoted: Placement
) -> None:
    """What a roll-out demands: nobody took back what the promotion rests on.

    Raises:
        ApprovalInvalid: somebody did, between promotion and roll-out.
    """
    fresh = fold_run(state.run, reader.events(run=state.run))
    not_withdrawn(gate_of(place, fresh, project, reader, datetime.fromisoformat(promoted.since)))


def show(place: Installation, run: str) -> dict[str, Any]:
    """What waits at the gate: verdict, subject, who approved, who may. The verdict is recorded."""
    state = place.state(run)
    project = place.project(state)
    gate = gate_of(place, state, project)
    record_verdict(place, state, project, gate.verdict)
    return {
        "run": run,
        "headline": headline(gate),
        "gate": "open" if gate.open else "closed",
        "line": _line(place, state, gate),
        "verdict": gate.verdict.model_dump(mode="json"),
        "subject": {**asdict(gate.subject), "digest": gate.subject.digest},
        "approvals": _standing(gate),
        "lines": _lines(gate),
    }


def try_policy(place: Installation, run: str, file: Path) -> dict[str, Any]:
    """What another policy says of a run's evidence, as old as it was when the run was judged. Nothing is recorded."""
    state = place.state(run)
    judged = [event.at for event in place.reader.events(run=run) if event.kind == "policy.judged"]
    now = datetime.fromisoformat(judged[0]) if judged else place.clock()
    verdict = judge(load_policy(file), evidence_of(place, state), now)
    word = "would pass" if verdict.passed else f"would be refused ({len(verdict.refusals)} rule(s))"
    return {"run": run, "headline": f"{word} by {file}", "verdict": verdict.model_dump(mode="json"), "lines": []}


def _line(place: Installation, state: RunState, gate: Gate) -> str:
    """Model, version, verdict and the ledger's head in one line: a build that shows it is an anchor too."""
    model, head = state.model, place.reader.head()
    wanted = place.environment(model, ENVIRONMENT).wanted
    serving = f"in {ENVIRONMENT} as {wanted.version}, " if wanted is not None and wanted.run == state.run else ""
    anchor = f"{head.seq}:{head.hash}" if head else "empty"
    version = f"version {state.fact('register')['version']}" if state.done("register") else "not registered"
    return f"{model} {version}: {serving}{headline(gate)} | ledger {anchor}"


def _standing(gate: Gate) -> dict[str, Any]:
    return {**asdict(gate.standing), "glass": asdict(gate.glass) if gate.glass else None}


def headline(gate: Gate) -> str:
    """The verdict, and what is missing, in a line."""
    stand = gate.standing
    if stand.rejected_by:
        return f"rejected by {stand.rejected_by}"
    if gate.glass:
        return f"GLASS BROKEN by {' and '.join(gate.glass.operators)} for {gate.glass.incident}"
    if not gate.verdict.passed:
        return f"the policy refuses ({len(gate.verdict.refusals)} rule(s))"
    if stand.granted:
        return f"approved by {', '.join(stand.approved_by)}"
    groups = f", one from {', '.join(stand.groups_missing)}" if stand.groups_missing else ""
    return f"the policy passes; {stand.missing} approval(s) missing{groups}"


def _lines(gate: Gate) -> list[str]:
    digests = [f"  {name:9} {value}" for name, value in asdict(gate.subject).items()]
    lines = ["what is approved:", *digests, *(f"note: {problem}" for problem in gate.standing.problems)]
    if gate.verdict.passed and not gate.open and not gate.standing.rejected_by:
        lines.append(f"may decide: {', '.join(gate.standing.may_decide)}")
    return lines


def record_verdict(place: Installation, state: RunState, project: Project, verdict: Verdict) -> None:
    """Enter a verdict into the ledger, unless the last one said the same of the same evidence."""
    evidence = state.fact("evaluate")["evidence"]
    body = {**verdict.model_dump(mode="json"), "evidence": evidence}
    with place.ledger.transaction() as transaction:
        judged = [event.body for event in transaction.events(run=state.run) if event.kind == "policy.judged"]
        # Looking twice is no second verdict; a rule that passed then and refuses now is one.
        if judged and (judged[-1]["passed"], judged[-1]["evidence"]) == (verdict.passed, evidence):
            return
        transaction.append(Draft("policy.judged", place.actor, body, state.run, project.settings.name, ENVIRONMENT))


def write_report(place: Installation, run: str, out: Path, junit: Path | None) -> Path:
    """Write the evidence page with verdict and approvals, and the verdict as JUnit XML; answers the page."""
    from pipeline.reports import evidence as page

    state = place.state(run)
    gate = gate_of(place, state, place.project(state))
    approvals = [asdict(decision) for decision in state.record.decisions]
    required = requirement(place, state, place.project(state))
    standing = _standing(gate) | {"excluded": [name for name in required.approvers if _own(name, required)]}
    verdict = gate.verdict.model_dump(mode="json")
    files = page.render(evidence_of(place, state), verdict, approvals, standing, _ways(place))
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_bytes(content)
    if junit is not None:
        junit.parent.mkdir(parents=True, exist_ok=True)
        junit.write_bytes(_junit(gate.verdict))
    return out / "evidence.html"


def _own(name: str, required: Requirement) -> bool:
    return name.casefold() in {own.casefold() for own in required.excluded}


def _ways(place: Installation) -> tuple[str, ...]:
    """How this installation recognises people."""
    settings = place.settings
    offered = {
        "jenkins": settings.jenkins is not None or settings.embedded,
        "github": settings.github is not None,
        "signed": settings.approval.allowed_signers is not None,
        "oidc": settings.oidc is not None,
    }
    return tuple(way for way, there in offered.items() if there)


def _junit(verdict: Verdict) -> bytes:
    suite = ElementTree.Element(
        "testsuite", name="gatehouse policy", tests=str(len(verdict.rules)), failures=str(len(verdict.refusals))
    )
    for rule in verdict.rules:
        case = ElementTree.SubElement(suite, "testcase", classname="policy", name=rule.rule)
        if not rule.passed:
            ElementTree.SubElement(
                case, "failure", message=rule.reason
            ).text = f"value {rule.value}, threshold {rule.threshold}"
    document: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document
