"""The model server's wiring: what it should serve comes from the ledger, the bytes from the registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.signatures import bundle_of
from pipeline.domain.gate import ENVIRONMENT
from pipeline.errors import Unreachable
from pipeline.serving.follower import Wanted
from pipeline.serving.store import KEPT_PACKAGES

FETCH_SECONDS = 300


def serve(place: Installation, environment: str, host: str, port: int, store: Path | None, model: str | None) -> None:
    """Serve an environment until told to stop."""
    from pipeline.serving import server

    place.server(environment)
    signing = place.settings.signing
    demanded = environment == ENVIRONMENT and signing is not None and signing.trusted
    server.serve(
        environment,
        host,
        port,
        store or place.settings.home / "servers" / environment,
        wanted=_asking(place, environment, model),
        fetch=fetch_in_subprocess,
        verify=partial(_verify, trusted=signing.trusted) if demanded and signing else None,
        isolated=environment != ENVIRONMENT or place.settings.pyfunc.production,
    )


def _verify(folder: Path, package: str, signature: Mapping[str, Any] | None, trusted: Sequence[Path]) -> str:
    from pipeline.adapters.signing import verify

    return verify(folder, signature, trusted, package)


def _asking(place: Installation, environment: str, model: str | None) -> Callable[[], Wanted | None]:
    """`wanted`, which reads the environment's history anew only when the ledger has grown."""
    seen: str | None = None
    answer: Wanted | None = None

    def ask() -> Wanted | None:
        nonlocal seen, answer
        head = place.reader.head()
        if head is not None and head.hash != seen:
            answer, seen = wanted(place, environment, model), head.hash
        return answer

    return ask


def wanted(place: Installation, environment: str, model: str | None) -> Wanted | None:
    """What the environment's server was last told to serve; None before the first roll-out."""
    events = place.reader.events(model=model, environment=environment)
    sent = [event for event in events if event.kind in ("rollout.requested", "model.rolled_back")]
    if not sent:
        return None
    last = sent[-1]
    body = last.body
    before = dict.fromkeys(
        event.body["package"] for event in reversed(sent) if event.body["package"] != body["package"]
    )
    signed = ((package, bundle_of(events, package)) for package in list(before)[:KEPT_PACKAGES])
    return Wanted(
        version=body["version"],
        digest=body["package"],
        run=body["run"],
        source=body["uri"],
        serial=last.seq,
        row_hash=last.hash,
        signature=bundle_of(events, body["package"]),
        others={package: bundle for package, bundle in signed if bundle is not None},
    )


def fetch_in_subprocess(wanted: Wanted, folder: Path) -> None:
    """Download a package in a process of its own: the server never imports the registry's client.

    Raises:
        Unreachable: it could not be had.
    """
    command = [sys.executable, "-m", "pipeline", "fetch", wanted.digest, wanted.source, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False, env=os.environ)
    if done.returncode:
        raise Unreachable(f"the package could not be fetched: {done.stderr.strip()[-500:]}", where=wanted.source)


def fetch(place: Installation, digest: str, uri: str, folder: Path) -> None:
    """Put the package with this digest into `folder`, from this machine's cache or the registry."""
    from pipeline.bootstrap.steps import package_folder

    shutil.copytree(package_folder(place, digest, uri), folder, dirs_exist_ok=True)
