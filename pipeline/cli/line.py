"""Commands of the line: the whole run, and each stage by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import Env, Json, ProjectFile, Run, answer, app, installation

Train = Annotated[str | None, typer.Option("--train", help="Training window instead of the project's.")]
Holdout = Annotated[str | None, typer.Option("--holdout", help="Hold-out window instead of the project's.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="key=value that replaces one of project.toml.")]
HERE = Path()


@app.command()
def run(
    project: ProjectFile = HERE,
    run: Annotated[str | None, typer.Option("--run", envvar="GATEHOUSE_RUN", help="Go on with this run.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Stop after this stage.")] = None,
    train: Train = None,
    holdout: Holdout = None,
    set_: Set = None,
) -> None:
    """Run every stage that is not done yet, each as a process of its own, up to the gate or to --until."""
    from pipeline.bootstrap.runner import run_line

    run_line(installation(), project, run, until, train, holdout, set_ or [])


@app.command()
def ingest(
    run: Run,
    project: ProjectFile = HERE,
    train: Train = None,
    holdout: Holdout = None,
    set_: Set = None,
    build: Annotated[
        str | None,
        typer.Option("--build", envvar="BUILD_URL", help="URL of the build in Jenkins, or of the run in GitHub."),
    ] = None,
) -> None:
    """Open the run and take the source's rows as immutable snapshots."""
    from pipeline.bootstrap.runner import execute, open_run

    place = installation()
    open_run(place, project, run, train, holdout, set_ or [], build)
    execute(place, "ingest", run)


def _stage(name: str, run: str) -> None:
    from pipeline.bootstrap.runner import execute

    execute(installation(), name, run)


@app.command()
def validate(run: Run) -> None:
    """Hold the snapshots against the project's schema."""
    _stage("validate", run)


@app.command()
def train(run: Run) -> None:
    """Fit the model, export it, and log the package to MLflow."""
    _stage("train", run)


@app.command()
def evaluate(run: Run) -> None:
    """Measure challenger and champion on the same hold-out; write the evidence."""
    _stage("evaluate", run)


@app.command()
def register(run: Run) -> None:
    """Give the package a version in the registry."""
    _stage("register", run)


@app.command()
def promote(run: Run, env: Env) -> None:
    """Bring the approved bytes into an environment and make them what is wanted there."""
    _stage(f"promote {env}", run)


@app.command()
def deploy(run: Run, env: Env) -> None:
    """Send the environment's server to what is wanted, and see it arrive."""
    _stage(f"deploy {env}", run)


@app.command()
def verify(run: Run, env: Env) -> None:
    """Ask the live server with real rows; roll back when it fails."""
    _stage(f"verify {env}", run)


@app.command()
def rollback(
    env: Env,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")],
    model: Annotated[str | None, typer.Option("--model", help="Which model, if there are several.")] = None,
    local: Annotated[
        Path | None, typer.Option("--local", help="This machine's server store: needs neither ledger nor MLflow.")
    ] = None,
) -> None:
    """Make what was there before wanted again, and see the server serve it."""
    if local is not None:
        from pipeline.bootstrap.reconcile import roll_back_locally

        event = roll_back_locally(local, reason)
        typer.echo(f"back to version {event['to']['version']}; gatehouse reconcile enters it into the ledger")
        return
    from pipeline.bootstrap.operate import roll_back

    roll_back(installation(), env, model, reason)


@app.command()
def monitor(
    window: Annotated[
        str | None,
        typer.Option("--window", help="Months or days: 2013-08..2013-09. The last whole month, if not given."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Which model, if there are several.")] = None,
    env: Env = "production",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the page.")] = None,
) -> None:
    """Compare a window with the training reference; exit code 3 on drift."""
    from pipeline.bootstrap.monitoring import monitor

    monitor(installation(), env, model, window, out)


@app.command()
def retrain(
    model: Annotated[str | None, typer.Option("--model", help="Which model, if there are several.")] = None,
    env: Env = "production",
    json: Json = False,
) -> None:
    """Ask Jenkins for a new model if drift was measured last: once for a measurement, then not for a while."""
    from pipeline.bootstrap.retraining import retrain

    found = retrain(installation(), env, model)
    if json:
        answer(found)
