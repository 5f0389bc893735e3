"""Brings the server to what is wanted, and keeps it serving when nobody can be asked what that is.

Two threads: one asks the control plane and fetches, and may hang for as long as a network can; the other
watches the server's own disk, so that an operator's local rollback takes effect within a quarter of a second
even then.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from pipeline.errors import GatehouseError, IntegrityViolated, Unreachable
from pipeline.serving.contents import read
from pipeline.serving.signatures import Signatures, Verify
from pipeline.serving.slot import Servable, Slot
from pipeline.serving.store import Placed, State, now

EVERY_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0
_log = logging.getLogger("gatehouse.serving")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an environment's server should serve.

    Attributes:
        version, run: registered version and the run that made it.
        digest: package digest.
        source: artifact URI of the package.
        serial, row_hash: ledger row that sent the server there, and its hash; the serial grows with each change.
        signature: the package's newest signature, None when nobody signed it.
        others: newest signatures of packages that were wanted before, by digest: the server may go back to them.
    """

    version: str
    digest: str
    run: str
    source: str
    serial: int
    row_hash: str = ""
    signature: Mapping[str, Any] | None = None
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def signatures(self) -> list[tuple[str, Mapping[str, Any] | None]]:
        """All signatures by package digest."""
        return [(self.digest, self.signature), *self.others.items()]


class Step(Enum):
    """What to do about what is wanted."""

    NOTHING = "nothing"
    OVERRIDDEN = "overridden"
    OUTDATED = "outdated"
    INSTALL = "install"


def decide(wanted: Wanted | None, state: State, current: Placed | None) -> Step:
    """What to do, given what is wanted, what the disk records and what serves. Pure.

    A serial below the newest one seen is an answer from the past (a replica that lags) and is not followed;
    nor is anything that the operator's local rollback already knew of.
    """
    if wanted is None:
        return Step.NOTHING
    if state.override is not None and wanted.serial <= state.override.serial:
        return Step.OVERRIDDEN
    if wanted.serial < state.seen:
        return Step.OUTDATED
    if current is not None and (current.digest, current.serial) == (wanted.digest, wanted.serial):
        return Step.NOTHING
    return Step.INSTALL


@dataclass(frozen=True, slots=True)
class Progress:
    """What the follower shows in ``/version``.

    Attributes:
        activity: ``following``, ``fetching`` or ``loading``.
        wanted: the last answer of the control plane.
        unreachable_since: UTC time since which it does not answer; None while it does.
        asked: whether it ever answered.
        failed: digest and reason of a package that is refused until something else is wanted.
        retrying: digest and reason of one that will be tried again.
    """

    activity: str = "following"
    wanted: Wanted | None = None
    unreachable_since: str | None = None
    asked: bool = False
    failed: Mapping[str, str] | None = None
    retrying: Mapping[str, str] | None = None


@dataclass(slots=True)
class _Pause:
    """When to try again: twice as long after each failure, up to a ceiling."""

    failures: int = 0
    until: float = 0.0

    def failed(self, moment: float) -> None:
        self.failures += 1
        self.until = moment + min(EVERY_SECONDS * 2**self.failures, LONGEST_PAUSE_SECONDS)

    def clear(self) -> None:
        self.failures, self.until = 0, 0.0


