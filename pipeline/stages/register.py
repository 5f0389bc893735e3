"""register: give the evaluated package a version in the team's own registered model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.ports import Registry


def run(
    model: str, run: str, trained: Mapping[str, Any], evaluated: Mapping[str, Any], *, registry: Registry
) -> Mapping[str, Any]:
    """Register the package.

    Returns:
        The fact: model, version, package digest and URI.
    """
    headline = ", ".join(f"{name} {value:.4f}" for name, value in evaluated["metrics"].items())
    version = registry.register(
        model,
        trained["uri"],
        run,
        run_id=trained["tracked_run"],
        package=trained["package"],
        about=f"Run {run}. {headline}. Evidence {evaluated['evidence']}.",
    )
    return {"model": model, "version": version, "package": trained["package"], "uri": trained["uri"]}
