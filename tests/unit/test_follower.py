"""Following what is wanted, turn by turn; no thread and no waiting, except where a thread is the point."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import IntegrityViolated, Unreachable, UsageError
from pipeline.ports import Columns
from pipeline.serving.contents import read
from pipeline.serving.follower import LONGEST_PAUSE_SECONDS, Follower, Step, Wanted, decide
from pipeline.serving.signature import Signature
from pipeline.serving.signatures import Signatures, Verify
from pipeline.serving.slot import Slot
from pipeline.serving.store import Override, Placed, State, Store, rollback_locally


@dataclass
class StandInModel:
    """A model that is nothing but its digest."""

    digest: str
    signature: Signature = field(default_factory=lambda: Signature(()))
    signed_by: str | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, columns: Columns) -> NDArray[Any]:
        return np.zeros(1)


class World:
    """A control plane, a registry and a clock in memory, and a follower between them and a slot on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answer: Wanted | None = None
        self.trouble: Exception | None = None
        self.registry_trouble: Exception | None = None
        self.contents: dict[str, str] = {}
        self.asked = self.fetched = 0
        self.loaded: list[str] = []
        self.time = 0.0
        self.slot = Slot(Store(folder / "store"), self.load)
        self.follower = Follower(self.slot, self.wanted, self.fetch, clock=lambda: self.time)

    def load(self, folder: Path, expected: str) -> StandInModel:
        read(folder).require(expected, where=str(folder))
        if (folder / "weights").read_text().startswith("broken"):
            raise UsageError("the package cannot be loaded")
        self.loaded.append(expected)
        return StandInModel(expected)

    def wanted(self) -> Wanted | None:
        self.asked += 1
        if self.trouble:
            raise self.trouble
        return self.answer

    def fetch(self, wanted: Wanted, folder: Path) -> None:
        self.fetched += 1
        if self.registry_trouble:
            raise self.registry_trouble
        (folder / "weights").write_text(self.contents[wanted.version])

    def want(self, version: str, serial: int, contents: str | None = None) -> Wanted:
        """Promote a version whose package is `contents`."""
        made = self.folder / "made"
        made.mkdir(exist_ok=True)
        (made / "weights").write_text(contents or version)
        self.contents[version] = contents or version
        self.answer = Wanted(version, read(made).digest, f"run-{version}", f"models:/{version}", serial)
        return self.answer

    def turn(self) -> str | None:
        """One turn of both threads; answers the version that serves."""
        self.follower.follow()
        self.follower.watch()
        return self.slot.current.placed.version if self.slot.current else None


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


WANTED = Wanted("2", "sha256:two", "run", "uri", serial=20)
ONE = Placed("sha256:one", "1", "run", 10, "2026-11-23T20:00:00.000Z")
TWO = Placed("sha256:two", "2", "run", 20, "2026-11-23T20:00:00.000Z")


@pytest.mark.parametrize(
    ("wanted", "override", "seen", "current", "step"),
    [
        (None, None, 10, ONE, Step.NOTHING),
        (WANTED, None, 0, None, Step.INSTALL),
        (WANTED, None, 10, ONE, Step.INSTALL),
        (WANTED, None, 20, TWO, Step.NOTHING),
        (WANTED, None, 21, ONE, Step.OUTDATED),
        (WANTED, 20, 20, ONE, Step.OVERRIDDEN),
        (WANTED, 25, 25, ONE, Step.OVERRIDDEN),
        (WANTED, 19, 19, ONE, Step.INSTALL),
    ],
)
def test_what_to_do_about_what_is_wanted(
    wanted: Wanted | None, override: int | None, seen: int, current: Placed | None, step: Step
) -> None:
    standing = None if override is None else Override("id", override, "operator", "reason", "now")

    assert decide(wanted, State(current, None, seen, standing), current) is step


def test_nothing_wanted_serves_nothing(world: World) -> None:
    assert world.turn() is None


def test_what_is_wanted_is_fetched_and_served_once(world: World) -> None:
    world.want("1", serial=10)

    assert [world.turn(), world.turn(), world.turn()] == ["1", "1", "1"]
    assert world.fetched == 1


def test_going_back_to_the_previous_needs_neither_registry_nor_disk(world: World) -> None:
    world.want("1", serial=10)
    world.turn()
    world.want("2", serial=20)
    world.turn()
    loaded = list(world.loaded)
    world.registry_trouble = Unreachable("registry down")

    world.want("1", serial=30)

    assert world.turn() == "1"
    assert world.loaded == loaded


def test_a_version_with_a_copy_on_disk_is_not_fetched_again(world: World) -> None:
    for serial, version in enumerate(["1", "2", "3"], start=1):
        world.want(version, serial)
        world.turn()

    world.want("1", serial=4)

    assert world.turn() == "1"
    assert world.fetched == 3


