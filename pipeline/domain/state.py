"""Folds of the ledger: what a run has done, and what an environment should serve and serves. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.domain.approval import Record, Subject, fold_record
from pipeline.domain.canonical import digest_json
from pipeline.domain.events import Event
from pipeline.errors import ApprovalInvalid, IntegrityViolated, UsageError
from pipeline.graph import BY_NAME, STAGES, Stage


@dataclass(frozen=True, slots=True)
class RunState:
    """One run, folded from its events.

    Attributes:
        run: the run id.
        opened: body of ``run.opened``: project files, digests, windows, parameters, requester.
        facts: body of the event that proves each finished stage, by stage name.
        record: what people decided about it, oldest first.
        failures: bodies of ``stage.failed``, oldest first.
        since: when it was opened.
    """

    run: str
    opened: Mapping[str, Any] | None = None
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    record: Record = field(default_factory=Record)
    failures: tuple[Mapping[str, Any], ...] = ()
    since: str | None = None

    @property
    def model(self) -> str:
        """The project's name, which is the registered model's."""
        assert self.opened is not None
        return str(self.opened["project"])

    @property
    def changes(self) -> Mapping[str, Any]:
        """What replaces values of the project's file: as opened, and this side's gate if the run came in a bundle."""
        assert self.opened is not None
        return {**self.opened["changes"], **self.opened.get("gate", {})}

    def done(self, stage: str) -> bool:
        """Whether the stage's fact is in the ledger."""
        return stage in self.facts

    def fact(self, stage: str) -> Mapping[str, Any]:
        """The fact a finished stage left.

        Raises:
            UsageError: the stage has not been run.
        """
        if stage not in self.facts:
            raise UsageError(
                f"stage '{stage}' has not finished",
                where=f"run {self.run}",
                fix=f"gatehouse {' '.join(BY_NAME[stage].command)} --run {self.run}",
            )
        return self.facts[stage]

    def recorded(self, stage: str) -> dict[str, Any]:
        """A fact as the stage recorded it, without when and where the ledger has it.

        Raises:
            UsageError: the stage has not been run.
        """
        return {key: value for key, value in self.fact(stage).items() if key not in ("at", "seq")}

    def proof(self, stage: str, expected: str | None = None) -> str:
        """Digest of a stage's fact, its row in the ledger included; where one is `expected`, it must be that.

        Raises:
            IntegrityViolated: the ledger has another fact, or none, than whoever hands this digest on has seen.
            UsageError: the stage has not been run, and nobody says that it was.
        """
        found = digest_json(dict(self.fact(stage))) if expected is None or self.done(stage) else "none"
        if expected is not None and found != expected:
            raise IntegrityViolated(
                f"'{stage}' is said to have left {expected}; the ledger has {found}",
                where=f"run {self.run}",
                fix="a cache answered for a run or an installation that is not this one: start a new run without it",
            )
        return found

    def require(self, stage: Stage) -> None:
        """Check that everything `stage` reads is there.

        Raises:
            UsageError: naming the first stage missing.
            ApprovalInvalid: what is missing is a gate: nobody let this run through.
        """
        for needed in stage.reads:
            if BY_NAME[needed].gate and not self.done(needed):
                raise ApprovalInvalid(
                    f"nobody has let this run through: '{needed}' was not passed",
                    where=f"run {self.run}",
                    fix=f"gatehouse gate show --run {self.run} says what is missing and who may decide",
                )
            self.fact(needed)

    def next_stage(self) -> Stage | None:
        """The first stage without its fact; None when the line is finished."""
        return next((stage for stage in STAGES if not self.done(stage.name)), None)


_STAGE_OF: Mapping[tuple[str, str | None], str] = {(stage.writes, stage.environment): stage.name for stage in STAGES}


