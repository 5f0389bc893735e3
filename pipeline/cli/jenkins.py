"""Commands for people who work with Jenkins from a shell."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.common import Json, Run, answer, app, installation, table

jenkins = typer.Typer(help="Builds in Jenkins: start, follow, decide, stop.", no_args_is_help=True)
app.add_typer(jenkins, name="jenkins")

Job = Annotated[str, typer.Argument(help="Full name of the job: folder/job, with a branch as its last part.")]
Build = Annotated[str, typer.Argument(help="Address of the build.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; recorded with your name.")]


@jenkins.command()
def trigger(
    job: Job,
    param: Annotated[list[str] | None, typer.Option("--param", help="NAME=value; may be given again.")] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Show the log to its end.")] = True,
) -> None:
    """Start a build and follow it; exit code 0 success, 3 unstable, 4 aborted, 1 failure."""
    from pipeline.bootstrap.jenkins_jobs import trigger

    raise typer.Exit(trigger(installation(), job, param or (), follow=follow))


@jenkins.command()
def approvals(
    folder: Annotated[str, typer.Argument(help="Only jobs in this folder.")] = "", json: Json = False
) -> None:
    """List what waits for a decision."""
    from pipeline.bootstrap.jenkins_jobs import approvals

    rows = approvals(installation(), folder)
    if json:
        answer(rows)
    elif rows:
        table(rows, ("model", "version", "verdict", "may decide", "left", "evidence", "build"))
    else:
        typer.echo("nothing waits")


@jenkins.command()
def approve(build: Build, reason: Reason) -> None:
    """Answer the gate's input with yes, as the user of your token."""
    from pipeline.bootstrap.jenkins_jobs import decide

    answer(decide(installation(), build, reason, approve=True))


@jenkins.command()
def reject(build: Build, reason: Reason) -> None:
    """Answer the gate's input with no: final for this model."""
    from pipeline.bootstrap.jenkins_jobs import decide

    answer(decide(installation(), build, reason, approve=False))


@jenkins.command()
def release(run: Run, json: Json = False) -> None:
    """Let the build that waits at a run's gate go on, once the approval job's decisions have opened it."""
    from pipeline.bootstrap.jenkins_jobs import release

    rows = release(installation(), run)
    if json:
        answer(rows)
    for row in () if json else rows:
        typer.echo(f"goes on: {row['build']}")


@jenkins.command()
def abort(build: Build) -> None:
    """End a build. A rejection of the model is something else: jenkins reject."""
    from pipeline.bootstrap.jenkins_jobs import abort

    answer(abort(installation(), build))


@jenkins.command()
def status(job: Job, json: Json = False) -> None:
    """The newest builds of a job."""
    from pipeline.bootstrap.jenkins_jobs import status

    rows = status(installation(), job)
    if json:
        answer(rows)
    else:
        table(rows, ("number", "state", "name", "verdict", "began"))


@jenkins.command()
def logs(
    build: Build, follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for more.")] = False
) -> None:
    """Write a build's log, piece by piece, however long it is."""
    from pipeline.bootstrap.jenkins_jobs import logs

    logs(installation(), build, follow=follow)
