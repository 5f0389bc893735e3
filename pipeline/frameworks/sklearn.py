"""scikit-learn: any classifier or pipeline that skl2onnx can write as an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import skl2onnx.common.tree_ensemble as trees
import skops.io
from numpy.typing import NDArray
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
from threadpoolctl import threadpool_limits

from pipeline.domain.transformer import Encoded
from pipeline.frameworks import common, estimators
from pipeline.frameworks.common import Epoch, Parameters
from pipeline.frameworks.estimators import Fitted
from pipeline.ports import CheckpointStore


class Sklearn:
    """Fit, export and compare."""

    name = "sklearn"
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
        """Fit the factory's estimator; see `estimators.fit`. It starts anew when it was killed.

        Raises:
            UsageError: bad labels or parameters, or a part of the estimator has no form in ONNX; it is named.
        """
        del checkpoints  # a fit is one call
        with threadpool_limits(limits=threads):
            estimator, history = estimators.fit(
                train,
                y,
                lambda rest: _seeded(common.build(model, train, rest), seed),
                parameters,
                seed=seed,
                order=order,
                on_epoch=on_epoch,
            )
        shape = (train.categories.shape[1], train.numbers.shape[1])
        _round_thresholds(estimator)
        graph = estimators.package_graph(_convert(estimator, sum(shape)), shape)
        return Fitted(estimator, partial(estimators.probability, estimator), graph, history)

    def export(self, fitted: Fitted, package: Path, native: Path) -> None:
        """Write ``model.onnx`` into `package`, and ``model.skops`` (no pickle) into `native`."""
        (package / common.ONNX_FILE).write_bytes(fitted.graph)
        skops.io.dump(fitted.estimator, native / "model.skops")

    def parity(self, fitted: Fitted, package: Path, encoded: Encoded) -> float:
        """Largest absolute difference between the estimator and the exported graph."""
        return common.difference(fitted.predict(encoded), common.run_graph(package / common.ONNX_FILE, encoded))

    def flavors(self) -> Mapping[str, Mapping[str, Any]]:
        """MLflow's flavour of ``model.skops``."""
        version = self.libraries()["scikit-learn"]
        model = {"pickled_model": "data/model.skops", "serialization_format": "skops", "code": None}
        return {"sklearn": {**model, "sklearn_version": version}}

    def libraries(self) -> Mapping[str, str]:
        """Versions that took part."""
        return common.versions("scikit-learn", "scipy", "skl2onnx")


def _seeded(estimator: Any, seed: int) -> Any:
    """Every `random_state` that the project left open, of the steps of a pipeline too, becomes the seed."""
    estimators.require_classifier(estimator)
    known = estimator.get_params(deep=True)
    left = [name for name, value in known.items() if name.rpartition("__")[2] == "random_state" and value is None]
    return estimator.set_params(**dict.fromkeys(left, seed))


def _round_thresholds(estimator: Any) -> None:
    """Round the splits of histogram gradient boosting, wherever in a pipeline it stands; see `estimators.down`."""
    for _, step in getattr(estimator, "steps", [("", estimator)]):
        for iteration in getattr(step, "_predictors", ()):
            for tree in iteration:
                tree.nodes["num_threshold"] = estimators.down(tree.nodes["num_threshold"])


def _convert(estimator: Any, width: int) -> Any:
    inputs = [("matrix", FloatTensorType([None, width]))]
    try:
        with common.quiet(), _whole_numbers():
            return to_onnx(estimator, initial_types=inputs, options={"zipmap": False}, name="classifier")
    except (MissingConverter, MissingShapeCalculator) as error:
        unknown = str(error).partition("type '")[2].partition("'>")[0].partition("'")[2] or type(estimator).__name__
        raise common.not_exportable(unknown.rpartition(".")[2], Sklearn.name) from error
    except Exception as error:  # converters raise whatever their insides raise
        raise common.not_exportable(
            f"{type(estimator).__name__} ({str(error).splitlines()[0][:200]})", Sklearn.name
        ) from error


@contextmanager
def _whole_numbers() -> Iterator[None]:
    """skl2onnx 1.20 writes a leaf's flag as a boolean, which protobuf 7 refuses to take for a whole number."""
    original = trees.add_node

    def add_node(*words: Any, nodes_missing_value_tracks_true: Any = 0, **named: Any) -> Any:
        return original(*words, nodes_missing_value_tracks_true=int(nodes_missing_value_tracks_true), **named)

    trees.add_node = add_node
    try:
        yield
    finally:
        trees.add_node = original
