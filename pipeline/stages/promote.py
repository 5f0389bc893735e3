"""promote: bring the approved bytes into an environment's own place and make them what is wanted there.

The package is downloaded, verified against the ledger, and uploaded again into the target environment's
experiment, because copying a version in MLflow copies no bytes. Then, under the ledger's lock, the environment
moves from the champion that was compared with to the new version: compare-and-swap. The alias follows.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.domain.canonical import digest_tree
from pipeline.domain.events import Draft, Event
from pipeline.domain.state import EnvironmentState, Placement, fold_environment
from pipeline.errors import ApprovalInvalid, IntegrityViolated
from pipeline.ports import Ledger, LedgerTransaction, Registry
from pipeline.stages.register import CARD

REGISTERED_AS: Mapping[str, str] = {"staging": "staging.{}", "production": "prod.{}"}


def bring(
    environment: str,
    model: str,
    run: str,
    registered: Mapping[str, Any],
    *,
    package: str,
    card: str,
    tags: Mapping[str, str],
    registry: Registry,
    folder: Path,
) -> Mapping[str, Any]:
    """Upload the verified package into the environment's experiment and register it there.

    Args:
        environment, model, run: where, what, by which run.
        registered: fact of the register stage: where the bytes are said to be.
        package: digest that the bytes must have: that of the approved subject, not what registration says.
        card: the model card: the version's description, and a file beside the package.
        tags: of the registered model.
        registry: the registry.
        folder: empty, for work in progress.

    Returns:
        Body of the promotion event: model, version, package, uri, run.

    Raises:
        IntegrityViolated: what the registry gives back is not what was registered.
    """
    fetched = registry.download(registered["uri"], folder / "fetched")
    verify_package(fetched / "package", package, str(registered["uri"]))
    clean = folder / "clean"
    shutil.copytree(fetched / "package", clean / "package")
    for name in ("MLmodel", "requirements.txt"):
        shutil.copyfile(fetched / name, clean / name)
    (clean / CARD).write_text(card, encoding="utf-8")
    target = REGISTERED_AS[environment].format(model)
    uri = registry.log_model(target, run, run_id=None, name=model, folder=clean)
    back = registry.download(f"{uri}/package", folder / "back")
    verify_package(back, package, uri)
    tags = {**tags, "gatehouse.environment": environment}
    version = registry.register(target, uri, run, run_id=None, package=package, about=card, tags=tags)
    return {"model": target, "version": version, "package": package, "uri": uri, "run": run}


def swap(
    environment: str,
    model: str,
    body: Mapping[str, Any],
    *,
    champion: str | None,
    recheck: Callable[[LedgerTransaction], Mapping[str, Any]],
    ledger: Ledger,
    actor: str,
) -> Event:
    """Make the package what the environment wants, if its champion is still the one compared with.

    Args:
        champion: package digest that must be wanted there now (None: nothing), or "any" for an environment
            whose champion was not part of an approval.
        recheck: run inside the lock; raises unless the approval still stands, answers what to record of it.

    Raises:
        ApprovalInvalid: another promotion came first, or the approval does not stand.
    """
    with ledger.transaction() as transaction:
        current = fold_environment(transaction.events(model=model, environment=environment))
        approved = recheck(transaction)
        _compare(current, champion, environment)
        previous = current.wanted.package if current.wanted else None
        record = {**body, "previous": previous, **approved}
        return transaction.append(Draft("model.promoted", actor, record, body["run"], model, environment))


def project_alias(placement: Placement, *, registry: Registry) -> None:
    """Write the alias and tags that show the ledger's state in MLflow. Safe to run again."""
    registry.set_alias(placement.model, placement.version, placement.tags)


def verify_package(folder: Path, expected: str, where: str) -> None:
    """Check a downloaded package folder.

    Raises:
        IntegrityViolated: its digest is not `expected`.
    """
    actual = digest_tree(folder)
    if actual != expected:
        raise IntegrityViolated(
            f"the package in the registry is not the one that was registered: {actual}, expected {expected}",
            where=where,
            fix="somebody overwrote it after registration: nothing was promoted; call security",
        )


def _compare(current: EnvironmentState, champion: str | None, environment: str) -> None:
    wanted = current.wanted.package if current.wanted else None
    if champion in ("any", wanted):
        return
    raise ApprovalInvalid(
        f"{environment} has moved on: this was compared with {champion or 'nothing'}, now {wanted} is there",
        where=environment,
        fix="evaluate a new run against the present champion",
    )
