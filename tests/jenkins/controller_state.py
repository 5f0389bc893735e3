"""What the stand-in controller keeps: users, jobs, builds and the inputs that wait in them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

INPUT = "org.jenkinsci.plugins.workflow.support.steps.input."
EXCEEDED = {
    "_class": "org.jenkinsci.plugins.workflow.steps.TimeoutStepExecution$ExceededTimeout",
    "shortDescription": "Timeout has been exceeded",
}


@dataclass
class User:
    name: str
    token: str
    password: str = "password"
    groups: tuple[str, ...] = ()
    permissions: frozenset[str] = frozenset({"Overall/Read", "Job/Read"})

    def may(self, permission):
        return permission in self.permissions or "Overall/Administer" in self.permissions


@dataclass
class Input:
    id: str
    message: str
    submitter: str | None = None
    submitter_parameter: str | None = None
    parameters: list[dict[str, Any]] = field(default_factory=list)
    ok: str = "Proceed"

    def may_answer(self, user):
        if user.may("Overall/Administer"):
            return True
        if self.submitter is None:
            return user.may("Job/Build")
        names = {name.strip().casefold() for name in self.submitter.split(",")}
        return bool(names & {name.casefold() for name in (user.name, *user.groups)})


@dataclass
class Build:
    job: Job
    number: int
    parameters: dict[str, Any] = field(default_factory=dict)
    causes: list[dict[str, Any]] = field(default_factory=list)
    building: bool = True
    result: str | None = None
    display_name: str = ""
    description: str | None = None
    pending: list[Input] = field(default_factory=list)
    had_input: bool = False
    approved_by: list[str] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    interrupted: list[dict[str, Any]] = field(default_factory=list)
    text: bytes = b""
    stages: dict[str, str] = field(default_factory=dict)
    artifacts: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    problem: str | None = None
    milestone: int | None = None
    execution: Any = None

    @property
    def log(self):
        """What the build has said: of its own process where one carries it out."""
        file = self.execution.work / "log.txt" if self.execution else None
        return self.text if file is None else file.read_bytes() if file.exists() else b""

    @log.setter
    def log(self, text):
        self.text = text

    def ask(self, waiting):
        # A first letter a–z is put in capitals; look-up is case-sensitive afterwards: InputStep.capitalize.
        if waiting.id[:1].islower():
            waiting.id = waiting.id[0].upper() + waiting.id[1:]
        self.pending.append(waiting)
        self.had_input = True

    def finish(self, result):
        self.building, self.result, self.pending = False, result, []

    def time_out(self):
        self.interrupted = [EXCEEDED]
        self.finish("ABORTED")


@dataclass
class Job:
    name: str
    parameters: list[dict[str, Any]] = field(default_factory=list)
    buildable: bool = True
    concurrent: bool = True
    triggers: list[dict[str, Any]] = field(default_factory=list)
    definition: Any = None
    builds: dict[int, Build] = field(default_factory=dict)

    @property
    def path(self):
        return "".join(f"/job/{quote(part, safe='')}" for part in self.name.split("/"))

    def start(self, parameters=None, causes=()):
        number = max(self.builds, default=0) + 1
        self.builds[number] = Build(self, number, parameters or {}, list(causes), display_name=f"#{number}")
        return self.builds[number]


def pruned(value, tree):
    """What ``tree=`` leaves of an answer; ``_class`` stays everywhere."""
    return value if tree is None else _prune(value, _parse(iter(re.findall(r"\w+|[\[\],]", tree))))


def _parse(tokens):
    wanted, last = {}, None
    for token in tokens:
        if token == "[":
            wanted[last] = _parse(tokens)
        elif token == "]":
            return wanted
        elif token != ",":
            wanted[token], last = {}, token
    return wanted


def _prune(value, wanted):
    if isinstance(value, list):
        return [_prune(entry, wanted) for entry in value]
    if not isinstance(value, dict) or not wanted:
        return value
    return {
        name: _prune(inner, wanted.get(name, {})) for name, inner in value.items() if name in wanted or name == "_class"
    }
