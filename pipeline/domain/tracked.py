"""What a run has in a DVC remote: its pointers, and which of its objects nobody needs any more. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pipeline.domain.events import Event

PUSHED, COLLECTED = "dvc.pushed", "dvc.collected"


def pointer(output: Mapping[str, Any], run: str, remote: str) -> str:
    """A ``.dvc`` file: with it, `dvc pull` returns the very bytes.

    Args:
        output: one of a push's outputs: name, md5, size, files (of a folder), digest (SHA-256, as the ledger has it).
        run: the run that made it.
        remote: name of the remote in the reader's DVC configuration.
    """
    folder = [f"  nfiles: {output['files']}"] if output["files"] is not None else []
    lines = [
        "outs:",
        f"- md5: {output['md5']}",
        f"  size: {output['size']}",
        *folder,
        "  hash: md5",
        f"  path: {output['name']}",
        f"  remote: {remote}",
        "meta:",
        "  gatehouse:",
        f"    run: {json.dumps(run)}",
        f"    digest: {output['digest']}",
    ]
    return "\n".join(lines) + "\n"


def latest(run: str, remote: str, events: Iterable[Event]) -> Mapping[str, Any] | None:
    """Body of a run's newest push to a remote that no collection has taken anything of; None if there is none."""
    found: Mapping[str, Any] | None = None
    for event in events:
        if event.body.get("remote") != remote:
            continue
        if event.kind == PUSHED and event.run == run:
            found = event.body
        elif event.kind == COLLECTED and found is not None and set(event.body["objects"]) & objects(found):
            found = None
    return found


def objects(push: Mapping[str, Any]) -> set[str]:
    """Ids of every object that a push's outputs consist of."""
    return {oid for output in push["outputs"] for oid in output["objects"]}


def unneeded(events: Iterable[Event], kept: Collection[str], remote: str) -> dict[str, str]:
    """Objects that Gatehouse itself put into a remote and that no kept run needs, each with the run that put it there.

    An object that was there before a push is somebody else's; what a kept run needs is needed under every address.

    Args:
        events: every push and collection, oldest first.
        kept: runs that stay.
        remote: address of the remote.
    """
    ours: dict[str, str] = {}
    needed: set[str] = set()
    for event in events:
        if event.kind == PUSHED and event.run in kept:
            needed |= objects(event.body)
        if event.body["remote"] != remote:
            continue
        if event.kind == PUSHED:
            ours |= dict.fromkeys(event.body["added"], str(event.run))
        else:
            ours = {oid: run for oid, run in ours.items() if oid not in event.body["objects"]}
    return {oid: run for oid, run in ours.items() if oid not in needed}
