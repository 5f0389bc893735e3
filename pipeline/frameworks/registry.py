"""The frameworks that `framework` in ``project.toml`` may name: class, what it imports, which extra installs that."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pipeline.errors import UsageError


@dataclass(frozen=True, slots=True)
class Entry:
    """One framework.

    Attributes:
        module, name: its class.
        needs: modules that must be installed.
        extra: of the package ``gatehouse``, which installs them; None: they always come along.
        environment: variables that must be set before it is imported.
    """

    module: str
    name: str
    needs: tuple[str, ...]
    extra: str | None = None
    environment: tuple[tuple[str, str], ...] = ()


# Keras would read (and write) a configuration in the home directory: results must not hang on it. oneDNN's kernels
# round differently from machine to machine.
_KERAS = (
    ("KERAS_BACKEND", "tensorflow"),
    ("KERAS_HOME", os.devnull),
    ("TF_CPP_MIN_LOG_LEVEL", "3"),
    ("TF_ENABLE_ONEDNN_OPTS", "0"),
)
FRAMEWORKS: Mapping[str, Entry] = {
    "torch": Entry("pipeline.frameworks.pytorch", "PyTorch", ("torch", "onnxscript")),
    "keras": Entry("pipeline.frameworks.keras", "Keras", ("tensorflow", "keras", "tf2onnx"), "keras", _KERAS),
    "sklearn": Entry("pipeline.frameworks.sklearn", "Sklearn", ("sklearn", "skl2onnx", "skops"), "sklearn"),
    "lightgbm": Entry("pipeline.frameworks.lightgbm", "LightGBM", ("lightgbm", "onnxmltools"), "lightgbm"),
    "pyfunc": Entry("pipeline.frameworks.pyfunc", "PyFunc", ("mlflow", "cloudpickle")),
}


def load(name: str) -> Any:
    """An instance of the framework's class; it follows the protocol ``pipeline.stages.train.Framework``.

    Raises:
        UsageError: there is no such framework, or its libraries are not installed.
    """
    entry = FRAMEWORKS.get(name)
    if entry is None:
        raise UsageError(
            f"no framework '{name}'", where="project.toml: framework", fix=f"one of: {', '.join(FRAMEWORKS)}"
        )
    missing = [module for module in entry.needs if find_spec(module) is None]
    if missing:
        package = f"gatehouse[{entry.extra}]" if entry.extra else "gatehouse"
        raise UsageError(
            f"framework '{name}' needs {', '.join(missing)}, which this environment lacks",
            where="project.toml: framework",
            fix=f"pip install '{package}'",
        )
    os.environ.update(dict(entry.environment))
    return getattr(import_module(entry.module), entry.name)()