def test_a_damaged_copy_on_disk_is_fetched_again(world: World) -> None:
    for serial, version in enumerate(["1", "2", "3"], start=1):
        first = world.want(version, serial) if version == "1" else None
        world.want(version, serial)
        world.turn()
        if first:
            damaged = world.slot.store.path(first.digest) / "weights"
    damaged.write_text("tampered")

    world.want("1", serial=4)

    assert world.turn() == "1"
    assert world.fetched == 4


def test_tampered_bytes_are_refused_for_good_and_the_current_model_goes_on(world: World) -> None:
    world.want("1", serial=10)
    world.turn()
    two = world.want("2", serial=20)
    world.contents["2"] = "tampered"

    for _ in range(5):
        assert world.turn() == "1"
        world.time += 100

    assert world.fetched == 2
    assert world.follower.progress.failed is not None
    assert world.follower.progress.failed["digest"] == two.digest
    assert "expected" in world.follower.progress.failed["reason"]
    assert not world.slot.store.has(two.digest)


def test_a_refused_version_is_tried_again_only_when_something_else_was_wanted(world: World) -> None:
    world.want("1", serial=10)
    world.contents["1"] = "tampered"
    world.turn()

    world.contents["1"] = "1"
    assert world.turn() is None

    world.want("1", serial=11)
    assert world.turn() == "1"
    assert world.follower.progress.failed is None


def test_a_model_that_cannot_be_loaded_is_refused_for_good(world: World) -> None:
    world.want("1", serial=10, contents="broken")

    world.turn()
    world.time += 100
    world.turn()

    assert world.fetched == 1
    assert world.follower.progress.failed is not None


@pytest.mark.parametrize("trouble", [Unreachable("registry down"), OSError(28, "No space left on device")])
def test_a_registry_that_does_not_answer_is_tried_again_with_pauses(world: World, trouble: Exception) -> None:
    world.want("1", serial=10)
    world.registry_trouble = trouble

    world.turn()
    world.turn()
    assert world.fetched == 1
    assert world.follower.progress.failed is None
    assert world.follower.progress.retrying is not None

    world.time += LONGEST_PAUSE_SECONDS
    world.registry_trouble = None
    assert world.turn() == "1"
    assert world.follower.progress.retrying is None


def test_something_else_wanted_does_not_wait_for_the_pause(world: World) -> None:
    world.want("1", serial=10)
    world.registry_trouble = Unreachable("registry down")
    world.turn()
    world.registry_trouble = None

    world.want("2", serial=20)

    assert world.turn() == "2"


def test_a_control_plane_that_is_down_is_said_and_asked_less_and_less(world: World) -> None:
    world.want("1", serial=10)
    world.turn()
    world.trouble = ConnectionError("postgres is away")
    asked = world.asked

    for _ in range(100):
        assert world.turn() == "1"
        world.time += 0.25

    assert world.follower.progress.unreachable_since is not None
    assert world.asked - asked < 12

    world.trouble = None
    world.time += LONGEST_PAUSE_SECONDS
    world.turn()
    assert world.follower.progress.unreachable_since is None


def test_an_answer_from_the_past_is_not_followed(world: World) -> None:
    world.want("1", serial=10)
    world.turn()
    old = world.answer
    world.want("2", serial=20)
    world.turn()

    world.answer = old

    assert world.turn() == "2"


def test_a_local_rollback_holds_until_something_newer_is_wanted(world: World) -> None:
    world.want("1", serial=10)
    world.turn()
    world.want("2", serial=20)
    world.turn()
    world.trouble = ConnectionError("down")

    rollback_locally(world.slot.store.folder, "answers nonsense", "operator")
    assert world.turn() == "1"

    world.trouble = None
    world.time += LONGEST_PAUSE_SECONDS
    assert [world.turn(), world.turn()] == ["1", "1"]

    world.want("1", serial=30)
    world.turn()
    assert world.slot.override is None
    assert world.slot.current is not None
    assert world.slot.current.placed.serial == 30

    world.want("3", serial=40)
    assert world.turn() == "3"


def test_a_rollback_also_holds_against_what_was_wanted_but_never_served(world: World) -> None:
    for serial, version in ((10, "1"), (20, "2")):
        world.want(version, serial)
        world.turn()
    world.registry_trouble = Unreachable("registry down")
    world.want("3", serial=30)
    world.turn()
    rollback_locally(world.slot.store.folder, "answers nonsense", "operator")

    world.registry_trouble = None
    world.time += LONGEST_PAUSE_SECONDS

    assert [world.turn(), world.turn()] == ["1", "1"]


