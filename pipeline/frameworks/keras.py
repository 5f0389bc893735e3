"""Keras on TensorFlow: deterministic training that can be killed and resumed, calibration, export to ONNX.

Imported only where a network is trained, through the registry, which sets Keras' environment. Invariants are those of
PyTorch's: a training is a pure function of its data, parameters, seed and threads, and there is no pickle anywhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.domain.canonical import digest_json
from pipeline.domain.comparison import auc
from pipeline.domain.transformer import Encoded
from pipeline.errors import UsageError
from pipeline.frameworks import common
from pipeline.frameworks.common import Epoch, Parameters
from pipeline.frameworks.keras_journal import Journal
from pipeline.ports import CheckpointStore

_PREDICT_ROWS = 8192
_OPSET = 18


@dataclass(frozen=True)
class Settings:
    """Training parameters, with PyTorch's meaning. Every other parameter goes to the model factory.

    Args:
        epochs: length of the learning rate's cycle, and passes over the rows at most.
        patience: epochs without a lower validation loss before stopping.
        batch: rows per step.
        rate: peak learning rate (AdamW).
        warmup: share of all steps during which the rate rises; it then falls along a cosine.
        weight_decay: AdamW's; biases and normalisations have none.
        blocks: the training rows are cut by time into so many blocks …
        validation_every: … every n-th of which, counted back from the newest, is the validation part.
        refit: with epoch count and calibration found, train once more on all training rows.
    """

    epochs: int = 8
    patience: int = 3
    batch: int = 1024
    rate: float = 2e-3
    warmup: float = 0.2
    weight_decay: float = 0.05
    blocks: int = 8
    validation_every: int = 8
    refit: bool = False


@dataclass(frozen=True)
class Fitted:
    """A trained network with its calibration: probability = sigmoid(slope · logit + offset) (Platt 1999)."""

    network: Any
    slope: float
    offset: float
    shape: tuple[int, int]
    best_epoch: int
    history: tuple[Epoch, ...]

    @cached_property
    def weights_digest(self) -> str:
        """Digest of the weights alone: dtype, shape and little-endian bytes of each, in the network's order."""
        weights = {f"{i:04d}": common.describe(array) for i, array in enumerate(self.network.get_weights())}
        return digest_json({"network": weights, "slope": self.slope, "offset": self.offset})

    @cached_property
    def graph(self) -> Any:
        """``tf.function`` from `categories` int64 [N, k] and `numbers` float32 [N, m] to `probability` float32 [N]."""
        k, m = self.shape
        inputs = (tf.TensorSpec((None, k), tf.int64, "categories"), tf.TensorSpec((None, m), tf.float32, "numbers"))

        @tf.function(input_signature=inputs)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
        def probability(categories: Any, numbers: Any) -> Any:
            logits = tf.reshape(self.network([categories, numbers], training=False), [-1])
            return {"probability": tf.sigmoid(self.slope * logits + self.offset)}

        return probability

    def predict(self, encoded: Encoded) -> NDArray[np.float64]:
        """Calibrated probabilities, float64 [n]."""
        blocks = (encoded.rows(slice(i, i + _PREDICT_ROWS)) for i in range(0, len(encoded), _PREDICT_ROWS))
        found = [self.graph(tf.constant(rows.categories), tf.constant(rows.numbers)) for rows in blocks]
        return np.concatenate([block["probability"].numpy() for block in found]).astype(np.float64)


