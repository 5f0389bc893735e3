"""Commands that read: ledger, history, report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.common import Env, Json, answer, app, installation, table

ledger = typer.Typer(help="The ledger: the append-only record of everything.", no_args_is_help=True)
app.add_typer(ledger, name="ledger")

ForRun = Annotated[str | None, typer.Option("--run", help="Only this run's events.")]
Out = Annotated[Path, typer.Option("--out", help="Where to.")]


@ledger.command("show")
def show(run: ForRun = None, json: Json = False) -> None:
    """Show the events, oldest first."""
    from pipeline.bootstrap.audit import show

    rows = show(installation(), run)
    if json:
        answer(rows)
    else:
        table(rows, ("seq", "at", "kind", "environment", "actor", "run", "about"))


@ledger.command("verify")
def verify(
    anchor: Annotated[list[str] | None, typer.Option("--anchor", help="SEQ:HASH of a row, kept elsewhere.")] = None,
    anchors: Annotated[Path | None, typer.Option("--anchors", help="File with such anchors.", exists=True)] = None,
    json: Json = False,
) -> None:
    """Check every link of the chain; exit code 5 names the first row that is not what was recorded."""
    from pipeline.bootstrap.audit import verify_ledger

    head = verify_ledger(installation(), anchor or (), anchors)
    if json:
        answer(head)
    else:
        typer.echo(f"{head['events']} events, every link holds; head {head['events']}:{head['hash']}")


@ledger.command("export")
def export(out: Out) -> None:
    """Write the ledger as JSON Lines, verified on the way, and beside it a program that verifies it offline."""
    from pipeline.bootstrap.audit import VERIFIER, export

    typer.echo(f"{export(installation(), out)} events in {out}")
    typer.echo(f"to verify it anywhere: python3 {out.with_name(VERIFIER)} {out}")


@app.command()
def history(
    env: Env,
    model: Annotated[str | None, typer.Option("--model", help="Which model.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="What was there at this moment; a day means its end.")] = None,
    json: Json = False,
) -> None:
    """Who put what into an environment when, on what evidence."""
    from pipeline.bootstrap.audit import history, history_at

    if at is not None:
        _moment(history_at(installation(), env, model, at), json=json)
        return
    rows = history(installation(), env, model)
    if json:
        answer(rows)
    else:
        table(rows, ("at", "what", "version", "package", "run", "actor", "approved_by", "glass", "reason"))


def _moment(found: Mapping[str, Any], *, json: bool) -> None:
    serving, promotion = found["serving"], found["promotion"]
    if json:
        answer(found)
    elif serving is None:
        typer.echo(f"{found['at']}: {found['environment']} served nothing yet")
    else:
        typer.echo(f"{found['at']}: {found['environment']} served version {serving['version']} of {serving['model']}")
        shown = {key: serving[key] for key in ("package", "run", "since")}
        shown |= {"promoted by": promotion["actor"], "approved by": promotion["approved_by"]}
        shown |= {"evidence": promotion["evidence"], "ledger row": promotion["row"]}
        for key, value in shown.items():
            typer.echo(f"  {key:12} {value}")


@app.command()
def passport(
    version: Annotated[str, typer.Option("--version", help="Version of the model in that environment.")],
    env: Env = "production",
    model: Annotated[str | None, typer.Option("--model", help="Which model.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for passport.html and passport.json.")] = None,
    json: Json = False,
) -> None:
    """Everything behind a version, on one page: data, code, measurements, decisions, signature, life."""
    from dataclasses import asdict

    from pipeline.bootstrap.audit import passport

    found = passport(installation(), env, model, version)
    if out is not None:
        from pipeline.reports.passport import render

        out.mkdir(parents=True, exist_ok=True)
        for name, content in render(found).items():
            (out / name).write_bytes(content)
        typer.echo(f"passport: {out / 'passport.html'}")
    elif json:
        answer(asdict(found))
    else:
        for section in found.sections:
            typer.echo(f"{'!!! ' if section.loud else ''}{section.title}")
            columns = [column or " " * number for number, column in enumerate(section.columns)]
            table([dict(zip(columns, row, strict=True)) for row in section.rows], columns)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="The run.")],
    out: Out = Path("build/evidence"),
    junit: Annotated[Path | None, typer.Option("--junit", help="Also write the verdict as JUnit XML.")] = None,
) -> None:
    """Write the run's evidence page with its verdict and approvals."""
    from pipeline.bootstrap.gatekeeping import write_report

    typer.echo(f"evidence page: {write_report(installation(), run, out, junit)}")
