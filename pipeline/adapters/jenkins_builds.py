"""Builds of a Jenkins job: started once, followed from the queue to the last line of the log.

A start that was lost on the way is looked for by the run id that it carries before anything is sent again: nothing is
triggered twice. Statuses and paths: core's ParameterizedJobMixIn, Queue and progressiveText.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import stamina

from pipeline.adapters.jenkins_answers import parameters
from pipeline.adapters.jenkins_client import Jenkins
from pipeline.errors import GatehouseError, Unreachable, UsageError

RUN_PARAMETER = "RUN"
LOOK_EVERY_SECONDS = 1.0
CHUNK = 1 << 16
LOOKED_BACK_AT = 30
PATIENCE_SECONDS = 600.0  # for a controller that restarts while a build is followed
_BUILDS = f"builds[number,url,building,result,displayName,description,timestamp]{{0,{LOOKED_BACK_AT}}}"


@dataclass(frozen=True, slots=True)
class Started:
    """A build that was asked for: its place in the queue, or already the build."""

    queue: str | None = None
    build: str | None = None


class Builds:
    """Builds of one controller."""

    def __init__(self, jenkins: Jenkins) -> None:
        self.jenkins = jenkins

    def job_url(self, job: str) -> str:
        """Address of a job by its full name (``folder/job``; a branch of a multibranch job is its last part)."""
        return self.jenkins.url + "".join(f"/job/{quote(part, safe='')}" for part in job.split("/") if part) + "/"

    def trigger(self, job: str, parameters: Mapping[str, str]) -> Started:
        """Start a build once.

        Args:
            job: full name.
            parameters: with a `RUN` of the caller's own, if the job has it: so a start that was lost is found again.

        Raises:
            UsageError: no such job, it cannot be built, or the parameters are not its own.
            Unreachable: whether it started is not known, and it cannot be found out.
        """
        url = self.job_url(job)
        known = self.parameters(job)
        unknown = sorted(set(parameters) - set(known)) if known else []
        if unknown:
            raise UsageError(
                f"the job knows no parameter '{unknown[0]}'", where=url, fix=f"it has: {', '.join(sorted(known))}"
            )
        try:
            answer = self.jenkins.send(
                "POST", url + ("buildWithParameters" if known else "build"), data=dict(parameters)
            )
        except Unreachable:
            found = self.find(job, parameters[RUN_PARAMETER]) if RUN_PARAMETER in parameters else None
            if found is None:
                raise
            return found
        # 201, or 303 when the same is queued already; the client has followed that one by now.
        location = str((answer.history[0] if answer.history else answer).headers.get("Location", ""))
        number = re.search(r"/queue/item/(\d+)/?$", location)
        if number is None:
            raise GatehouseError("Jenkins took the start and does not say where it waits", where=url)
        # The address comes back with the host that the request named: only the number is taken.
        return Started(queue=f"{self.jenkins.url}/queue/item/{number.group(1)}/")

    def parameters(self, job: str) -> list[str]:
        """Names of a job's parameters; a pipeline has none before its first build."""
        about = self.jenkins.read(f"{self.job_url(job)}api/json", {"tree": "property[parameterDefinitions[name]]"})
        return [str(one["name"]) for some in about.get("property", ()) for one in some.get("parameterDefinitions", ())]

    def find(self, job: str, run: str) -> Started | None:
        """The build of a job, or the place in the queue, that carries this run already."""
        url = self.job_url(job)
        tree = f"builds[url,actions[parameters[name,value]]]{{0,{LOOKED_BACK_AT}}}"
        for build in self.jenkins.read(f"{url}api/json", {"tree": tree}).get("builds", ()):
            if _carries(build, run):
                return Started(build=str(build["url"]))
        queue = self.jenkins.read(
            f"{self.jenkins.url}/queue/api/json", {"tree": "items[id,actions[parameters[name,value]]]"}
        )
        for item in queue.get("items", ()):
            if _carries(item, run):
                return Started(queue=f"{self.jenkins.url}/queue/item/{item['id']}/")
        return None

    def begun(self, started: Started, say: Callable[[str], None]) -> str:
        """Wait until what was started is a build; answers its address. `say` is told why it waits.

        Raises:
            UsageError: somebody took it out of the queue.
        """
        if started.build is not None:
            return started.build
        said = None
        while True:
            item = self.patiently(f"{started.queue}api/json")
            if item.get("executable"):
                return str(item["executable"]["url"])
            if item.get("cancelled"):
                raise UsageError("it was taken out of the queue", where=str(started.queue))
            if item.get("why") and item["why"] != said:
                said = str(item["why"])
                say(said)
            time.sleep(LOOK_EVERY_SECONDS)

    def log(self, build_url: str, *, follow: bool) -> Iterator[bytes]:
        """The build's log in pieces, to its end, or as far as it is now. Never more than a piece in memory.

        An empty piece says that there is nothing more for now.
        """
        start, shown, lost = "0", 0, None
        while True:
            seen = 0
            # Offsets are the server's: they count bytes of the raw log, not of what is shown.
            try:
                with self.jenkins.stream(
                    f"{build_url.rstrip('/')}/logText/progressiveText", {"start": start}
                ) as answer:
                    for piece in answer.iter_content(CHUNK):
                        yield piece[max(0, shown - seen) :]
                        seen += len(piece)
                    yield b""
                    start, shown, lost = str(answer.headers.get("X-Text-Size", start)), 0, None
                    more = answer.headers.get("X-More-Data") == "true"
            except Unreachable:
                # The controller restarts: what was shown of this piece is left out when it comes again.
                shown, lost, more = max(shown, seen), lost or time.monotonic(), True
                if not follow or time.monotonic() - lost > PATIENCE_SECONDS:
                    raise
            if not (more and follow):
                return
            time.sleep(LOOK_EVERY_SECONDS)

    def patiently(self, url: str, query: Mapping[str, str] | None = None) -> Any:
        """As `Jenkins.read`, waiting for a controller that restarts."""
        return stamina.retry(
            on=Unreachable, attempts=None, timeout=PATIENCE_SECONDS, wait_initial=LOOK_EVERY_SECONDS, wait_max=10.0
        )(self.jenkins.read)(url, query)

    def stages(self, build_url: str) -> list[tuple[str, str]]:
        """Stages that have begun, and their states; none where Jenkins lacks the plugin pipeline-rest-api."""
        try:
            about = self.jenkins.read(f"{build_url.rstrip('/')}/wfapi/describe")
        except UsageError:
            return []
        return [(str(stage["name"]), str(stage["status"])) for stage in about.get("stages", ())]

    def stop(self, build_url: str) -> Mapping[str, Any]:
        """End a build; answers the build as it is then. Its answer says nothing, so the build is read again."""
        self.jenkins.send("POST", f"{build_url.rstrip('/')}/stop")
        return self.jenkins.build(build_url)

    def latest(self, job: str) -> list[Mapping[str, Any]]:
        """The newest builds of a job, newest first."""
        found: list[Mapping[str, Any]] = self.jenkins.read(f"{self.job_url(job)}api/json", {"tree": _BUILDS}).get(
            "builds", []
        )
        return found

    def running(self, folder: str) -> list[str]:
        """Addresses of the builds that run in a folder's jobs, three levels deep, newest first."""
        inner = f"url,builds[url,building]{{0,{LOOKED_BACK_AT}}}"
        tree = f"{inner},jobs[{inner},jobs[{inner},jobs[{inner}]]]"
        about = self.jenkins.read(
            f"{self.job_url(folder) if folder else self.jenkins.url + '/'}api/json", {"tree": tree}
        )
        return list(_running(about))


def _running(about: Mapping[str, Any]) -> Iterator[str]:
    yield from (str(build["url"]) for build in about.get("builds", ()) if build.get("building"))
    for job in about.get("jobs", ()):
        yield from _running(job)


def _carries(about: Mapping[str, Any], run: str) -> bool:
    return parameters(about).get(RUN_PARAMETER) == run
