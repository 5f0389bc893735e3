"""Joins a project, its settings and the stage graph to the faces that are generated from them."""

from __future__ import annotations

from pathlib import Path

from pipeline.bootstrap.runner import account_of
from pipeline.config import load_project
from pipeline.config.kubeflow import load_kubeflow
from pipeline.faces import kubeflow


def kubeflow_text(project: Path, settings: Path) -> str:
    """The line of a project for Kubeflow Pipelines.

    Raises:
        UsageError: project or settings are wrong, or Kubeflow's SDK is missing.
    """
    return kubeflow.text(load_project(project).settings.name, load_kubeflow(settings), account_of)
