"""What people record about a run before production: approval, rejection, revocation, delegation, broken glass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, time, timedelta
from typing import Any, cast, get_args

from pipeline.bootstrap import anchors
from pipeline.bootstrap.gatekeeping import gate_of, record_verdict, requirement
from pipeline.bootstrap.identity import Answer, Verb, Who, asked_in, identify
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.notify import deliver
from pipeline.bootstrap.reviews import reviews_in
from pipeline.bootstrap.runner import execute
from pipeline.config import Project
from pipeline.domain.approval import Decision, Delegation, GlassBroken, Requirement, Revocation, principal_of
from pipeline.domain.events import Draft, Event
from pipeline.domain.gate import ENVIRONMENT, refuse
from pipeline.domain.state import RunState, subject_of
from pipeline.errors import ApprovalInvalid, GatehouseError, IntegrityViolated, PolicyRefused, UsageError
from pipeline.ports import LedgerTransaction

BREAK_GLASS_HOURS = 4
TOKENS_REMEMBERED = timedelta(days=2)


def decide_as_started(place: Installation, build: str) -> str:
    """Record what a build of the approval job was started for, by whom Jenkins says started it; answers the run.

    Raises:
        UsageError, ApprovalInvalid, PolicyRefused: as `decide`; the build is of another job, or not one person's.
    """
    asked = asked_in(place, build)
    decide(place, asked.run, asked.answer)
    return asked.run


def decide_as_reviewed(place: Installation, build: str, run: str) -> None:
    """Record every review of a GitHub Actions run, as whoever GitHub says gave it; none where no GitHub is believed.

    Raises:
        ApprovalInvalid: no review counts, and one was refused.
        UsageError, PolicyRefused, Unreachable: as `decide`.
    """
    settings = place.settings.github
    if settings is None:
        place.reporter.note("the settings name no GitHub: its reviews are not asked for")
        return
    found = reviews_in(place, settings, build, run)
    refused: list[ApprovalInvalid] = []
    for reviewed in found:
        review = reviewed.review
        try:
            decide(place, run, Answer("approve" if review.approved else "reject", reviewed=reviewed))
        except ApprovalInvalid as error:
            place.reporter.note(f"the review of {review.user} does not count: {error.what}")
            refused.append(error)
    if refused and len(refused) == len(found):
        raise refused[0]


def decide(place: Installation, run: str, answer: Answer) -> None:
    """Record an approval or a rejection of exactly what the run's evidence was measured on.

    Raises:
        UsageError: no reason, or no identity to believe.
        ApprovalInvalid: this person may not decide, or is not who they claim to be.
        PolicyRefused: an approval of what the policy refuses.
    """
    place = place.acting_as("approval")
    state = place.state(run)
    project = place.project(state)
    approved = answer.verb == "approve"
    subject = subject_of(state, ENVIRONMENT)
    with _refusals(place, state, project, answer):
        who = identify(place, answer, asdict(subject), run)
        gate = gate_of(place, state, project)
        required = _without(requirement(place, state, project), who)
        now = _now(place)
        principal = principal_of(who.actor, required, gate.record.delegations, now)
        if approved:
            record_verdict(place, state, project, gate.verdict)
            refuse(gate.verdict, run)
        hours = timedelta(hours=project.settings.policy.approval_valid_hours)
        decision = Decision(
            subject=subject,
            approved=approved,
            actor=who.actor,
            reason=who.reason,
            assurance=who.assurance,
            at=now,
            expires=_iso(place.clock() + hours),
            on_behalf_of=principal,
            proof=who.proof,
        )
        _append(place, state, project, "approval.decided", who, asdict(decision))
    for_whom = f" for {principal}" if principal else ""
    place.reporter.note(f"{'approved' if approved else 'rejected'} by {_called(who)}{for_whom}")
    _open_if_complete(place, run, project)


def revoke(place: Installation, run: str, answer: Answer) -> None:
    """Take back an approval, or one's half of a broken glass, before the model is rolled out.

    Raises:
        UsageError: it serves already.
        ApprovalInvalid: this person gave nothing that could be taken back.
    """
    place = place.acting_as("approval")
    state = place.state(run)
    project = place.project(state)
    subject = subject_of(state, ENVIRONMENT)
    rolled_out = place.environment(project.settings.name, ENVIRONMENT).rolled_out
    if rolled_out is not None and rolled_out.run == run:
        raise UsageError("it serves already", where=f"run {run}", fix="gatehouse rollback --env production --reason …")
    with _refusals(place, state, project, answer):
        who = identify(place, answer, asdict(subject), run)
        gave = {one.actor.casefold() for one in state.record.decisions}
        gave |= {one.actor.casefold() for one in state.record.glass}
        gave |= {one.principal.casefold() for one in state.record.decisions}
        if who.actor.casefold() not in gave:
            raise ApprovalInvalid(f"{who.actor} has given nothing to take back", where=f"run {run}")
        body = Revocation(subject.digest, who.actor, who.reason, who.assurance, _now(place), who.proof)
        _append(place, state, project, "approval.revoked", who, asdict(body))
    place.reporter.note(f"taken back by {_called(who)}")


def break_glass(place: Installation, run: str, incident: str, answer: Answer) -> None:
    """Record one operator's half of an emergency promotion; the second, different one opens the gate for some hours.

    Raises:
        ApprovalInvalid: this person is not one of the operators.
    """
    place = place.acting_as("approval")
    state = place.state(run)
    project = place.project(state)
    subject = subject_of(state, ENVIRONMENT)
    if not incident.strip():
        raise UsageError("breaking the glass needs an incident number", where="--incident")
    with _refusals(place, state, project, answer):
        who = identify(place, answer, {**asdict(subject), "incident": incident.strip()}, run)
        operators = requirement(place, state, project).operators
        if who.actor.casefold() not in {name.casefold() for name in operators}:
            raise ApprovalInvalid(
                f"{who.actor} is not one of the operators",
                where=f"settings: approval.groups.operators: {', '.join(operators) or 'nobody'}",
            )
        expires = _iso(place.clock() + timedelta(hours=BREAK_GLASS_HOURS))
        body = GlassBroken(
            subject=subject.digest,
            actor=who.actor,
            reason=who.reason,
            incident=incident.strip(),
            assurance=who.assurance,
            at=_now(place),
            expires=expires,
            proof=who.proof,
        )
        _append(place, state, project, "glass.broken", who, asdict(body))
    place.reporter.note(f"!!! glass broken by {_called(who)} for {incident.strip()}, until {expires}")
    _open_if_complete(place, run, project)


def delegate(place: Installation, model: str, to: str, starts: str | None, ends: str, answer: Answer) -> None:
    """Let somebody else decide in one's place, for one model, between two times (a day counts whole, UTC).

    Raises:
        UsageError: the period is not one.
    """
    place = place.acting_as("approval")
    period = (_moment(starts, time.min, "--from") if starts else _now(place), _moment(ends, time.max, "--until"))
    if period[1] <= max(period[0], _now(place)):
        raise UsageError("the period is over before it begins", where="--from, --until")
    about = {"model": model, "to": to, "starts": starts, "ends": ends}
    who = identify(place, answer, about)
    if who.actor.casefold() == to.casefold():
        raise UsageError("nobody delegates to themself", where="--to")
    body = Delegation(who.actor, to, *period, who.reason, who.assurance, _now(place), who.proof)
    with place.ledger.transaction() as transaction:
        if not _once(place, transaction, who, None):
            raise ApprovalInvalid("this proof of identity was used already", where="gate delegate")
        event = transaction.append(Draft("approval.delegated", who.actor, asdict(body), None, model, ENVIRONMENT))
    anchors.remember(place, event)
    place.reporter.note(f"{to} may decide for {_called(who)} on {model}, {period[0]} to {period[1]}")


def write_statement(
    place: Installation,
    verb: str,
    actor: str,
    reason: str,
    run: str | None,
    incident: str | None,
    delegation: Mapping[str, Any] | None,
) -> str:
    """What `actor` is to sign with an SSH key, to be recorded with ``--signed``.

    Raises:
        UsageError: nobody can state this.
    """
    from pipeline.adapters.signed_decision import statement

    if verb not in get_args(Verb):
        raise UsageError(
            f"nobody can state '{verb}'", where="gate statement", fix=f"one of: {', '.join(get_args(Verb))}"
        )
    if delegation is None and run is None:
        raise UsageError(f"a statement to {verb} is about a run", where="--run")
    subject = delegation or asdict(subject_of(place.state(str(run)), ENVIRONMENT))
    if incident:
        subject = {**subject, "incident": incident}
    signed = statement(subject, decision=cast("Verb", verb), reason=reason, actor=actor, at=_now(place))
    return signed.decode()


# --- the pieces ---------------------------------------------------------------------------------------------


def _append(
    place: Installation, state: RunState, project: Project, kind: str, who: Who, body: Mapping[str, Any]
) -> None:
    """Append, unless this very answer is in the ledger already: an answer is recorded once."""
    with place.ledger.transaction() as transaction:
        if _once(place, transaction, who, state.run) and not _says_again(transaction, state.run, kind, body):
            draft = Draft(kind, who.actor, body, state.run, project.settings.name, ENVIRONMENT)
            event: Event | None = transaction.append(draft)
        else:
            event = None
    if event is None:
        place.reporter.note(f"{who.actor} has said this already")
    else:
        anchors.remember(place, event)
        deliver(place)


def _once(place: Installation, transaction: LedgerTransaction, who: Who, run: str | None) -> bool:
    """Whether a proof is new; the same proof for something else is a replay.

    Raises:
        ApprovalInvalid: it was used for another run.
    """
    if not who.proof:
        return True
    since = _iso(place.clock() - TOKENS_REMEMBERED)
    kinds = ("approval.decided", "approval.revoked", "approval.delegated", "glass.broken")
    used = [event for event in transaction.recent(kinds, since) if event.body.get("proof") == who.proof]
    if any(event.run != run for event in used):
        raise ApprovalInvalid("this proof of identity was used for something else already", where=f"run {used[0].run}")
    return not used


def _says_again(transaction: LedgerTransaction, run: str, kind: str, body: Mapping[str, Any]) -> bool:
    """Whether the last thing that this person recorded about this subject is the same, and still in force."""
    kinds = ("approval.decided", "approval.revoked", "glass.broken")
    mine = [
        event for event in transaction.events(run=run) if event.kind in kinds and event.body["actor"] == body["actor"]
    ]
    if not mine or mine[-1].kind != kind:
        return False
    last = mine[-1].body
    same = all(last.get(key) == body.get(key) for key in ("subject", "approved", "incident"))
    return same and last.get("expires", body["at"]) >= body["at"]


@contextmanager
def _refusals(place: Installation, state: RunState, project: Project, answer: Answer) -> Iterator[None]:
    """Enter an attempt that was refused into the ledger."""
    try:
        yield
    except (ApprovalInvalid, IntegrityViolated, PolicyRefused) as error:
        body = {"verb": answer.verb, "what": error.what[:2000], "exit_code": error.exit_code}
        try:
            place.ledger.append(
                Draft("approval.refused", place.actor, body, state.run, project.settings.name, ENVIRONMENT)
            )
        except GatehouseError:
            place.reporter.note("the refusal could not be recorded: the ledger does not answer")
        raise


def _open_if_complete(place: Installation, run: str, project: Project) -> None:
    if gate_of(place, place.state(run), project).open:
        execute(place, "gate production", run)


def _without(required: Requirement, who: Who) -> Requirement:
    return replace(required, excluded=(*required.excluded, *who.involved))


def _called(who: Who) -> str:
    return f"{who.actor} (DEMO IDENTITY)" if who.assurance == "demo" else who.actor


def _now(place: Installation) -> str:
    return _iso(place.clock())


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _moment(text: str, whole_day: time, where: str) -> str:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"'{text}' is no date", where=where, fix="2026-12-24, or 2026-12-24T18:00Z") from error
    if len(text) == len("2026-12-24"):
        found = datetime.combine(found, whole_day)
    return _iso(found if found.tzinfo else found.replace(tzinfo=UTC))
