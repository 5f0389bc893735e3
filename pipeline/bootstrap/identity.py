"""Who decided: asked of Jenkins, not of the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import JenkinsSettings
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.adapters.jenkins_client import Jenkins

TOKEN_VARIABLE = "GATEHOUSE_JENKINS_TOKEN"  # noqa: S105  # the name of a variable that names a file


def submitter(jenkins: JenkinsSettings, build: str, input_id: str, run: str, *, approved: bool) -> str:
    """The user whom Jenkins authenticated when the build's input was answered.

    Raises:
        ApprovalInvalid: nobody answered it, it was answered otherwise, or the build is not of this run.
        UsageError: the build is not of the configured controller, or the token file is not usable.
    """
    return _controller(jenkins, build).submitter(build, input_id, approved=approved, run=run)


def starter(jenkins: JenkinsSettings, build: str) -> str | None:
    """The user who started the build, as Jenkins says; None when a schedule or a push did."""
    return _controller(jenkins, build).started_by(build)


def _controller(jenkins: JenkinsSettings, build: str) -> Jenkins:
    from pipeline.adapters.jenkins_client import Jenkins

    if not build.startswith(jenkins.url.rstrip("/") + "/"):
        raise UsageError("the build is not of the configured Jenkins", where=f"--build {build}", fix=jenkins.url)
    file = Path(os.environ.get(TOKEN_VARIABLE) or jenkins.token_file)
    try:
        user, _, token = file.read_text(encoding="utf-8").strip().partition(":")
    except OSError as error:
        raise UsageError(
            "the file with the Jenkins token cannot be read", where=str(file), fix=f"name it with {TOKEN_VARIABLE}"
        ) from error
    return Jenkins(jenkins.url, user, token)
