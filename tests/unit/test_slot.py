"""The slot and its disk: exchange, restart, damage, local rollback."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.domain.canonical import digest_tree
from pipeline.errors import IntegrityViolated, UsageError
from pipeline.ports import Columns
from pipeline.serving.contents import Package, read
from pipeline.serving.signature import Signature
from pipeline.serving.slot import Slot
from pipeline.serving.store import KEPT_PACKAGES, Placed, Store, rollback_locally


@dataclass
class StandInModel:
    """A model that is nothing but its digest."""

    digest: str
    signature: Signature = field(default_factory=lambda: Signature(()))
    signed_by: str | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, columns: Columns) -> NDArray[Any]:
        return np.zeros(1)


def load(folder: Path, expected: str) -> StandInModel:
    read(folder).require(expected, where=str(folder))
    return StandInModel(expected)


def package(tmp_path: Path, text: str) -> Package:
    folder = tmp_path / f"made-{text}"
    (folder / "deep").mkdir(parents=True, exist_ok=True)
    (folder / "deep" / "weights").write_text(text)
    (folder / "gatehouse.json").write_text("{}")
    return read(folder)


def placed(package: Package, serial: int) -> Placed:
    return Placed(package.digest, f"v{serial}", f"run-{serial}", serial, "2026-11-23T20:00:00.000Z")


def serving(tmp_path: Path, *texts: str) -> Slot:
    """A slot to which each of `texts` was deployed, in order."""
    slot = Slot(Store(tmp_path / "store"), load)
    for serial, text in enumerate(texts, start=1):
        made = package(tmp_path, text)
        folder = slot.store.keep(made)
        assert slot.install(load(folder, made.digest), placed(made, serial))
    return slot


def versions(slot: Slot) -> list[str | None]:
    return [served.placed.version if served else None for served in slot.pair]


def restarted(slot: Slot) -> Slot:
    again = Slot(Store(slot.store.folder), load)
    again.restore()
    return again


def damage(slot: Slot, served: int) -> None:
    found = slot.pair[served]
    assert found is not None
    (slot.store.path(found.placed.digest) / "deep" / "weights").write_text("tampered")


def test_an_exchange_keeps_what_served_before_warm(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one", "two")

    assert versions(slot) == ["v2", "v1"]
    assert slot.warm(package(tmp_path, "one").digest) is not None


def test_going_back_turns_the_two_around(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one", "two")
    one = package(tmp_path, "one")
    warm = slot.warm(one.digest)
    assert warm is not None

    slot.install(warm, placed(one, 3))

    assert versions(slot) == ["v3", "v2"]
    assert slot.current is not None
    assert slot.current.model is warm


def test_the_same_bytes_under_a_new_version_do_not_push_out_the_previous_ones(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one", "two", "two")

    assert versions(slot) == ["v3", "v1"]


def test_a_request_that_took_the_pair_keeps_its_model(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one")
    taken = slot.current
    assert taken is not None

    for serial, text in enumerate(["two", "three"], start=2):
        made = package(tmp_path, text)
        slot.install(load(slot.store.keep(made), made.digest), placed(made, serial))

    assert taken.model.digest == package(tmp_path, "one").digest


def test_a_restart_serves_the_same_and_keeps_the_same_warm(tmp_path: Path) -> None:
    assert versions(restarted(serving(tmp_path, "one", "two", "three"))) == ["v3", "v2"]


def test_an_empty_store_serves_nothing(tmp_path: Path) -> None:
    slot = Slot(Store(tmp_path / "store"), load)
    slot.restore()

    assert (slot.current, slot.damage) == (None, None)


def test_a_damaged_copy_falls_back_to_the_previous_one_and_says_so(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one", "two")
    damage(slot, 0)

    again = restarted(slot)

    assert versions(again) == ["v1", None]
    assert again.damage is not None
    assert again.damage.startswith("version v2 on disk cannot be used, the package is sha256:")
    assert again.damage.endswith("; serving version v1")


def test_two_damaged_copies_serve_nothing(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one", "two")
    damage(slot, 0)
    damage(slot, 1)

    again = restarted(slot)

    assert again.current is None
    assert again.damage is not None
    assert again.damage.endswith("; serving nothing")


def test_an_unreadable_state_is_set_aside_and_serves_nothing(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one")
    (slot.store.folder / "state.json").write_text('{"current": ')

    again = restarted(slot)

    assert again.current is None
    assert again.damage is not None
    assert [path.read_text() for path in slot.store.folder.glob("state.json.unreadable-*")] == ['{"current": ']


def test_what_a_crash_left_half_made_is_swept_and_never_served(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one")
    (slot.store.folder / "packages" / ".half").mkdir()
    (slot.store.folder / "fetch-half").mkdir()

    restarted(slot)

    assert not (slot.store.folder / "packages" / ".half").exists()
    assert not (slot.store.folder / "fetch-half").exists()


def test_a_state_that_cannot_be_written_leaves_the_current_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = serving(tmp_path, "one")
    two = package(tmp_path, "two")
    model = load(slot.store.keep(two), two.digest)

    def full(self: Store, state: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        slot.install(model, placed(two, 2))

    assert versions(slot) == ["v1", None]


def test_a_kept_copy_has_the_digest_of_its_package(tmp_path: Path) -> None:
    made = package(tmp_path, "one")
    store = Store(tmp_path / "store")

    assert digest_tree(store.keep(made)) == made.digest


def test_keeping_again_repairs_a_damaged_copy(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one")
    damage(slot, 0)

    folder = slot.store.keep(package(tmp_path, "one"))

    assert digest_tree(folder) == package(tmp_path, "one").digest


def test_old_copies_are_removed_but_never_those_in_use(tmp_path: Path) -> None:
    slot = serving(tmp_path, *(f"number {number}" for number in range(KEPT_PACKAGES + 3)))

    assert len(list((slot.store.folder / "packages").iterdir())) == KEPT_PACKAGES
    assert None not in versions(restarted(slot))


def test_a_signature_leaves_with_its_copy_and_a_torn_one_with_a_restart(tmp_path: Path) -> None:
    slot = serving(tmp_path)
    digests = []
    for serial in range(1, KEPT_PACKAGES + 3):
        made = package(tmp_path, f"number {serial}")
        slot.store.keep_signature(made.digest, {"by": serial})
        slot.install(load(slot.store.keep(made), made.digest), placed(made, serial))
        digests.append(made.digest)
    signatures = slot.store.folder / "signatures"
    (signatures / ".torn.json").write_text("{")

    assert slot.store.signature(digests[-1]) == {"by": KEPT_PACKAGES + 2}
    assert slot.store.signature(digests[0]) is None
    restarted(slot)
    assert sorted(path.stem for path in signatures.iterdir()) == sorted(
        path.name for path in (slot.store.folder / "packages").iterdir()
    )


def test_a_state_written_before_there_were_anchors_is_read(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one")
    file = slot.store.folder / "state.json"
    older = json.loads(file.read_text())
    del older["seen_hash"]
    file.write_text(json.dumps(older))

    again = restarted(slot)

    assert (versions(again), again.anchor) == (["v1", None], None)


def test_a_linked_file_is_refused(tmp_path: Path) -> None:
    made = tmp_path / "package"
    made.mkdir()
    (made / "model.onnx").symlink_to("/etc/hostname")

    with pytest.raises(IntegrityViolated, match="not links"):
        read(made)


# --- local rollback -----------------------------------------------------------------------------------------


def test_a_local_rollback_is_followed_by_the_running_server(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one", "two")

    rollback_locally(slot.store.folder, "answers nonsense", "operator")

    assert slot.adopt()
    assert versions(slot) == ["v1", "v2"]
    assert not slot.adopt()


def test_a_local_rollback_survives_a_restart(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one", "two")
    rollback_locally(slot.store.folder, "answers nonsense", "operator")

    again = restarted(slot)

    assert versions(again) == ["v1", "v2"]
    assert again.override is not None
    assert (again.override.actor, again.override.reason) == ("operator", "answers nonsense")


def test_a_local_rollback_leaves_a_record_for_the_ledger(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one", "two")

    event = rollback_locally(slot.store.folder, "answers nonsense", "operator")

    assert slot.store.pending() == [event]
    assert event["kind"] == "model.rolled_back_locally"
    assert (event["from"]["version"], event["to"]["version"]) == ("v2", "v1")
    assert (event["actor"], event["reason"], event["serial"]) == ("operator", "answers nonsense", 2)
    slot.store.entered([event["id"]])
    assert slot.store.pending() == []


def test_a_torn_record_is_passed_over(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one", "two")
    event = rollback_locally(slot.store.folder, "answers nonsense", "operator")
    with (slot.store.folder / "pending-events.jsonl").open("a") as stream:
        stream.write('{"id": "torn')

    assert slot.store.pending() == [event]


def test_what_the_rollback_knew_of_is_not_installed_again(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one", "two")
    rollback_locally(slot.store.folder, "answers nonsense", "operator")
    slot.adopt()
    two = package(tmp_path, "two")
    model = load(slot.store.path(two.digest), two.digest)

    assert not slot.install(model, placed(two, 2))
    assert versions(slot) == ["v1", "v2"]

    assert slot.install(model, placed(two, 3))
    assert versions(slot) == ["v3", "v1"]
    assert slot.override is None


def test_nothing_to_go_back_to_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model server"):
        rollback_locally(tmp_path / "elsewhere", "reason", "operator")
    with pytest.raises(UsageError, match="nothing to go back to"):
        rollback_locally(serving(tmp_path, "one").store.folder, "reason", "operator")


def test_a_rollback_to_damaged_bytes_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one", "two")
    damage(slot, 1)

    with pytest.raises(IntegrityViolated):
        rollback_locally(slot.store.folder, "reason", "operator")

    assert not slot.adopt()
    assert slot.store.pending() == []


def test_a_rollback_decided_on_something_that_changed_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = serving(tmp_path, "one", "two")
    record = Store.record

    def meanwhile(store: Store, event: Mapping[str, Any]) -> None:
        record(store, event)
        store.change(lambda state: replace(state, current=placed(package(tmp_path, "three"), 3)))

    monkeypatch.setattr(Store, "record", meanwhile)

    with pytest.raises(UsageError, match="moved on"):
        rollback_locally(slot.store.folder, "reason", "operator")


def test_the_state_on_disk_is_plain_json(tmp_path: Path) -> None:
    slot = serving(tmp_path, "one", "two")

    state = json.loads((slot.store.folder / "state.json").read_text())

    assert (state["current"]["version"], state["previous"]["version"], state["seen"]) == ("v2", "v1", 2)
