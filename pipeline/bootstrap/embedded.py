"""The embedded stack: Postgres, MLflow and the model servers of one machine, everything under one folder."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.adapters.console import ConsoleReporter
from pipeline.adapters.ledger import migrate
from pipeline.bootstrap.installation import Installation
from pipeline.config import load_settings
from pipeline.embedded import stack


def up(home: Path, *, secured: bool = False) -> Installation:
    """Start what is not running, migrate the ledger, start the model servers; safe to run again.

    With `secured`, MLflow asks for names and passwords, at this and every later start.
    """
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    reporter = ConsoleReporter()
    stack.up(home, reporter, secured=secured)
    place = Installation(load_settings(home / "settings.toml"))
    with reporter.track("the ledger's schema"):
        migrate(place.settings.ledger.owner_uri or place.settings.ledger.uri)
    servers = place.settings.environments.items()
    commands: dict[str, list[str]] = {str(name): _serve(name, entry.server) for name, entry in servers}
    with reporter.track("starting the model servers"):
        stack.start_servers(home, commands)
    return place


def down(home: Path) -> None:
    """Stop everything that belongs to this folder; its data stays."""
    stack.down(home.resolve())


def _serve(environment: str, url: str) -> list[str]:
    port = str(urlsplit(url).port)
    return [sys.executable, "-m", "pipeline", "serve", "--env", environment, "--port", port]
