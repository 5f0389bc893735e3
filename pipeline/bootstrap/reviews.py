"""Decisions that are reviews in GitHub: who gave them, and whether they are of the run that is to go on."""

from __future__ import annotations

from pathlib import Path

from pipeline.adapters.github_reviews import GitHub, Review, WorkflowRun
from pipeline.bootstrap.installation import Installation
from pipeline.config import GithubSettings
from pipeline.errors import ApprovalInvalid, UsageError

RUNS = "/actions/runs/"


def is_workflow_run(url: str) -> bool:
    """Whether an address is that of a run in GitHub (or Gitea, or Forgejo) Actions."""
    return RUNS in url


def starter(place: Installation, url: str) -> str | None:
    """Who started a run, as GitHub says; None where no GitHub is configured."""
    if place.settings.github is None:
        return None
    github = _github(place.settings.github)
    asked = github.run(github.number_of(url)).asked
    return asked[0] if asked else None


def reviews_in(place: Installation, url: str, run: str) -> list[Review]:
    """The reviews of a run's approval environment.

    Raises:
        ApprovalInvalid: the run is not one of the configured workflow, or not the one that `run` is of.
        UsageError, Unreachable: GitHub has no such run, or does not answer.
    """
    return _believed(place, url, run)[1]


def reviewed(place: Installation, url: str, run: str, user: str) -> tuple[Review, WorkflowRun]:
    """What one reviewer said, and the run that it was said of.

    Raises:
        ApprovalInvalid: they said nothing; else as `reviews_in`.
    """
    found, reviews = _believed(place, url, run)
    mine = [review for review in reviews if review.user == user]
    if not mine:
        raise ApprovalInvalid(f"GitHub knows no review of {user}", where=url, fix="review the deployment that waits")
    return mine[0], found


def _believed(place: Installation, url: str, run: str) -> tuple[WorkflowRun, list[Review]]:
    settings = place.settings.github
    if settings is None:
        raise UsageError("no GitHub is believed here", where="settings: github")
    github = _github(settings)
    number = github.number_of(url)
    found = github.run(number)
    if found.path != settings.workflow:
        raise ApprovalInvalid(f"a run of {found.path} decides nothing", where=url, fix=f"only {settings.workflow} does")
    if not run.endswith(f"-github-{number}"):
        raise ApprovalInvalid(f"this review is of another run than {run}", where=url)
    commit = (place.state(run).opened or {}).get("code", {}).get("commit")
    if commit != found.commit:
        raise ApprovalInvalid(f"run {run} was opened from commit {commit}, and GitHub's is {found.commit}", where=url)
    return found, github.reviews(number, settings.environment)


def _github(settings: GithubSettings) -> GitHub:
    return GitHub(settings.url, settings.repository, _token(settings.token_file), settings.ca_file)


def _token(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(
            f"the file with GitHub's token cannot be read: {error.strerror}",
            where=str(file),
            fix="name a file that this user may read",
        ) from error
