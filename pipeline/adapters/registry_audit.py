"""What MLflow's registry really holds: aliases, versions, and the bytes behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pipeline.adapters.mlflow_store import CHAMPION, MlflowStore
from pipeline.domain.canonical import digest_tree
from pipeline.errors import IntegrityViolated


def alias_of(store: MlflowStore, name: str) -> tuple[str | None, dict[str, str]]:
    """Version that the champion alias points at, and Gatehouse's tags of that version; None and empty without one."""
    from mlflow.exceptions import MlflowException

    with store.talking(name) as client:
        try:
            version = client.get_model_version_by_alias(name, CHAMPION)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None, {}
            raise
    tags = {key: value for key, value in version.tags.items() if key in ("gatehouse.serial", "gatehouse.package")}
    return str(version.version), tags


def versions_of(store: MlflowStore, name: str) -> frozenset[str]:
    """Versions of a registered model."""
    with store.talking(name) as client:
        return frozenset(str(found.version) for found in client.search_model_versions(f"name = '{name}'"))


def packages_behind(
    store: MlflowStore, uris: Iterable[str], scratch: Path, advance: Callable[[], None]
) -> Mapping[str, str | None]:
    """Digest of the package behind each logged model, downloaded anew; None where it is not there any more."""
    found: dict[str, str | None] = {}
    for number, uri in enumerate(uris):
        try:
            found[uri] = digest_tree(store.download(f"{uri}/package", scratch / str(number)))
        except IntegrityViolated:
            found[uri] = None
        advance()
    return found
