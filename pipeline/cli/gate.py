"""Commands of the production gate."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.common import Json, Run, answer, app, installation, table

gate = typer.Typer(help="The production gate: what waits, why, and the decision.", no_args_is_help=True)
app.add_typer(gate, name="gate")

Reason = Annotated[str, typer.Option("--reason", help="Why; it is recorded with the decision.")]
Build = Annotated[str | None, typer.Option("--build", help="URL of the Jenkins build whose input was answered.")]
Input = Annotated[str | None, typer.Option("--input", help="Id of that input.")]
Demo = Annotated[str | None, typer.Option("--demo-identity", help="A name, believed by an embedded stack only.")]


@gate.command()
def show(run: Run, json: Json = False) -> None:
    """Show verdict, subject and approvals; exit code 3 when the policy refuses."""
    from pipeline.bootstrap.gatekeeping import show

    view = show(installation(), run)
    if json:
        answer(view)
    else:
        typer.echo(f"{run}: {view['headline']}")
        table(view["verdict"]["rules"], ("passed", "rule", "value", "threshold", "reason"))
        for line in view["lines"]:
            typer.echo(line)
    if not view["verdict"]["passed"]:
        raise typer.Exit(3)


@gate.command()
def approve(run: Run, reason: Reason, build: Build = None, input_: Input = None, demo_identity: Demo = None) -> None:
    """Record an approval of exactly what the evidence was measured on."""
    from pipeline.bootstrap.gatekeeping import decide

    decide(installation(), run, reason, approved=True, build=build, input_id=input_, demo_identity=demo_identity)


@gate.command()
def reject(run: Run, reason: Reason, build: Build = None, input_: Input = None, demo_identity: Demo = None) -> None:
    """Record a rejection: final for this subject."""
    from pipeline.bootstrap.gatekeeping import decide

    decide(installation(), run, reason, approved=False, build=build, input_id=input_, demo_identity=demo_identity)


@gate.command()
def check(run: Run) -> None:
    """The gate itself: passes when policy and approvals hold, else exit code 3 or 4."""
    from pipeline.bootstrap.runner import execute

    execute(installation(), "gate production", run)
