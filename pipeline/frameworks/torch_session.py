"""The training loop: phases, epochs, checkpoints. A pure function of data, settings and seed.

Permutation and dropout of an epoch depend on (seed, phase, epoch) alone and the learning rate on the share of
epochs done, so that a run resumed from a checkpoint ends with the very same weights as one never stopped.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.domain.comparison import auc
from pipeline.frameworks.common import Epoch, derive, finite, platt, rate
from pipeline.frameworks.torch_fitted import Calibrated, Fitted, forward
from pipeline.ports import CheckpointStore


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
        day_effect: step size, in learning rates, of an intercept for each day of the training rows. It takes up what
            the rows of a day have in common beyond their features, so that the network does not learn days by heart;
            it is thrown away afterwards. 0: none; only for rows ordered by a timestamp.
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
    day_effect: float = 0.0
    refit: bool = False


class Data(NamedTuple):
    """All training rows as tensors; `day` numbers the days from 0."""

    categories: Tensor
    numbers: Tensor
    y: Tensor
    day: Tensor


@dataclass
class _Progress:
    """Everything a training needs to go on: what a checkpoint holds."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    day_effects: nn.Parameter
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
            "day_effects": self.day_effects.detach(),
            "best_weights": self.best_weights,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.day_effects.data.copy_(state["day_effects"])
        self.epoch, self.best_epoch = state["epoch"], state["best_epoch"]
        self.best_loss, self.best_weights = state["best_loss"], state["best_weights"]

    def keep_if_best(self, loss: float) -> None:
        """Remember these weights when their loss is the lowest so far."""
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, self.epoch
            self.best_weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}


class Journal:
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
class Session:
    """One training: search for the epoch count and calibration, then perhaps the refit."""

    data: Data
    settings: Settings
    seed: int
    build: Callable[[], nn.Module]
    journal: Journal

    def run(self, valid: NDArray[np.bool_]) -> Fitted:
        """Train on the rows outside `valid`, choose and calibrate on `valid`."""
        inside, outside = torch.from_numpy(np.flatnonzero(~valid)), torch.from_numpy(np.flatnonzero(valid))
        progress = self._phase("search", inside, outside, self.settings.epochs)
        progress.network.load_state_dict(progress.best_weights)
        slope, offset = platt(self._logits(progress.network, outside), self.data.y[outside])
        if self.settings.refit:
            everything = torch.arange(len(valid))
            progress = self._phase("refit", everything, None, progress.best_epoch)
        network = progress.network.eval()
        shape = (self.data.categories.shape[1], self.data.numbers.shape[1])
        epochs = progress.best_epoch if not self.settings.refit else progress.epoch
        return Fitted(Calibrated(network, slope, offset).eval(), shape, epochs, tuple(self.journal.history))

    def _phase(self, name: str, rows: Tensor, valid: Tensor | None, epochs: int) -> _Progress:
        network = self.build()
        day_effects = nn.Parameter(torch.zeros(int(self.data.day.max()) + 1))
        progress = _Progress(network, _optimizer(network, day_effects, self.settings), day_effects)
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
        torch.manual_seed(derive(self.seed, phase, progress.epoch))
        shuffled = rows[torch.randperm(len(rows))]
        steps = max(1, len(rows) // self.settings.batch)
        progress.network.train()
        total = torch.zeros((), dtype=torch.float64)
        for step, batch in enumerate(shuffled.tensor_split(steps)):
            done = (progress.epoch + step / steps) / self.settings.epochs
            for group in progress.optimizer.param_groups:
                group["lr"] = rate(done, self.settings.rate, self.settings.warmup)
            logits = progress.network(self.data.categories[batch], self.data.numbers[batch])
            y, effect = self.data.y[batch], self.settings.day_effect * progress.day_effects[self.data.day[batch]]
            if logits.ndim > 1:
                y, effect = y[:, None].expand_as(logits), effect[:, None]
            loss = _bce(logits + effect, y)
            progress.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch 2.13 leaves it untyped
            progress.optimizer.step()
            total += loss.detach() * len(batch)
        return finite(float(total) / len(rows))

    def _logits(self, network: nn.Module, rows: Tensor) -> Tensor:
        return forward(network, (self.data.categories[rows], self.data.numbers[rows]))


def _bce(logits: Tensor, y: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits, y)


def _optimizer(network: nn.Module, day_effects: nn.Parameter, settings: Settings) -> torch.optim.Optimizer:
    """AdamW with weight decay for matrices and embeddings, none for vectors (biases, norms)."""
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    groups: dict[float, list[nn.Parameter]] = {0.0: [day_effects]}
    for parameter in network.parameters():
        flat = parameter.squeeze().ndim < 2
        decay = settings.embedding_decay if id(parameter) in tables else 0.0 if flat else settings.weight_decay
        groups.setdefault(decay, []).append(parameter)
    listed = [{"params": group, "weight_decay": decay} for decay, group in groups.items()]
    return torch.optim.AdamW(listed, lr=settings.rate, fused=True)
