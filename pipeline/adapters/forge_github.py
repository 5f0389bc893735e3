"""GitHub and GitHub Enterprise Server: comments of a pull request, through PyGithub.

https://docs.github.com/en/rest/issues/comments. No endpoint takes pictures for a comment: they are committed to a
branch of their own, which has no history with the code, and shown from there to whoever may read the repository.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import github
import requests
from github import InputGitTreeElement

from pipeline.adapters.forge_answers import TIMEOUT_SECONDS, meaning
from pipeline.adapters.github_reviews import api_of
from pipeline.ports import Comment

LONGEST = 65_536
BRANCH = "gatehouse-reports"
_ABOUT = "Pictures of Gatehouse's reports in pull requests. Nothing is built from this branch.\n"
_EXISTS = 422


class GitHub:
    """One pull request."""

    longest = LONGEST

    def __init__(self, url: str, repository: str, request: int, token: str, ca_file: Path | None) -> None:
        self._shown = f"{url}/{repository}"
        self._where = f"{self._shown}/pull/{request}"
        self._server = github.Github(
            auth=github.Auth.Token(token),
            base_url=api_of(url),
            verify=str(ca_file) if ca_file else True,
            timeout=int(TIMEOUT_SECONDS),
            retry=None,
            per_page=100,
            seconds_between_requests=None,
            seconds_between_writes=None,
        )
        self._repository = self._server.get_repo(repository, lazy=True)
        self._request = request

    def user(self) -> str:
        """Name of the user whose token this is."""
        with self._talking():
            return self._server.get_user().login

    def comments(self) -> list[Comment]:
        """Every comment, oldest first."""
        with self._talking():
            found = self._repository.get_issue(self._request).get_comments()
            return [Comment(one.id, one.user.login, one.body) for one in found]

    def create(self, body: str) -> None:
        """Write a comment."""
        with self._talking():
            self._repository.get_issue(self._request).create_comment(body)

    def update(self, comment: Comment, body: str) -> None:
        """Replace a comment's text."""
        with self._talking():
            self._repository.get_issue(self._request).get_comment(comment.id).edit(body)

    def delete(self, comment: Comment) -> None:
        """Remove a comment."""
        with self._talking():
            self._repository.get_issue(self._request).get_comment(comment.id).delete()

    def attach(self, name: str, data: bytes) -> str | None:
        """Commit a picture to the branch of pictures; answers where it is shown."""
        with self._talking():
            self._branch()
            try:
                self._repository.create_file(name, name, data, branch=BRANCH)
            except github.GithubException as error:
                if error.status != _EXISTS:  # the name holds the digest: what is there is the same
                    raise
        return f"{self._shown}/blob/{BRANCH}/{name}?raw=true"

    def _branch(self) -> None:
        wanted = f"refs/heads/{BRANCH}"
        if all(one.ref != wanted for one in self._repository.get_git_matching_refs(f"heads/{BRANCH}")):
            about = InputGitTreeElement("README.md", "100644", "blob", content=_ABOUT)
            tree = self._repository.create_git_tree([about])
            first = self._repository.create_git_commit("A branch for pictures", tree, [])
            self._repository.create_git_ref(wanted, first.sha)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except github.GithubException as error:
            raise meaning(error.status, self._where) from error
        except requests.RequestException as error:
            raise meaning(None, self._where) from error
