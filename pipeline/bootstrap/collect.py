"""``mlflow gc``, held back from what the ledger refers to.

MLflow's garbage collection looks at nothing but the deleted mark: it destroys a champion's files while its version
still says READY. Here everything that a promoted run, or a recent one, refers to is taken off the deleted list first.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pipeline.bootstrap.installation import Installation
from pipeline.domain.events import Draft, Event, Row
from pipeline.domain.gate import ENVIRONMENT
from pipeline.errors import GatehouseError

RECENT = timedelta(days=30)
_REFERENCE = re.compile(r"models:/(m-[0-9a-f]+)|runs:/([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class References:
    """Ids in MLflow that the ledger refers to, each with the Gatehouse run that needs it."""

    models: dict[str, str]
    runs: dict[str, str]


def keeps(row: Row | Event, since: str) -> bool:
    """Whether this row says that its run stays: it was promoted anywhere, or opened since a time."""
    return row.kind == "model.promoted" or (row.kind == "run.opened" and row.at >= since)


def references(rows: Iterable[Row], since: str) -> References:
    """What must stay: whatever a run refers to that was promoted anywhere, or was opened since a time."""
    keep: set[str] = set()
    mentioned: list[tuple[str, str, str]] = []
    for row in rows:
        if row.run is None:
            continue
        if keeps(row, since):
            keep.add(row.run)
        mentioned += [(row.run, model, run) for model, run in _REFERENCE.findall(row.text)]
    models = {model: run for run, model, _ in mentioned if model and run in keep}
    return References(models, {other: run for run, _, other in mentioned if other and run in keep})


def collect(
    place: Installation, backend: str, artifacts: str | None, older_than: str | None, *, dry: bool
) -> list[dict[str, Any]]:
    """Restore what is needed and was deleted, then let MLflow destroy the rest; answers what was kept.

    Raises:
        GatehouseError: ``mlflow gc`` failed.
    """
    place = place.acting_as("promotion")
    needed = references(place.reader.rows(), (place.clock() - RECENT).isoformat())
    kept = [*_deleted_models(backend, needed), *_deleted_runs(place, needed)]
    if dry:
        return kept
    for row in kept:
        _restore(place, backend, row)
        body = {"finding": "deleted in MLflow", "what": f"{row['kind']} {row['id']} of run {row['run']} was deleted"}
        place.ledger.append(Draft("alarm.raised", place.actor, body, row["run"], None, ENVIRONMENT))
    options = [*_option("--older-than", older_than), *_option("--artifacts-destination", artifacts)]
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", backend, *options]
    env = {**os.environ, "MLFLOW_TRACKING_URI": place.mlflow.uri}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GatehouseError(f"mlflow gc failed: {done.stderr.strip()[-500:]}", where="mlflow gc")
    for line in done.stdout.splitlines():
        place.reporter.note(line)
    return kept


def _deleted_models(backend: str, needed: References) -> list[dict[str, Any]]:
    import sqlalchemy as sa

    query = sa.text("select model_id from logged_models where lifecycle_stage = 'deleted'")
    with sa.create_engine(backend, poolclass=sa.NullPool).connect() as connection:
        found = [str(row.model_id) for row in connection.execute(query)]
    return [{"kind": "logged model", "id": one, "run": needed.models[one]} for one in found if one in needed.models]


def _deleted_runs(place: Installation, needed: References) -> list[dict[str, Any]]:
    rows = []
    for run_id, run in needed.runs.items():
        if place.mlflow.get_run(run_id).info.lifecycle_stage == "deleted":
            rows.append({"kind": "run", "id": run_id, "run": run})
    return rows


def _restore(place: Installation, backend: str, row: dict[str, Any]) -> None:
    if row["kind"] == "run":
        with place.mlflow.talking(row["id"]) as client:
            experiment = client.get_experiment(client.get_run(row["id"]).info.experiment_id)
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(experiment.experiment_id)
            client.restore_run(row["id"])
        return
    import sqlalchemy as sa

    # MLflow has a call that deletes a logged model and none that brings it back.
    change = sa.text("update logged_models set lifecycle_stage = 'active' where model_id = :id")
    with sa.create_engine(backend, poolclass=sa.NullPool).begin() as connection:
        connection.execute(change, {"id": row["id"]})


def _option(name: str, value: str | None) -> list[str]:
    return [] if value is None else [name, value]
