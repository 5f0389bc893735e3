"""A trained PyTorch network: its probabilities, its weights' digest, and its form as an ONNX graph.

No pickle: weights are read with ``weights_only=True``, and a server reads the ONNX file alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.domain.canonical import digest_json
from pipeline.domain.transformer import Encoded
from pipeline.frameworks.common import Epoch, describe, difference, quiet, run_graph

_PREDICT_ROWS = 8192


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
        weights = self.module.state_dict().items()
        return digest_json({name: describe(tensor.numpy()) for name, tensor in weights})

    def predict(self, encoded: Encoded) -> NDArray[np.float64]:
        """Calibrated probabilities, float64 [n]."""
        return forward(self.module, tensors(encoded)).double().numpy()

    def traced(self) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
        """Rows to trace the module with, and which of their dimensions vary."""
        rows = torch.export.Dim("N")
        example = (
            torch.zeros((2, self.shape[0]), dtype=torch.int64),
            torch.zeros((2, self.shape[1]), dtype=torch.float32),
        )
        return example, {"categories": {0: rows}, "numbers": {0: rows}}


def export_native(fitted: Fitted, path: Path) -> None:
    """Write torch.export's archive (no pickle), to be read with ``torch.export.load(path)``."""
    example, shapes = fitted.traced()
    torch.export.save(torch.export.export(fitted.module.eval(), example, dynamic_shapes=shapes), path)


def export_onnx(fitted: Fitted, path: Path) -> None:
    """Write the calibrated network as one ONNX file with a dynamic batch; equal weights give equal bytes.

    Inputs `categories` int64 [N, k] and `numbers` float32 [N, m], output `probability` float32 [N].
    """
    example, shapes = fitted.traced()
    with quiet():
        program = torch.onnx.export(
            fitted.module,
            example,
            input_names=["categories", "numbers"],
            output_names=["probability"],
            dynamic_shapes=shapes,
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
    return difference(fitted.predict(encoded), run_graph(path, encoded))


def forward(network: nn.Module, inputs: tuple[Tensor, Tensor]) -> Tensor:
    """Output [n] in evaluation mode, in blocks that keep memory flat."""
    network.eval()
    with torch.inference_mode():
        blocks = zip(*(torch.split(tensor, _PREDICT_ROWS) for tensor in inputs), strict=True)
        return torch.cat([network(categories, numbers) for categories, numbers in blocks])


def tensors(encoded: Encoded) -> tuple[Tensor, Tensor]:
    """The encoded rows as tensors, without a copy."""
    return torch.from_numpy(encoded.categories), torch.from_numpy(encoded.numbers)


def _strip(model: Any) -> None:
    """Drop what the exporter notes about this machine (stack traces with paths): equal weights, equal bytes."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.functions):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
