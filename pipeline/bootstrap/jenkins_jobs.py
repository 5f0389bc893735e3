"""What operators and approvers do in Jenkins from a shell: start, follow, decide, stop."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.adapters.jenkins_builds import RUN_PARAMETER, Builds
from pipeline.adapters.jenkins_client import Jenkins
from pipeline.bootstrap.gatekeeping import show as gate_view
from pipeline.bootstrap.identity import controller
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.runner import new_run_id
from pipeline.errors import ApprovalInvalid, UsageError

RECORDED = "recorded"  # the choice at the gate for: the ledger holds the decisions already
SAID = {
    "IN_PROGRESS": "begins",
    "PAUSED_PENDING_INPUT": "waits for a decision (gatehouse jenkins approvals)",
    "FAILED": "failed",
    "ABORTED": "aborted",
}
# What `gate show --line` writes and the Jenkinsfile adds to, as a build's description.
_SHOWN = re.compile(
    r"(?P<model>\S+) version (?P<version>\S+): (?P<verdict>.*?)(?: \| ledger (?P<ledger>\S+))?"
    r"(?: \((?P<reason>.*)\))?(?:; decide until (?P<until>[0-9-]{10} [0-9:]{5}) UTC)?"
)
RESULTS: Mapping[str | None, int] = {"SUCCESS": 0, "UNSTABLE": 3, "FAILURE": 1, "ABORTED": 4, "NOT_BUILT": 1}


def jenkins_of(place: Installation) -> Jenkins:
    """The configured controller.

    Raises:
        UsageError: the settings name none.
    """
    if place.settings.jenkins is None:
        raise UsageError("the settings name no Jenkins", where="settings: jenkins", fix="see infra/jenkins/README.md")
    return controller(place.settings.jenkins)


def trigger(place: Installation, job: str, sets: Sequence[str], *, follow: bool) -> int:
    """Start a build, and follow it to its end; answers the exit code that its result means.

    Raises:
        UsageError: no such job or parameter.
    """
    builds = Builds(jenkins_of(place))
    parameters = dict(_pair(text) for text in sets)
    note = place.reporter.note
    if RUN_PARAMETER in builds.parameters(job):
        parameters.setdefault(RUN_PARAMETER, new_run_id(job.strip("/").split("/")[-1].replace("_", "-"), place))
        note(f"run {parameters[RUN_PARAMETER]}")
    started = builds.trigger(job, parameters)
    url = builds.begun(started, lambda why: note(f"in the queue: {why}"))
    note(f"build {url}")
    if not follow:
        return 0
    _follow(place, builds, url)
    result = _result(builds, url)
    note(f"{result}: {url}")
    return RESULTS.get(result, 1)


def _follow(place: Installation, builds: Builds, url: str) -> None:
    """Write the log as it grows, and say which stage has begun, waits or has failed."""
    known: dict[str, str] = {}
    for piece in builds.log(url, follow=True):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        if piece:
            continue
        for stage, state in builds.stages(url):
            if known.get(stage) != state and state in SAID:
                place.reporter.note(f"{stage}: {SAID[state]}")
            known[stage] = state


def logs(place: Installation, build: str, *, follow: bool) -> None:
    """Write a build's log to the standard output, piece by piece."""
    for piece in Builds(jenkins_of(place)).log(build, follow=follow):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def approvals(place: Installation, folder: str) -> list[dict[str, Any]]:
    """What waits for a person: model, version, run, verdict, evidence, who may answer, and how long still."""
    jenkins = jenkins_of(place)
    rows: list[dict[str, Any]] = []
    for url in Builds(jenkins).running(folder):
        about = jenkins.build(url)
        rows += [
            {
                "build": url,
                "input": waiting.id,
                "run": _run(about),
                **_shown(str(about.get("description") or ""), place.clock()),
                "question": waiting.message,
                "may decide": ", ".join(waiting.submitters or ()) or "whoever may build",
                "evidence": f"{url}artifact/build/evidence/evidence.html",
            }
            for waiting in jenkins.pending_inputs(url)
        ]
    return rows


