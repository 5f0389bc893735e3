"""A client of one environment's model server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests

from pipeline.adapters.http_session import own_session
from pipeline.errors import PolicyRefused, Unreachable

TIMEOUT_SECONDS = 10


class HttpModelServer:
    """The model server at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session = own_session()

    @property
    def url(self) -> str:
        """Its address."""
        return self._url

    def version(self) -> Mapping[str, Any]:
        """What it serves.

        Raises:
            Unreachable: it does not answer.
        """
        answer: Mapping[str, Any] = self._send("GET", "/version").json()
        return answer

    def invoke(self, payload: Mapping[str, Any]) -> tuple[list[float], str]:
        """Predictions for one payload, and the digest of the package that answered.

        Raises:
            Unreachable: it does not answer.
            PolicyRefused: it refuses the payload.
        """
        answer = self._send("POST", "/invocations", payload)
        if answer.status_code != requests.codes.ok:
            raise PolicyRefused(
                f"the model server refuses a request: {answer.status_code} {answer.text[:300]}", where=self._url
            )
        return list(answer.json()["predictions"]), answer.headers.get("X-Gatehouse-Digest", "")

    def _send(self, method: str, path: str, payload: Mapping[str, Any] | None = None) -> requests.Response:
        try:
            return self._session.request(method, self._url + path, json=payload, timeout=TIMEOUT_SECONDS)
        except requests.RequestException as error:
            raise Unreachable(
                f"the model server does not answer: {type(error).__name__}",
                where=self._url,
                fix="see whether it runs (gatehouse status) and look at its log",
            ) from error
