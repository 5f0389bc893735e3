"""What a model server keeps on its own disk: verified copies of packages, and which of them serves.

Invariants: a package folder appears under its digest only when complete and flushed; ``state.json`` is
replaced, never edited; every change of it is made under one file lock, because an operator's emergency
rollback is another process. With these two a server restarts, and goes back, while Jenkins, MLflow and
Postgres are down.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.domain.canonical import canonical
from pipeline.errors import IntegrityViolated, UsageError
from pipeline.serving.contents import Package, read

KEPT_PACKAGES = 4


@dataclass(frozen=True, slots=True)
class Placed:
    """One package that this server serves or kept warm.

    Attributes:
        digest: package digest.
        version, run: registered version and the run that made it.
        serial: ledger row that sent it here; grows with each change.
        since: UTC time at which it began to serve here.
    """

    digest: str
    version: str
    run: str
    serial: int
    since: str


@dataclass(frozen=True, slots=True)
class Override:
    """A rollback made on the spot: what was wanted up to `serial` is not applied again."""

    id: str
    serial: int
    actor: str
    reason: str
    at: str


@dataclass(frozen=True, slots=True)
class State:
    """What serves, what it can go back to, the newest ledger row seen, and a local override if one stands.

    `seen_hash` is that row's hash: an anchor of the ledger outside the database.
    """

    current: Placed | None = None
    previous: Placed | None = None
    seen: int = 0
    override: Override | None = None
    seen_hash: str = ""


def now() -> str:
    """The time, UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Store:
    """One environment's store under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state = folder / "state.json"
        self._packages = folder / "packages"
        self._packages.mkdir(parents=True, exist_ok=True)
        self._signatures = folder / "signatures"
        self._signatures.mkdir(exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the verified copy of a package lies, if there is one."""
        return self._packages / digest.removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        """Whether there is a copy; whether it is intact shows when it is loaded."""
        return self.path(digest).is_dir()

    def keep(self, package: Package) -> Path:
        """Write a package that was verified, from the bytes that were verified; answers its folder."""
        place = self.path(package.digest)
        making = self._packages / f".{uuid.uuid4().hex}"
        for name, data in package.files.items():
            (making / name).parent.mkdir(parents=True, exist_ok=True)
            _write_flushed(making / name, data)
        for folder in [making, *(path for path in making.rglob("*") if path.is_dir())]:
            _flush_folder(folder)
        self.discard(package.digest)
        making.rename(place)
        _flush_folder(self._packages)
        return place

    def keep_signature(self, digest: str, signature: Mapping[str, Any]) -> None:
        """Keep a package's signature, for when the copy is loaded while the control plane is down."""
        _replace(self._signature(digest), canonical(signature))

    def signature(self, digest: str) -> Mapping[str, Any] | None:
        """The kept signature of a package; None when there is none that can be read."""
        try:
            found: Mapping[str, Any] = json.loads(self._signature(digest).read_bytes())
        except (OSError, ValueError):
            return None
        return found

    def _signature(self, digest: str) -> Path:
        return self._signatures / f"{self.path(digest).name}.json"

    def discard(self, digest: str) -> None:
        """Remove a copy, at once out of sight and then from the disk."""
        if self.has(digest):
            doomed = self._packages / f".{uuid.uuid4().hex}"
            self.path(digest).rename(doomed)
            shutil.rmtree(doomed)

    def prune(self, keep: Sequence[str]) -> None:
        """Remove the oldest copies beyond a few, and signatures without a copy; what is in `keep` stays."""
        kept = {self.path(digest).name for digest in keep}
        copies = sorted(self._packages.glob("[!.]*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in copies[KEPT_PACKAGES:]:
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
        for path in self._signatures.glob("[!.]*"):
            if not (self._packages / path.stem).is_dir():
                path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a crash left half made. For the server's start: nobody else writes packages here."""
        for path in [*self._packages.glob(".*"), *self.folder.glob("fetch-*")]:
            shutil.rmtree(path, ignore_errors=True)
        for path in self._signatures.glob(".*"):
            path.unlink(missing_ok=True)

    def state(self) -> State:
        """The state on disk; empty when there is none.

        Raises:
            IntegrityViolated: the file is there and cannot be read.
        """
        try:
            return _parse(json.loads(self._state.read_bytes()))
        except FileNotFoundError:
            return State()
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityViolated(
                "the server's own state cannot be read",
                where=str(self._state),
                fix="move the file away: the server then asks the ledger what to serve",
            ) from error

    def change(self, how: Callable[[State], State]) -> State:
        """Replace the state by ``how(state)`` under the lock, flushed to disk before this returns."""
        with self._locked():
            before = self.state()
            after = how(before)
            if after != before:
                self._write(after)
            return after

    def set_state_aside(self) -> Path:
        """Move an unreadable state out of the way, kept for whoever looks into it."""
        aside = self._state.with_name(f"state.json.unreadable-{uuid.uuid4().hex[:8]}")
        self._state.rename(aside)
        return aside

    def stamp(self) -> tuple[int, int]:
        """Changes whenever the state on disk is replaced."""
        try:
            status = self._state.stat()
        except FileNotFoundError:
            return (0, 0)
        return (status.st_ino, status.st_mtime_ns)

    def _write(self, state: State) -> None:
        _replace(self._state, json.dumps({"format": 1, **asdict(state)}, indent=1).encode() + b"\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("wb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    # --- events that the ledger has not seen yet ------------------------------------------------------------

    def record(self, event: Mapping[str, Any]) -> None:
        """Append an event for the ledger, flushed to disk before this returns."""
        with self._locked(), self._pending.open("ab") as stream:
            stream.write(canonical(event) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def pending(self) -> list[Mapping[str, Any]]:
        """Events to be entered into the ledger, oldest first; a line torn by a crash was never acted on."""
        events = []
        for line in self._pending.read_bytes().splitlines() if self._pending.exists() else []:
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events

    def entered(self, ids: Sequence[str]) -> None:
        """Forget the events with these ids: the ledger has them now."""
        with self._locked():
            rest = [event for event in self.pending() if event["id"] not in set(ids)]
            _replace(self._pending, b"".join(canonical(event) + b"\n" for event in rest))

    @property
    def _pending(self) -> Path:
        return self.folder / "pending-events.jsonl"


def rollback_locally(store: Path, reason: str, actor: str) -> Mapping[str, Any]:
    """Send this machine's server back to the package it kept, without any control plane.

    The event is on disk before the server acts; the running server follows within a quarter of a second.

    Args:
        store: the server's store folder.
        reason, actor: for the record.

    Returns:
        The event, as it is to be entered into the ledger.

    Raises:
        UsageError: there is nothing to go back to.
        IntegrityViolated: the kept copy is not what was verified.
    """
    if not (store / "state.json").exists():
        raise UsageError("no model server has kept anything here", where=str(store))
    disk = Store(store)
    state = disk.state()
    if state.current is None or state.previous is None:
        raise UsageError("the server has nothing to go back to", where=str(store))
    read(disk.path(state.previous.digest)).require(state.previous.digest, where=str(store))
    override = Override(uuid.uuid4().hex, state.seen, actor, reason, now())
    event = {
        **asdict(override),
        "kind": "model.rolled_back_locally",
        "from": asdict(state.current),
        "to": asdict(state.previous),
    }
    disk.record(event)
    disk.change(lambda latest: _flip(latest, state, override))
    return event


def _flip(latest: State, decided_on: State, override: Override) -> State:
    if latest.current != decided_on.current or latest.previous != decided_on.previous:
        raise UsageError("the server moved on by itself meanwhile", fix="look at /version, then decide again")
    back = replace(decided_on.previous, since=override.at) if decided_on.previous else None
    return replace(latest, current=back, previous=decided_on.current, override=override)


def _parse(value: Mapping[str, Any]) -> State:
    current, previous, override = value["current"], value["previous"], value["override"]
    return State(
        Placed(**current) if current else None,
        Placed(**previous) if previous else None,
        int(value["seen"]),
        Override(**override) if override else None,
        value.get("seen_hash", ""),
    )


def _replace(path: Path, data: bytes) -> None:
    """Replace a file as a whole, flushed to disk before this returns."""
    making = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        _write_flushed(making, data)
        making.rename(path)
    finally:
        making.unlink(missing_ok=True)
    _flush_folder(path.parent)


def _write_flushed(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
