"""Estimators after scikit-learn's manner: fit, measure on the validation part, refit, and one ONNX graph around them.

An estimator reads one matrix float32 [N, k + m]: the encoded categories as numbers, then the numbers. The exported
graph takes `categories` and `numbers` apart, as every package's does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.canonical import digest_bytes
from pipeline.domain.comparison import auc, log_loss
from pipeline.domain.transformer import Encoded
from pipeline.errors import UsageError
from pipeline.frameworks import common
from pipeline.frameworks.common import Epoch, Parameters

_MATRIX = "matrix"


@dataclass(frozen=True)
class Settings:
    """Training parameters. Every other parameter goes to the model factory.

    Args:
        blocks: the training rows are cut by time into so many blocks …
        validation_every: … every n-th of which, counted back from the newest, is the validation part.
        refit: once measured on the validation part, fit again on all training rows.
    """

    blocks: int = 8
    validation_every: int = 8
    refit: bool = True


@dataclass(frozen=True)
class Fitted:
    """A fitted estimator: `probability` of a matrix [N, k + m], float64 [N], and its form as an ONNX graph."""

    estimator: Any
    probability: Callable[[NDArray[np.float32]], NDArray[np.float64]]
    graph: bytes
    history: tuple[Epoch, ...]
    best_epoch: int = 1

    @cached_property
    def weights_digest(self) -> str:
        """Digest of the exported graph: it is the only form in which every estimator's weights can be written down."""
        return digest_bytes(self.graph)

    def predict(self, encoded: Encoded) -> NDArray[np.float64]:
        """Probabilities, float64 [n]."""
        return self.probability(matrix(encoded))


def matrix(encoded: Encoded) -> NDArray[np.float32]:
    """Categories, then numbers, float32 [n, k + m]; indexes below 2²⁴ are exact."""
    return np.concatenate([encoded.categories.astype(np.float32), encoded.numbers], axis=1)


def fit(
    train: Encoded,
    y: NDArray[Any],
    build: Callable[[Mapping[str, Any]], Any],
    parameters: Parameters,
    *,
    seed: int,
    order: NDArray[Any] | None,
    on_epoch: Callable[[Epoch], None],
) -> tuple[Any, tuple[Epoch, ...]]:
    """Fit on the rows outside the validation part, measure on it, and with `refit` fit again on all rows.

    Args:
        train, y, order: the training rows, their labels [n] and times [n].
        build: an unfitted estimator from the factory's own parameters.
        parameters: fields of `Settings` and the factory's own.
        seed: of the validation part where rows have no time.
        on_epoch: told of each fit.

    Returns:
        The estimator and what was measured.

    Raises:
        UsageError: bad labels, an impossible parameter, something that is no classifier.
    """
    settings, rest = common.own_settings(Settings(), parameters)
    common.require(settings, (), validation_every=2 <= settings.validation_every <= settings.blocks)
    common.check(train, y)
    valid = common.validation_rows(y, order, blocks=settings.blocks, every=settings.validation_every, seed=seed)
    rows, labels = matrix(train), np.asarray(y, np.int64)
    history: list[Epoch] = []

    def fitted(inside: NDArray[Any], outside: NDArray[Any] | None) -> Any:
        began = time.perf_counter()
        estimator = _fit(build(rest), rows[inside], labels[inside])
        loss = log_loss(labels[inside], probability(estimator, rows[inside]))
        unseen, area = None, None
        if outside is not None:
            p = probability(estimator, rows[outside])
            unseen, area = log_loss(labels[outside], p), auc(labels[outside], p)
        history.append(Epoch(len(history) + 1, loss, unseen, area, time.perf_counter() - began))
        on_epoch(history[-1])
        return estimator

    estimator = fitted(np.flatnonzero(~valid), np.flatnonzero(valid))
    if settings.refit:
        estimator = fitted(np.arange(len(labels)), None)
    return estimator, tuple(history)


def require_classifier(estimator: Any) -> None:
    """Check that the project's factory gave something that can be fitted and asked for probabilities.

    Raises:
        UsageError: it did not.
    """
    if not (hasattr(estimator, "fit") and hasattr(estimator, "predict_proba") and hasattr(estimator, "get_params")):
        raise UsageError(
            f"the factory must give an estimator with fit and predict_proba, not {type(estimator).__name__}",
            where="the project's model factory",
        )


def probability(estimator: Any, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability of the label 1, float64 [n]."""
    return np.asarray(estimator.predict_proba(rows)[:, 1], np.float64)


def down(thresholds: Any) -> NDArray[np.float64]:
    """The largest float32 at or below each threshold, as float64.

    For a float32 number x, ``x <= threshold`` and ``x <= down(threshold)`` are the same; rounded to the nearest, as
    exporters do, a split between two neighbouring numbers moves and rows change their leaf.
    """
    wide = np.asarray(thresholds, np.float64)
    near = wide.astype(np.float32)
    return np.where(near.astype(np.float64) <= wide, near, np.nextafter(near, np.float32(-np.inf))).astype(np.float64)


def package_graph(converted: Any, shape: tuple[int, int]) -> bytes:
    """The graph of a package around a converted classifier.

    Args:
        converted: ONNX model from `matrix` float32 [N, k + m] to `probabilities` [N, 2].
        shape: k and m.

    Returns:
        ONNX model from `categories` int64 [N, k] and `numbers` float32 [N, m] to `probability` float32 [N].
    """
    from onnx import TensorProto, helper, numpy_helper

    before = [
        helper.make_node("Cast", ["categories"], ["categories_as_numbers"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["categories_as_numbers", "numbers"], [_MATRIX], axis=1),
    ]
    after = [
        helper.make_node("Gather", ["probabilities", "class_1"], ["probability_of_1"], axis=1),
        helper.make_node("Cast", ["probability_of_1"], ["probability"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        [*before, *converted.graph.node, *after],
        "classifier",
        [
            helper.make_tensor_value_info("categories", TensorProto.INT64, ["N", shape[0]]),
            helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["N", shape[1]]),
        ],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])],
        [*converted.graph.initializer, numpy_helper.from_array(np.array(1, np.int64), "class_1")],
    )
    # Sorted: the converter keeps them in a set, whose order differs from process to process.
    domains = {opset.domain: opset.version for opset in converted.opset_import}
    opsets = [helper.make_opsetid(domain, version) for domain, version in sorted(domains.items())]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=converted.ir_version)
    return bytes(model.SerializeToString(deterministic=True))


def _fit(estimator: Any, rows: NDArray[np.float32], labels: NDArray[np.int64]) -> Any:
    try:
        with common.quiet():
            return estimator.fit(rows, labels)
    except ValueError as error:
        first = str(error).splitlines()[0][:300]
        raise UsageError(f"the estimator cannot be fitted: {first}", where="training.parameters") from error
