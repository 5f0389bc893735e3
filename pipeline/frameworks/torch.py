"""PyTorch: deterministic training that can be killed and resumed, calibration, and export to ONNX.

Imported only where a network is trained. Invariants:
- a training is a pure function of its data, parameters, seed and number of threads: permutation and dropout of an
  epoch depend on (seed, phase, epoch) alone, so a run resumed from a checkpoint ends with the very same weights;
- the validation part is cut from the training rows; hold-out rows are never seen here;
- no pickle: checkpoints and weights are read with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.domain.canonical import digest_bytes, digest_json
from pipeline.domain.comparison import auc
from pipeline.domain.features import Encoded
from pipeline.errors import UsageError
from pipeline.ports import CheckpointStore

Parameters = Mapping[str, int | float | str | bool]
Factory = Callable[..., nn.Module]

_PREDICT_ROWS = 8192


@dataclass(frozen=True)
class Settings:
    """Training parameters. Every other parameter goes to the model factory.

    Args:
        epochs: length of the learning rate's cycle, and passes over the rows at most.
        patience: epochs without a lower validation loss before stopping.
        batch: rows per step.
        rate: peak learning rate (AdamW).
        warmup: share of all steps during which the rate rises; it then falls along a cosine.
        weight_decay: AdamW's, for weight matrices; biases have none.
        embedding_decay: the same for embedding tables.
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
    embedding_decay: float = 0.05
    blocks: int = 8
    validation_every: int = 8
    refit: bool = False


@dataclass(frozen=True)
class Epoch:
    """One finished epoch.

    `train_loss` and `valid_loss` are mean log loss in nats, `seconds` is wall time. During the refit there is no
    validation part: `valid_loss` and `valid_auc` are None.
    """

    epoch: int
    train_loss: float
    valid_loss: float | None
    valid_auc: float | None
    seconds: float


class Calibrated(nn.Module):
    """A network with its calibration: probability = sigmoid(slope · logit + offset) (Platt 1999)."""

    slope: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, slope: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("slope", torch.tensor(slope))
        self.register_buffer("offset", torch.tensor(offset))

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        """Probability float32 [N] of rows `categories` int64 [N, k], `numbers` float32 [N, m]."""
        logits: Tensor = self.network(categories, numbers)
        return torch.sigmoid(self.slope * logits + self.offset)


@dataclass(frozen=True)
class Fitted:
    """A trained, calibrated network.

    `shape` is how many categories and numbers a row has, `best_epoch` how many epochs the weights were trained,
    `history` what was seen on the way.
    """

    module: Calibrated
    shape: tuple[int, int]
    best_epoch: int
    history: tuple[Epoch, ...]

    @property
    def weights_digest(self) -> str:
        """Digest of the weights alone: name, dtype, shape and little-endian bytes of every tensor, by name."""
        return digest_json({name: _describe(tensor) for name, tensor in self.module.state_dict().items()})

    def predict(self, encoded: Encoded) -> NDArray[np.float64]:
        """Calibrated probabilities, float64 [n]."""
        return _forward(self.module, _tensors(encoded)).double().numpy()

    def save_native(self, path: Path) -> None:
        """Write the state_dict, to be read with ``torch.load(path, weights_only=True)``."""
        torch.save(self.module.state_dict(), path)


def fit(
    train: Encoded,
    y: NDArray[Any],
    model: Factory,
    parameters: Parameters,
    *,
    seed: int,
    order: NDArray[Any] | None,
    checkpoints: CheckpointStore,
    on_epoch: Callable[[Epoch], None],
    threads: int = 2,
) -> Fitted:
    """Train, stop early, calibrate and, with `refit`, train again on all rows.

    Args:
        train: the training rows.
        y: their labels, 0 or 1, [n].
        model: ``model(cardinalities, width, **parameters)`` gives a module whose logits are [N]; in training mode
            it may give [N, members], each of which is then trained on its own.
        parameters: fields of `Settings` and the factory's own.
        order: time of each row, [n]; None: rows are exchangeable and validation is drawn by `seed`.
        checkpoints: asked once for a state of this very training, given one after every epoch.
        on_epoch: called for every epoch; a resumed run first repeats those already done.

    Raises:
        UsageError: bad labels, non-finite numbers, an unknown or impossible parameter.
    """
    settings, rest = _settings(parameters)
    _check(train, y)
    valid = _validation_rows(len(y), order, settings, seed)
    for part, rows in (("validation part", valid), ("part that is trained on", ~valid)):
        if np.unique(y[rows]).size < 2:
            raise UsageError(f"the target has one class only in the {part}", where="target", fix="widen the window")
    data = _Data(*_tensors(train), torch.from_numpy(np.ascontiguousarray(y, np.float32)))
    fingerprint = _fingerprint(data, valid, parameters, seed)
    with _deterministic(threads):
        session = _Session(
            data=data,
            settings=settings,
            seed=seed,
            build=lambda: _build(model, train, rest, seed),
            journal=_Journal(checkpoints, fingerprint, on_epoch),
        )
        return session.run(valid)


