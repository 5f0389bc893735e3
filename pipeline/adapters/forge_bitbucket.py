"""Bitbucket Data Center: comments of a pull request, through atlassian-python-api.

https://developer.atlassian.com/server/bitbucket/rest/. Uploading a picture is what its own editor does; Atlassian does
not document it, so a server that takes none gets a report without.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from atlassian import Bitbucket
from atlassian.errors import ApiError

from pipeline.adapters.forge_answers import TIMEOUT_SECONDS, meaning
from pipeline.adapters.http_session import own_session
from pipeline.errors import UsageError
from pipeline.ports import Comment

LONGEST = 32_768


class BitbucketServer:
    """One pull request."""

    longest = LONGEST

    def __init__(self, url: str, repository: str, request: int, token: str, ca_file: Path | None) -> None:
        project, _, slug = repository.partition("/")
        self._about = (project, slug, request)
        self._where = f"{url}/projects/{project}/repos/{slug}/pull-requests/{request}"
        self._repository = f"rest/api/1.0/projects/{project}/repos/{slug}"
        self._server = Bitbucket(
            url=url,
            token=token,
            session=own_session(),
            verify_ssl=str(ca_file) if ca_file else True,
            timeout=TIMEOUT_SECONDS,
            cloud=False,
        )

    def user(self) -> str:
        """Name of the user whose token this is: every answer names them in a header."""
        with self._talking():
            answer = self._server.request(path=self._repository)
            return str(answer.headers.get("X-AUSERNAME", ""))

    def comments(self) -> list[Comment]:
        """Every comment, oldest first."""
        with self._talking():
            found: list[Any] = list(self._server.get_pull_requests_activities(*self._about))
        said = [one["comment"] for one in found if one["action"] == "COMMENTED"]
        return sorted(
            (Comment(one["id"], one["author"]["name"], one["text"], one["version"]) for one in said),
            key=lambda one: one.id,
        )

    def create(self, body: str) -> None:
        """Write a comment."""
        with self._talking():
            self._server.add_pull_request_comment(*self._about, body)

    def update(self, comment: Comment, body: str) -> None:
        """Replace a comment's text, unless somebody did since it was read."""
        with self._talking():
            self._server.update_pull_request_comment(*self._about, comment.id, body, comment.version)

    def delete(self, comment: Comment) -> None:
        """Remove a comment."""
        with self._talking():
            self._server.delete_pull_request_comment(*self._about, comment.id, comment.version)

    def attach(self, name: str, data: bytes) -> str | None:
        """Upload a picture to the repository; answers the reference that Bitbucket's Markdown knows."""
        try:
            with self._talking():
                files = {"files": (name, data, "image/png")}
                headers = {"X-Atlassian-Token": "no-check"}
                path = f"{self._repository}/attachments"
                answer: Any = self._server.post(path, files=files, headers=headers)
        except UsageError:
            return None
        return str(answer["attachments"][0]["links"]["attachment"]["href"])

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else None
            raise meaning(status, self._where) from error
        except ApiError as error:
            reason = getattr(error.reason, "response", None)
            raise meaning(reason.status_code if reason is not None else 404, self._where) from error
        except requests.RequestException as error:
            raise meaning(None, self._where) from error
