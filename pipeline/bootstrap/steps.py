"""How each stage of the graph is joined to its adapters: run state and project in, the stage's fact out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.bootstrap.installation import Installation
from pipeline.config import Project
from pipeline.domain.events import Draft
from pipeline.domain.state import Placement, RunState, subject_of
from pipeline.domain.window import Window
from pipeline.errors import GatehouseError, PolicyRefused, UsageError
from pipeline.ports import EventReader

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.adapters import source
    from pipeline.serving.package import Model

Step = Callable[[Installation, RunState, Project], Mapping[str, Any] | None]
PARTS = ("train", "holdout")
VERIFY_ROWS = 1_000
LATENCY_BUDGET_MS = 100.0


# --- data -------------------------------------------------------------------------------------------------


def tracked_run(place: Installation, state: RunState, project: Project) -> str:
    """The MLflow run that belongs to this run, made on first use."""
    assert state.opened is not None
    tags = {"gatehouse.code": state.opened["code"]["digest"], "mlflow.source.name": project.settings.name}
    commit = state.opened["code"]["commit"]
    return place.mlflow.ensure_run(
        project.settings.name,
        state.run,
        name=state.run,
        tags=tags | ({"mlflow.source.git.commit": commit} if commit else {}),
    )


def source_of(place: Installation, project: Project) -> source.Source:
    """The project's source, with the connection that the installation knows under its name.

    Raises:
        UsageError: the installation knows no such connection.
    """
    from pipeline.adapters import source

    wanted = project.settings.source
    known = place.settings.sources
    if wanted.connection and wanted.connection not in known:
        raise UsageError(
            f"the installation knows no source '{wanted.connection}'",
            where="project.toml: source.connection",
            fix=f"known: {', '.join(sorted(known)) or 'none'}; they are named in the installation's settings",
        )
    base = known.get(wanted.connection or "", "")
    if wanted.kind == "postgres":
        return source.Source("postgres", uri=base, query=project.query or "")
    return source.Source(wanted.kind, path=str(Path(base) / (wanted.path or "")), time=wanted.time)


def _ingest(place: Installation, state: RunState, project: Project) -> Mapping[str, Any]:
    from pipeline.adapters import snapshot, source
    from pipeline.stages import ingest

    settings = project.settings
    origin = source_of(place, project)

    def take(window: Window, path: Path, advance: Callable[[float], None]) -> snapshot.SnapshotInfo:
        with source.read(origin, window) as batches:
            return snapshot.write(batches, path, advance=advance)

    with place.cache.scratch() as scratch:
        return ingest.run(
            {part: Window.parse(getattr(settings.window, part)) for part in PARTS},
            take,
            tracking=place.mlflow,
            run_id=tracked_run(place, state, project),
            folder=Path(scratch),
            keep=place.cache.put,
            source=f"{settings.source.kind}:{settings.source.connection or settings.source.path}",
            reporter=place.reporter,
        )


def snapshot_table(place: Installation, state: RunState, part: str) -> pa.Table:
    """One part's rows, verified against the ledger."""
    from pipeline.adapters import snapshot

    fact = state.fact("ingest")["parts"][part]
    return snapshot.read(place.artifact(fact["file"], fact["uri"]), fact["digest"], fact["columns"])


def _validate(place: Installation, state: RunState, project: Project) -> Mapping[str, Any]:
    from pipeline.adapters import validation
    from pipeline.stages import validate

    settings = project.settings
    schema = project.function(settings.model.schema_)()

    def check(part: str) -> list[Mapping[str, Any]]:
        failed = validation.check(
            snapshot_table(place, state, part),
            schema,
            target=settings.source.target,
            key=settings.source.key,
            time=settings.source.time,
            window=Window.parse(getattr(settings.window, part)),
            max_null_share=settings.max_null_share,
        )
        return [failure.to_json() for failure in failed]

    def refuse(verdict: Mapping[str, Any]) -> None:
        place.ledger.append(Draft("data.refused", place.actor, verdict, state.run, settings.name))

    return validate.run(
        {part: lambda part=part: check(part) for part in PARTS},  # type: ignore[misc]  # the default binds the part
        refuse=refuse,
        reporter=place.reporter,
    )


# --- model ------------------------------------------------------------------------------------------------


def _train(place: Installation, state: RunState, project: Project) -> Mapping[str, Any]:
    from pipeline.bootstrap.training import train

    return train(place, state, project)


def _evaluate(place: Installation, state: RunState, project: Project) -> Mapping[str, Any]:
    from pipeline.bootstrap.evaluation import evaluate

    return evaluate(place, state, project)


def _register(place: Installation, state: RunState, project: Project) -> Mapping[str, Any]:
    from pipeline.bootstrap.cards import card_of, tags_of
    from pipeline.stages import register

    with place.cache.scratch() as scratch:
        return register.run(
            project.settings.name,
            state.run,
            state.fact("train"),
            card=card_of(place, state, project),
            tags=tags_of(project),
            registry=place.mlflow,
            folder=Path(scratch),
        )


def package_folder(place: Installation, digest: str, uri: str) -> Path:
    """A package's verified copy on this machine. `uri` is that of the logged model."""
    return place.artifact(digest, f"{uri}/package")


def load_model(place: Installation, digest: str, uri: str) -> Model:
    """A package, verified and loaded as a server loads it; one that holds a pickle in a process of its own."""
    from pipeline.serving import package

    return package.load(package_folder(place, digest, uri), digest, isolated=True)


# --- environments -----------------------------------------------------------------------------------------