def export_onnx(fitted: Fitted, path: Path) -> None:
    """Write the calibrated network as one ONNX file with a dynamic batch; equal weights give equal bytes.

    Inputs `categories` int64 [N, k] and `numbers` float32 [N, m], output `probability` float32 [N].
    """
    rows = torch.export.Dim("N")
    example = (
        torch.zeros((2, fitted.shape[0]), dtype=torch.int64),
        torch.zeros((2, fitted.shape[1]), dtype=torch.float32),
    )
    with _quiet():
        program = torch.onnx.export(
            fitted.module,
            example,
            input_names=["categories", "numbers"],
            output_names=["probability"],
            dynamic_shapes={"categories": {0: rows}, "numbers": {0: rows}},
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = program.model_proto
    _strip(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def parity(fitted: Fitted, path: Path, encoded: Encoded) -> float:
    """Largest absolute difference between onnxruntime on the file at `path` and torch, over `encoded`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {"categories": encoded.categories, "numbers": encoded.numbers}
    (probability,) = session.run(["probability"], inputs)
    return float(np.abs(probability.astype(np.float64) - fitted.predict(encoded)).max(initial=0.0))


# --- the loop ---------------------------------------------------------------------------------------------------


class _Data(NamedTuple):
    """All training rows as tensors."""

    categories: Tensor
    numbers: Tensor
    y: Tensor


@dataclass
class _Progress:
    """Everything a training needs to go on: what a checkpoint holds."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Tensors and plain values only."""
        plain = {"epoch": self.epoch, "best_epoch": self.best_epoch, "best_loss": self.best_loss}
        return plain | {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_weights": self.best_weights,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best_epoch = state["epoch"], state["best_epoch"]
        self.best_loss, self.best_weights = state["best_loss"], state["best_weights"]

    def keep_if_best(self, loss: float) -> None:
        """Remember these weights when their loss is the lowest so far."""
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, self.epoch
            self.best_weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}


class _Journal:
    """Checkpoints and the history of epochs, of one very training: another's checkpoint is ignored."""

    def __init__(self, store: CheckpointStore, fingerprint: str, on_epoch: Callable[[Epoch], None]) -> None:
        self._store, self._fingerprint, self._on_epoch = store, fingerprint, on_epoch
        self.history: list[Epoch] = []
        self.states: dict[str, dict[str, Any]] = {}
        data = store.latest()
        saved = torch.load(io.BytesIO(data), weights_only=True) if data else {}
        if saved.get("fingerprint") == fingerprint:
            self.states = saved["phases"]
            self.history = [Epoch(**row) for row in saved["history"]]
        for epoch in self.history:
            on_epoch(epoch)

    def record(self, phase: str, progress: _Progress, epoch: Epoch) -> None:
        """Save first, then tell: whoever is told may count on the checkpoint."""
        self.history.append(epoch)
        self.states[phase] = progress.state()
        if phase == "refit":  # the first phase's optimiser is of no more use
            self.states["search"].pop("optimizer", None)
        buffer = io.BytesIO()
        history = [asdict(row) for row in self.history]
        torch.save({"fingerprint": self._fingerprint, "phases": self.states, "history": history}, buffer)
        self._store.save(len(self.history), buffer.getvalue())
        self._on_epoch(epoch)


@dataclass
class _Session:
    """One training: search for the epoch count and calibration, then perhaps the refit."""

    data: _Data
    settings: Settings
    seed: int
    build: Callable[[], nn.Module]
    journal: _Journal

    def run(self, valid: NDArray[np.bool_]) -> Fitted:
        """Train on the rows outside `valid`, choose and calibrate on `valid`."""
        inside, outside = torch.from_numpy(np.flatnonzero(~valid)), torch.from_numpy(np.flatnonzero(valid))
        progress = self._phase("search", inside, outside, self.settings.epochs)
        progress.network.load_state_dict(progress.best_weights)
        slope, offset = _platt(self._logits(progress.network, outside), self.data.y[outside])
        if self.settings.refit:
            everything = torch.arange(len(valid))
            progress = self._phase("refit", everything, None, progress.best_epoch)
        network = progress.network.eval()
        shape = (self.data.categories.shape[1], self.data.numbers.shape[1])
        epochs = progress.best_epoch if not self.settings.refit else progress.epoch
        return Fitted(Calibrated(network, slope, offset).eval(), shape, epochs, tuple(self.journal.history))

    def _phase(self, name: str, rows: Tensor, valid: Tensor | None, epochs: int) -> _Progress:
        network = self.build()
        progress = _Progress(network, _optimizer(network, self.settings))
        if name in self.journal.states and "optimizer" in self.journal.states[name]:
            progress.restore(self.journal.states[name])
        elif name in self.journal.states:  # a finished search
            state = self.journal.states[name]
            progress.best_epoch, progress.best_weights = state["best_epoch"], state["best_weights"]
            return progress
        while progress.epoch < epochs and progress.epoch - progress.best_epoch < self._patience(valid):
            self._epoch(name, progress, rows, valid)
        return progress

    def _patience(self, valid: Tensor | None) -> float:
        return math.inf if valid is None else self.settings.patience

    def _epoch(self, phase: str, progress: _Progress, rows: Tensor, valid: Tensor | None) -> None:
        began = time.perf_counter()
        loss = self._pass(phase, progress, rows)
        progress.epoch += 1
        valid_loss, valid_auc = None, None
        if valid is not None:
            logits, y = self._logits(progress.network, valid), self.data.y[valid]
            valid_loss = float(_bce(logits, y))
            valid_auc = auc(y.numpy(), logits.numpy())
            progress.keep_if_best(valid_loss)
        number = len(self.journal.history) + 1
        epoch = Epoch(number, loss, valid_loss, valid_auc, time.perf_counter() - began)
        self.journal.record(phase, progress, epoch)

    def _pass(self, phase: str, progress: _Progress, rows: Tensor) -> float:
        """One pass over `rows` in an order that is a function of seed, phase and epoch."""
        torch.manual_seed(_derive(self.seed, phase, progress.epoch))
        shuffled = rows[torch.randperm(len(rows))]
        steps = max(1, len(rows) // self.settings.batch)
        progress.network.train()
        total = torch.zeros((), dtype=torch.float64)
        for step, batch in enumerate(shuffled.tensor_split(steps)):
            rate = _rate((progress.epoch + step / steps) / self.settings.epochs, self.settings)
            for group in progress.optimizer.param_groups:
                group["lr"] = rate
            logits = progress.network(self.data.categories[batch], self.data.numbers[batch])
            y = self.data.y[batch]
            loss = _bce(logits, y if logits.ndim == 1 else y[:, None].expand_as(logits))
            progress.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch 2.13 leaves it untyped
            progress.optimizer.step()
            total += loss.detach() * len(batch)
        return _finite(float(total) / len(rows))

    def _logits(self, network: nn.Module, rows: Tensor) -> Tensor:
        return _forward(network, (self.data.categories[rows], self.data.numbers[rows]))


def _forward(network: nn.Module, inputs: tuple[Tensor, Tensor]) -> Tensor:
    """Output [n] in evaluation mode, in blocks that keep memory flat."""
    network.eval()
    with torch.inference_mode():
        blocks = zip(*(tensor.split(_PREDICT_ROWS) for tensor in inputs), strict=True)
        return torch.cat([network(categories, numbers) for categories, numbers in blocks])


def _bce(logits: Tensor, y: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits, y)


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise UsageError("training diverged: the loss is not finite", where="rate", fix="lower the learning rate")
    return loss


def _rate(done: float, settings: Settings) -> float:
    """Learning rate at the share `done` of the cycle: linear up, then half a cosine down (Smith 2018)."""
    if done < settings.warmup:
        return settings.rate * (0.04 + 0.96 * done / settings.warmup)
    return settings.rate * 0.5 * (1 + math.cos(math.pi * (done - settings.warmup) / (1 - settings.warmup)))


def _optimizer(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW with weight decay for matrices and embeddings, none for vectors (biases, norms)."""
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in network.parameters():
        flat = parameter.squeeze().ndim < 2  # noqa: PLR2004 - a matrix has two axes
        decay = settings.embedding_decay if id(parameter) in tables else 0.0 if flat else settings.weight_decay
        groups.setdefault(decay, []).append(parameter)
    listed = [{"params": group, "weight_decay": decay} for decay, group in groups.items()]
    return torch.optim.AdamW(listed, lr=settings.rate, fused=True)


def _platt(logits: Tensor, y: Tensor) -> tuple[float, float]:
    """Slope and offset that minimise log loss of sigmoid(slope · logit + offset), by Newton's method."""
    design = torch.stack([logits.double(), torch.ones(len(logits), dtype=torch.float64)], dim=1)
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for _ in range(25):
        p = torch.sigmoid(design @ weights)
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + 1e-6 * torch.eye(2, dtype=torch.float64)
        weights = weights - torch.linalg.solve(hessian, design.T @ (p - y.double()))
    slope, offset = weights.tolist()
    # A slope at or below zero would turn the ranking round: then the validation part says nothing.
    return (slope, offset) if math.isfinite(slope) and slope > 0 else (1.0, 0.0)


# --- input and determinism ------------------------------------------------------------------------------------


def _settings(parameters: Parameters) -> tuple[Settings, dict[str, int | float | str | bool]]:
    """Split the parameters into training's own and the model factory's."""
    own = {item.name: type(item.default) for item in fields(Settings)}
    for name, kind in own.items():
        value = parameters.get(name, kind(1))
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise UsageError(f"{name} must be {kind.__name__}, not {value!r}", where=f"training.parameters.{name}")
    settings = Settings(**{name: value for name, value in parameters.items() if name in own})  # type: ignore[arg-type]  # checked above
    positive = ("epochs", "patience", "batch", "rate")
    low = [name for name in positive if getattr(settings, name) <= 0]
    if low or not 0 <= settings.warmup < 1 or not 2 <= settings.validation_every <= settings.blocks:
        where = f"training.parameters.{(low or ['warmup, blocks, validation_every'])[0]}"
        raise UsageError("a training parameter is out of its range", where=where, fix="see Settings' description")
    return settings, {name: value for name, value in parameters.items() if name not in own}


def _check(train: Encoded, y: NDArray[Any]) -> None:
    if len(y) != len(train.categories):
        raise UsageError(f"{len(y)} labels for {len(train.categories)} rows", where="target")
    if not np.isfinite(np.asarray(y, np.float64)).all():
        raise UsageError("the target holds values that are null or not finite", where="target")
    if not np.isin(y, (0, 1)).all():
        raise UsageError("the target must be 0 or 1", where="target")
    if np.unique(y).size < 2:  # noqa: PLR2004 - two classes
        raise UsageError("the target has one class only", where="target", fix="widen the window")
    if not np.isfinite(train.numbers).all():
        raise UsageError("an encoded number is not finite", where="features")


def _validation_rows(n: int, order: NDArray[Any] | None, settings: Settings, seed: int) -> NDArray[np.bool_]:
    """Mask of the validation part: every n-th block of time, counted back from the newest."""
    if order is None:
        sequence = np.random.default_rng(seed).permutation(n)
    else:
        sequence = np.argsort(order, kind="stable")
    chosen = np.arange(settings.blocks)[::-1] % settings.validation_every == 0
    mask = np.zeros(n, np.bool_)
    mask[sequence] = chosen[np.arange(n) * settings.blocks // n]
    return mask


def _build(model: Factory, train: Encoded, rest: Mapping[str, Any], seed: int) -> nn.Module:
    """The project's network, with initial weights that depend on the seed alone."""
    torch.manual_seed(_derive(seed, "weights", 0))
    cardinalities = tuple(int(c) + 1 for c in train.categories.max(axis=0))
    try:
        return model(cardinalities, train.numbers.shape[1], **rest)
    except TypeError as error:
        raise UsageError(f"the model factory refused its parameters: {error}", where="training.parameters") from error


def _derive(seed: int, phase: str, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {phase} {epoch}".encode()).digest()[:8], "big") >> 1


def _fingerprint(data: _Data, valid: NDArray[np.bool_], parameters: Parameters, seed: int) -> str:
    """Digest of all that decides the outcome: a checkpoint of any other training must not be taken up."""
    arrays = [tensor.numpy() for tensor in data] + [valid]
    digests = [digest_bytes(np.ascontiguousarray(array).tobytes()) for array in arrays]
    return digest_json({"data": digests, "parameters": dict(parameters), "seed": seed})


def _tensors(encoded: Encoded) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(encoded.categories), torch.from_numpy(encoded.numbers)


def _describe(tensor: Tensor) -> dict[str, Any]:
    array = tensor.detach().contiguous().numpy()
    little = array.astype(array.dtype.newbyteorder("<"))
    return {"dtype": array.dtype.name, "shape": list(array.shape), "bytes": digest_bytes(little.tobytes())}


@contextmanager
def _deterministic(threads: int) -> Iterator[None]:
    """Deterministic algorithms, a fixed number of threads; the caller's random state and settings come back."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(mode=True)
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(mode=before[1])


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter: its warnings concern its own insides."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _strip(model: Any) -> None:
    """Drop what the exporter notes about this machine (stack traces with paths): equal weights, equal bytes."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.functions):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
