"""A Keras training's checkpoints: numpy's own archive, read without pickle; another training's is ignored."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from pipeline.frameworks.common import Epoch
from pipeline.ports import CheckpointStore


class Journal:
    """The states of the phases and the history of epochs, of one very training."""

    def __init__(self, store: CheckpointStore, fingerprint: str, on_epoch: Callable[[Epoch], None]) -> None:
        self._store, self._fingerprint, self._on_epoch = store, fingerprint, on_epoch
        self.history: list[Epoch] = []
        self.states: dict[str, dict[str, Any]] = {}
        data = store.latest()
        if data is not None:
            self._restore(data)
        for epoch in self.history:
            on_epoch(epoch)

    def record(self, phase: str, state: dict[str, Any], epoch: Epoch) -> None:
        """Save first, then tell: whoever is told may count on the checkpoint."""
        self.history.append(epoch)
        self.states[phase] = state
        self._store.save(len(self.history), self._dump())
        self._on_epoch(epoch)

    def _dump(self) -> bytes:
        arrays = {
            f"{phase}/{name}/{i:05d}": array
            for phase, state in self.states.items()
            for name, values in state.items()
            if isinstance(values, list)
            for i, array in enumerate(values)
        }
        phases = {
            phase: {k: v for k, v in state.items() if not isinstance(v, list)} for phase, state in self.states.items()
        }
        about = {
            "fingerprint": self._fingerprint,
            "phases": phases,
            "lists": {
                phase: [k for k, v in state.items() if isinstance(v, list)] for phase, state in self.states.items()
            },
            "history": [asdict(row) for row in self.history],
        }
        buffer = io.BytesIO()
        np.savez(buffer, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
        return buffer.getvalue()

    def _restore(self, data: bytes) -> None:
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                arrays: Mapping[str, Any] = {name: archive[name] for name in archive.files}
            about = json.loads(arrays["about"].tobytes())
        except (ValueError, KeyError, OSError):
            return  # a checkpoint of another framework's training, or none of ours
        if about["fingerprint"] != self._fingerprint:
            return
        self.history = [Epoch(**row) for row in about["history"]]
        for phase, values in about["phases"].items():
            lists = {
                name: [arrays[key] for key in sorted(arrays) if key.startswith(f"{phase}/{name}/")]
                for name in about["lists"][phase]
            }
            self.states[phase] = {**values, **lists}
