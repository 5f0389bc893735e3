"""Carries builds of the stand-in controller out: a Groovy process runs the Jenkinsfile, and asks here for what it needs.

Executors, locks and milestones are the controller's, as in Jenkins: an agent is waited for while all its executors are
busy (Queue), a lock while another build holds it (lockable-resources), and a build that passes a milestone ends the
older builds that have not come so far (pipeline-milestone-step, MilestoneStepExecution.getBuildsToCancel).
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.jenkins.conftest import HERE, groovy_environment
from tests.jenkins.controller_state import Input

KINDS = {
    "string": "StringParameterDefinition",
    "text": "TextParameterDefinition",
    "choice": "ChoiceParameterDefinition",
}


@dataclass
class Definition:
    """What a job is made of, as ``jobs.groovy`` and the credentials of its folder would give it.

    Attributes:
        jenkinsfile: path inside `source`.
        source: a git repository with the revision that builds check out.
        credentials: secret files by id, as far as this job may use them.
        variables: the environment of every agent.
        change: the number of the pull request that the job is for.
    """

    jenkinsfile: str
    source: Path
    credentials: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    change: int | None = None


def definitions(parameters):
    """Parameters of a job or an input, as Jenkins exports them."""
    return [
        {
            "name": name,
            "type": KINDS[about["kind"]],
            "description": about["description"],
            "defaultParameterValue": {"value": about["default"]},
            **({"choices": about["choices"]} if about["choices"] else {}),
        }
        for name, about in parameters.items()
    ]


class Resources:
    """Executors by label and locks by name; whoever finds none free waits."""

    def __init__(self, executors):
        self.free = Counter(executors)
        self.held: dict[str, int] = {}
        self.changed = threading.Condition()

    def acquire(self, kind, name, build):
        with self.changed:
            if kind == "agent":
                if name not in self.free:
                    raise AssertionError(f"no node has the label '{name}': the build would wait for ever")
                self.changed.wait_for(lambda: self.free[name] > 0 or not build.building)
                self.free[name] -= 1
            else:
                self.changed.wait_for(lambda: name not in self.held or not build.building)
                self.held[name] = build.number

    def release(self, kind, name):
        with self.changed:
            if kind == "agent":
                self.free[name] += 1
            else:
                self.held.pop(name, None)
            self.changed.notify_all()


class Execution(threading.Thread):
    """One build, from its first stage to its result."""

    def __init__(self, controller, build, restart=None):
        super().__init__(daemon=True, name=f"{build.job.name} #{build.number}")
        self.controller, self.build, self.restart = controller, build, restart
        self.work = Path(tempfile.mkdtemp(prefix="build-", dir=controller.home))
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self.pid: int | None = None
        self.held: list[tuple[str, str]] = []
        self.report: dict[str, Any] | None = None
        self.process: subprocess.Popen[str] | None = None
        self.starting = threading.Lock()

    def run(self):
        definition = self.build.job.definition
        plan = {
            "job": self.build.job.name,
            "number": self.build.number,
            "url": self.controller.build_url(self.build),
            "checkout": str(definition.source),
            "work": str(self.work),
            "tidy": True,
            "library": str(definition.source / "infra/jenkins/library"),
            "credentials": definition.credentials,
            "variables": definition.variables,
            "parameters": self.build.parameters,
            "change": definition.change,
            "restart": self.restart,
        }
        (self.work / "plan.json").write_text(json.dumps(plan))
        words = ["groovy", "-cp", str(HERE), str(HERE / "run.groovy"), "--live"]
        words += [str(definition.source / definition.jenkinsfile), str(self.work / "plan.json")]
        with (self.work / "groovy.log").open("w") as log:
            with self.starting:
                self.process = subprocess.Popen(
                    words,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    bufsize=1,
                    env=groovy_environment(),
                )
            with self.process:
                for line in self.process.stdout:
                    self.hear(json.loads(line))
        if self.report is None:
            self.end({"problem": (self.work / "groovy.log").read_text()[-2000:]})

    # --- what it says and asks ---

    def hear(self, said):
        act = said.pop("say", None) or f"asks_{said.pop('ask')}"
        getattr(self, act)(said)

    def tell(self, what):
        with self.starting:
            if self.process is not None and self.process.poll() is None:
                with contextlib.suppress(BrokenPipeError, ValueError):  # it ends just now
                    self.process.stdin.write(json.dumps(what) + "\n")

    def declared(self, said):
        """Parameters and options are the job's from its first build on, not before (JobPropertyStep)."""
        with self.controller.lock:
            job = self.build.job
            job.parameters = definitions(said["parameters"])
            job.triggers = said["triggers"]
            job.concurrent = "disableConcurrentBuilds" not in said["options"]

    def stage(self, said):
        with self.controller.lock:
            self.build.stages[said["name"]] = said["status"]

    def shown(self, said):
        self.build.display_name, self.build.description = said["displayName"], said["description"]

    def running(self, said):
        self.pid = said["pid"]

    def released(self, said):
        self.held.remove((said["kind"], said["name"]))
        self.controller.resources.release(said["kind"], said["name"])

    def asks_agent(self, said):
        self.take("agent", said["name"])

    def asks_lock(self, said):
        self.take("lock", said["name"])

    def take(self, kind, name):
        self.controller.resources.acquire(kind, name, self.build)
        self.held.append((kind, name))
        self.tell({})

    def asks_milestone(self, said):
        with self.controller.lock:
            newer = self.controller.pass_milestone(self.build, said["ordinal"])
        self.tell({"newer": newer})

    def asks_input(self, said):
        parameters = definitions(said["parameters"])
        waiting = Input(
            said["id"],
            said["message"],
            said["submitter"],
            said["submitterParameter"],
            parameters,
            said["ok"] or "Proceed",
        )
        with self.controller.lock:
            self.build.stages[next(reversed(self.build.stages))] = "PAUSED_PENDING_INPUT"
            self.build.ask(waiting)
        answer = self.answers.get()
        if answer["act"] != "stopped":
            self.tell(answer)

    def stop(self, result, message):
        """Interrupt it, wherever it is."""
        self.tell({"stop": {"result": result, "message": message}})
        self.answers.put({"act": "stopped"})

    def done(self, said):
        self.end(said["report"])

    def end(self, report):
        self.report = report
        for kind, name in self.held:  # granted to a build that was stopped while it asked
            self.controller.resources.release(kind, name)
        with self.controller.lock:
            if "problem" in report:
                self.build.problem = report["problem"]
            self.build.environment = report.get("environment", {})
            self.build.artifacts = self.work / "artifacts"
            self.build.finish(report.get("result", "FAILURE"))
            self.controller.completed(self.build)
        with self.controller.resources.changed:
            self.controller.resources.changed.notify_all()
