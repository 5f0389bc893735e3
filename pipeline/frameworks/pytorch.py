"""PyTorch as the train stage sees it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

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
        framework.export_native(fitted, native / "model.pt2")

    def parity(self, fitted: Fitted, onnx: Path, encoded: Encoded) -> float:
        """Largest absolute difference between torch and the exported graph."""
        return framework.parity(fitted, onnx, encoded)

    def libraries(self) -> Mapping[str, str]:
        """Versions that took part."""
        return {name: version(name) for name in ("torch", "numpy", "onnx", "onnxruntime", "onnxscript")}