class Keras:
    """Fit, export and compare."""

    name = "keras"
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
        """Train, stop early, calibrate and, with `refit`, train again on all rows.

        Args: as PyTorch's; `model` gives a ``keras.Model`` that takes [categories int64 [N, k], numbers
            float32 [N, m]] and gives logits [N] or [N, 1].

        Raises:
            UsageError: bad labels, an unknown or impossible parameter, a model of another form.
        """
        settings, rest = common.own_settings(Settings(), parameters)
        common.require(
            settings,
            ("epochs", "patience", "batch", "rate"),
            warmup=0 <= settings.warmup < 1,
            validation_every=2 <= settings.validation_every <= settings.blocks,
        )
        common.check(train, y)
        valid = common.validation_rows(y, order, blocks=settings.blocks, every=settings.validation_every, seed=seed)
        _deterministic(threads)
        labels = np.ascontiguousarray(y, np.float32)
        identity = common.fingerprint([train.categories, train.numbers, labels, valid], parameters, seed)
        journal = Journal(checkpoints, identity, on_epoch)
        session = _Session(train, labels, settings, seed, lambda: _build(model, train, rest, seed), journal)
        return session.run(valid)

    def export(self, fitted: Fitted, package: Path, native: Path) -> None:
        """Write ``model.onnx`` into `package` and ``model.keras`` (Keras' own archive, no pickle) into `native`.

        Raises:
            UsageError: an operator has no form in ONNX; it is named.
        """
        import tf2onnx

        with common.quiet():
            model, _ = tf2onnx.convert.from_function(
                fitted.graph, input_signature=fitted.graph.input_signature, opset=_OPSET
            )
        common.refuse_unknown_operators(model, self.name)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "N"
        _rename(model.graph)
        (package / common.ONNX_FILE).write_bytes(model.SerializeToString(deterministic=True))
        fitted.network.save(native / "model.keras")
        (native / "keras_module.txt").write_text("keras", encoding="utf-8")

    def parity(self, fitted: Fitted, package: Path, encoded: Encoded) -> float:
        """Largest absolute difference between Keras and the exported graph."""
        return common.difference(fitted.predict(encoded), common.run_graph(package / common.ONNX_FILE, encoded))

    def flavors(self) -> Mapping[str, Mapping[str, Any]]:
        """MLflow's flavour of ``model.keras``."""
        return {
            "keras": {
                "data": "data",
                "keras_version": keras.__version__,
                "keras_backend": keras.backend.backend(),
                "save_exported_model": False,
            }
        }

    def libraries(self) -> Mapping[str, str]:
        """Versions that took part."""
        return {**common.versions("keras", "tf2onnx"), "tensorflow": tf.__version__}


def _rename(graph: Any) -> None:
    """Name everything by its place, order constants by first use: the exporter's names count up within a process."""
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return  # a branch or loop sees the names of the graph around it
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}
    seen = dict.fromkeys(name for node in graph.node for name in (*node.input, *node.output))
    names = {name: f"value_{i}" for i, name in enumerate(name for name in seen if name not in kept)}
    constants = {
        constant.name: type(constant).FromString(constant.SerializeToString()) for constant in graph.initializer
    }
    for i, node in enumerate(graph.node):
        node.name = f"node_{i}"
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for old, constant in constants.items():
        constant.name = names.get(old, old)
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(constants[name] for name in seen if name in constants)


# --- training -------------------------------------------------------------------------------------------------


def _deterministic(threads: int) -> None:
    """Deterministic kernels and a fixed number of threads, for the rest of the process: TensorFlow cannot go back."""
    tf.config.experimental.enable_op_determinism()
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def _build(model: Callable[..., Any], train: Encoded, rest: Mapping[str, Any], seed: int) -> Any:
    """The project's network, with initial weights and dropout that depend on the seed alone."""
    keras.utils.set_random_seed(common.derive(seed, "weights", 0) % 2**32)
    network = common.build(model, train, rest)
    if not isinstance(network, keras.Model) or len(network.inputs) != 2:
        raise UsageError(
            "the factory must give a keras.Model of two inputs, categories and numbers",
            where="the project's model factory",
        )
    return network