class Follower:
    """Follows `wanted` for one slot.

    Args:
        slot: what serves.
        wanted: asks the control plane; raises when it cannot be reached.
        fetch: downloads what is wanted into an empty folder; raises Unreachable when that can be tried again.
        verify: checks a package's signature; None where none is demanded.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        slot: Slot,
        wanted: Callable[[], Wanted | None],
        fetch: Callable[[Wanted, Path], None],
        *,
        verify: Verify | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slot = slot
        self._wanted = wanted
        self._fetch = fetch
        self._signatures = Signatures(slot.store, verify)
        self._clock = clock
        self._asking, self._fetching = _Pause(), _Pause()
        self._refused: Wanted | None = None
        self._renewed: Wanted | None = None
        self._stamp = slot.store.stamp()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(turn,), name=f"gatehouse-{turn.__name__}", daemon=True)
            for turn in (self.follow, self.watch)
        ]
        self.progress = Progress()

    def start(self) -> None:
        """Begin to follow in the background."""
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = 2.0) -> None:
        """Ask the threads to end; a download that hangs is left to die with the process."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(seconds)

    def _run(self, turn: Callable[[], None]) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            try:
                turn()
            except Exception:  # the thread that keeps the server up to date must outlive any one turn
                _log.exception("following failed; trying again")

    # --- the control plane ----------------------------------------------------------------------------------

    def follow(self) -> None:
        """One turn: ask what is wanted and go there."""
        if self._clock() < self._asking.until:
            return
        try:
            wanted = self._wanted()
        except Exception as error:  # whatever the driver raises, the answer is the same: go on serving
            self._unreachable(error)
            return
        self._reached(wanted)
        current = self._slot.current
        step = decide(wanted, self._slot.store.state(), current.placed if current else None)
        if wanted is None or wanted == self._refused:
            return
        if step is not Step.INSTALL:
            self._renew(wanted)
        elif self._clock() >= self._fetching.until:
            self._go_to(wanted)

    def _unreachable(self, error: Exception) -> None:
        if self.progress.unreachable_since is None:
            _log.warning("control plane does not answer (%s); what serves goes on serving", _reason(error))
            self.progress = replace(self.progress, unreachable_since=now())
        self._asking.failed(self._clock())

    def _reached(self, wanted: Wanted | None) -> None:
        if self.progress.unreachable_since is not None:
            _log.warning("control plane answers again")
        self._asking.clear()
        changed = wanted != self.progress.wanted
        if changed:
            self._refused = None
            self._fetching.clear()
        self.progress = replace(
            self.progress,
            wanted=wanted,
            asked=True,
            unreachable_since=None,
            failed=None if changed else self.progress.failed,
            retrying=None if changed else self.progress.retrying,
        )
        if changed and wanted is not None:
            self._slot.store.change(lambda state: _seen(state, wanted))

    def _go_to(self, wanted: Wanted) -> None:
        try:
            model = self._obtain(wanted)
            placed = Placed(wanted.digest, wanted.version, wanted.run, wanted.serial, now())
            if self._slot.install(model, placed):
                _log.warning("version %s (%s) serves", wanted.version, wanted.digest)
        except Exception as error:  # a failed roll-out never ends the service of what serves
            self._not_there(wanted, error)
        else:
            self._fetching.clear()
            self.progress = replace(self.progress, activity="following", failed=None, retrying=None)

    def _not_there(self, wanted: Wanted, error: Exception) -> None:
        """Refuse for good what is wrong in itself; try again what could not be reached."""
        note = {"digest": wanted.digest, "version": wanted.version, "reason": _reason(error)}
        final = isinstance(error, GatehouseError) and not isinstance(error, Unreachable)
        if final:
            self._refused = wanted
            _log.error("version %s is refused: %s", wanted.version, note["reason"])
        else:
            self._fetching.failed(self._clock())
            _log.warning("version %s could not be fetched, trying again: %s", wanted.version, note["reason"])
        self.progress = replace(
            self.progress,
            activity="following",
            failed=note if final else None,
            retrying=None if final else note,
        )

    def _obtain(self, wanted: Wanted) -> Servable:
        """The wanted model: from memory, from this server's verified copy, or fetched, verified and kept."""
        if (warm := self._slot.warm(wanted.digest)) is not None:
            return warm
        own = self._slot.store.path(wanted.digest)
        if self._intact(wanted):
            self._signatures.accept(own, wanted.digest, wanted.signature)
        else:
            self._bring(wanted)
        self._say("loading")
        return self._slot.load(own, wanted.digest)

    def _intact(self, wanted: Wanted) -> bool:
        """Whether this server's own copy can be used; one that no trusted key signed is not fetched again for that."""
        if not self._slot.store.has(wanted.digest):
            return False
        own = self._slot.store.path(wanted.digest)
        try:
            read(own).require(wanted.digest, where=str(own))
        except IntegrityViolated as error:
            _log.error("own copy of version %s is damaged, fetching it again: %s", wanted.version, error.what)
            return False
        return True

    def _bring(self, wanted: Wanted) -> None:
        store = self._slot.store
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=store.folder) as folder:
            self._say("fetching")
            self._fetch(wanted, Path(folder))
            package = read(Path(folder))
            package.require(wanted.digest, where=wanted.source)
            self._signatures.accept(Path(folder), wanted.digest, wanted.signature)
            store.keep(package)

    def _renew(self, wanted: Wanted) -> None:
        """Take over new signatures of packages that are here already."""
        if wanted == self._renewed:
            return
        store = self._slot.store
        for digest, signature in wanted.signatures():
            if not store.has(digest):
                continue
            try:
                key = self._signatures.accept(store.path(digest), digest, signature)
            except GatehouseError as error:
                _log.error("no trusted key vouches for %s now: %s", digest, error.what)
            else:
                self._slot.vouched(digest, key)
        self._renewed = wanted

    def _say(self, activity: str) -> None:
        self.progress = replace(self.progress, activity=activity)

    # --- the server's own disk ------------------------------------------------------------------------------

    def watch(self) -> None:
        """One turn: follow a local rollback that another process wrote to the store."""
        stamp = self._slot.store.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            adopted = self._slot.adopt()
        except GatehouseError as error:
            self._slot.damage = f"the local rollback cannot be followed: {error.what}"
            _log.error("%s", self._slot.damage)
            return
        if adopted and (current := self._slot.current):
            _log.warning("local rollback: version %s (%s) serves", current.placed.version, current.placed.digest)


def _seen(state: State, wanted: Wanted) -> State:
    """The first hash seen of a row stays its anchor: another one later is what an anchor is there to show."""
    known = wanted.serial == state.seen and state.seen_hash
    if wanted.serial < state.seen or known:
        return state
    return replace(state, seen=wanted.serial, seen_hash=wanted.row_hash)


def _reason(error: Exception) -> str:
    return error.what if isinstance(error, GatehouseError) else f"{type(error).__name__}: {error}"
