"""Trains once more from a folder that holds everything, and knows nothing else: no ledger, no server, no settings.

Run as ``python -m pipeline.bootstrap.rebuild FOLDER``, in the environment that is to be tried.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

JOB, ROWS, RESULT = "job.json", "train.parquet", "result.json"


class _NoCheckpoints:
    def latest(self) -> None:
        """None: a training that is made anew goes on from nothing."""

    def save(self, step: int, data: bytes) -> None:
        """Keeps nothing."""


class _NoTracking:
    def log(self, run_id: str, **_: Any) -> None:
        """Tells nobody."""


def rebuild(folder: Path) -> Mapping[str, Any]:
    """Train what ``job.json`` says on ``train.parquet``; answers the digests and the environment.

    Raises:
        IntegrityViolated: the rows are not those that were recorded.
    """
    from pipeline.adapters import environment, snapshot
    from pipeline.adapters.console import ConsoleReporter
    from pipeline.bootstrap.training import recipe_of
    from pipeline.config import project_from_files
    from pipeline.frameworks import registry
    from pipeline.stages import train

    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    project = project_from_files(job["files"], job["changes"], where=str(folder))
    # Before the project's own module: a library reads what it is told in the environment when it is first imported.
    framework = registry.load(project.settings.framework)
    columns = snapshot.columns(snapshot.read(folder / ROWS, job["data"]["digest"], job["data"]["columns"]))
    recipe = recipe_of(project)
    # What a search found is in the recorded parameters only. Others stay as the project's text has them, types and all.
    found = {name: value for name, value in job["parameters"].items() if recipe.parameters.get(name) != value}
    recipe = replace(recipe, parameters={**recipe.parameters, **found})
    transformer, fitted = train.fit(
        recipe,
        columns,
        framework=framework,
        checkpoints=_NoCheckpoints(),
        tracking=_NoTracking(),  # type: ignore[arg-type]  # fitting only logs
        run_id="",
        reporter=ConsoleReporter(),
    )
    made = train.write_package(folder / "model", recipe, transformer, fitted, columns, framework=framework)
    return {
        "weights": fitted.weights_digest,
        "package": made["package"],
        "environment": environment.describe(),
    }


if __name__ == "__main__":
    here = Path(sys.argv[1])
    (here / RESULT).write_text(json.dumps(rebuild(here)), encoding="utf-8")
