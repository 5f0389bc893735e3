"""Who decided: asked of Jenkins, not of the command line."""

from __future__ import annotations

from pipeline.config import JenkinsSettings
from pipeline.errors import UsageError


def submitter(jenkins: JenkinsSettings, build: str, input_id: str, run: str, *, approved: bool) -> str:
    """The user whom Jenkins authenticated when the build's input was answered.

    Raises:
        ApprovalInvalid: nobody answered it, it was answered otherwise, or the build is not of this run.
        UsageError: the build is not of the configured controller, or the token file is not usable.
    """
    from pipeline.adapters.jenkins_client import Jenkins

    if not build.startswith(jenkins.url.rstrip("/") + "/"):
        raise UsageError("the build is not of the configured Jenkins", where=f"--build {build}", fix=jenkins.url)
    try:
        user, _, token = jenkins.token_file.read_text(encoding="utf-8").strip().partition(":")
    except OSError as error:
        raise UsageError("the token file cannot be read", where=str(jenkins.token_file)) from error
    return Jenkins(jenkins.url, user, token).submitter(build, input_id, approved=approved, run=run)
