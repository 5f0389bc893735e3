"""A model's folder as MLflow's own tools want it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_model_folder(
    folder: Path,
    *,
    signature: Mapping[str, Any],
    flavors: Mapping[str, Mapping[str, Any]],
    requirements: Sequence[str],
) -> None:
    """Write MLflow's ``MLmodel`` beside the package, so that MLflow's own tools show and load the model.

    ``MLmodel`` is not part of the package digest: MLflow rewrites its id and time, and no Gatehouse server
    reads it.
    """
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    def schema(specs: Sequence[Mapping[str, Any]]) -> Schema:
        return Schema([ColSpec(spec["type"], spec["name"], required=spec.get("required", True)) for spec in specs])

    model = Model(signature=ModelSignature(schema(signature["inputs"]), schema(signature["outputs"])))
    for name, options in flavors.items():
        model.add_flavor(name, **options)
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
    model.save(str(folder / "MLmodel"))
