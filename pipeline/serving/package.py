"""A model package: read once, its bytes digested, and loaded from those same bytes. Never runs code from it.

Invariant: nothing of a package is parsed before its digest was compared, and nothing is read a second time
afterwards, so that a change of the files between check and use has no effect.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pipeline.domain.canonical import digest_bytes, digest_json
from pipeline.domain.features import Transformer
from pipeline.errors import GatehouseError, IntegrityViolated, UsageError
from pipeline.ports import Columns
from pipeline.serving.payload import parse
from pipeline.serving.signature import Refused, Signature

# Key of onnx.StringStringEntryProto in a tensor whose data lies outside the model file (protobuf: field 1, 8
# bytes).
_EXTERNAL_DATA = b"\x0a\x08location"
_PARTS = ("model.onnx", "transformer.json", "signature.json", "gatehouse.json", "input_example.json")


@dataclass(frozen=True, slots=True)
class Package:
    """The bytes of a package folder's files, by relative POSIX path, and the digest of those bytes."""

    files: Mapping[str, bytes]
    digest: str

    def require(self, expected: str, *, where: str) -> None:
        """Check the digest.

        Raises:
            IntegrityViolated: these are not the expected bytes.
        """
        if self.digest != expected:
            raise IntegrityViolated(
                f"the package is {self.digest}, expected {expected}",
                where=where,
                fix="do not load it; find out who changed these files, then restore them from the registry",
            )


def read(folder: Path) -> Package:
    """Read every file below `folder` once; the digest equals ``digest_tree(folder)``.

    Raises:
        IntegrityViolated: there is no package, or something in it is not a plain file (a link can change what
            it points at after the check).
    """
    if not folder.is_dir():
        raise IntegrityViolated("there is no package here", where=str(folder))
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise IntegrityViolated("a package holds plain files only, not links", where=str(path))
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
    digest = digest_json({name: digest_bytes(data) for name, data in files.items()})
    return Package(MappingProxyType(files), digest)


class Model:
    """A verified package, ready to predict. Safe to use from several threads.

    Attributes:
        digest: package digest.
        signature: the columns it takes.
        info: ``gatehouse.json``.
    """

    def __init__(self, package: Package, *, threads: int = 1) -> None:
        """Load a package whose digest was checked.

        Args:
            package: the bytes.
            threads: onnxruntime's threads for one prediction.

        Raises:
            UsageError: the package is incomplete, or does not answer its own input example.
        """
        self.digest = package.digest
        missing = [name for name in _PARTS if name not in package.files]
        if missing:
            raise UsageError(f"the package lacks {', '.join(missing)}", where=package.digest)
        try:
            self.info: Mapping[str, Any] = json.loads(package.files["gatehouse.json"])
            self.signature = Signature.from_json(json.loads(package.files["signature.json"]))
            self._transformer = Transformer.from_json(json.loads(package.files["transformer.json"]))
            self._session = _session(package.files["model.onnx"], threads)
        except GatehouseError:
            raise
        except Exception as error:  # onnxruntime's and the parsers' errors share no base but Exception
            raise UsageError(f"the package cannot be loaded: {error}", where=package.digest) from error
        self._feeds = [entry.name for entry in self._session.get_inputs()]
        self._rehearse(package.files["input_example.json"])

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
        encoded = self._transformer.apply(columns)
        feeds = {name: getattr(encoded, name) for name in self._feeds}
        (output,) = self._session.run(["probability"], feeds)
        probability = np.asarray(output, dtype=np.float64).reshape(-1)
        if not np.isfinite(probability).all():
            raise GatehouseError("the model answers a number that is not finite", where=self.digest)
        return probability

    def _rehearse(self, example: bytes) -> None:
        """Predict the package's own example: a model that cannot answer never replaces one that can."""
        try:
            self.predict(parse(example, "application/json", self.signature))
        except Refused as error:
            raise UsageError(
                f"the package refuses its own input example: {error.what}", where=self.digest
            ) from error
        except GatehouseError:
            raise
        except Exception as error:  # see __init__
            raise UsageError(
                f"the package fails on its own input example: {error}", where=self.digest
            ) from error


def load(folder: Path, expected_digest: str, *, threads: int = 1) -> Model:
    """Verify, then load, a package folder.

    Raises:
        IntegrityViolated: the bytes are not those of `expected_digest`; nothing of them was parsed.
        UsageError: the package is incomplete or cannot answer its own example.
    """
    package = read(folder)
    package.require(expected_digest, where=str(folder))
    return Model(package, threads=threads)


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
        raise UsageError(
            "model.onnx must take categories and numbers and answer probability", where="model.onnx"
        )
    return session


class PyFunc:
    """What MLflow's pyfunc flavour expects of a loader module: ``predict(frame, params)``."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def predict(self, frame: Any, params: Mapping[str, Any] | None = None) -> NDArray[np.float64]:
        """Probability for each row of a pandas frame; `params` has no effect."""
        columns = {
            entry.name: _column(frame.get(entry.name), entry.type, len(frame))
            for entry in self._model.signature.inputs
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
