"""Gitea and Forgejo: comments of a pull request, by their API (https://docs.gitea.com/api/).

Four endpoints with a stable form; no client of theirs on PyPI is kept as well as `requests` is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests

from pipeline.adapters.forge_answers import TIMEOUT_SECONDS, meaning
from pipeline.adapters.http_session import own_session
from pipeline.ports import Comment

LONGEST = 1_000_000


class Gitea:
    """One pull request."""

    longest = LONGEST

    def __init__(self, url: str, repository: str, request: int, token: str, ca_file: Path | None) -> None:
        self._where = f"{url}/{repository}/pulls/{request}"
        self._api, self._issues = f"{url}/api/v1", f"{url}/api/v1/repos/{repository}/issues"
        self._issue = f"{self._issues}/{request}"
        self._session = own_session(ca_file)
        self._session.headers["Authorization"] = f"token {token}"

    def user(self) -> str:
        """Name of the user whose token this is."""
        return str(self._ask("GET", f"{self._api}/user").json()["login"])

    def comments(self) -> list[Comment]:
        """Every comment, oldest first: this endpoint has no pages."""
        found = self._ask("GET", f"{self._issue}/comments").json()
        return [Comment(one["id"], one["user"]["login"], one["body"]) for one in found]

    def create(self, body: str) -> None:
        """Write a comment."""
        self._ask("POST", f"{self._issue}/comments", json={"body": body})

    def update(self, comment: Comment, body: str) -> None:
        """Replace a comment's text."""
        self._ask("PATCH", f"{self._issues}/comments/{comment.id}", json={"body": body})

    def delete(self, comment: Comment) -> None:
        """Remove a comment."""
        self._ask("DELETE", f"{self._issues}/comments/{comment.id}")

    def attach(self, name: str, data: bytes) -> str | None:
        """Attach a picture to the pull request."""
        files = {"attachment": (name, data, "image/png")}
        return str(self._ask("POST", f"{self._issue}/assets", files=files).json()["browser_download_url"])

    def _ask(self, method: str, url: str, **more: Any) -> requests.Response:
        try:
            answer = self._session.request(method, url, timeout=TIMEOUT_SECONDS, allow_redirects=False, **more)
        except requests.RequestException as error:
            raise meaning(None, self._where) from error
        if not answer.ok or answer.is_redirect:
            raise meaning(answer.status_code, self._where)
        return answer
