"""Commands that write the line's other faces: files for other runners, generated from the stage graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import ProjectFile, app

export = typer.Typer(help="The line for other runners: files generated from the stage graph.", no_args_is_help=True)
app.add_typer(export, name="export")

HERE = Path()
Out = Annotated[Path | None, typer.Option("--out", help="Where to; by default beside project.toml.")]
Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit code 5 when the file is not up to date.")]


@export.command()
def mlproject(project: ProjectFile = HERE, out: Out = None, check: Check = False) -> None:
    """MLproject: start the project, or one stage, with `mlflow run . --env-manager local`."""
    from pipeline.config import load_project
    from pipeline.faces import mlproject as face

    settings = load_project(project).settings
    text = face.text(settings.name, settings.window.train, settings.window.holdout)
    folder = project if project.is_dir() else project.parent
    _deliver(out or folder / face.FILE, text, check=check)


@export.command()
def actions(project: ProjectFile = HERE, out: Out = None, check: Check = False) -> None:
    """.github/workflows/gatehouse.yml: the line for GitHub, Gitea and Forgejo Actions; from the repository's top."""
    from pipeline.bootstrap.faces import actions_text
    from pipeline.faces.actions import FILE

    _deliver(out or Path(FILE), actions_text(project), check=check)


@export.command()
def dvc(project: ProjectFile = HERE, out: Out = None, check: Check = False) -> None:
    """dvc.yaml in the project's folder, for `dvc repro`."""
    from pipeline.bootstrap.dvc import export

    path, text = export(project)
    _deliver(out or path, text, check=check)


@export.command()
def kubeflow(
    project: ProjectFile = HERE,
    with_: Annotated[Path | None, typer.Option("--with", help="Instead of kubeflow.toml beside the project.")] = None,
    out: Out = None,
    check: Check = False,
) -> None:
    """kubeflow.yaml: the line for Kubeflow Pipelines."""
    from pipeline.bootstrap.faces import kubeflow_text

    folder = project if project.is_dir() else project.parent
    text = kubeflow_text(project, with_ or folder / "kubeflow.toml")
    _deliver(out or folder / "kubeflow.yaml", text, check=check)


def _deliver(path: Path, text: str, *, check: bool) -> None:
    from pipeline.faces import generated

    if check:
        generated.check(path, text)
        typer.echo(f"{path} is up to date")
    else:
        typer.echo(f"{path} {'written' if generated.write(path, text) else 'is up to date'}")