def test_a_rollback_during_a_download_wins(world: World) -> None:
    for serial, version in ((10, "1"), (20, "2")):
        world.want(version, serial)
        world.turn()
    world.want("3", serial=30)
    fetch = world.fetch

    def meanwhile(wanted: Wanted, folder: Path) -> None:
        rollback_locally(world.slot.store.folder, "answers nonsense", "operator")
        fetch(wanted, folder)

    follower = Follower(world.slot, world.wanted, meanwhile)
    follower.follow()
    follower.watch()

    assert world.slot.current is not None
    assert world.slot.current.placed.version == "1"


def test_a_local_rollback_is_followed_while_the_control_plane_hangs(tmp_path: Path) -> None:
    world = World(tmp_path)
    for serial, version in ((10, "1"), (20, "2")):
        world.want(version, serial)
        world.turn()
    answers, adopted = threading.Event(), threading.Event()
    adopt = world.slot.adopt

    def hang() -> None:
        answers.wait(30)

    def seen() -> bool:
        changed = adopt()
        if changed:
            adopted.set()
        return changed

    world.slot.adopt = seen  # type: ignore[method-assign]  # to be told, instead of looking again and again
    follower = Follower(world.slot, hang, world.fetch)
    follower.start()
    try:
        rollback_locally(world.slot.store.folder, "answers nonsense", "operator")
        assert adopted.wait(10)
        assert world.slot.current is not None
        assert world.slot.current.placed.version == "1"
    finally:
        answers.set()
        follower.stop()


# --- signatures ---------------------------------------------------------------------------------------------


class Guarded(World):
    """A world whose server demands signatures; here a signature is the name of its key and the digest it is of."""

    def __init__(self, folder: Path, verify: Verify | None = None) -> None:
        super().__init__(folder)
        self.trusted = {"old"}
        self.verified = 0
        self.restart()

    def verify(self, folder: Path, digest: str, signature: Mapping[str, Any] | None) -> str:
        self.verified += 1
        if signature is None:
            raise IntegrityViolated("the package is not signed")
        if signature["key"] not in self.trusted or signature["of"] != digest or read(folder).digest != digest:
            raise IntegrityViolated("the package's signature does not hold")
        return str(signature["key"])

    def load(self, folder: Path, expected: str) -> StandInModel:
        signed_by = Signatures(self.slot.store, self.verify).check(folder, expected)
        model = super().load(folder, expected)
        model.signed_by = signed_by
        return model

    def restart(self) -> None:
        self.slot = Slot(Store(self.folder / "store"), self.load)
        self.slot.restore()
        self.follower = Follower(self.slot, self.wanted, self.fetch, verify=self.verify, clock=lambda: self.time)

    def sign(self, wanted: Wanted, key: str, *, of: str | None = None) -> None:
        self.answer = replace(wanted, signature={"key": key, "of": of or wanted.digest})

    @property
    def signed_by(self) -> str | None:
        return self.slot.current.model.signed_by if self.slot.current else None

    @property
    def reason(self) -> str:
        return (self.follower.progress.failed or {}).get("reason", "")


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    world = Guarded(tmp_path)
    world.sign(world.want("1", serial=10), "old")
    assert world.turn() == "1"
    return world


@pytest.mark.parametrize(
    ("key", "of", "says"),
    [(None, None, "not signed"), ("mallory", None, "does not hold"), ("old", "another package", "does not hold")],
)
def test_what_no_trusted_key_signed_is_refused_not_kept_and_the_current_model_goes_on(
    guarded: Guarded, key: str | None, of: str | None, says: str
) -> None:
    two = guarded.want("2", serial=20)
    if key:
        guarded.sign(two, key, of=of)

    for _ in range(3):
        assert guarded.turn() == "1"
        guarded.time += 100

    assert says in guarded.reason
    assert guarded.fetched == 2
    assert not guarded.slot.store.has(two.digest)
    assert guarded.slot.store.signature(two.digest) is None
    guarded.sign(two, "old")
    assert guarded.turn() == "2"


def test_a_restart_without_a_control_plane_judges_the_kept_signature(guarded: Guarded) -> None:
    guarded.trouble = ConnectionError("down")

    guarded.restart()

    assert (guarded.turn(), guarded.signed_by) == ("1", "old")


