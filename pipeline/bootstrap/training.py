"""Joins the train stage: data, project code, framework, checkpoints and MLflow."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.adapters import environment, snapshot
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.steps import snapshot_table, tracked_run
from pipeline.config import Project
from pipeline.config.project import LOCK_FILES
from pipeline.domain import lock
from pipeline.domain.canonical import canonical, digest_file
from pipeline.domain.drift import profile
from pipeline.domain.state import RunState
from pipeline.errors import IntegrityViolated, UsageError
from pipeline.ports import Columns
from pipeline.stages import train as stage

CHECKPOINTS = "checkpoints"
SERVING_REQUIREMENTS = ("gatehouse", "numpy", "onnxruntime", "pandas")


class TrackedCheckpoints:
    """Checkpoints among a tracked run's artifacts, each with its own SHA-256 in its name.

    A torn upload never counts, and any agent can go on where another was killed.
    """

    def __init__(self, place: Installation, run_id: str) -> None:
        self._place, self._run_id = place, run_id

    def latest(self) -> bytes | None:
        """The newest intact checkpoint, or None."""
        for name in sorted(self._place.mlflow.artifact_names(self._run_id, CHECKPOINTS), reverse=True):
            digest = re.fullmatch(rf"{CHECKPOINTS}/\d{{6}}-([0-9a-f]{{64}})\.bin", name)
            if digest is None:
                continue
            with self._place.cache.scratch() as scratch:
                try:
                    path = self._place.mlflow.download(f"runs:/{self._run_id}/{name}", Path(scratch))
                except IntegrityViolated:
                    continue
                data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == digest[1]:
                return data
        return None

    def save(self, step: int, data: bytes) -> None:
        """Upload a checkpoint."""
        with self._place.cache.scratch() as scratch:
            path = Path(scratch) / f"{step:06d}-{hashlib.sha256(data).hexdigest()}.bin"
            path.write_bytes(data)
            self._place.mlflow.upload(self._run_id, path, CHECKPOINTS)


def train(place: Installation, state: RunState, project: Project) -> Mapping[str, Any]:
    """Run the stage; answers its fact."""
    os.environ.setdefault("OMP_NUM_THREADS", str(project.settings.training.threads))
    from pipeline.frameworks import registry

    require_lock(project)
    framework: stage.Framework = registry.load(project.settings.framework)
    run_id = tracked_run(place, state, project)
    columns = snapshot.columns(snapshot_table(place, state, "train"))
    recipe = recipe_of(project)
    if project.settings.search is not None:
        from pipeline.bootstrap.search import best_parameters

        recipe = best_parameters(place, state, project, recipe, columns, framework, run_id)
    place.mlflow.log(run_id, parameters={**recipe.parameters, "seed": recipe.seed, "framework": framework.name})
    began = place.clock()
    with place.mlflow.system_metrics(run_id):
        transformer, fitted = stage.fit(
            recipe,
            columns,
            framework=framework,
            checkpoints=TrackedCheckpoints(place, run_id),
            tracking=place.mlflow,
            run_id=run_id,
            reporter=place.reporter,
        )
    seconds = (place.clock() - began).total_seconds()
    training = {
        "framework": framework.name,
        "seed": recipe.seed,
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "seconds": round(seconds, 3),
        "libraries": dict(framework.libraries()),
    }
    with place.cache.scratch() as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        made = stage.write_package(folder, recipe, transformer, fitted, columns, framework=framework)
        fact = _log_model(place, state, project, folder, made, run_id, framework)
        reference = _log_profile(place, project, columns, run_id, Path(scratch))
    return {
        **fact,
        "tracked_run": run_id,
        "weights": fitted.weights_digest,
        "parity": made["parity"],
        **({"isolated": True} if framework.isolated else {}),
        "parameters": {**recipe.parameters, "seed": recipe.seed},
        "training": training,
        "environment": environment.describe(),
        "profile": reference,
    }


def require_lock(project: Project) -> None:
    """Hold this environment to the versions that the project's folder pins, if it pins any.

    Raises:
        UsageError: names each library whose version differs, and the command that installs the pinned ones.
    """
    for name in LOCK_FILES:
        differing = lock.differences(lock.pins(project.files.get(name, "")), _installed)
        if differing:
            raise UsageError(
                f"the environment differs from the lock: {'; '.join(differing)}",
                where=name,
                fix=f"pip install -r {name}; or, if the environment is the one wanted, pin its versions in {name}",
            )


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def recipe_of(project: Project) -> stage.Recipe:
    """What decides the weights, from the project."""
    settings = project.settings
    return stage.Recipe(
        model=settings.name,
        target=settings.source.target,
        time=settings.source.time,
        features=project.function(settings.model.features)(),
        factory=project.function(settings.model.factory),
        parameters=settings.training.parameters,
        seed=settings.training.seed,
        threads=settings.training.threads,
    )


def _log_model(
    place: Installation,
    state: RunState,
    project: Project,
    folder: Path,
    made: Mapping[str, Any],
    run_id: str,
    framework: stage.Framework,
) -> Mapping[str, Any]:
    from pipeline.adapters.mlflow_model import write_model_folder

    package = folder / "package"
    onnx = {
        "onnx_version": version("onnx"),
        "data": "package/model.onnx",
        "providers": ["CPUExecutionProvider"],
    }
    write_model_folder(
        folder,
        signature=made["signature"],
        flavors={
            "python_function": {"loader_module": "pipeline.serving.package", "data": "package"},
            **({} if framework.isolated else {"onnx": onnx}),
            **framework.flavors(),
        },
        requirements=[f"{name}=={version(name)}" for name in SERVING_REQUIREMENTS],
    )
    place.cache.put(package)
    uri = place.mlflow.log_model(
        project.settings.name, state.run, run_id=run_id, name=project.settings.name, folder=folder
    )
    size = sum(path.stat().st_size for path in package.iterdir())
    return {"package": made["package"], "package_bytes": size, "uri": uri}


def _log_profile(
    place: Installation, project: Project, columns: Columns, run_id: str, folder: Path
) -> Mapping[str, Any]:
    path = folder / "reference.json"
    path.write_bytes(canonical(profile(columns).to_json()))
    place.cache.put(path)
    uri = place.mlflow.upload(run_id, path)
    return {"digest": digest_file(path), "uri": uri, "window": project.settings.window.train}
