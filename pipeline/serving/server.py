"""One environment's model server: restores, follows, answers, and ends without losing a request."""

from __future__ import annotations

import fcntl
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from pipeline.errors import UsageError
from pipeline.serving.app import App, Limits
from pipeline.serving.follower import Follower, Wanted
from pipeline.serving.package import Model, load
from pipeline.serving.prediction_log import PredictionLog
from pipeline.serving.signatures import Signatures, Verify
from pipeline.serving.slot import Load, Slot
from pipeline.serving.store import Store

PREDICTIONS = "predictions"
_DRAIN_SECONDS = 30
# The default of 5 ms is what a small request waits for the lock while a large one is parsed in a thread.
_SWITCH_SECONDS = 0.0005


def serve(
    environment: str,
    host: str,
    port: int,
    store: Path,
    wanted: Callable[[], Wanted | None],
    fetch: Callable[[Wanted, Path], None],
    *,
    verify: Verify | None = None,
    isolated: bool = False,
    threads: int = 1,
    limits: Limits | None = None,
    announce: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until SIGTERM or SIGINT; then stop accepting, finish what is in flight, flush the prediction log.

    For the main thread of a process of its own: it takes the signals.

    Args:
        environment: its name, for ``/version``.
        host, port: where to listen; port 0 takes a free one.
        store: this server's own disk.
        wanted: asks the control plane what to serve; raises when it cannot be reached.
        fetch: downloads a package into an empty folder; raises Unreachable when that can be tried again.
        verify: checks a package's signature before anything of it is loaded; None where none is demanded.
        isolated: whether packages that hold a pickle may run, each in a process of its own.
        threads: onnxruntime's threads for one prediction.
        limits: what one request may cost.
        announce: told the address once it is bound.

    Raises:
        UsageError: the address cannot be bound, or another server uses the store.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    with _alone(store), _bound(host, port) as listening:
        disk = Store(store)
        slot = Slot(disk, _loader(Signatures(disk, verify), threads, isolated=isolated))
        slot.restore()
        follower = Follower(slot, wanted, fetch, verify=verify)
        log = PredictionLog(store / PREDICTIONS)
        app = App(slot, log, lambda: describe(environment, slot, follower, log), limits or Limits())
        server = _server(app)
        try:
            with _ending_quietly(server):
                follower.start()
                announce(f"http://{host}:{listening.getsockname()[1]}")
                server.run(sockets=[listening])
        finally:
            follower.stop()
            app.close()
            log.close()


def _loader(signatures: Signatures, threads: int, *, isolated: bool) -> Load:
    def checked(folder: Path, digest: str) -> Model:
        signed_by = signatures.check(folder, digest)
        model = load(folder, digest, threads=threads, isolated=isolated)
        model.signed_by = signed_by
        return model

    return checked


def describe(environment: str, slot: Slot, follower: Follower, log: PredictionLog) -> Mapping[str, Any]:
    """The body of ``/version``."""
    current, previous = slot.pair
    progress = follower.progress
    state = progress.activity if progress.activity != "following" else ("serving" if current else "empty")
    return {
        "environment": environment,
        "state": state,
        "model": current.model.info.get("model") if current else None,
        "version": current.placed.version if current else None,
        "run": current.placed.run if current else None,
        "package": current.placed.digest if current else None,
        "signed_by": current.model.signed_by if current else None,
        "serial": current.placed.serial if current else None,
        "since": current.placed.since if current else None,
        "previous": previous.placed.digest if previous else None,
        "previous_version": previous.placed.version if previous else None,
        "wanted": asdict(replace(progress.wanted, signature=None, others={})) if progress.wanted else None,
        "ledger": slot.anchor,
        "failed": progress.failed,
        "retrying": progress.retrying,
        "override": asdict(slot.override) if slot.override else None,
        "damage": slot.damage,
        "control_plane": _control_plane(follower),
        "predictions": {
            "written": log.written,
            "dropped": log.dropped,
            "segments_removed": log.segments_removed,
            "trouble": log.trouble,
        },
    }


def _control_plane(follower: Follower) -> str:
    progress = follower.progress
    if progress.unreachable_since is not None:
        return f"unreachable since {progress.unreachable_since}"
    return "reachable" if progress.asked else "not asked yet"


def _server(app: App) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    return uvicorn.Server(config)


@contextmanager
def _ending_quietly(server: uvicorn.Server) -> Iterator[None]:
    """Catch the signal that uvicorn raises again after it has drained: an asked-for end is exit code 0."""

    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    try:
        listening = socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise UsageError(
            f"cannot listen: {error.strerror}",
            where=f"{host}:{port}",
            fix="end what listens there, or take another port",
        ) from error
    with listening:
        yield listening


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    store.mkdir(parents=True, exist_ok=True)
    with (store / "server.lock").open("wb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError("another model server uses this store", where=str(store)) from error
        yield
