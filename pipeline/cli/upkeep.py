"""Commands that keep an installation honest: reconcile, and garbage collection that spares what is in use."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.common import Json, answer, app, installation, table


@app.command()
def reconcile(
    env: Annotated[str | None, typer.Option("--env", help="Only this environment.")] = None, json: Json = False
) -> None:
    """Hold registry and servers to the ledger; repair what only shows it; exit code 5 where bytes are wrong."""
    from pipeline.bootstrap.reconcile import reconcile, rows

    found = rows(reconcile(installation(), env))
    if json:
        answer(found)
    elif found:
        table(found, ("environment", "model", "kind", "repair", "wrong", "what"))
    else:
        typer.echo("ledger, registry and servers agree")
    if any(row["wrong"] for row in found):
        raise typer.Exit(5)


@app.command()
def gc(
    backend: Annotated[str, typer.Option("--backend-store-uri", help="MLflow's database.")],
    artifacts: Annotated[str | None, typer.Option("--artifacts-destination", help="As of mlflow server.")] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="30d, 12h: only what was deleted before.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be kept, and destroy nothing.")] = False,
    json: Json = False,
) -> None:
    """Run `mlflow gc`, after taking everything that the ledger needs off MLflow's list of deleted things."""
    from pipeline.bootstrap.collect import collect

    kept = collect(installation(), backend, artifacts, older_than, dry=dry_run)
    if json:
        answer(kept)
    elif kept:
        table(kept, ("kind", "id", "run"))
    else:
        typer.echo("nothing that the ledger needs was deleted")
