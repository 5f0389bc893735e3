"""Commands that read: ledger, history, report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline.cli.common import Env, Json, Run, answer, app, installation, table

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
    anchors: Annotated[
        Path | None, typer.Option("--anchors", help="File with such anchors.", exists=True, dir_okay=False)
    ] = None,
    json: Json = False,
) -> None:
    """Check every link of the chain; exit code 5 names the first row that is not what was recorded."""
    from pipeline.bootstrap.audit import verify_ledger

    head = verify_ledger(installation(), anchor or (), anchors)
    if json:
        answer(head)
    else:
        typer.echo(f"{head['events']} events, every link holds; head {head['events']}:{head['hash']}")


@ledger.command("fact")
def fact(
    run: Run,
    stage: Annotated[str, typer.Option("--stage", help="Of which stage.")],
    is_: Annotated[str | None, typer.Option("--is", help="The digest that it must have, or exit code 5.")] = None,
) -> None:
    """Print the digest of what a stage left in the ledger: proof of it, for whoever goes on from there."""
    from pipeline.bootstrap.audit import fact

    typer.echo(fact(installation(), run, stage, is_))


@ledger.command("export")
def export(
    out: Out,
    since: Annotated[int, typer.Option("--since", help="Leave out the rows up to this one.")] = 0,
) -> None:
    """Write the ledger as JSON Lines, verified on the way, and beside it a program that verifies it offline."""
    from shlex import quote

    from pipeline.bootstrap.audit import VERIFIER, export

    count, after = export(installation(), out, since)
    typer.echo(f"{count} events in {out}")
    command = ("python3", str(out.with_name(VERIFIER)), str(out), *(("--after", after) if after else ()))
    typer.echo(f"to verify it anywhere: {' '.join(map(quote, command))}")


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
        table(rows, ("at", "what", "model", "version", "package", "run", "actor", "approved_by", "glass", "reason"))


def _moment(found: Mapping[str, Any], *, json: bool) -> None:
    serving, wanted, where = found["serving"], found["wanted"], f"{found['at']}: {found['environment']}"
    if json:
        answer(found)
    elif serving is None:
        typer.echo(f"{where} served nothing yet" + ("" if wanted else ": nothing had been promoted"))
    else:
        typer.echo(f"{where} served version {serving['version']} of {serving['model']}")
        change, promotion = found["change"], found["promotion"] or {}
        shown = {"package": serving["package"], "run": serving["run"]}
        shown |= {"since": serving["since"], change["what"]: f"by {change['actor']}, row {change['row']}"}
        shown |= {"why": change["reason"]} if change["what"] == "rolled back" else {}
        shown |= {"promoted": promotion.get("at"), "promoted by": promotion.get("actor")}
        names = ("approved by", "assurance", "glass", "evidence", "policy")
        shown |= {name: promotion.get(name.replace(" ", "_")) for name in names}
        for key, value in (shown | {"ledger row": promotion.get("row")}).items():
            text = ", ".join(value) if isinstance(value, list) else value
            typer.echo(f"  {key:12} {'–' if text is None else text}")
    if not json and wanted and (serving is None or wanted["serial"] > serving["serial"]):
        typer.echo(f"  version {wanted['version']} was promoted at {wanted['since']}, and not rolled out yet")


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
        from pipeline.reports.passport import write

        typer.echo(f"passport: {write(found, out)}", err=json)
    if json:
        answer(asdict(found))
    elif out is None:
        for section in found.sections:
            typer.echo(f"{'!!! ' if section.loud else ''}{section.title}")
            columns = [column or " " * number for number, column in enumerate(section.columns)]
            table([dict(zip(columns, row, strict=True)) for row in section.rows], columns)


@app.command()
def reproduce(
    version: Annotated[str, typer.Option("--version", help="Version of the model in that environment.")],
    env: Env = "production",
    model: Annotated[str | None, typer.Option("--model", help="Which model.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to work in, kept afterwards.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Install what was recorded even if this environment has just that.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a version once more from the ledger's record alone; exit code 5 when the weights come out different."""
    from pipeline.bootstrap.reproduce import reproduce

    found = reproduce(installation(), env, model, version, fresh=fresh, out=out)
    if json:
        answer(found.to_json())
    found.demand()
    if not json:
        typer.echo(f"the same weights: {found.weights[0]}")
        same = found.package[0] == found.package[1]
        typer.echo("the same package" if same else f"another package: {found.package[1]}, recorded {found.package[0]}")
        if found.differences:
            typer.echo(f"although: {found.explanation}")


class _OrPage(TyperGroup):
    """`gatehouse report RUN` writes the page; a first word that is no command is a run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name before a run."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["page", *args]
        return super().parse_args(ctx, args)


report = typer.Typer(
    cls=_OrPage, help="What a run's evidence says: a page (`report RUN`), Markdown, a comment.", no_args_is_help=True
)
app.add_typer(report, name="report")

Target = Annotated[str | None, typer.Option("--target", help="The target branch's run, if not its newest.")]
Evidence = Annotated[str | None, typer.Option("--evidence", help="Address of the evidence page.")]


@report.command()
def page(
    run: Annotated[str, typer.Argument(help="The run.")],
    out: Out = Path("build/evidence"),
    junit: Annotated[Path | None, typer.Option("--junit", help="Also write the verdict as JUnit XML.")] = None,
) -> None:
    """Write the run's evidence page with its verdict and approvals; `gatehouse report RUN` is the same."""
    from pipeline.bootstrap.gatekeeping import write_report

    typer.echo(f"evidence page: {write_report(installation(), run, out, junit)}")


@report.command()
def markdown(run: Run, out: Out = Path("report.md"), target: Target = None, evidence: Evidence = None) -> None:
    """Write the report as Markdown, for `cml comment create --update` or a step's summary."""
    from pipeline.bootstrap.publish import markdown

    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(markdown(installation(), run, target, evidence), encoding="utf-8")
    typer.echo(f"report: {out}")


@report.command()
def publish(
    run: Run,
    request: Annotated[int | None, typer.Option("--request", help="Merge request, if the CI does not name it.")] = None,
    target: Target = None,
    evidence: Evidence = None,
) -> None:
    """Post the report in the merge request, or bring the one that is there up to date."""
    from pipeline.bootstrap.publish import publish

    typer.echo(publish(installation(), run, request, target, evidence))
