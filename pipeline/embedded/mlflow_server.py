"""The MLflow server of the embedded stack: on the loopback address, its tables in Postgres, artifacts in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.embedded import mlflow_accounts, processes

NAME = "mlflow"
START_SECONDS = 180


def start(home: Path, backend: str, accounts: str | None = None) -> str:
    """Start MLflow on the database at `backend`; answers its address. Safe when it runs already.

    Args:
        home: the stack's folder.
        backend: database of runs and models.
        accounts: database of its accounts; None: everybody may do everything.

    Raises:
        Unreachable: it does not start; shows the end of its log.
    """
    port = processes.port(NAME, home)
    url = f"http://{processes.HOST}:{port}"
    argv = [
        *(sys.executable, "-m", "mlflow", "server", "--host", processes.HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", backend, "--serve-artifacts", "--artifacts-destination", str(home / "artifacts")),
    ]
    # The job runner starts seven more processes of 100 MB each, for jobs that nobody here gives it.
    env = processes.clean_environment(home) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if accounts is not None:
        argv += ["--app-name", "basic-auth"]
        env |= mlflow_accounts.configure(home, accounts)
    processes.spawn(NAME, argv, home, env)
    processes.wait_for_http(f"{url}/health", NAME, home, START_SECONDS)
    if accounts is not None:
        mlflow_accounts.ensure(home, url)
    return url


def stop(home: Path) -> None:
    """Stop it. Safe when it does not run."""
    processes.stop(NAME, home)
