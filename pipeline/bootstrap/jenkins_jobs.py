"""What operators and approvers do in Jenkins from a shell: start, follow, decide, stop."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.adapters.jenkins_builds import RUN_PARAMETER, Builds
from pipeline.adapters.jenkins_client import Jenkins
from pipeline.bootstrap.identity import controller
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.runner import new_run_id
from pipeline.errors import UsageError

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
    parameters.setdefault(RUN_PARAMETER, new_run_id(job.strip("/").split("/")[-1].replace("_", "-"), place))
    note = place.reporter.note
    note(f"run {parameters[RUN_PARAMETER]}")
    started = builds.trigger(job, parameters)
    url = builds.begun(started, lambda why: note(f"in the queue: {why}"))
    note(f"build {url}")
    if not follow:
        return 0
    logs(place, url, follow=True)
    result = _result(builds.jenkins, url)
    note(f"{result}: {url}")
    return RESULTS.get(result, 1)


def logs(place: Installation, build: str, *, follow: bool) -> None:
    """Write a build's log to the standard output, piece by piece."""
    for piece in Builds(jenkins_of(place)).log(build, follow=follow):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def approvals(place: Installation, folder: str) -> list[dict[str, Any]]:
    """What waits for a person: the build, its question, its run and verdict, and who may answer."""
    jenkins = jenkins_of(place)
    rows = []
    for url in Builds(jenkins).running(folder):
        about = jenkins.build(url)
        for waiting in jenkins.pending_inputs(url):
            began = about.get("timestamp")
            rows.append(
                {
                    "build": url,
                    "input": waiting.id,
                    "run": _run(about),
                    "verdict": about.get("description"),
                    "question": waiting.message,
                    "may decide": ", ".join(waiting.submitters or ()) or "whoever may build",
                    "since": datetime.fromtimestamp(began / 1000, UTC).isoformat(timespec="seconds") if began else None,
                    "evidence": f"{url}artifact/build/evidence/evidence.html",
                }
            )
    return rows


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


def _result(jenkins: Jenkins, url: str) -> str | None:
    """The result, once Jenkins has written it: the log ends a moment before."""
    while True:
        build = jenkins.build(url)
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
