"""Accounts of a secured MLflow (its basic-auth app): an administrator, the line, and promotion.

Everybody may read; whoever creates a registered model or an experiment manages it. So what promotion creates
(``prod.…``) the line cannot change. https://mlflow.org/docs/latest/self-hosting/security/basic-http-auth/
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import requests

from pipeline.errors import Unreachable

ADMIN, LINE, PROMOTION = "mlflow-admin", "mlflow-line", "mlflow-promotion"
SECRET = "mlflow-secret"  # noqa: S105  # the name of a file
CONFIG = "mlflow-auth.ini"
_SECONDS = 10


def credentials(home: Path, account: str) -> Path:
    """File with ``user:password`` of an account, made up the first time."""
    return _kept(home / account, f"{account.removeprefix('mlflow-')}:{secrets.token_hex(24)}")


def configure(home: Path, database: str) -> dict[str, str]:
    """Write the app's configuration; answers the environment that the server needs. No argument holds a secret."""
    _, _, password = credentials(home, ADMIN).read_text(encoding="utf-8").partition(":")
    lines = (
        "[mlflow]",
        "default_permission = READ",
        f"database_uri = {database.replace('%', '%%')}",
        "admin_username = admin",
        f"admin_password = {password}",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds = 60",
    )
    config = home / CONFIG
    config.unlink(missing_ok=True)
    _kept(config, "\n".join(lines) + "\n")
    secret = _kept(home / SECRET, secrets.token_hex(32)).read_text(encoding="utf-8")
    return {"MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_FLASK_SERVER_SECRET_KEY": secret}


def ensure(home: Path, url: str) -> None:
    """Create the two service accounts where they are not there. Safe to run again.

    Raises:
        Unreachable: MLflow does not take them.
    """
    administrator = _pair(credentials(home, ADMIN))
    for account in (LINE, PROMOTION):
        name, password = _pair(credentials(home, account))
        place = f"{url}/api/2.0/mlflow/users"
        known = requests.get(f"{place}/get", params={"username": name}, auth=administrator, timeout=_SECONDS)
        if known.status_code == requests.codes.ok:
            continue
        body = {"username": name, "password": password}
        made = requests.post(f"{place}/create", json=body, auth=administrator, timeout=_SECONDS)
        if made.status_code != requests.codes.ok:
            raise Unreachable(f"MLflow does not create the account '{name}': {made.status_code}", where=url)


def _pair(file: Path) -> tuple[str, str]:
    name, _, password = file.read_text(encoding="utf-8").strip().partition(":")
    return name, password


def _kept(file: Path, text: str) -> Path:
    if not file.exists():
        partial = file.with_name(f"{file.name}.part")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        partial.replace(file)
    return file
