"""PyTorch: deterministic training that can be killed and resumed, calibration, and export to ONNX.

Imported only where a network is trained. Invariants:
- a training is a pure function of its data, parameters, seed and number of threads;
- the validation part is cut from the training rows; hold-out rows are never seen here;
- no pickle: checkpoints and weights are read with ``weights_only=True``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.domain.canonical import digest_bytes, digest_json
from pipeline.domain.transformer import Encoded
from pipeline.errors import UsageError
from pipeline.frameworks.torch_fitted import Calibrated, Epoch, Fitted, export_native, export_onnx, parity, tensors
from pipeline.frameworks.torch_session import Data, Journal, Session, Settings, derive
from pipeline.ports import CheckpointStore

__all__ = ["Calibrated", "Epoch", "Fitted", "Settings", "export_native", "export_onnx", "fit", "parity"]

Parameters = Mapping[str, int | float | str | bool]
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
    _check(train, y)
    valid = _validation_rows(len(y), order, settings, seed)
    for part, rows in (("validation part", valid), ("part that is trained on", ~valid)):
        if np.unique(y[rows]).size < 2:
            raise UsageError(f"the target has one class only in the {part}", where="target", fix="widen the window")
    labels = torch.from_numpy(np.ascontiguousarray(y, np.float32))
    data = Data(*tensors(train), labels, _days(len(y), order))
    fingerprint = _fingerprint(data, valid, parameters, seed)
    with _deterministic(threads):
        session = Session(
            data=data,
            settings=settings,
            seed=seed,
            build=lambda: _build(model, train, rest, seed),
            journal=Journal(checkpoints, fingerprint, on_epoch),
        )
        return session.run(valid)


# --- input and determinism ------------------------------------------------------------------------------------


def _settings(parameters: Parameters) -> tuple[Settings, dict[str, int | float | str | bool]]:
    """Split the parameters into training's own and the model factory's."""
    known = {item.name: type(getattr(Settings(), item.name)) for item in fields(Settings)}
    own: dict[str, Any] = {name: value for name, value in parameters.items() if name in known}
    for name, value in own.items():
        kind = known[name]
        fits = type(value) is kind or (kind is float and type(value) is int)
        if not fits:
            where = f"training.parameters.{name}"
            raise UsageError(f"{name} must be {kind.__name__}, not {value!r}", where=where)
    settings = Settings(**own)
    positive = ("epochs", "patience", "batch", "rate")
    low = [name for name in positive if getattr(settings, name) <= 0]
    if (
        low
        or not 0 <= settings.warmup < 1
        or settings.day_effect < 0
        or not 2 <= settings.validation_every <= settings.blocks
    ):
        where = f"training.parameters.{(low or ['warmup, blocks, validation_every, day_effect'])[0]}"
        raise UsageError("a training parameter is out of its range", where=where, fix="see Settings' description")
    return settings, {name: value for name, value in parameters.items() if name not in known}


def _check(train: Encoded, y: NDArray[Any]) -> None:
    if len(y) != len(train.categories):
        raise UsageError(f"{len(y)} labels for {len(train.categories)} rows", where="target")
    if not np.isfinite(np.asarray(y, np.float64)).all():
        raise UsageError("the target holds values that are null or not finite", where="target")
    if not np.isin(y, (0, 1)).all():
        raise UsageError("the target must be 0 or 1", where="target")
    if np.unique(y).size < 2:
        raise UsageError("the target has one class only", where="target", fix="widen the window")
    if not np.isfinite(train.numbers).all():
        raise UsageError("an encoded number is not finite", where="features")


def _validation_rows(n: int, order: NDArray[Any] | None, settings: Settings, seed: int) -> NDArray[np.bool_]:
    """Mask of the validation part: every n-th block of time, counted back from the newest."""
    drawn = np.random.default_rng(seed).permutation(n)
    sequence = drawn if order is None else np.argsort(order, kind="stable")
    chosen = np.arange(settings.blocks)[::-1] % settings.validation_every == 0
    mask = np.zeros(n, np.bool_)
    mask[sequence] = chosen[np.arange(n) * settings.blocks // n]
    return mask


def _days(n: int, order: NDArray[Any] | None) -> Tensor:
    """Number of each row's day among the days there are; all 0 when `order` is no timestamp."""
    if order is None or order.dtype.kind != "M":
        return torch.zeros(n, dtype=torch.int64)
    return torch.from_numpy(np.unique(order.astype("datetime64[D]"), return_inverse=True)[1])


def _build(model: Factory, train: Encoded, rest: Mapping[str, Any], seed: int) -> nn.Module:
    """The project's network, with initial weights that depend on the seed alone."""
    torch.manual_seed(derive(seed, "weights", 0))
    cardinalities = tuple(int(c) + 1 for c in train.categories.max(axis=0))
    try:
        return model(cardinalities, train.numbers.shape[1], **rest)
    except TypeError as error:
        raise UsageError(f"the model factory refused its parameters: {error}", where="training.parameters") from error


def _fingerprint(data: Data, valid: NDArray[np.bool_], parameters: Parameters, seed: int) -> str:
    """Digest of all that decides the outcome: a checkpoint of any other training must not be taken up."""
    arrays = [tensor.numpy() for tensor in data] + [valid]
    digests = [digest_bytes(np.ascontiguousarray(array).tobytes()) for array in arrays]
    return digest_json({"data": digests, "parameters": dict(parameters), "seed": seed})


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
