"""Commands of an installation: the embedded stack, its state, a new project, the model server, the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import Env, Json, answer, app, home, installation, table


@app.command()
def up(
    secured: Annotated[bool, typer.Option("--secured", help="MLflow asks for names and passwords.")] = False,
) -> None:
    """Start the embedded stack: Postgres, MLflow, and a model server for each environment."""
    from pipeline.bootstrap.embedded import up

    place = up(home(), secured=secured)
    typer.echo(f"MLflow {place.settings.mlflow.uri}")
    for name, environment in place.settings.environments.items():
        typer.echo(f"{name} {environment.server}")


@app.command()
def down() -> None:
    """Stop the embedded stack; its data stays."""
    from pipeline.bootstrap.embedded import down

    down(home())


@app.command()
def migrate() -> None:
    """Bring the ledger's database to this version's schema, as its owner; safe to run again."""
    from pipeline.adapters.ledger import migrate

    ledger = installation().settings.ledger
    migrate(ledger.owner_uri or ledger.uri)
    typer.echo("the ledger's schema is up to date")


@app.command()
def status(json: Json = False) -> None:
    """What runs, and what each environment serves."""
    from pipeline.bootstrap.operate import status

    view = status(installation())
    if json:
        answer(view)
        return
    for key in ("postgres", "mlflow"):
        typer.echo(f"{key}: {view[key]} ({'answers' if view['answers'][key] else 'DOES NOT ANSWER'})")
    rows = [{"environment": name, **entry} for name, entry in view["environments"].items()]
    table(rows, ("environment", "model", "version", "package", "since", "server", "serving"))


@app.command()
def doctor(json: Json = False) -> None:
    """Check this machine and the installation, and say what to do about each problem."""
    from pipeline.bootstrap.operate import doctor

    rows = doctor(installation())
    if json:
        answer(rows)
    else:
        table(rows, ("ok", "check", "found", "fix"))
    if not all(row["ok"] for row in rows):
        raise typer.Exit(6)


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the new project and its folder.")],
    framework: Annotated[str, typer.Option("--framework", help="torch, keras, sklearn, lightgbm or pyfunc.")] = "torch",
) -> None:
    """Make a new project that works, from the flights example."""
    from pipeline.bootstrap.scaffold import scaffold

    typer.echo(scaffold(Path.cwd(), name, framework))


@app.command()
def serve(
    env: Env,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 8080,
    store: Annotated[Path | None, typer.Option("--store", help="Folder of the server's verified copies.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Which model, if there are several.")] = None,
) -> None:
    """Serve what an environment wants: verified before it loads, swapped without dropping a request."""
    from pipeline.bootstrap.server import serve

    serve(installation(), env, host, port, store, model)


@app.command(hidden=True)
def fetch(digest: str, uri: str, folder: Path) -> None:
    """Download a package for the model server, in a process of its own."""
    from pipeline.bootstrap.server import fetch

    fetch(installation(), digest, uri, folder)


@app.command()
def demo(
    sample: Annotated[float, typer.Option("--sample", help="Share of the flights to use, for a quick look.")] = 1.0,
) -> None:
    """The main job, end to end, on real flights: two champions, one refusal, one rollback, real drift."""
    from pipeline.bootstrap.demo import demo

    demo(home(), sample)
