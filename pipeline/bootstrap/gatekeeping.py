"""The production gate: shows what waits, records decisions, and holds promotion to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.runner import execute
from pipeline.config import Project
from pipeline.domain.approval import (
    Assurance,
    Decision,
    Requirement,
    Standing,
    Subject,
    demand,
    may_decide,
    standing,
)
from pipeline.domain.canonical import digest_json
from pipeline.domain.events import Draft
from pipeline.domain.policy import REVIEWERS_BY_TIER, Verdict, judge
from pipeline.domain.state import RunState, fold_run, subject_of
from pipeline.errors import ApprovalInvalid, IntegrityViolated, PolicyRefused, UsageError
from pipeline.ports import EventReader

ENVIRONMENT = "production"


def evidence_of(place: Installation, state: RunState) -> Mapping[str, Any]:
    """The evidence, verified against the digest in the ledger.

    Raises:
        IntegrityViolated: it is not what was recorded.
    """
    fact = state.fact("evaluate")
    path = place.cache.get(
        fact["evidence_file"], lambda folder: place.mlflow.download(fact["uri"], folder), fact["uri"]
    )
    evidence: Mapping[str, Any] = json.loads(path.read_bytes())
    if digest_json(evidence) != fact["evidence"]:
        raise IntegrityViolated("the evidence is not what was recorded", where=fact["uri"])
    return evidence


def requirement(state: RunState, project: Project) -> Requirement:
    """Who must approve: by risk tier, never the requester, never the author."""
    settings = project.settings
    assert state.opened is not None
    author = state.opened["code"].get("author") or ""
    # Jenkins compares user ids without case; git knows an author by mail address, Jenkins by what stands before the @.
    own = {name.casefold() for name in (state.opened["requester"], author, author.partition("@")[0]) if name}
    excluded = tuple(name for name in settings.approvers if name.casefold() in own)
    return Requirement(settings.approvers, REVIEWERS_BY_TIER[settings.risk_tier], excluded)


def _judged(place: Installation, state: RunState, project: Project) -> Verdict:
    assert state.opened is not None
    verdict = judge(project.settings.policy, evidence_of(place, state), place.clock())
    # The run's digest also covers tier and approvers: that is the policy which an approval is of.
    return verdict.model_copy(update={"policy_digest": state.opened["policy_digest"]})


def _standing(place: Installation, state: RunState, project: Project) -> tuple[Subject, Standing]:
    subject = subject_of(state, ENVIRONMENT)
    return subject, standing(subject, state.decisions, requirement(state, project), place.clock())


def open_gate(place: Installation, state: RunState, project: Project) -> Mapping[str, Any]:
    """The gate stage: passes when policy and approvals hold.

    Raises:
        PolicyRefused: the evidence does not meet the policy.
        ApprovalInvalid: nobody entitled has approved, or the approval is void.
    """
    verdict = _judged(place, state, project)
    _record_verdict(place, state, project, verdict)
    _refuse(verdict, state.run)
    subject, stand = _standing(place, state, project)
    demand(stand, subject)
    return {"subject": asdict(subject), "subject_digest": subject.digest, "approved_by": list(stand.approved_by)}


def still_approved(place: Installation, state: RunState, project: Project, reader: EventReader) -> Mapping[str, Any]:
    """What promotion demands, whatever the Jenkinsfile says: read anew from the ledger.

    Returns:
        What is recorded with the promotion.

    Raises:
        PolicyRefused, ApprovalInvalid: as the gate does.
    """
    fresh = fold_run(state.run, reader.events(run=state.run))
    verdict = _judged(place, fresh, project)
    _refuse(verdict, state.run)
    subject, stand = _standing(place, fresh, project)
    demand(stand, subject)
    fresh.fact("gate production")
    return {
        "subject": subject.digest,
        "evidence": subject.evidence,
        "approved_by": list(stand.approved_by),
        "assurance": sorted({decision.assurance for decision in fresh.decisions if decision.approved}),
    }


def show(place: Installation, run: str) -> dict[str, Any]:
    """What waits at the gate: verdict, subject, who approved, who may. The verdict is recorded."""
    state = place.state(run)
    project = place.project(state)
    verdict = _judged(place, state, project)
    _record_verdict(place, state, project, verdict)
    subject, stand = _standing(place, state, project)
    if not verdict.passed:
        headline = f"the policy refuses ({len(verdict.refusals)} rule(s))"
    elif stand.rejected_by:
        headline = f"rejected by {stand.rejected_by}"
    elif stand.granted:
        headline = f"approved by {', '.join(stand.approved_by)}"
    else:
        headline = f"the policy passes; {stand.missing} approval(s) missing"
    digests = [f"  {name:9} {value}" for name, value in asdict(subject).items()]
    lines = ["what is approved:", *digests, *(f"note: {problem}" for problem in stand.problems)]
    if verdict.passed and not stand.granted and not stand.rejected_by:
        lines.append(f"may decide: {', '.join(stand.may_decide)}")
    return {
        "run": run,
        "headline": headline,
        "verdict": verdict.model_dump(mode="json"),
        "subject": {**asdict(subject), "digest": subject.digest},
        "approvals": asdict(stand),
        "lines": lines,
    }


def decide(
    place: Installation,
    run: str,
    reason: str,
    *,
    approved: bool,
    build: str | None,
    input_id: str | None,
    demo_identity: str | None,
) -> None:
    """Record a decision on exactly what the run's evidence was measured on.

    Raises:
        UsageError: no reason, or no identity to believe.
        ApprovalInvalid: this person may not decide, or Jenkins names somebody else.
        PolicyRefused: an approval of what the policy refuses.
    """
    if not reason.strip():
        raise UsageError("a decision needs a reason", where="--reason")
    state = place.state(run)
    project = place.project(state)
    actor, assurance = _identity(place, run, build, input_id, demo_identity, approved=approved)
    may_decide(actor, requirement(state, project))
    if approved:
        verdict = _judged(place, state, project)
        _record_verdict(place, state, project, verdict)
        _refuse(verdict, run)
    _record_decision(place, state, project, actor, assurance, reason, approved=approved)
    word = "approved" if approved else "rejected"
    place.reporter.note(f"{word} by {actor}{' (DEMO IDENTITY)' if assurance == 'demo' else ''}")
    if approved and _standing(place, place.state(run), project)[1].granted:
        execute(place, "gate production", run)


def _record_decision(
    place: Installation,
    state: RunState,
    project: Project,
    actor: str,
    assurance: Assurance,
    reason: str,
    *,
    approved: bool,
) -> None:
    now = place.clock()
    subject = subject_of(state, ENVIRONMENT)
    decision = Decision(
        subject=subject,
        approved=approved,
        actor=actor,
        reason=reason.strip(),
        assurance=assurance,
        at=now.isoformat(),
        expires=(now + timedelta(hours=project.settings.policy.approval_valid_hours)).isoformat(),
    )
    with place.ledger.transaction() as transaction:
        earlier = fold_run(state.run, transaction.events(run=state.run)).decisions
        if any(
            old.actor == actor and old.approved == approved and old.subject == subject and old.expires > decision.at
            for old in earlier
        ):
            place.reporter.note(f"{actor} has decided this already")
            return
        transaction.append(
            Draft("approval.decided", actor, asdict(decision), state.run, project.settings.name, ENVIRONMENT)
        )


def _identity(
    place: Installation,
    run: str,
    build: str | None,
    input_id: str | None,
    demo_identity: str | None,
    *,
    approved: bool,
) -> tuple[str, Assurance]:
    if demo_identity:
        if not place.settings.embedded:
            raise ApprovalInvalid(
                "a demo identity is not believed here",
                where="--demo-identity",
                fix="decide in Jenkins: gatehouse gate approve --build URL --input ID",
            )
        return demo_identity, "demo"
    if not build or not input_id or place.settings.jenkins is None:
        raise UsageError(
            "no identity to believe: who decides is asked of Jenkins",
            where="--build, --input" if place.settings.jenkins else "settings: jenkins",
            fix="call this from the gate's stage with the build's URL and the input's id",
        )
    from pipeline.bootstrap.identity import submitter

    return submitter(place.settings.jenkins, build, input_id, run, approved=approved), "jenkins"


def _record_verdict(place: Installation, state: RunState, project: Project, verdict: Verdict) -> None:
    evidence = state.fact("evaluate")["evidence"]
    body = {**verdict.model_dump(mode="json"), "evidence": evidence}
    with place.ledger.transaction() as transaction:
        judged = [event.body for event in transaction.events(run=state.run) if event.kind == "policy.judged"]
        # Looking twice is no second verdict; a rule that passed then and refuses now is one.
        if judged and (judged[-1]["passed"], judged[-1]["evidence"]) == (verdict.passed, evidence):
            return
        transaction.append(Draft("policy.judged", place.actor, body, state.run, project.settings.name, ENVIRONMENT))


def _refuse(verdict: Verdict, run: str) -> None:
    if not verdict.passed:
        lines = [f"  {rule.rule}: {rule.reason}" for rule in verdict.refusals]
        raise PolicyRefused(
            "the evidence does not meet the policy:\n" + "\n".join(lines),
            where=f"run {run}, production gate",
            fix="train a better challenger; gatehouse gate show lists every rule",
        )


def write_report(place: Installation, run: str, out: Path, junit: Path | None) -> Path:
    """Write the evidence page with verdict and approvals, and the verdict as JUnit XML; answers the page."""
    from pipeline.reports import evidence as page

    state = place.state(run)
    project = place.project(state)
    verdict = _judged(place, state, project)
    approvals = [asdict(decision) for decision in state.decisions]
    files = page.render(evidence_of(place, state), verdict.model_dump(mode="json"), approvals)
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_bytes(content)
    if junit is not None:
        junit.parent.mkdir(parents=True, exist_ok=True)
        junit.write_bytes(_junit(verdict))
    return out / "evidence.html"


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
