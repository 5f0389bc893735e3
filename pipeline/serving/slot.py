"""The slot: the model that serves and the one kept warm behind it, exchanged in one assignment.

A request takes the slot's pair once and keeps it, so it finishes on the model it began with; an exchange
waits for no request and no request waits for an exchange. The disk is written first: a crash in between
restarts into the new state.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from pipeline.errors import GatehouseError, IntegrityViolated
from pipeline.ports import Columns
from pipeline.serving.signature import Signature
from pipeline.serving.store import Override, Placed, State, Store

_log = logging.getLogger("gatehouse.serving")


class Servable(Protocol):
    """What the slot needs of a model."""

    digest: str
    signature: Signature
    signed_by: str | None
    info: Any

    def predict(self, columns: Columns) -> NDArray[Any]:
        """Probability for each row, float64 [n]."""


Load = Callable[[Path, str], Servable]


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded model and what it is."""

    model: Servable
    placed: Placed


class Slot:
    """Current and previous model of one environment.

    Args:
        store: this server's disk.
        load: verifies and loads a package folder.
    """

    def __init__(self, store: Store, load: Load) -> None:
        self.store = store
        self.load = load
        self._pair: tuple[Served | None, Served | None] = (None, None)
        self._lock = threading.Lock()
        self.damage: str | None = None
        self.override: Override | None = None

    @property
    def current(self) -> Served | None:
        """The model that serves, None when there is none."""
        return self._pair[0]

    @property
    def pair(self) -> tuple[Served | None, Served | None]:
        """Current and previous, as of one moment."""
        return self._pair

    @property
    def anchor(self) -> Mapping[str, Any] | None:
        """The newest ledger row that this server saw: its place and its hash."""
        try:
            state = self.store.state()
        except IntegrityViolated:
            return None
        return {"seq": state.seen, "hash": state.seen_hash} if state.seen_hash else None

    def restore(self) -> None:
        """Load what the disk says was serving. No control plane is asked.

        A current copy that is damaged, or that no trusted key signed, falls back to the previous one; when that
        cannot be used either the slot stays empty, `damage` says why, and the server answers ``/ping`` with 503
        until it gets what is wanted.
        """
        with self._lock:
            self.store.sweep()
            try:
                state = self.store.state()
            except IntegrityViolated as error:
                self._damaged(f"{error.what}; set aside as {self.store.set_state_aside().name}")
                return
            self.override = state.override
            (current, reason), (previous, _) = self._try(state.current), self._try(state.previous)
            self._pair = (current, previous) if current else (previous, None)
            if state.current and not current:
                serving = f"version {previous.placed.version}" if previous else "nothing"
                self._damaged(f"version {state.current.version} on disk cannot be used, {reason}; serving {serving}")

    def install(self, model: Servable, placed: Placed) -> bool:
        """Serve `model` from the next request on; what served is kept warm. Flushed to disk first.

        Returns:
            False, with nothing changed, when a local override stands against it.
        """
        with self._lock:
            current, previous = self._pair
            behind = previous if current and current.placed.digest == placed.digest else current
            after = self.store.change(lambda state: _advance(state, placed, behind))
            self.override = after.override
            if after.current != placed:
                return False
            self._pair = (Served(model, placed), behind)
            self.damage = None
        self.store.prune([served.placed.digest for served in self._pair if served])
        return True

    def adopt(self) -> bool:
        """Follow a change that another process made on disk (a local rollback).

        Returns:
            Whether another model serves now.
        """
        with self._lock:
            state = self.store.state()
            self.override = state.override
            current, previous = self._pair
            if state.current is None or (current and current.placed.digest == state.current.digest):
                return False
            warm = {served.placed.digest: served for served in (current, previous) if served}
            model = found.model if (found := warm.get(state.current.digest)) else self._load(state.current)
            behind = warm.get(state.previous.digest) if state.previous else None
            self._pair = (Served(model, state.current), behind)
            return True

    def warm(self, digest: str) -> Servable | None:
        """The model of `digest` if it is in memory."""
        return next((served.model for served in self._pair if served and served.placed.digest == digest), None)

    def vouched(self, digest: str, key: str | None) -> None:
        """Note the key that vouches for a model in memory."""
        for served in self._pair:
            if served and served.placed.digest == digest:
                served.model.signed_by = key

    def _load(self, placed: Placed) -> Servable:
        return self.load(self.store.path(placed.digest), placed.digest)

    def _try(self, placed: Placed | None) -> tuple[Served | None, str]:
        if placed is None:
            return None, ""
        try:
            return Served(self._load(placed), placed), ""
        except GatehouseError as error:
            _log.error("copy of version %s cannot be used: %s", placed.version, error.what)
            return None, error.what

    def _damaged(self, what: str) -> None:
        self.damage = what
        _log.error("%s", what)


def _advance(state: State, placed: Placed, behind: Served | None) -> State:
    """The state after `placed` went live, or the same state when a newer local decision stands against it."""
    if state.override is not None and placed.serial <= state.override.serial:
        return state
    return replace(
        state,
        current=placed,
        previous=behind.placed if behind else None,
        seen=max(state.seen, placed.serial),
        override=None,
    )