def fold_run(run: str, events: Iterable[Event]) -> RunState:
    """Fold a run's events, oldest first, into its state. A later fact of a stage replaces an earlier one."""
    events = list(events)
    state = RunState(run, record=fold_record(events))
    facts: dict[str, Mapping[str, Any]] = {}
    for event in events:
        stage = _STAGE_OF.get((event.kind, event.environment))
        if event.kind == "run.opened" and state.opened is None:
            state = replace(state, opened=event.body, since=event.at)
        elif event.kind == "stage.failed":
            state = replace(state, failures=(*state.failures, event.body))
        elif stage is not None:
            facts[stage] = {**event.body, "at": event.at, "seq": event.seq}
    return replace(state, facts=facts)


@dataclass(frozen=True, slots=True)
class Placement:
    """One package in one environment: what was promoted there and where its bytes are.

    Attributes:
        model, version: registered model and version of that environment.
        package: package digest.
        uri: artifact URI of the package, written only by the promotion account.
        run: the run that made it.
        serial: ledger row of the promotion or rollback that put it there; grows with each change (fencing).
        since: time of that row.
    """

    model: str
    version: str
    package: str
    uri: str
    run: str
    serial: int
    since: str

    @property
    def tags(self) -> dict[str, str]:
        """The tags that its version carries in MLflow while it is champion."""
        return {"gatehouse.serial": str(self.serial), "gatehouse.package": self.package}


@dataclass(frozen=True, slots=True)
class EnvironmentState:
    """One environment of one model.

    Attributes:
        stack: promotions that stand, oldest first; a promotion pushes, a rollback pops.
        rolled_out: what the server was told to serve.
    """

    stack: tuple[Placement, ...] = ()
    rolled_out: Placement | None = None

    @property
    def wanted(self) -> Placement | None:
        """What the environment should hold: its champion."""
        return self.stack[-1] if self.stack else None

    @property
    def before(self) -> Placement | None:
        """What a rollback goes back to."""
        return self.stack[-2] if len(self.stack) > 1 else None


def fold_environment(events: Iterable[Event]) -> EnvironmentState:
    """Fold an environment's events, oldest first.

    ``model.promoted`` sets what is wanted, ``rollout.requested`` sends the server there, ``model.rolled_back``
    does both at once with what was there before. ``projection.repaired`` may give a version another number.
    """
    state = EnvironmentState()
    for event in events:
        if event.kind == "model.promoted":
            state = replace(state, stack=(*state.stack, _placement(event)))
        elif event.kind == "model.rolled_back":
            state = replace(state, stack=(*state.stack[:-2], _placement(event)))
        if event.kind in ("rollout.requested", "model.rolled_back"):
            state = replace(state, rolled_out=_placement(event))
        if event.kind == "projection.repaired" and event.body["what"] == "version":
            stack = tuple(_renumbered(placement, event.body) for placement in state.stack)
            rolled_out = _renumbered(state.rolled_out, event.body) if state.rolled_out else None
            state = EnvironmentState(stack, rolled_out)
    return state


def _renumbered(placement: Placement, repair: Mapping[str, Any]) -> Placement:
    same = (placement.version, placement.package) == (repair["was"], repair["package"])
    return replace(placement, version=repair["now"]) if same else placement


def _placement(event: Event) -> Placement:
    body = event.body
    return Placement(
        body["model"],
        body["version"],
        body["package"],
        body["uri"],
        body["run"],
        event.seq,
        event.at,
    )


def subject_of(state: RunState, environment: str) -> Subject:
    """What an approval of this run for `environment` is of, from the run's own facts.

    Raises:
        UsageError: the run has not come as far as register.
    """
    opened = state.opened or {}
    trained, evaluated = state.fact("train"), state.fact("evaluate")
    registered = state.fact("register")
    return Subject(
        model=registered["model"],
        version=registered["version"],
        environment=environment,
        package=trained["package"],
        weights=trained["weights"],
        data=state.fact("ingest")["digest"],
        code=opened["code"]["digest"],
        policy=opened["policy_digest"],
        evidence=evaluated["evidence"],
        champion=(evaluated["champion"] or {}).get("package"),
    )
