"""What every framework shares: checks of the data, the validation part, calibration, digests, the exported graph.

Only numpy: nothing here depends on which framework trains.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.domain.canonical import digest_bytes, digest_json
from pipeline.domain.transformer import Encoded
from pipeline.errors import UsageError

ONNX_FILE = "model.onnx"
Parameters = Mapping[str, int | float | str | bool]
S = TypeVar("S")


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


# --- input ----------------------------------------------------------------------------------------------------


def own_settings(defaults: S, parameters: Parameters) -> tuple[S, dict[str, int | float | str | bool]]:
    """Split the parameters into training's own (fields of the dataclass `defaults`) and the model factory's.

    Raises:
        UsageError: one of training's own has another type than its default.
    """
    known = {item.name: type(getattr(defaults, item.name)) for item in fields(defaults)}  # type: ignore[arg-type]  # a dataclass
    own: dict[str, Any] = {name: value for name, value in parameters.items() if name in known}
    for name, value in own.items():
        kind = known[name]
        fits = type(value) is kind or (kind is float and type(value) is int)
        if not fits:
            where = f"training.parameters.{name}"
            raise UsageError(f"{name} must be {kind.__name__}, not {value!r}", where=where)
    return type(defaults)(**own), {name: value for name, value in parameters.items() if name not in known}


def require(settings: Any, positive: Sequence[str], **others: bool) -> None:
    """Check the range of training's own parameters: some above zero, and what else must hold, by name.

    Raises:
        UsageError: names the first that is out of its range.
    """
    wrong = [name for name in positive if getattr(settings, name) <= 0]
    wrong += [name for name, holds in others.items() if not holds]
    if wrong:
        where = f"training.parameters.{wrong[0]}"
        raise UsageError("a training parameter is out of its range", where=where, fix="see Settings' description")


def check(train: Encoded, y: NDArray[Any]) -> None:
    """Check that rows and labels can be learnt from.

    Raises:
        UsageError: counts differ, a label is neither 0 nor 1, one class only, a number is not finite.
    """
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


def validation_rows(
    y: NDArray[Any], order: NDArray[Any] | None, *, blocks: int, every: int, seed: int
) -> NDArray[np.bool_]:
    """Mask of the validation part: every n-th block of time, counted back from the newest.

    Args:
        y: labels, [n].
        order: time of each row, [n]; None: rows are exchangeable and the part is drawn by `seed`.
        blocks, every: the rows are cut into so many blocks, of which each `every`-th is taken.

    Raises:
        UsageError: one class is missing inside or outside.
    """
    n = len(y)
    drawn = np.random.default_rng(seed).permutation(n)
    sequence = drawn if order is None else np.argsort(order, kind="stable")
    chosen = np.arange(blocks)[::-1] % every == 0
    mask = np.zeros(n, np.bool_)
    mask[sequence] = chosen[np.arange(n) * blocks // n]
    for part, rows in (("validation part", mask), ("part that is trained on", ~mask)):
        if np.unique(y[rows]).size < 2:
            raise UsageError(f"the target has one class only in the {part}", where="target", fix="widen the window")
    return mask


def cardinalities(train: Encoded) -> tuple[int, ...]:
    """One more than the largest index of each encoded category among the training rows."""
    return tuple(int(c) + 1 for c in train.categories.max(axis=0)) if train.categories.shape[1] else ()


def build(factory: Callable[..., Any], train: Encoded, rest: Mapping[str, Any]) -> Any:
    """The project's untrained model.

    Raises:
        UsageError: the factory does not take these parameters.
    """
    try:
        return factory(cardinalities(train), train.numbers.shape[1], **rest)
    except TypeError as error:
        raise UsageError(f"the model factory refused its parameters: {error}", where="training.parameters") from error


# --- training -------------------------------------------------------------------------------------------------


def derive(seed: int, phase: str, epoch: int) -> int:
    """A random seed of 63 bits that is a function of its arguments alone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {phase} {epoch}".encode()).digest()[:8], "big") >> 1


def rate(done: float, peak: float, warmup: float) -> float:
    """Learning rate at the share `done` of the cycle: linear up, then half a cosine down (Smith 2018)."""
    if done < warmup:
        return peak * (0.04 + 0.96 * done / warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def finite(loss: float) -> float:
    """The loss, if it is a number.

    Raises:
        UsageError: it is not: the training diverged.
    """
    if not math.isfinite(loss):
        raise UsageError("training diverged: the loss is not finite", where="rate", fix="lower the learning rate")
    return loss


def platt(logits: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Slope and offset that minimise log loss of sigmoid(slope · logit + offset) (Platt 1999), by Newton's method."""
    z, labels = np.asarray(logits, np.float64), np.asarray(y, np.float64)
    design = np.stack([z, np.ones(len(z))], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(25):
        p = sigmoid(design @ weights)
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + 1e-6 * np.eye(2)
        weights = weights - np.linalg.solve(hessian, design.T @ (p - labels))
    slope, offset = weights.tolist()
    # A slope at or below zero would turn the ranking round: then the validation part says nothing.
    return (slope, offset) if math.isfinite(slope) and slope > 0 else (1.0, 0.0)


def sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-z)) without overflow, float64."""
    return 0.5 * (1 + np.tanh(0.5 * z))


# --- identity -------------------------------------------------------------------------------------------------


def describe(array: NDArray[Any]) -> dict[str, Any]:
    """Dtype, shape, and digest of the little-endian bytes."""
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
    return {"dtype": array.dtype.name, "shape": list(array.shape), "bytes": digest_bytes(little.tobytes())}


def fingerprint(arrays: Sequence[NDArray[Any]], parameters: Parameters, seed: int) -> str:
    """Digest of all that decides the outcome: a checkpoint of any other training must not be taken up."""
    digests = [digest_bytes(np.ascontiguousarray(array).tobytes()) for array in arrays]
    return digest_json({"data": digests, "parameters": dict(parameters), "seed": seed})


def versions(*names: str) -> dict[str, str]:
    """Installed versions of those libraries, and of what every training goes through."""
    return {name: version(name) for name in (*names, "numpy", "onnx", "onnxruntime")}


# --- the exported graph ---------------------------------------------------------------------------------------


def run_graph(path: Path, encoded: Encoded) -> NDArray[np.float64]:
    """What onnxruntime answers for the graph at `path`: probabilities, float64 [n]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = {item.name: getattr(encoded, item.name) for item in session.get_inputs()}
    (probability,) = session.run(["probability"], feeds)
    return np.asarray(probability, np.float64).reshape(-1)


def difference(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Largest absolute difference."""
    return float(np.abs(found - expected).max(initial=0.0))


def refuse_unknown_operators(model: Any, framework: str) -> None:
    """Check that ONNX knows each of the graph's operators.

    Raises:
        UsageError: names those that it does not know.
    """
    from onnx import defs

    unknown = sorted({node.op_type for node in model.graph.node if not defs.has(node.op_type, node.domain)})
    if unknown:
        raise not_exportable(f"operator {', '.join(unknown)}", framework)


def not_exportable(what: str, framework: str) -> UsageError:
    """The refusal of a model that has no form as an ONNX graph."""
    return UsageError(
        f"{what} of the {framework} model cannot be exported to ONNX",
        where="the project's model factory",
        fix='build the model of other parts, or use framework = "pyfunc" (runs in a process of its own)',
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence exporters: their warnings concern their own insides."""
    import logging
    import warnings

    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
