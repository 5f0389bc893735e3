"""What Jenkins' answers mean: builds, inputs and decisions as values. Pure; the wire is in `jenkins_client`.

Class and field names are those of Jenkins' core and of its plugins pipeline-input-step, pipeline-rest-api and
workflow-basic-steps, as their sources give them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pipeline.errors import ApprovalInvalid, GatehouseError, Unreachable, UsageError

Build = Mapping[str, Any]
Outcome = Literal["approved", "rejected", "timeout", "aborted", "pending", "not asked"]

BUILD_TREE = (
    "number,url,building,result,displayName,description,timestamp,"
    "actions[_class,userId,waitingForInput,"
    "executions[id,settled,input[id,message,ok,submitter,submitterParameter,"
    "parameters[name,type,description,choices,defaultParameterValue[value]]]],"
    "causes[_class,shortDescription,timestamp,userId,user[id]],parameters[name,value]]"
)
_INPUT_ACTION = "org.jenkinsci.plugins.workflow.support.steps.input.InputAction"
_APPROVER_ACTION = "org.jenkinsci.plugins.workflow.support.steps.input.ApproverAction"
_INTERRUPTED_ACTION = "jenkins.model.InterruptedBuildAction"
_ENDINGS: Mapping[str, Outcome] = {
    "org.jenkinsci.plugins.workflow.support.steps.input.Rejection": "rejected",
    "org.jenkinsci.plugins.workflow.steps.TimeoutStepExecution$ExceededTimeout": "timeout",
    "jenkins.model.CauseOfInterruption$UserInterruption": "aborted",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A question that an input asks. `choices` is empty where any text goes."""

    name: str
    kind: str
    description: str
    default: Any
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PendingInput:
    """An input that waits.

    Attributes:
        id: as the server spells it; it is case-sensitive.
        message, ok: what people read.
        submitters: users and groups who may answer; None when Jenkins does not say.
        parameters: every one of them must be sent, or Jenkins makes it null.
    """

    id: str
    message: str
    ok: str
    submitters: tuple[str, ...] | None
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """How a build's input was answered. Jenkins keeps the time of a rejection, not that of an approval."""

    outcome: Outcome
    user: str | None = None
    at: datetime | None = None


def exported_inputs(build: Build) -> list[PendingInput] | None:
    """The inputs that wait; None when this Jenkins does not export them (pipeline-input-step before 466)."""
    actions = [action for action in build.get("actions", ()) if action.get("_class") == _INPUT_ACTION]
    if not build.get("building") or not actions:
        return []
    if "executions" not in actions[0]:
        return None
    return [_exported({**execution["input"], "id": execution["id"]}) for execution in actions[0]["executions"]]


def _exported(about: Mapping[str, Any]) -> PendingInput:
    submitter = about.get("submitter")
    names = tuple(name.strip() for name in submitter.split(",")) if submitter else ()
    parameters = tuple(
        _parameter(field, (field.get("defaultParameterValue") or {}).get("value"), field.get("choices"))
        for field in about.get("parameters") or ()
    )
    return PendingInput(about["id"], about.get("message") or "", about.get("ok") or "", names, parameters)


def wfapi_input(about: Mapping[str, Any]) -> PendingInput:
    """An input as ``wfapi/pendingInputActions`` gives it, which does not tell who may answer."""
    parameters = []
    for field in about.get("inputs") or ():
        definition = field.get("definition") or {}
        parameters.append(_parameter(field, definition.get("defaultVal"), definition.get("choices")))
    return PendingInput(
        about["id"], about.get("message") or "", about.get("proceedText") or "", None, tuple(parameters)
    )


def _parameter(field: Mapping[str, Any], default: Any, choices: Iterable[str] | None) -> Parameter:
    offered = tuple(choices or ())
    if default is None:
        default = offered[0] if offered else ""
    return Parameter(
        str(field["name"]), str(field.get("type", "")), str(field.get("description") or ""), default, offered
    )


def approvers(build: Build) -> list[str]:
    """Ids of the users who answered inputs of a build, in order."""
    return [str(action["userId"]) for action in build.get("actions", ()) if action.get("_class") == _APPROVER_ACTION]


