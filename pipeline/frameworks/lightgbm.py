"""LightGBM: gradient-boosted trees, exported to ONNX with the very same splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from pipeline.domain.transformer import Encoded
from pipeline.errors import UsageError
from pipeline.frameworks import common, estimators
from pipeline.frameworks.common import Epoch, Parameters
from pipeline.frameworks.estimators import Fitted
from pipeline.ports import CheckpointStore


class LightGBM:
    """Fit, export and compare."""

    name = "lightgbm"
    isolated = False

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
        """Fit the factory's ``LGBMClassifier``; see `estimators.fit`. It starts anew when it was killed.

        Raises:
            UsageError: bad labels or parameters.
        """
        del checkpoints  # a fit is one call, of seconds

        def build(rest: Mapping[str, Any]) -> Any:
            classifier = common.build(model, train, rest)
            if not isinstance(classifier, lightgbm.LGBMClassifier):
                raise UsageError(
                    f"the factory must give an LGBMClassifier, not {type(classifier).__name__}",
                    where="the project's model factory",
                )
            return classifier.set_params(
                random_state=seed % 2**31, deterministic=True, force_row_wise=True, n_jobs=threads, verbose=-1
            )

        classifier, history = estimators.fit(train, y, build, parameters, seed=seed, order=order, on_epoch=on_epoch)
        booster = _rounded(classifier.booster_)
        shape = (train.categories.shape[1], train.numbers.shape[1])
        graph = estimators.package_graph(_convert(booster, sum(shape)), shape)

        def probability(rows: NDArray[np.float32]) -> NDArray[np.float64]:
            return np.asarray(booster.predict(rows, num_threads=threads), np.float64)

        return Fitted(booster, probability, graph, history)

    def export(self, fitted: Fitted, package: Path, native: Path) -> None:
        """Write ``model.onnx`` into `package`, and ``model.lgb`` (LightGBM's text) into `native`."""
        (package / common.ONNX_FILE).write_bytes(fitted.graph)
        fitted.estimator.save_model(native / "model.lgb")

    def parity(self, fitted: Fitted, package: Path, encoded: Encoded) -> float:
        """Largest absolute difference between LightGBM and the exported graph."""
        return common.difference(fitted.predict(encoded), common.run_graph(package / common.ONNX_FILE, encoded))

    def flavors(self) -> Mapping[str, Mapping[str, Any]]:
        """MLflow's flavour of ``model.lgb``."""
        about = {"data": "data/model.lgb", "model_class": "lightgbm.basic.Booster", "code": None}
        return {"lightgbm": {**about, "lgb_version": lightgbm.__version__}}

    def libraries(self) -> Mapping[str, str]:
        """Versions that took part."""
        return common.versions("lightgbm", "onnxmltools", "skl2onnx")


def _rounded(booster: lightgbm.Booster) -> lightgbm.Booster:
    """The same trees with thresholds that float32 can hold; see `estimators.down`."""

    def line(found: re.Match[str]) -> str:
        rounded = estimators.down([float(text) for text in found[1].split()])
        return "threshold=" + " ".join(repr(float(value)) for value in rounded)

    text = re.sub(r"(?m)^threshold=(.*)$", line, booster.model_to_string())
    # The sizes of the trees' texts are no longer true; without them LightGBM looks for the trees itself.
    return lightgbm.Booster(model_str=re.sub(r"(?m)^tree_sizes=.*\n", "", text))


def _convert(booster: lightgbm.Booster, width: int) -> Any:
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    inputs = [("matrix", FloatTensorType([None, width]))]
    try:
        with common.quiet():
            return convert_lightgbm(booster, name="classifier", initial_types=inputs, zipmap=False)
    except Exception as error:  # converters raise whatever their insides raise
        first = (str(error).splitlines() or [""])[0][:200]
        raise common.not_exportable(f"{type(error).__name__} ({first})", LightGBM.name) from error
