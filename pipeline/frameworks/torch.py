"""PyTorch: deterministic training that can be killed and resumed, calibration, and export to ONNX.

Imported only where a network is trained. Invariants:
- a training is a pure function of its data, parameters, seed and number of threads;
- the validation part is cut from the training rows; hold-out rows are never seen here;
- no pickle: checkpoints and weights are read with ``weights_only=True``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.domain.transformer import Encoded
from pipeline.frameworks.common import (
    Epoch,
    Parameters,
    build,
    check,
    derive,
    fingerprint,
    own_settings,
    require,
    validation_rows,
)
from pipeline.frameworks.torch_fitted import Calibrated, Fitted, export_native, export_onnx, parity, tensors
from pipeline.frameworks.torch_session import Data, Journal, Session, Settings
from pipeline.ports import CheckpointStore

__all__ = ["Calibrated", "Epoch", "Fitted", "Settings", "export_native", "export_onnx", "fit", "parity"]

Factory = Callable[..., nn.Module]


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
    check(train, y)
    valid = validation_rows(y, order, blocks=settings.blocks, every=settings.validation_every, seed=seed)
    labels = torch.from_numpy(np.ascontiguousarray(y, np.float32))
    data = Data(*tensors(train), labels, _days(len(y), order))
    identity = fingerprint([*(part.numpy() for part in data), valid], parameters, seed)
    with _deterministic(threads):
        session = Session(
            data=data,
            settings=settings,
            seed=seed,
            build=lambda: _build(model, train, rest, seed),
            journal=Journal(checkpoints, identity, on_epoch),
        )
        return session.run(valid)


def _settings(parameters: Parameters) -> tuple[Settings, dict[str, int | float | str | bool]]:
    """Training's own parameters, checked, and the model factory's."""
    settings, rest = own_settings(Settings(), parameters)
    require(
        settings,
        ("epochs", "patience", "batch", "rate"),
        warmup=0 <= settings.warmup < 1,
        day_effect=settings.day_effect >= 0,
        validation_every=2 <= settings.validation_every <= settings.blocks,
    )
    return settings, rest


def _days(n: int, order: NDArray[Any] | None) -> Tensor:
    """Number of each row's day among the days there are; all 0 when `order` is no timestamp."""
    if order is None or order.dtype.kind != "M":
        return torch.zeros(n, dtype=torch.int64)
    return torch.from_numpy(np.unique(order.astype("datetime64[D]"), return_inverse=True)[1])


def _build(model: Factory, train: Encoded, rest: Mapping[str, Any], seed: int) -> nn.Module:
    """The project's network, with initial weights that depend on the seed alone."""
    torch.manual_seed(derive(seed, "weights", 0))
    return build(model, train, rest)  # type: ignore[no-any-return]  # a project's factory


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
