"""Reviews of a GitHub Actions run: who let its jobs into a protected environment, as GitHub itself says.

Endpoints: https://docs.github.com/en/rest/actions/workflow-runs (get a workflow run; get the review history for a
workflow run). GitHub keeps neither the time of a review nor the attempt it was for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import stamina

from pipeline.adapters.http_session import own_session
from pipeline.errors import ApprovalInvalid, GatehouseError, Unreachable, UsageError

TIMEOUT_SECONDS = 30.0
ATTEMPTS = 4
API_VERSION = "2022-11-28"
_PUBLIC = "github.com"
_ANSWERS: Mapping[int, tuple[str, str]] = {
    401: ("GitHub does not know this token", "put a valid one into the file that `github.token_file` names"),
    403: ("GitHub refuses this token", "the token needs to read Actions of this repository"),
    404: ("GitHub has no such run, or this token may not see it", "look at the URL and at the token's rights"),
}


@dataclass(frozen=True, slots=True)
class Review:
    """What one person said about one environment of a run.

    Attributes:
        user: login.
        approved: whether nothing that they said of it was a rejection.
        comment: what they wrote, the reviews joined.
        count: how many reviews that are. GitHub dates none, so only another count tells a new one.
    """

    user: str
    approved: bool
    comment: str
    count: int


@dataclass(frozen=True, slots=True)
class WorkflowRun:
    """A run: who started it and who started its last attempt, its workflow's file, its commit."""

    url: str
    asked: tuple[str, ...]
    path: str
    commit: str


def api_of(url: str) -> str:
    """Address of the REST interface of GitHub, or of a GitHub Enterprise Server."""
    return f"https://api.{_PUBLIC}" if urlsplit(url).hostname == _PUBLIC else f"{url}/api/v3"


class GitHub:
    """One repository on one server, read with one token."""

    def __init__(self, url: str, repository: str, token: str, ca_file: Path | None = None) -> None:
        self.url = url.rstrip("/")
        self.repository = repository
        self._base = f"{api_of(self.url)}/repos/{repository}/actions/runs"
        self._session = own_session(ca_file)
        self._session.headers.update(
            {
                "Authorization": f"Bearer {token}",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": API_VERSION,
            }
        )

    def number_of(self, url: str) -> int:
        """The number of a run of this repository, from its address.

        Raises:
            UsageError: it is the address of something else.
        """
        head, _, number = url.rstrip("/").rpartition("/")
        if head != f"{self.url}/{self.repository}/actions/runs" or not number.isdecimal():
            raise UsageError(
                "this is no run of the configured repository",
                where=f"--build {url}",
                fix=f"{self.url}/{self.repository}/actions/runs/NUMBER",
            )
        return int(number)

    def run(self, number: int) -> WorkflowRun:
        """A run of a workflow.

        Raises:
            UsageError: not there, or not for this token.
            Unreachable: GitHub does not answer.
        """
        found = self._read(str(number), dict)
        people = (found.get(key) or {} for key in ("actor", "triggering_actor"))
        asked = tuple(dict.fromkeys(str(one["login"]) for one in people if one.get("login")))
        url = f"{self.url}/{self.repository}/actions/runs/{number}"
        # Since 2022 the path may carry the revision: ".github/workflows/a.yml@main".
        return WorkflowRun(url, asked, str(found.get("path", "")).partition("@")[0], str(found.get("head_sha", "")))

    def reviews(self, number: int, environment: str) -> list[Review]:
        """What people said about an environment of a run, a review each.

        Raises:
            UsageError, Unreachable: as `run`.
            ApprovalInvalid: GitHub names a reviewer who is no person.
        """
        return collect(self._read(f"{number}/approvals", list), environment, f"run {number}")

    def _read(self, path: str, kind: type) -> Any:
        where = f"{self._base}/{path}"
        for attempt in stamina.retry_context(on=Unreachable, attempts=ATTEMPTS, wait_initial=0.2):
            with attempt:
                try:
                    answer = self._session.get(where, timeout=TIMEOUT_SECONDS, allow_redirects=False)
                except requests.RequestException as error:
                    raise Unreachable(f"GitHub does not answer: {type(error).__name__}", where=where) from error
                problem = _problem(answer, where)
                if problem is not None:
                    raise problem
        try:
            found = answer.json()
        except ValueError as error:
            raise UsageError("the answer is no JSON: this is not GitHub's API", where=where) from error
        if not isinstance(found, kind):
            raise UsageError("the answer is not what GitHub's API gives", where=where)
        return found


def collect(answers: Iterable[Mapping[str, Any]], environment: str, where: str) -> list[Review]:
    """The reviews of one environment, one for each person, in the order of their names. Pure.

    Raises:
        ApprovalInvalid: a reviewer is an app, not a person.
    """
    said: dict[str, list[Mapping[str, Any]]] = {}
    for answer in answers:
        named = {one.get("name") for one in answer.get("environments") or ()}
        if environment in named and answer.get("state") in ("approved", "rejected"):
            user = answer.get("user") or {}
            if user.get("type") != "User" or not user.get("login"):
                raise ApprovalInvalid(f"{user.get('login', 'somebody')} is no person, and decides nothing", where=where)
            said.setdefault(str(user["login"]), []).append(answer)
    return [
        Review(
            user,
            all(one["state"] == "approved" for one in theirs),
            "; ".join(filter(None, (str(one.get("comment") or "").strip() for one in theirs))),
            len(theirs),
        )
        for user, theirs in sorted(said.items())
    ]


def _problem(answer: requests.Response, where: str) -> GatehouseError | None:
    status = answer.status_code
    if status == requests.codes.ok:
        return None
    limited = status in (403, 429) and (
        answer.headers.get("x-ratelimit-remaining") == "0" or "retry-after" in answer.headers
    )
    if status >= 500 or limited:
        return Unreachable(f"GitHub answers {status}", where=where, fix="try again when it is well")
    if 300 <= status < 400:
        return UsageError(
            "GitHub sends elsewhere: the repository was renamed or moved", where=where, fix="settings: github"
        )
    what, fix = _ANSWERS.get(status, (f"GitHub answers {status}", ""))
    return UsageError(what, where=where, fix=fix)
