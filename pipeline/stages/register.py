"""register: give the evaluated package a version in the team's own registered model, its card beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.ports import Registry

CARD = "README.md"


def run(
    model: str,
    run: str,
    trained: Mapping[str, Any],
    *,
    card: str,
    tags: Mapping[str, str],
    registry: Registry,
    folder: Path,
) -> Mapping[str, Any]:
    """Register the package.

    Args:
        model, run, trained: what, by which run, and the fact of its train stage.
        card: the model card: the version's description, and a file beside the package, which no digest covers.
        tags: of the registered model.
        registry: the registry.
        folder: empty, for work in progress.

    Returns:
        The fact: model, version, package digest and URI.
    """
    (folder / CARD).write_text(card, encoding="utf-8")
    registry.attach(trained["uri"], folder / CARD)
    version = registry.register(
        model, trained["uri"], run, run_id=trained["tracked_run"], package=trained["package"], about=card, tags=tags
    )
    return {"model": model, "version": version, "package": trained["package"], "uri": trained["uri"]}