@dataclass
class _Progress:
    """A network on its way: everything needed to go on."""

    network: Any
    optimizer: Any
    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    best: list[NDArray[Any]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """Numbers and lists of arrays."""
        return {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "best": self.best,
            "network": [variable.numpy() for variable in self.network.variables],
            "optimizer": [variable.numpy() for variable in self.optimizer.variables],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a checkpoint's state."""
        for name in ("epoch", "best_epoch", "best_loss", "best"):
            setattr(self, name, state[name])
        for variables, values in ((self.network.variables, "network"), (self.optimizer.variables, "optimizer")):
            for variable, value in zip(variables, state[values], strict=True):
                variable.assign(value)

    def keep_if_best(self, loss: float) -> None:
        """Remember these weights when their loss is the lowest so far."""
        if loss < self.best_loss:
            self.best_loss, self.best_epoch, self.best = loss, self.epoch, self.network.get_weights()


@dataclass
class _Session:
    """One training: search for the epoch count and calibration, then perhaps the refit."""

    train: Encoded
    y: NDArray[np.float32]
    settings: Settings
    seed: int
    build: Callable[[], Any]
    journal: Journal

    def run(self, valid: NDArray[np.bool_]) -> Fitted:
        """Train on the rows outside `valid`, choose and calibrate on `valid`."""
        inside, outside = np.flatnonzero(~valid), np.flatnonzero(valid)
        progress = self._phase("search", inside, outside, self.settings.epochs)
        progress.network.set_weights(progress.best)
        slope, offset = common.platt(self._logits(progress.network, outside), self.y[outside])
        epochs = progress.best_epoch
        if self.settings.refit:
            progress = self._phase("refit", np.arange(len(valid)), None, epochs)
        shape = (self.train.categories.shape[1], self.train.numbers.shape[1])
        calibration = float(np.float32(slope)), float(np.float32(offset))
        return Fitted(progress.network, *calibration, shape, epochs, tuple(self.journal.history))

    def _phase(self, name: str, rows: NDArray[Any], valid: NDArray[Any] | None, epochs: int) -> _Progress:
        network = self.build()
        optimizer = keras.optimizers.AdamW(self.settings.rate, weight_decay=self.settings.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        optimizer.build(network.trainable_variables)
        progress = _Progress(network, optimizer)
        if name in self.journal.states:
            progress.restore(self.journal.states[name])
        step = _step(network, optimizer, (self.train.categories.shape[1], self.train.numbers.shape[1]))
        patience = math.inf if valid is None else self.settings.patience
        while progress.epoch < epochs and progress.epoch - progress.best_epoch < patience:
            self._epoch(name, progress, step, rows, valid)
        return progress

    def _epoch(self, phase: str, progress: _Progress, step: Any, rows: NDArray[Any], valid: Any) -> None:
        began = time.perf_counter()
        loss = self._pass(phase, progress, step, rows)
        progress.epoch += 1
        valid_loss, valid_auc = None, None
        if valid is not None:
            logits, y = self._logits(progress.network, valid), self.y[valid]
            valid_loss = float(np.mean(np.logaddexp(0, logits) - y * logits))
            valid_auc = auc(y, logits)
            progress.keep_if_best(common.finite(valid_loss))
        number = len(self.journal.history) + 1
        epoch = Epoch(number, loss, valid_loss, valid_auc, time.perf_counter() - began)
        self.journal.record(phase, progress.state(), epoch)

    def _pass(self, phase: str, progress: _Progress, step: Any, rows: NDArray[Any]) -> float:
        """One pass over `rows` in an order that is a function of seed, phase and epoch."""
        random = np.random.default_rng(common.derive(self.seed, phase, progress.epoch))
        steps = max(1, len(rows) // self.settings.batch)
        total = 0.0
        for number, batch in enumerate(np.array_split(random.permutation(rows), steps)):
            done = (progress.epoch + number / steps) / self.settings.epochs
            progress.optimizer.learning_rate = common.rate(done, self.settings.rate, self.settings.warmup)
            part = self.train.rows(batch)
            total += float(step(tf.constant(part.categories), tf.constant(part.numbers), self.y[batch])) * len(batch)
        return common.finite(total / len(rows))

    def _logits(self, network: Any, rows: NDArray[Any]) -> NDArray[np.float64]:
        part = self.train.rows(rows)
        blocks = np.array_split(np.arange(len(rows)), max(1, math.ceil(len(rows) / _PREDICT_ROWS)))
        found = [network([part.categories[b], part.numbers[b]], training=False).numpy().reshape(-1) for b in blocks]
        return np.concatenate(found).astype(np.float64)


def _step(network: Any, optimizer: Any, shape: tuple[int, int]) -> Any:
    """One step of gradient descent on a batch; answers its mean log loss before the step."""
    inputs = (
        tf.TensorSpec((None, shape[0]), tf.int64),
        tf.TensorSpec((None, shape[1]), tf.float32),
        tf.TensorSpec((None,), tf.float32),
    )

    @tf.function(input_signature=inputs)  # type: ignore[untyped-decorator]  # TensorFlow is untyped
    def step(categories: Any, numbers: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = tf.reshape(network([categories, numbers], training=True), [-1])
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits))
            penalised = loss + tf.add_n([tf.zeros(()), *network.losses])
        variables = network.trainable_variables
        optimizer.apply(tape.gradient(penalised, variables), variables)
        return loss

    return step
