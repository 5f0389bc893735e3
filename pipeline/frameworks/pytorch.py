"""PyTorch as the train stage sees it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch

from pipeline.domain.transformer import Encoded
from pipeline.frameworks import torch as framework
from pipeline.frameworks.torch import Fitted


class PyTorch:
    """Fit, export and compare; see `pipeline.frameworks.torch`."""

    name = "torch"
    fit = staticmethod(framework.fit)

    def export(self, fitted: Fitted, package: Path, native: Path) -> None:
        """Write ``model.onnx`` into `package`, and ``model.pt2`` (torch.export's archive, no pickle) into `native`."""
        framework.export_onnx(fitted, package / "model.onnx")
        rows = torch.export.Dim("N")
        example = (
            torch.zeros((2, fitted.shape[0]), dtype=torch.int64),
            torch.zeros((2, fitted.shape[1]), dtype=torch.float32),
        )
        shapes = {"categories": {0: rows}, "numbers": {0: rows}}
        program = torch.export.export(fitted.module.eval(), example, dynamic_shapes=shapes)
        torch.export.save(program, native / "model.pt2")

    def parity(self, fitted: Fitted, onnx: Path, encoded: Encoded) -> float:
        """Largest absolute difference between torch and the exported graph."""
        return framework.parity(fitted, onnx, encoded)

    def libraries(self) -> Mapping[str, str]:
        """Versions that took part."""
        return {name: version(name) for name in ("torch", "numpy", "onnx", "onnxruntime", "onnxscript")}
