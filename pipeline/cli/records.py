"""Commands that read: ledger, history, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import Env, Json, answer, app, installation, table

ledger = typer.Typer(help="The ledger: the append-only record of everything.", no_args_is_help=True)
app.add_typer(ledger, name="ledger")

ForRun = Annotated[str | None, typer.Option("--run", help="Only this run's events.")]
Out = Annotated[Path, typer.Option("--out", help="Where to.")]


@ledger.command("show")
def show(run: ForRun = None, json: Json = False) -> None:
    """Show the events, oldest first."""
    from pipeline.bootstrap.operate import ledger_rows

    rows = ledger_rows(installation(), run)
    if json:
        answer(rows)
    else:
        table(rows, ("seq", "at", "kind", "environment", "actor", "run", "about"))


@ledger.command("verify")
def verify(json: Json = False) -> None:
    """Check every link of the chain; exit code 5 names the first row that is not what was recorded."""
    from pipeline.bootstrap.operate import verify_ledger

    head = verify_ledger(installation())
    if json:
        answer(head)
    else:
        typer.echo(f"{head['events']} events, every link holds; head {head['hash']}")


@ledger.command("export")
def export(out: Out) -> None:
    """Write the ledger as JSON Lines, verified on the way."""
    from pipeline.bootstrap.operate import export_ledger

    typer.echo(f"{export_ledger(installation(), out)} events in {out}")


@app.command()
def history(
    env: Env, model: Annotated[str | None, typer.Option("--model", help="Which model.")] = None, json: Json = False
) -> None:
    """Who put what into an environment when, on what evidence."""
    from pipeline.bootstrap.operate import history

    rows = history(installation(), env, model)
    if json:
        answer(rows)
    else:
        table(rows, ("at", "what", "version", "package", "run", "actor", "approved_by", "reason"))


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="The run.")],
    out: Out = Path("build/evidence"),
    junit: Annotated[Path | None, typer.Option("--junit", help="Also write the verdict as JUnit XML.")] = None,
) -> None:
    """Write the run's evidence page with its verdict and approvals."""
    from pipeline.bootstrap.gatekeeping import write_report

    typer.echo(f"evidence page: {write_report(installation(), run, out, junit)}")
