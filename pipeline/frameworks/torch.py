"""PyTorch: deterministic training that can be killed and resumed, calibration, and export to ONNX.

Imported only where a network is trained. Invariants:
- a training is a pure function of its data, parameters and seed: permutation and dropout of an epoch depend on
  (seed, epoch) alone, so that a run resumed from a checkpoint ends with the very same weights;
- the validation part is the training rows' own; hold-out rows are never seen here;
- no pickle: checkpoints and weights are read with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.domain.canonical import digest_bytes, digest_json
from pipeline.domain.features import Encoded
from pipeline.errors import UsageError
from pipeline.ports import CheckpointStore

Parameters = Mapping[str, int | float | str | bool]
Factory = Callable[..., nn.Module]

_PREDICT_ROWS = 8192


@dataclass(frozen=True)
class Settings:
    """Training parameters; every other parameter goes to the model factory.

    Args:
        epochs: passes over the training part at most.
        patience: epochs without a better validation loss before stopping.
        batch: rows per step.
        rate: peak learning rate of the one-cycle schedule.
        warmup: share of all steps during which the rate rises.
        weight_decay: AdamW's, on weight matrices only.
        embedding_decay: the same for embedding tables.
        validation_blocks: the training window is cut in time into so many blocks …
        validation_every: … of which every n-th, counted back from the newest, is the validation part.
        refit: after the epoch count and the calibration are found, train once more on all rows.
    """

    epochs: int = 8
    patience: int = 3
    batch: int = 1024
    rate: float = 2e-3
    warmup: float = 0.2
    weight_decay: float = 0.05
    embedding_decay: float = 0.05
    validation_blocks: int = 8
    validation_every: int = 8
    refit: bool = False


@dataclass(frozen=True)
class Epoch:
    """One finished epoch. Losses are mean log loss in nats, `seconds` is wall time of this epoch."""

    epoch: int
    train_loss: float
    valid_loss: float
    valid_auc: float
    seconds: float
