"""PyTorch as the train stage sees it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.domain.transformer import Encoded
from pipeline.frameworks import common
from pipeline.frameworks import torch as framework
from pipeline.frameworks.torch import Fitted


class PyTorch:
    """Fit, export and compare; see `pipeline.frameworks.torch`."""

    name = "torch"
    isolated = False
    fit = staticmethod(framework.fit)

    def export(self, fitted: Fitted, package: Path, native: Path) -> None:
        """Write ``model.onnx`` into `package`, and ``model.pt2`` (torch.export's archive, no pickle) into `native`."""
        framework.export_onnx(fitted, package / common.ONNX_FILE)
        framework.export_native(fitted, native / "model.pt2")

    def parity(self, fitted: Fitted, package: Path, encoded: Encoded) -> float:
        """Largest absolute difference between torch and the exported graph."""
        return framework.parity(fitted, package / common.ONNX_FILE, encoded)

    def flavors(self) -> Mapping[str, Mapping[str, Any]]:
        """MLflow's flavour of ``model.pt2``."""
        return {"pytorch": {"model_data": "data", "pytorch_version": self.libraries()["torch"], "code": None}}

    def libraries(self) -> Mapping[str, str]:
        """Versions that took part."""
        return common.versions("torch", "onnxscript")
