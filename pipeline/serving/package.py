"""A model package, loaded from bytes that were verified. This process never runs code from it.

A package that says `isolated` holds somebody's pickle instead of a graph: it runs in a process of its own, where the
caller allows it at all, and nowhere else.

Also MLflow's loader module for its pyfunc flavour.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pipeline.domain.transformer import Encoded, Transformer
from pipeline.errors import GatehouseError, IntegrityViolated, PolicyRefused, UsageError
from pipeline.isolation import MODEL, Isolated
from pipeline.ports import Columns
from pipeline.serving.contents import Package, read
from pipeline.serving.payload import parse
from pipeline.serving.signature import Refused, Signature

# Key of onnx.StringStringEntryProto in a tensor whose data lies outside the model file (protobuf: field 1, 8
# bytes).
_EXTERNAL_DATA = b"\x0a\x08location"
_GRAPH = "model.onnx"
_PARTS = ("transformer.json", "signature.json", "gatehouse.json", "input_example.json")


class Model:
    """A verified package, ready to predict. Safe to use from several threads.

    Attributes:
        digest: package digest.
        signature: the columns it takes.
        signed_by: id of the key that vouched for the package; None where no signature is demanded.
        info: ``gatehouse.json``.
    """

    def __init__(self, package: Package, *, threads: int = 1, isolated: bool = False) -> None:
        """Load a package whose digest was checked.

        Args:
            package: the bytes.
            threads: onnxruntime's threads for one prediction.
            isolated: whether a package that holds a pickle may run, in a process of its own.

        Raises:
            UsageError: the package is incomplete, or does not answer its own input example.
            PolicyRefused: it holds a pickle and may not.
        """
        self.digest = package.digest
        self.signed_by: str | None = None
        missing = [name for name in _PARTS if name not in package.files]
        if missing:
            raise UsageError(f"the package lacks {', '.join(missing)}", where=package.digest)
        try:
            self.info: Mapping[str, Any] = json.loads(package.files["gatehouse.json"])
            self.signature = Signature.from_json(json.loads(package.files["signature.json"]))
            self._transformer = Transformer.from_json(json.loads(package.files["transformer.json"]))
            self._run = _runner(package, self.info, threads, isolated=isolated)
        except GatehouseError:
            raise
        except Exception as error:  # onnxruntime's and the parsers' errors share no base but Exception
            raise UsageError(f"the package cannot be loaded: {error}", where=package.digest) from error
        self._rehearse(package.files["input_example.json"])

    def encode(self, columns: Columns) -> Encoded:
        """What the graph is fed for these columns."""
        return self._transformer.apply(columns)

    def predict(self, columns: Columns) -> NDArray[np.float64]:
        """Probability for each row.

        Args:
            columns: one array of length n per input of the signature.

        Returns:
            float64 [n], finite.

        Raises:
            UsageError: a column does not fit.
            GatehouseError: the model's answer is not finite.
        """
        encoded = self.encode(columns)
        probability = np.asarray(self._run(encoded), dtype=np.float64).reshape(-1)
        if not np.isfinite(probability).all():
            raise GatehouseError("the model answers a number that is not finite", where=self.digest)
        return probability

    def _rehearse(self, example: bytes) -> None:
        """Predict the package's own example: a model that cannot answer never replaces one that can."""
        try:
            self.predict(parse(example, "application/json", self.signature))
        except Refused as error:
            raise UsageError(f"the package refuses its own input example: {error.what}", where=self.digest) from error
        except GatehouseError:
            raise
        except Exception as error:  # see __init__
            raise UsageError(f"the package fails on its own input example: {error}", where=self.digest) from error


def load(folder: Path, expected_digest: str, *, threads: int = 1, isolated: bool = False) -> Model:
    """Verify, then load, a package folder.

    Raises:
        IntegrityViolated: the bytes are not those of `expected_digest`; nothing of them was parsed.
        UsageError: the package is incomplete or cannot answer its own example.
        PolicyRefused: it holds a pickle, and `isolated` does not allow that.
    """
    package = read(folder)
    package.require(expected_digest, where=str(folder))
    return Model(package, threads=threads, isolated=isolated)


def _runner(
    package: Package, info: Mapping[str, Any], threads: int, *, isolated: bool
) -> Callable[[Encoded], NDArray[Any]]:
    """What answers for encoded rows: the graph in this process, or a pyfunc model in one of its own."""
    if not info.get("isolated"):
        if _GRAPH not in package.files:
            raise UsageError(f"the package lacks {_GRAPH}", where=package.digest)
        return _graph(_session(package.files[_GRAPH], threads))
    if not isolated:
        raise PolicyRefused(
            "the package holds a pickle (framework pyfunc), which this place does not run",
            where=package.digest,
            fix="train with a framework that exports to ONNX, or have the operators set [pyfunc] production = true",
        )
    files = {
        name.removeprefix(f"{MODEL}/"): data for name, data in package.files.items() if name.startswith(f"{MODEL}/")
    }
    return Isolated(files).predict


def _graph(session: onnxruntime.InferenceSession) -> Callable[[Encoded], NDArray[Any]]:
    feeds = [entry.name for entry in session.get_inputs()]

    def run(encoded: Encoded) -> NDArray[Any]:
        (output,) = session.run(["probability"], {name: getattr(encoded, name) for name in feeds})
        return output  # type: ignore[no-any-return]  # onnxruntime is untyped

    return run


def _session(graph: bytes, threads: int) -> onnxruntime.InferenceSession:
    if _EXTERNAL_DATA in graph:
        raise IntegrityViolated(
            "model.onnx takes tensors from another file, which no digest covers", where="model.onnx"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    unknown = {entry.name for entry in session.get_inputs()} - {"categories", "numbers"}
    if unknown or "probability" not in {entry.name for entry in session.get_outputs()}:
        raise UsageError("model.onnx must take categories and numbers and answer probability", where="model.onnx")
    return session


class PyFunc:
    """What MLflow's pyfunc flavour expects of a loader module: ``predict(frame, params)``."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def predict(self, frame: Any, params: Mapping[str, Any] | None = None) -> NDArray[np.float64]:
        """Probability for each row of a pandas frame; `params` has no effect."""
        del params  # MLflow looks for it in the call's signature
        columns = {
            entry.name: _column(frame.get(entry.name), entry.type, len(frame)) for entry in self._model.signature.inputs
        }
        return self._model.predict(columns)


def _load_pyfunc(path: str) -> PyFunc:
    """MLflow's entry. For looking at a model in MLflow's tools: nothing says here which digest to expect."""
    return PyFunc(Model(read(Path(path))))


def _column(series: Any, kind: str, rows: int) -> NDArray[Any]:
    if kind in ("double", "long"):
        return np.full(rows, np.nan) if series is None else np.asarray(series, dtype=np.float64)
    if kind == "datetime":
        absent = np.full(rows, np.datetime64("NaT"), dtype="datetime64[us]")
        return absent if series is None else np.asarray(series, dtype="datetime64[us]")
    if series is None:
        return np.full(rows, None, dtype=object)
    values = series.astype(object)
    return np.asarray(values.where(series.notna(), None), dtype=object)
