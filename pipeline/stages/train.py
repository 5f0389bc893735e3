"""train: fit features and model on the training snapshot, and write the package that a server can load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.canonical import canonical, digest_tree
from pipeline.domain.features import Features
from pipeline.domain.rows import rows_of
from pipeline.domain.transformer import Encoded, Transformer
from pipeline.errors import PolicyRefused, UsageError
from pipeline.ports import CheckpointStore, Columns, Reporter, Tracking

PARITY = 1e-5
PARITY_ROWS = 10_000
Parameters = Mapping[str, bool | int | float | str]


class Epoch(Protocol):
    """One pass over the training rows, as the framework reports it; None where nothing was validated."""

    @property
    def epoch(self) -> int: ...  # noqa: D102
    @property
    def train_loss(self) -> float: ...  # noqa: D102
    @property
    def valid_loss(self) -> float | None: ...  # noqa: D102
    @property
    def valid_auc(self) -> float | None: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102


class Framework(Protocol):
    """A framework: fit, export, compare.

    `isolated`: its package holds no ONNX graph but somebody's code, which only a process of its own may run.
    """

    name: str
    isolated: bool

    def fit(
        self,
        train: Encoded,
        y: NDArray[np.float64],
        model: Callable[..., Any],
        parameters: Parameters,
        *,
        seed: int,
        order: NDArray[Any] | None,
        checkpoints: CheckpointStore,
        on_epoch: Callable[[Any], None],
        threads: int,
    ) -> Any:
        """Fit deterministically; go on from the newest checkpoint, where the framework has any."""

    def export(self, fitted: Any, package: Path, native: Path) -> None:
        """Write what a server runs (``model.onnx``) into `package`, the framework's own format into `native`."""

    def parity(self, fitted: Any, package: Path, encoded: Encoded) -> float:
        """Largest absolute difference between the framework and what is in the package."""

    def flavors(self) -> Mapping[str, Mapping[str, Any]]:
        """MLflow's description of the framework's own format, by flavour."""

    def libraries(self) -> Mapping[str, str]:
        """Versions that took part."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights, beside the data.

    Attributes:
        model: name of the registered model.
        target, time: columns.
        features: the declared features.
        factory: builds the untrained network.
        parameters, seed, threads: for training and for the factory.
    """

    model: str
    target: str
    time: str
    features: Features
    factory: Callable[..., Any]
    parameters: Parameters
    seed: int
    threads: int


def fit(
    recipe: Recipe,
    columns: Columns,
    *,
    framework: Framework,
    checkpoints: CheckpointStore,
    tracking: Tracking,
    run_id: str,
    reporter: Reporter,
) -> tuple[Transformer, Any]:
    """Fit the features and the model; every epoch's numbers go to the tracked run.

    Returns:
        The fitted features and the fitted model.

    Raises:
        UsageError: the target cannot be learnt from (one class, not finite).
    """
    y = labels(columns, recipe.target)
    transformer = recipe.features.fit(columns)
    encoded = transformer.apply(columns)
    with reporter.track("training") as tracker:

        def on_epoch(epoch: Epoch) -> None:
            numbers = {
                "train_loss": epoch.train_loss,
                "valid_loss": epoch.valid_loss,
                "valid_auc": epoch.valid_auc,
                "epoch_seconds": epoch.seconds,
            }
            known = {name: value for name, value in numbers.items() if value is not None}
            tracking.log(run_id, metrics=known, step=epoch.epoch)
            auc = "" if epoch.valid_auc is None else f", validation AUC {epoch.valid_auc:.4f}"
            tracker.say(f"epoch {epoch.epoch}: loss {epoch.train_loss:.4f}{auc}")
            tracker.advance()

        fitted = framework.fit(
            encoded,
            y,
            recipe.factory,
            recipe.parameters,
            seed=recipe.seed,
            order=columns[recipe.time],
            checkpoints=checkpoints,
            on_epoch=on_epoch,
            threads=recipe.threads,
        )
    return transformer, fitted


def write_package(
    folder: Path,
    recipe: Recipe,
    transformer: Transformer,
    fitted: Any,
    columns: Columns,
    *,
    framework: Framework,
) -> Mapping[str, Any]:
    """Write ``package/`` (what a server loads) and ``data/`` (the framework's own format) into `folder`.

    Returns:
        package digest, signature, and the largest difference between framework and exported graph.

    Raises:
        PolicyRefused: they differ by more than 1e-5 on 10,000 real rows.
    """
    package, native = folder / "package", folder / "data"
    package.mkdir(parents=True)
    native.mkdir()
    framework.export(fitted, package, native)
    sample = _spread(columns, PARITY_ROWS)
    difference = framework.parity(fitted, package, transformer.apply(sample))
    if not difference <= PARITY:
        raise PolicyRefused(
            f"the exported graph differs from {framework.name} by {difference:.2g}, more than {PARITY:g}",
            where="train, export to ONNX",
            fix="an operator of the model is not exported faithfully: use another one",
        )
    signature = _signature(transformer)
    names = [spec["name"] for spec in signature["inputs"]]
    about: dict[str, Any] = {
        "format": 1,
        "model": recipe.model,
        "framework": framework.name,
        "target": recipe.target,
        "time": recipe.time,
        "parameters": dict(recipe.parameters),
    }
    if framework.isolated:
        about["isolated"] = True
    first = {name: columns[name][:1] for name in names}
    example = {"dataframe_split": {"columns": names, "data": [list(row.values()) for row in rows_of(first)]}}
    for name, value in (
        ("transformer.json", transformer.to_json()),
        ("signature.json", signature),
        ("input_example.json", example),
        ("gatehouse.json", about),
    ):
        (package / name).write_bytes(canonical(value))
    return {
        "package": digest_tree(package),
        "signature": signature,
        "parity": {"rows": len(next(iter(sample.values()))), "max_abs_difference": difference},
    }


def labels(columns: Columns, target: str) -> NDArray[np.float64]:
    """The target as 0 and 1, float64 [n].

    Raises:
        UsageError: it is not binary, or has one class.
    """
    y = np.asarray(columns[target], dtype=np.float64)
    if not np.isin(y, (0.0, 1.0)).all():
        raise UsageError("the target has values other than 0 and 1", where=f"column {target}")
    if len(np.unique(y)) < 2:
        raise UsageError(
            "the target has one class only", where=f"column {target}", fix="take a window in which both occur"
        )
    return y


def _signature(transformer: Transformer) -> dict[str, Any]:
    inputs = [
        {"name": name, "type": "string" if kind in ("string", "object") else kind, "required": True}
        for name, kind in transformer.inputs.items()
    ]
    return {"inputs": inputs, "outputs": [{"name": "probability", "type": "double"}]}


def _spread(columns: Columns, rows: int) -> Columns:
    n = len(next(iter(columns.values())))
    index = np.unique(np.linspace(0, n - 1, min(rows, n)).astype(np.int64))
    return {name: values[index] for name, values in columns.items()}
