"""Commands for DVC: a run's bytes in the company's remote, and the stages that ``dvc repro`` calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import Json, ProjectFile, Run, answer, app, installation, table

dvc = typer.Typer(help="DVC: snapshots and packages in your own remote, dvc.yaml's stages.", no_args_is_help=True)
app.add_typer(dvc, name="dvc")

HERE = Path()


@dvc.command()
def push(run: Run, json: Json = False) -> None:
    """Bring the run's snapshots and package into the DVC remote, and read back every object."""
    from pipeline.bootstrap.dvc import push

    done = push(installation(), run)
    if json:
        answer(done)
    else:
        table(done["outputs"], ("name", "md5", "size", "digest"))
        typer.echo(f"{done['added']} objects were new in {done['remote']}; all were read back")


@dvc.command()
def pointers(run: Run, out: Annotated[Path, typer.Option("--out", help="Folder for the .dvc files.")]) -> None:
    """Write the run's .dvc files: with them, `dvc pull` returns the same bytes anywhere."""
    from pipeline.bootstrap.dvc import pointers

    for path in pointers(installation(), run, out):
        typer.echo(path)


@dvc.command()
def stage(
    name: Annotated[str, typer.Argument(help="The stage, as dvc.yaml names it.")], project: ProjectFile = HERE
) -> None:
    """Execute one stage of the project's own run and write its outputs; dvc.yaml calls this."""
    from pipeline.bootstrap.dvc import stage

    stage(installation(), project, name)


@dvc.command()
def check(project: ProjectFile = HERE) -> None:
    """Hold dvc.yaml and its outputs to the ledger; exit code 5 where they differ."""
    from pipeline.bootstrap.dvc import check

    typer.echo(f"dvc.yaml and its outputs are as the ledger has run {check(installation(), project)}")


@dvc.command()
def gc(yes: Annotated[bool, typer.Option("--yes", help="Remove them.")] = False, json: Json = False) -> None:
    """List the objects that Gatehouse put into the remote and no run that stays needs; --yes removes them."""
    from pipeline.bootstrap.dvc import collect

    found = collect(installation(), yes=yes)
    if json:
        answer(found)
    elif found:
        table(found, ("object", "run"))
        typer.echo("removed" if yes else "would be removed; --yes does it")
    else:
        typer.echo("every object that Gatehouse put there is needed")
