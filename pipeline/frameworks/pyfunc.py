"""Any model as an MLflow pyfunc: for what has no ONNX graph. It runs in a process of its own, see `pipeline.isolation`.

The package holds MLflow's folder with a pickle in it. Production refuses such a package unless its installation says
otherwise.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.domain.canonical import digest_bytes
from pipeline.domain.comparison import log_loss
from pipeline.domain.transformer import Encoded
from pipeline.errors import UsageError
from pipeline.frameworks import common
from pipeline.frameworks.common import Epoch, Parameters
from pipeline.isolation import MODEL, Isolated
from pipeline.ports import CheckpointStore


@dataclass(frozen=True)
class Fitted:
    """A fitted ``mlflow.pyfunc.PythonModel`` and what pickling it gave."""

    model: Any
    pickled: bytes
    history: tuple[Epoch, ...]
    best_epoch: int = 1

    @property
    def weights_digest(self) -> str:
        """Digest of the pickle: nothing else of an arbitrary model can be digested."""
        return digest_bytes(self.pickled)

    def predict(self, encoded: Encoded) -> NDArray[np.float64]:
        """Probabilities, float64 [n]."""
        return np.asarray(self.model.predict(None, frame(encoded)), np.float64).reshape(-1)


class PyFunc:
    """Fit, write down and compare."""

    name = "pyfunc"
    isolated = True

    def fit(
        self,
        train: Encoded,
        y: NDArray[Any],
        model: Callable[..., Any],
        parameters: Parameters,
        *,
        seed: int,
        order: NDArray[Any] | None,
        checkpoints: CheckpointStore,
        on_epoch: Callable[[Epoch], None],
        threads: int = 2,
    ) -> Fitted:
        """Let the project's model fit itself on all rows: ``model.fit(frame, y)``.

        Args: as every framework's; `model` gives an ``mlflow.pyfunc.PythonModel`` with a method `fit`, whose
            ``predict(context, frame)`` answers probabilities. numpy's and Python's random state are set to `seed`.

        Raises:
            UsageError: bad labels, or something that is no such model.
        """
        import random

        del order, checkpoints, threads  # the model's own affair
        common.check(train, y)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # the models' own libraries draw from the old generator
        with common.quiet():
            import mlflow.pyfunc  # changes the warnings' filters
        with common.quiet():  # MLflow's advice on type hints
            found = common.build(model, train, parameters)
        if not (isinstance(found, mlflow.pyfunc.PythonModel) and hasattr(found, "fit")):
            raise UsageError(
                f"the factory must give an mlflow.pyfunc.PythonModel with a method fit, not {type(found).__name__}",
                where="the project's model factory",
            )
        began = time.perf_counter()
        labels = np.asarray(y, np.int64)
        found.fit(frame(train), labels)
        p = np.asarray(found.predict(None, frame(train)), np.float64).reshape(-1)
        epoch = Epoch(1, log_loss(labels, p), None, None, time.perf_counter() - began)
        on_epoch(epoch)
        return Fitted(found, _pickle(found), (epoch,))

    def export(self, fitted: Fitted, package: Path, native: Path) -> None:
        """Write MLflow's folder into `package`; there is nothing else to write into `native`."""
        import mlflow.pyfunc

        del native
        with common.quiet():
            mlflow.pyfunc.save_model(
                package / MODEL,
                python_model=fitted.model,
                pip_requirements=[f"{name}=={version}" for name, version in self.libraries().items()],
            )

    def parity(self, fitted: Fitted, package: Path, encoded: Encoded) -> float:
        """Largest absolute difference between the model here and the one loaded in a process of its own."""
        folder = package / MODEL
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        isolated = Isolated(files)
        try:
            return common.difference(fitted.predict(encoded), isolated.predict(encoded))
        finally:
            isolated.close()

    def flavors(self) -> Mapping[str, Mapping[str, Any]]:
        """None beside the package's own: MLflow shall not load a pickle that nobody verified."""
        return {}

    def libraries(self) -> Mapping[str, str]:
        """Versions that took part, as far as anybody can know of an arbitrary model: all that is imported."""
        from importlib.metadata import packages_distributions

        known = packages_distributions()
        tops = {name.partition(".")[0] for name in sys.modules}
        names = {distribution for top in tops for distribution in known.get(top, ()) if top[0] != "_"}
        return common.versions(*sorted(names & _WORTH_RECORDING | {"mlflow", "cloudpickle", "pandas"}))


_WORTH_RECORDING = {
    "catboost", "jax", "keras", "lightgbm", "prophet", "scikit-learn", "scipy", "spacy", "statsmodels", "tensorflow",
    "torch", "transformers", "xgboost",
}  # fmt: skip


def frame(encoded: Encoded) -> pd.DataFrame:
    """The encoded rows as the model reads them: int64 columns ``category_i``, float32 columns ``number_i``."""
    categories = {f"category_{i}": encoded.categories[:, i] for i in range(encoded.categories.shape[1])}
    return pd.DataFrame(categories | {f"number_{i}": encoded.numbers[:, i] for i in range(encoded.numbers.shape[1])})


def _pickle(model: Any) -> bytes:
    """The model's pickle, its own classes by value: the project's module exists in this process alone."""
    module = sys.modules.get(type(model).__module__)
    if module is not None and module.__name__.startswith("gatehouse_project_"):
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(model))
    except Exception as error:  # a model may hold anything
        raise UsageError(f"the model cannot be pickled: {error}", where="the project's model factory") from error
