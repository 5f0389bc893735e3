"""The one-machine stack: Postgres, MLflow and model servers, everything below one folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.embedded import keys, mlflow_accounts, mlflow_server, postgres, processes
from pipeline.ports import Reporter

ENVIRONMENTS = ("staging", "production")
OWNER, LINE, READER = "gatehouse_owner", "gatehouse", "gatehouse_reader"
APPROVAL, PROMOTION = "gatehouse_approval", "gatehouse_promotion"
SERVER_SECONDS = 30
# People of the demonstration: nobody's password, believed by an embedded stack only.
GROUPS: Mapping[str, object] = {"validation": ["katherine"], "operators": ["otto", "olga"]}


def up(home: Path, reporter: Reporter, *, secured: bool = False) -> None:
    """Start Postgres and MLflow and write ``settings.toml``; safe to run again.

    Args:
        home: the stack's folder.
        reporter: told what takes long.
        secured: MLflow asks for names and passwords, from now on at every start.
    """
    home.mkdir(parents=True, exist_ok=True)
    with processes.alone(home):
        _up(home, reporter, secured=secured or (home / mlflow_accounts.CONFIG).exists())


def _up(home: Path, reporter: Reporter, *, secured: bool) -> None:
    with reporter.track("starting Postgres"):
        cluster = postgres.start(home)
        for role in (OWNER, LINE, APPROVAL, PROMOTION, READER, "mlflow", "warehouse"):
            cluster.ensure_role(role)
        for database, owner in (
            ("gatehouse", OWNER),
            ("mlflow", "mlflow"),
            ("mlflow_auth", "mlflow"),
            ("warehouse", "warehouse"),
        ):
            cluster.ensure_database(database, owner)
        for role in (LINE, APPROVAL, PROMOTION, READER):
            cluster.allow(role, "gatehouse")
    with reporter.track("starting MLflow (its tables take a while the first time)"):
        accounts = cluster.uri("mlflow_auth", "mlflow") if secured else None
        mlflow = {"uri": mlflow_server.start(home, cluster.uri("mlflow", "mlflow"), accounts)}
    if secured:
        mlflow["credentials"] = str(mlflow_accounts.credentials(home, mlflow_accounts.LINE))
        mlflow["promotion_credentials"] = str(mlflow_accounts.credentials(home, mlflow_accounts.PROMOTION))
    _write_settings(home, cluster, mlflow)


def start_servers(home: Path, commands: Mapping[str, Sequence[str]]) -> None:
    """Start a model server for each environment and wait until it answers."""
    with processes.alone(home):
        for name, argv in commands.items():
            processes.spawn(_server(name), argv, home, processes.clean_environment(home))
    for name in commands:
        url = f"http://{processes.HOST}:{processes.port(_server(name), home)}/version"
        processes.wait_for_http(url, _server(name), home, SERVER_SECONDS)


def down(home: Path) -> None:
    """Stop everything; the data stays. Safe when nothing runs."""
    if not home.is_dir():
        return
    with processes.alone(home):
        for name in ENVIRONMENTS:
            processes.stop(_server(name), home)
        mlflow_server.stop(home)
        postgres.stop(home)


def _server(environment: str) -> str:
    return f"server-{environment}"


def _write_settings(home: Path, cluster: postgres.Cluster, mlflow: Mapping[str, str]) -> None:
    values: dict[str, dict[str, object]] = {
        "ledger": {
            "uri": cluster.uri("gatehouse", LINE),
            "approval_uri": cluster.uri("gatehouse", APPROVAL),
            "promotion_uri": cluster.uri("gatehouse", PROMOTION),
            "owner_uri": cluster.uri("gatehouse", OWNER),
            "reader_uri": cluster.uri("gatehouse", READER),
        },
        "mlflow": dict(mlflow),
        "sources": {"warehouse": cluster.uri("warehouse", "warehouse"), "files": str(home.parent)},
        "approval.groups": dict(GROUPS),
    }
    key, trusted = keys.ensure_signing_key(home)
    values["signing"] = {"key": str(key), "trusted": [str(trusted)]}
    for name in ENVIRONMENTS:
        port = processes.port(_server(name), home)
        values[f"environments.{name}"] = {"server": f"http://{processes.HOST}:{port}"}
    lines = ["embedded = true", f"home = {json.dumps(str(home))}"]
    for section, entries in values.items():
        lines += ["", f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in entries.items())]
    partial = home / "settings.toml.part"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
    partial.replace(home / "settings.toml")