def _shown(description: str, now: datetime) -> dict[str, Any]:
    """What a build's description says of its model; of one that somebody else wrote, the text."""
    found = _SHOWN.fullmatch(description)
    if found is None:
        return {"model": None, "version": None, "verdict": description, "until": None, "left": None}
    until = datetime.fromisoformat(f"{found['until']}+00:00") if found["until"] else None
    hours = (until - now).total_seconds() / 3600 if until else None
    return {
        "model": found["model"],
        "version": found["version"],
        "verdict": found["verdict"],
        "until": until.isoformat() if until else None,
        "left": f"{hours:.1f} h" if hours is not None else None,
    }


def release(place: Installation, run: str) -> list[dict[str, Any]]:
    """Let builds that wait at a run's gate go on, if the decisions in the ledger have opened it; answers those builds.

    A build that this user may not answer goes on waiting: what was decided stands in the ledger all the same.
    """
    view = gate_view(place, run)
    if view["gate"] != "open":
        place.reporter.note(f"{run}: {view['headline']}")
        return []
    released = []
    for row in approvals(place, ""):
        if row["run"] != run:
            continue
        try:
            jenkins_of(place).proceed(row["build"], row["input"], {"DECISION": RECORDED, "WHY": view["headline"]})
        except ApprovalInvalid as error:
            place.reporter.note(f"{row['build']} waits on, for somebody who may answer it: {error.what}")
        else:
            released.append({"build": row["build"], "run": run})
    return released


def decide(place: Installation, build: str, reason: str, *, approve: bool) -> dict[str, Any]:
    """Answer the gate's input as the user whose token this is; Jenkins decides whether they may.

    Raises:
        UsageError: no reason, or nothing waits there.
        ApprovalInvalid: this user may not, or somebody else was quicker.
    """
    if not reason.strip():
        raise UsageError("a decision needs a reason", where="--reason")
    jenkins = jenkins_of(place)
    waiting = jenkins.pending_inputs(build)
    if len(waiting) != 1:
        listed = ", ".join(one.id for one in waiting) or "nothing"
        raise UsageError(f"{len(waiting)} inputs wait in this build", where=build, fix=f"waiting: {listed}")
    word = "approve" if approve else "reject"
    answered = jenkins.proceed(build, waiting[0].id, {"DECISION": word, "WHY": reason.strip()})
    return {"build": build, "input": waiting[0].id, "decision": word, "by": answered.user}


def abort(place: Installation, build: str) -> dict[str, Any]:
    """End a build; answers what became of it."""
    found = Builds(jenkins_of(place)).stop(build)
    return {"build": build, "building": found.get("building"), "result": found.get("result")}


def status(place: Installation, job: str) -> list[dict[str, Any]]:
    """The newest builds of a job as rows."""
    rows = []
    for build in Builds(jenkins_of(place)).latest(job):
        began = datetime.fromtimestamp(build["timestamp"] / 1000, UTC) if build.get("timestamp") else None
        rows.append(
            {
                "number": build["number"],
                "state": "running" if build.get("building") else build.get("result"),
                "name": build.get("displayName"),
                "verdict": build.get("description"),
                "began": began.isoformat(timespec="seconds") if began else None,
                "build": build["url"],
            }
        )
    return rows


def _result(builds: Builds, url: str) -> str | None:
    """The result, once Jenkins has written it: the log ends a moment before."""
    while True:
        build = builds.patiently(f"{url.rstrip('/')}/api/json", {"tree": "building,result"})
        if not build.get("building") and build.get("result"):
            return str(build["result"])
        time.sleep(1)


def _run(build: Mapping[str, Any]) -> str | None:
    words = str(build.get("displayName", "")).split()
    return words[-1] if len(words) > 1 else None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"'{text}' is not NAME=value", where="--param", fix="--param TRAIN=2013-01..2013-06")
    return name.strip(), value