def _promote(environment: str) -> Step:
    def step(place: Installation, state: RunState, project: Project) -> None:
        from pipeline.bootstrap import anchors
        from pipeline.bootstrap.cards import card_of, tags_of
        from pipeline.bootstrap.gatekeeping import still_approved
        from pipeline.stages import promote

        name = project.settings.name
        if environment == "production":
            # Before the upload: nothing reaches production's own place without an approval, from a ledger that holds.
            anchors.check(place)
            _refuse_pickle(place, state)
            still_approved(place, state, project, place.ledger)
        with place.cache.scratch() as scratch:
            body = promote.bring(
                environment,
                name,
                state.run,
                state.fact("register"),
                package=subject_of(state, environment).package,
                card=card_of(place, state, project),
                tags=tags_of(project),
                registry=place.mlflow,
                folder=Path(scratch),
            )
        production = environment == "production"
        event = promote.swap(
            environment,
            name,
            body,
            champion=subject_of(state, environment).champion if production else "any",
            recheck=lambda reader: still_approved(place, state, project, reader) if production else {},
            ledger=place.ledger,
            actor=place.actor,
        )
        if production:
            anchors.remember(place, event)
        project_alias(place, name, environment)

    return step


def project_alias(place: Installation, model: str, environment: str) -> None:
    """Point the environment's alias in MLflow at what the ledger wants there.

    One at a time, and each reads the ledger when its turn comes: the alias is never left at what an older promotion
    wanted.
    """
    from pipeline.stages import promote

    def waiting() -> None:
        place.reporter.note("somebody else writes the alias; waiting for them")

    with place.ledger.exclusive(f"alias {environment} {model}", waiting):
        wanted = place.environment(model, environment).wanted
        if wanted is not None:
            promote.project_alias(wanted, registry=place.mlflow)


def _deploy(environment: str) -> Step:
    def step(place: Installation, state: RunState, project: Project) -> Mapping[str, Any]:
        from pipeline.bootstrap.gatekeeping import still_standing
        from pipeline.bootstrap.signatures import require
        from pipeline.stages import deploy

        def recheck(reader: EventReader, promoted: Placement) -> None:
            if environment == "production":
                still_standing(place, state, project, reader, promoted)

        name = project.settings.name
        require(place, name, environment)
        wanted = deploy.request(environment, name, state.run, recheck=recheck, ledger=place.ledger, actor=place.actor)
        return deploy.arrive(wanted, server=place.server(environment), reporter=place.reporter)

    return step


def _verify(environment: str) -> Step:
    def step(place: Installation, state: RunState, project: Project) -> Mapping[str, Any]:
        from pipeline.adapters import snapshot
        from pipeline.domain.rows import rows_of
        from pipeline.stages import verify

        deployed = state.fact(f"deploy {environment}")
        table = snapshot_table(place, state, "holdout").slice(0, VERIFY_ROWS)
        offline = load_model(place, deployed["package"], deployed["uri"])
        inputs = [entry.name for entry in offline.signature.inputs]
        found = snapshot.columns(table)
        columns = {name: found[name] for name in inputs}
        try:
            return verify.run(
                rows_of(columns),
                columns,
                offline=offline,
                server=place.server(environment),
                latency_budget_ms=LATENCY_BUDGET_MS,
                reporter=place.reporter,
            )
        except GatehouseError as error:
            _back_out(place, project.settings.name, environment, deployed["package"], error)
            raise

    return step


def _back_out(place: Installation, model: str, environment: str, package: str, error: GatehouseError) -> None:
    """A version that fails verification does not stay: roll back by itself, where there is something to go to."""
    from pipeline.stages import deploy

    state = place.environment(model, environment)
    if state.wanted is not None and state.wanted.package != package:
        project_alias(place, model, environment)  # gone back already, by a process that may have ended before this
        place.reporter.note(
            f"{environment} is at version {state.wanted.version}: what failed is not wanted there any more"
        )
        return
    if state.before is None or state.wanted is None:
        place.reporter.note(f"{environment} has nothing to go back to: what failed verification still serves")
        return
    _, placed = deploy.roll_back(
        environment,
        model,
        ledger=place.ledger,
        actor=place.actor,
        reason=f"verification failed: {error.what}",
        only_if_wanted=package,
    )
    project_alias(place, model, environment)
    place.reporter.note(f"{environment} rolled back to version {placed.version}")


def _gate(place: Installation, state: RunState, project: Project) -> Mapping[str, Any]:
    from pipeline.bootstrap.gatekeeping import open_gate

    _refuse_pickle(place, state)
    return open_gate(place, state, project)


def _refuse_pickle(place: Installation, state: RunState) -> None:
    """Before anybody is asked to approve it, and before it is brought there; production's server refuses it too."""
    if state.fact("train").get("isolated") and not place.settings.pyfunc.production:
        raise PolicyRefused(
            "the package holds a pickle (framework pyfunc), which this installation's production does not run",
            where=f"run {state.run}",
            fix="train with a framework that exports to ONNX, or have the operators set [pyfunc] production = true",
        )


STEPS: Mapping[str, Step] = {
    "ingest": _ingest,
    "validate": _validate,
    "train": _train,
    "evaluate": _evaluate,
    "register": _register,
    "promote staging": _promote("staging"),
    "deploy staging": _deploy("staging"),
    "verify staging": _verify("staging"),
    "gate production": _gate,
    "promote production": _promote("production"),
    "deploy production": _deploy("production"),
    "verify production": _verify("production"),
}