def started_by(build: Build) -> str | None:
    """Id of the user who started a build; None when a schedule or a push did."""
    return next(iter(starters(build)), None)


def starters(build: Build) -> list[str]:
    """Ids of all who started a build: the same asked for twice while it is queued is one build with two causes."""
    users = (str(cause["userId"]) for cause in _causes(build, ending=False) if cause.get("userId"))
    return list(dict.fromkeys(users))


def parameters(build: Build) -> dict[str, Any]:
    """The parameters that a build was started with, as Jenkins keeps them."""
    return {
        str(one["name"]): one.get("value")
        for action in build.get("actions", ())
        for one in action.get("parameters") or ()
    }


def decision(build: Build, where: str) -> Decision:
    """How a build whose input does not wait any more was answered.

    Raises:
        ApprovalInvalid: different people answered inputs of this build. An approval in Jenkins names the user and
            not the input, so it would be a guess whose answer is meant.
    """
    users = approvers(build)
    if len(set(users)) > 1:
        raise ApprovalInvalid(
            f"several people answered inputs of this build: {', '.join(sorted(set(users)))}",
            where=where,
            fix="Jenkins does not say who answered which: have one input in a build",
        )
    return Decision("approved", users[0]) if users else ended(build)


def ended(build: Build) -> Decision:
    """What ended a build that nobody approved. Jenkins writes it down when the build is over, not before."""
    for cause in _causes(build, ending=True):
        outcome = _ENDINGS.get(str(cause.get("_class")))
        if outcome is not None:
            moment = cause.get("timestamp")
            at = None if moment is None else datetime.fromtimestamp(moment / 1000, UTC)
            return Decision(outcome, (cause.get("user") or {}).get("id"), at)
    return Decision("not asked")


def _causes(build: Build, *, ending: bool) -> Iterable[Mapping[str, Any]]:
    for action in build.get("actions", ()):
        if (action.get("_class") == _INTERRUPTED_ACTION) == ending:
            yield from action.get("causes", ())


def complete(waiting: PendingInput, answers: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A value for each declared parameter: the given answer, or the default.

    Raises:
        UsageError: an answer to something that is not asked, or a choice that is not offered.
    """
    known = {parameter.name: parameter for parameter in waiting.parameters}
    for name in answers:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1) or sorted(known) or ["nothing"]
            raise UsageError(f"the input does not ask for '{name}'", where=where, fix=f"it asks for {', '.join(close)}")
    values = {name: answers.get(name, parameter.default) for name, parameter in known.items()}
    for name, value in values.items():
        choices = known[name].choices
        if choices and value not in choices:
            raise UsageError(f"'{value}' is no choice for {name}", where=where, fix=f"one of: {', '.join(choices)}")
    return values


_MEANING: Mapping[int, tuple[str, str]] = {
    400: ("Jenkins does not understand the request", "the job may have changed: look at its parameters"),
    401: ("Jenkins does not accept this user and token", "make a new API token in Jenkins: your name, Security"),
    403: ("this user may not do that", "ask an administrator for the permission, and use an API token"),
    404: ("there is no such thing, or this user may not see it", "check the address, and the permission Job/Read"),
    405: ("Jenkins wants another method here", "check the address: no proxy may turn a POST into a GET"),
    409: ("the job cannot be built now", "see in Jenkins whether it is disabled"),
}


def meaning(status: int, headers: Mapping[str, str], where: str) -> GatehouseError | None:
    """The error that a status stands for; None for a good one."""
    said, needed = headers.get("X-Error", ""), headers.get("X-Required-Permission", "")
    if status < 300:
        return None
    if status == 400 and said.startswith("You need"):
        # Who may not answer an input is told so with 400, not 403: hudson.model.Failure.
        return ApprovalInvalid(f"Jenkins refuses: {said}", where=where, fix="let somebody decide who may")
    if status == 429:
        return Unreachable("Jenkins, or a proxy, asks for fewer requests", where=where, fix="try again in a minute")
    if status >= 500:
        return Unreachable(f"Jenkins answers {status}", where=where, fix="its log says why; try again when it is well")
    what, fix = _MEANING.get(status, (f"Jenkins answers {status}", ""))
    detail = f": {said}" if said else f": {needed} is needed" if needed else ""
    return UsageError(what + detail, where=where, fix=fix)
