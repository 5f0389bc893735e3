"""Signatures of packages: made when the gate opens, demanded before a roll-out, made anew when keys are rotated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.steps import package_folder
from pipeline.config import Project, SigningSettings
from pipeline.domain.events import Draft, Event
from pipeline.domain.gate import ENVIRONMENT
from pipeline.domain.state import RunState, subject_of
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.adapters.signing import Signer


def bundle_of(events: Iterable[Event], package: str) -> Mapping[str, Any] | None:
    """The newest signature of a package among events; None when nobody signed it."""
    found = None
    for event in events:
        if event.kind == "package.signed" and event.body["package"] == package:
            found = event.body["bundle"]
    return found


def sign_run(place: Installation, state: RunState, project: Project) -> None:
    """Sign what the gate lets through, unless this key has signed it already."""
    package = subject_of(state, ENVIRONMENT).package
    _sign(place, state.run, project.settings.name, package, state.fact("register")["uri"])


def sign_wanted(place: Installation, model: str | None) -> None:
    """Sign anew what production wants and what it would go back to: for when keys are rotated."""
    place = place.acting_as("approval")
    name = place.model_in(ENVIRONMENT, model)
    state = place.environment(name, ENVIRONMENT)
    for placement in (state.wanted, state.before):
        if placement is not None:
            _sign(place, placement.run, name, placement.package, placement.uri)


def require(place: Installation, model: str, environment: str) -> None:
    """Demand that what an environment wants is signed by a key that this machine trusts; where it trusts none, pass.

    Raises:
        IntegrityViolated: it is not signed, by no trusted key, or for other bytes.
    """
    signing = place.settings.signing
    wanted = place.environment(model, environment).wanted
    if environment != ENVIRONMENT or signing is None or not signing.trusted or wanted is None:
        return
    from pipeline.adapters.signing import verify

    bundle = bundle_of(place.ledger.events(model=model, environment=environment), wanted.package)
    key = verify(package_folder(place, wanted.package, wanted.uri), bundle, signing.trusted)
    place.reporter.note(f"version {wanted.version} is signed by {key[:23]}")


def _sign(place: Installation, run: str, model: str, package: str, uri: str) -> None:
    from pipeline.adapters import signing

    signer = signer_of(place.settings.signing)
    folder = package_folder(place, package, uri)
    key = signing.key_id(signer)
    done = [
        event
        for event in place.ledger.events(model=model, environment=ENVIRONMENT)
        if event.kind == "package.signed" and (event.body["package"], event.body["key"]) == (package, key)
    ]
    if done:
        place.reporter.note(f"signed already by {key[:23]}")
        return
    with place.cache.scratch() as scratch:
        bundle = signing.sign(folder, signer, Path(scratch))
    body = {"package": package, "key": key, "bundle": bundle}
    place.ledger.append(Draft("package.signed", place.actor, body, run, model, ENVIRONMENT))
    place.reporter.note(f"signed by {key[:23]}")


def signer_of(settings: SigningSettings | None) -> Signer:
    """Who signs here.

    Raises:
        UsageError: the settings name no key.
    """
    from pipeline.adapters.signing import Signer

    if settings is None or settings.key is None:
        raise UsageError("this installation's settings name no key to sign with", where="settings: signing.key")
    return Signer(settings.key, settings.key_password_file, settings.certificate, settings.chain)
