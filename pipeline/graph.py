"""The stage graph: order, inputs, outputs, gate or not, declared once.

The Jenkinsfile is written by hand and tested against it; every other face of the line is generated from it.
A *fact* is what a stage leaves in the ledger; a stage can start when the facts it reads are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Environment = Literal["staging", "production"]
ENVIRONMENTS: tuple[Environment, ...] = ("staging", "production")


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the line.

    Attributes:
        name: as Jenkins and the ledger show it.
        command: the words after ``gatehouse`` (the run id is added as ``--run``).
        reads: names of the stages whose facts it needs, all of them.
        writes: kind of the ledger event that proves it is done.
        environment: the environment it acts on, if any.
        gate: True where a person decides; no executor is held while they do.
        heavy: True for work on data (ingest, train, evaluate), the rest is the line's own overhead.
    """

    name: str
    command: tuple[str, ...]
    reads: tuple[str, ...]
    writes: str
    environment: Environment | None = None
    gate: bool = False
    heavy: bool = False

    @property
    def slug(self) -> str:
        """The name where no spaces may be: ids and file names of other runners."""
        return slug(self.name)


def slug(name: str) -> str:
    """A stage's name without spaces."""
    return name.replace(" ", "-")


def _into(environment: Environment, before: str) -> tuple[Stage, Stage, Stage]:
    option = ("--env", environment)
    promote, deploy, verify = (f"{verb} {environment}" for verb in ("promote", "deploy", "verify"))
    return (
        Stage(promote, ("promote", *option), (before,), "model.promoted", environment),
        Stage(deploy, ("deploy", *option), (promote,), "model.deployed", environment),
        Stage(verify, ("verify", *option), (deploy,), "model.verified", environment),
    )


STAGES: tuple[Stage, ...] = (
    Stage("ingest", ("ingest",), (), "data.ingested", heavy=True),
    Stage("validate", ("validate",), ("ingest",), "data.validated"),
    Stage("train", ("train",), ("validate",), "model.trained", heavy=True),
    Stage("evaluate", ("evaluate",), ("train",), "model.evaluated", heavy=True),
    Stage("register", ("register",), ("evaluate",), "model.registered"),
    *_into("staging", "register"),
    Stage("gate production", ("gate", "check"), ("verify staging",), "gate.opened", "production", gate=True),
    *_into("production", "gate production"),
)

BY_NAME = {stage.name: stage for stage in STAGES}
GATE = next(stage for stage in STAGES if stage.gate)
