"""Runs somebody's MLflow pyfunc model in a process of its own: this process never unpickles it.

The child gets no variable of this process's environment but the few below, a folder of its own as home and working
directory, and pipes. What it answers is read as plain numbers. It is killed when it does not answer in time, and
started again with the next question. It runs as the same user: this keeps a crash, a leak or a clash of imports
away, and secrets that are in the environment; it does not hold somebody who means harm.
"""

from __future__ import annotations

import io
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.transformer import Encoded
from pipeline.errors import GatehouseError, UsageError

MODEL = "pyfunc"
"""Folder of a package that holds the MLflow model."""

START_SECONDS = 120.0
ANSWER_SECONDS = 60.0
_WORKER = Path(__file__).with_name("isolated_worker.py")
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS")
_LENGTH = struct.Struct(">Q")
_MAX_ANSWER_BYTES = 1 << 30


class Isolated:
    """A pyfunc model, asked over pipes. Safe to use from several threads: they take turns.

    Args:
        files: the MLflow model's files, by path within it: bytes whose digest was checked.
        start, answer: seconds that loading and one answer may take.
    """

    def __init__(
        self, files: Mapping[str, bytes], *, start: float = START_SECONDS, answer: float = ANSWER_SECONDS
    ) -> None:
        self._start, self._answer = start, answer
        self._home = Path(tempfile.mkdtemp(prefix="gatehouse-isolated-"))
        for name, data in files.items():
            path = self._home / MODEL / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self._lock = threading.Lock()
        self._held: dict[str, subprocess.Popen[bytes]] = {}
        self._end = weakref.finalize(self, _end, self._held, self._home)

    def close(self) -> None:
        """End the child and remove its folder."""
        self._end()

    def predict(self, encoded: Encoded) -> NDArray[np.float64]:
        """Probabilities, float64 [n].

        Raises:
            UsageError: the model cannot be loaded.
            GatehouseError: it failed, did not answer in time, or answered something else than n numbers.
        """
        buffer = io.BytesIO()
        np.savez(buffer, categories=encoded.categories, numbers=encoded.numbers)
        with self._lock:
            child = self._held.get("child") or self._launch()
            try:
                answer = _ask(child, buffer.getvalue(), time.monotonic() + self._answer)
            except (GatehouseError, OSError) as error:
                _kill(self._held)
                what = error.what if isinstance(error, GatehouseError) else f"it ended: {self._last_words()}"
                raise GatehouseError(f"the isolated model failed: {what}", where=MODEL) from error
        return _numbers(answer, len(encoded))

    def _launch(self) -> subprocess.Popen[bytes]:
        with (self._home / "stderr").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-I", str(_WORKER), str(self._home / MODEL)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self._home,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ}
                | {"HOME": str(self._home), "TMPDIR": str(self._home), "MLFLOW_DISABLE_TELEMETRY": "true"},
                start_new_session=True,
            )
        self._held["child"] = child
        try:
            _read(child, time.monotonic() + self._start)
        except (GatehouseError, OSError) as error:
            _kill(self._held)
            raise UsageError(f"the isolated model cannot be loaded: {self._last_words()}", where=MODEL) from error
        return child

    def _last_words(self) -> str:
        lines = (self._home / "stderr").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"


def _ask(child: subprocess.Popen[bytes], question: bytes, until: float) -> bytes:
    """Write and read at once: a child that reads no further must not hold this process either."""
    sender = threading.Thread(target=_send, args=(child.stdin, question), daemon=True)
    sender.start()
    return _read(child, until)


def _send(pipe: IO[bytes] | None, data: bytes) -> None:
    assert pipe is not None
    with suppress(OSError, ValueError):  # the reader notices that the child has ended
        pipe.write(_LENGTH.pack(len(data)) + data)
        pipe.flush()


def _read(child: subprocess.Popen[bytes], until: float) -> bytes:
    (length,) = _LENGTH.unpack(_exactly(child, _LENGTH.size, until))
    if length > _MAX_ANSWER_BYTES:
        raise GatehouseError("its answer is larger than 1 GB")
    return _exactly(child, length, until)


def _exactly(child: subprocess.Popen[bytes], size: int, until: float) -> bytes:
    assert child.stdout is not None
    handle, parts = child.stdout.fileno(), bytearray()
    while len(parts) < size:
        ready, _, _ = select.select([handle], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise GatehouseError("it did not answer in time and was killed")
        part = os.read(handle, min(size - len(parts), 1 << 20))
        if not part:
            raise BrokenPipeError
        parts += part
    return bytes(parts)


def _numbers(answer: bytes, rows: int) -> NDArray[np.float64]:
    try:
        found: Any = np.load(io.BytesIO(answer), allow_pickle=False)
        numbers = np.asarray(found, np.float64).reshape(-1)
    except (ValueError, TypeError, EOFError) as error:
        raise GatehouseError("the isolated model answered something else than numbers", where=MODEL) from error
    if len(numbers) != rows:
        raise GatehouseError(f"the isolated model answered {len(numbers)} numbers for {rows} rows", where=MODEL)
    return numbers


def _kill(held: dict[str, subprocess.Popen[bytes]]) -> None:
    child = held.pop("child", None)
    if child is None:
        return
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _end(held: dict[str, subprocess.Popen[bytes]], home: Path) -> None:
    _kill(held)
    shutil.rmtree(home, ignore_errors=True)
