"""GitLab: notes of a merge request (https://docs.gitlab.com/api/notes/), through python-gitlab."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gitlab
import requests

from pipeline.adapters.forge_answers import TIMEOUT_SECONDS, meaning
from pipeline.adapters.http_session import own_session
from pipeline.ports import Comment

LONGEST = 1_000_000


class GitLab:
    """One merge request."""

    longest = LONGEST

    def __init__(self, url: str, repository: str, request: int, token: str, ca_file: Path | None) -> None:
        self._where = f"{url}/{repository}/-/merge_requests/{request}"
        self._server = gitlab.Gitlab(
            url,
            private_token=token,
            ssl_verify=str(ca_file) if ca_file else True,
            timeout=TIMEOUT_SECONDS,
            session=own_session(),
            per_page=100,
        )
        self._repository = repository
        self._notes = self._server.projects.get(repository, lazy=True).mergerequests.get(request, lazy=True).notes

    def user(self) -> str:
        """Name of the user whose token this is."""
        with self._talking():
            self._server.auth()
            assert self._server.user is not None
            return str(self._server.user.username)

    def comments(self) -> list[Comment]:
        """Every note that a person or a token wrote, oldest first."""
        with self._talking():
            found = self._notes.list(iterator=True, order_by="created_at", sort="asc")
            return [Comment(note.id, note.author["username"], note.body) for note in found if not note.system]

    def create(self, body: str) -> None:
        """Write a note."""
        with self._talking():
            self._notes.create({"body": body})

    def update(self, comment: Comment, body: str) -> None:
        """Replace a note's text."""
        with self._talking():
            self._notes.update(comment.id, {"body": body})

    def delete(self, comment: Comment) -> None:
        """Remove a note."""
        with self._talking():
            self._notes.delete(comment.id)

    def attach(self, name: str, data: bytes) -> str | None:
        """Upload a picture to the project; answers its address from there."""
        with self._talking():
            # Not lazily: the client's upload would quote a project's path twice, and a number has nothing to quote.
            return str(self._server.projects.get(self._repository).upload(name, filedata=data)["url"])

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except gitlab.GitlabError as error:
            raise meaning(error.response_code, self._where) from error
        except requests.RequestException as error:
            raise meaning(None, self._where) from error