def test_a_copy_whose_kept_signature_is_gone_or_unreadable_is_not_loaded_until_the_ledger_answers(
    guarded: Guarded,
) -> None:
    (file,) = (guarded.slot.store.folder / "signatures").iterdir()
    guarded.trouble = ConnectionError("down")
    for how in (file.unlink, lambda: file.write_text("[torn")):
        how()
        guarded.restart()
        assert guarded.turn() is None
        assert guarded.slot.damage is not None
        assert "not signed" in guarded.slot.damage

    guarded.trouble = None
    guarded.time += LONGEST_PAUSE_SECONDS
    assert (guarded.turn(), guarded.fetched, guarded.slot.damage) == ("1", 1, None)


def test_a_retired_key_keeps_a_restart_from_loading_until_the_ledger_has_another_signature(guarded: Guarded) -> None:
    one = guarded.answer
    assert one is not None
    guarded.trusted = {"new"}
    assert guarded.turn() == "1"

    guarded.restart()

    assert guarded.turn() is None
    assert "does not hold" in (guarded.slot.damage or "")
    assert "does not hold" in guarded.reason
    guarded.sign(one, "new")
    assert (guarded.turn(), guarded.signed_by, guarded.fetched) == ("1", "new", 1)


def test_a_rotation_reaches_what_serves_and_what_it_would_go_back_to(guarded: Guarded) -> None:
    one = guarded.answer
    assert one is not None
    guarded.sign(guarded.want("2", serial=20), "old")
    assert guarded.turn() == "2"
    two = guarded.answer
    guarded.trusted = {"old", "new"}

    guarded.sign(two, "new")
    guarded.answer = replace(guarded.answer, others={one.digest: {"key": "new", "of": one.digest}})
    guarded.turn()

    assert guarded.signed_by == "new"
    guarded.trusted = {"new"}
    guarded.trouble = ConnectionError("down")
    guarded.restart()
    assert (guarded.turn(), guarded.signed_by) == ("2", "new")
    rollback_locally(guarded.slot.store.folder, "answers nonsense", "operator")
    assert guarded.turn() == "1"


def test_a_signature_by_a_key_not_trusted_here_does_not_displace_the_one_that_holds(guarded: Guarded) -> None:
    one = guarded.answer
    assert one is not None
    guarded.sign(one, "mallory")
    assert (guarded.turn(), guarded.signed_by) == ("1", "old")

    guarded.restart()
    assert (guarded.turn(), guarded.signed_by) == ("1", "old")

    for serial, version in ((20, "2"), (30, "3")):
        guarded.sign(guarded.want(version, serial), "old")
        guarded.turn()
    guarded.sign(replace(one, serial=40), "mallory")
    assert (guarded.turn(), guarded.signed_by) == ("1", "old")


def test_a_full_disk_does_not_lose_a_new_signature(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    one = guarded.answer
    assert one is not None
    guarded.trusted = {"old", "new"}
    guarded.sign(one, "new")

    def full(self: Store, digest: str, signature: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "keep_signature", full)
        with pytest.raises(OSError, match="No space left"):
            guarded.turn()
    guarded.turn()

    assert guarded.signed_by == "new"
    assert guarded.slot.store.signature(one.digest) == {"key": "new", "of": one.digest}


def test_a_signature_is_judged_once_while_nothing_changes_and_not_again_for_a_warm_copy(guarded: Guarded) -> None:
    one = guarded.answer
    assert one is not None
    guarded.sign(guarded.want("2", serial=20), "old")
    assert [guarded.turn() for _ in range(3)] == ["2"] * 3
    before = guarded.verified
    assert [guarded.turn() for _ in range(3)] == ["2"] * 3
    assert guarded.verified == before

    guarded.trusted = set()
    guarded.answer = replace(one, serial=30)

    assert guarded.turn() == "1"


def test_a_local_rollback_to_what_no_trusted_key_signed_is_not_followed_and_said(guarded: Guarded) -> None:
    guarded.sign(guarded.want("2", serial=20), "new")
    guarded.trusted = {"old", "new"}
    assert guarded.turn() == "2"
    guarded.trusted = {"new"}
    guarded.trouble = ConnectionError("down")
    guarded.restart()

    rollback_locally(guarded.slot.store.folder, "answers nonsense", "operator")

    assert guarded.turn() == "2"
    assert "local rollback cannot be followed" in (guarded.slot.damage or "")


def test_the_first_hash_seen_of_a_row_stays_the_anchor_when_the_ledger_is_rewritten(world: World) -> None:
    wanted = world.want("1", serial=10)
    world.answer = replace(wanted, row_hash="sha256:true")
    world.turn()
    world.answer = replace(wanted, row_hash="sha256:rewritten")
    world.turn()
    assert world.slot.anchor == {"seq": 10, "hash": "sha256:true"}

    world.answer = replace(world.want("2", serial=11), row_hash="sha256:next")
    world.turn()
    assert world.slot.anchor == {"seq": 11, "hash": "sha256:next"}
