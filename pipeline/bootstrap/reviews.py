"""Decisions that are reviews in GitHub: who gave them, and whether they are of the run that is to go on."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.adapters.github_reviews import GitHub, Review, WorkflowRun
from pipeline.bootstrap.installation import Installation
from pipeline.config import GithubSettings
from pipeline.config.reading import read_secret
from pipeline.errors import ApprovalInvalid

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


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What one person said, and the run that it was said of."""

    review: Review
    run: WorkflowRun


def reviews_in(place: Installation, settings: GithubSettings, url: str, run: str) -> list[Reviewed]:
    """The reviews of a run's approval environment.

    Raises:
        ApprovalInvalid: the run is not one of the configured workflow, or not the one that `run` is of.
        UsageError, Unreachable: GitHub has no such run, or does not answer.
    """
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
    return [Reviewed(review, found) for review in github.reviews(number, settings.environment)]


def _github(settings: GithubSettings) -> GitHub:
    token = read_secret(settings.token_file, "the file with GitHub's token")
    return GitHub(settings.url, settings.repository, token, settings.ca_file)
