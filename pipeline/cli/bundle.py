"""Commands that carry an approved version to an installation that this one cannot reach."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import Env, app, installation

bundle = typer.Typer(help="An approved version as one signed file, across an air gap.", no_args_is_help=True)
app.add_typer(bundle, name="bundle")


@bundle.command("export")
def export(
    version: Annotated[str, typer.Option("--version", help="Version of the model in that environment.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    env: Env = "production",
    model: Annotated[str | None, typer.Option("--model", help="Which model, if there are several.")] = None,
) -> None:
    """Write a version that was approved for production: bytes, evidence, approvals, and the ledger that proves them."""
    from pipeline.bootstrap.bundle_export import export

    typer.echo(f"{export(installation(), env, model, version, out)}  {out}")


@bundle.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="The bundle.")],
    gate: Annotated[
        Path, typer.Option("--gate", help="This side's policy and approvers: a project.toml, or those alone.")
    ],
    anchor: Annotated[
        list[str] | None, typer.Option("--anchor", help="SEQ:HASH of a row of the source's ledger, kept elsewhere.")
    ] = None,
    build: Annotated[str | None, typer.Option("--build", envvar="BUILD_URL", help="URL of the Jenkins build.")] = None,
) -> None:
    """Verify a bundle and take it in as a run that stands registered here, measured against this side's champion."""
    from pipeline.bootstrap.bundle_import import import_

    run = import_(installation(), file, gate, anchor or (), build)
    typer.echo(f"run {run}: gatehouse run --run {run} takes it to this side's gate")
