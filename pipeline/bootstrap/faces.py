"""Joins a project, its settings and the stage graph to the faces that are generated from them."""

from __future__ import annotations

from pathlib import Path

from pipeline.bootstrap.runner import account_of
from pipeline.config import load_project
from pipeline.config.kubeflow import load_kubeflow
from pipeline.errors import UsageError
from pipeline.faces import actions, kubeflow


def kubeflow_text(project: Path, settings: Path) -> str:
    """The line of a project for Kubeflow Pipelines.

    Raises:
        UsageError: project or settings are wrong, or Kubeflow's SDK is missing.
    """
    return kubeflow.text(load_project(project).settings.name, load_kubeflow(settings), account_of)


def actions_text(project: Path) -> str:
    """The line of a project for GitHub Actions.

    Raises:
        UsageError: the project is wrong, or is not named from the top of the repository.
    """
    if project.is_absolute() or ".." in project.parts:
        raise UsageError(
            "a workflow finds its project from the top of the repository",
            where=f"--project {project}",
            fix="go there, and name the project's folder from there",
        )
    return actions.text(load_project(project).settings.name, project.as_posix(), account_of)
