"""The HTTP face of a model server: MLflow's ``/invocations``, ``/ping`` and ``/health``, and ``/version``.

Every answer names the bytes behind it in ``X-Gatehouse-Digest`` and ``X-Gatehouse-Version``. ``/invocations``
is answered by a plain ASGI callable, since routing and request objects would cost as much as the inference;
Starlette answers everything else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import uuid4

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from pipeline.errors import UsageError
from pipeline.serving.payload import MAX_ROWS, answer, parse
from pipeline.serving.prediction_log import Layout, PredictionLog, Record
from pipeline.serving.signature import Refused, Signature
from pipeline.serving.slot import Served, Slot

_log = logging.getLogger("gatehouse.serving")
_access = logging.getLogger("gatehouse.access")
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server takes.

    Attributes:
        body_bytes: a larger request is answered 413.
        rows: more rows in one request are answered 413.
        inline_bytes: a larger request is parsed and predicted in a thread, so that the loop stays responsive.
        heavy_waiting: more such requests at once are answered 503.
        heavy_threads: threads for them.
    """

    body_bytes: int = 16 << 20
    rows: int = MAX_ROWS
    inline_bytes: int = 16 << 10
    heavy_waiting: int = 32
    heavy_threads: int = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Face:
    """What is worked out once for a loaded model."""

    served: Served | None
    takes: Signature
    layout: Layout | None
    headers: tuple[tuple[bytes, bytes], ...]


class App:
    """ASGI application for one slot.

    Args:
        slot: what serves.
        log: the prediction log.
        version: the body of ``/version``.
        limits: what one request may cost.
    """

    def __init__(
        self, slot: Slot, log: PredictionLog, version: Callable[[], Mapping[str, Any]], limits: Limits
    ) -> None:
        self._slot = slot
        self._predictions = log
        self._version = version
        self._limits = limits
        self._known = _face(None)
        self._pool = ThreadPoolExecutor(limits.heavy_threads, thread_name_prefix="gatehouse-predict")
        self._heavy = 0
        self._prefix, self._count = uuid4().hex[:12], count(1)
        self._rest = Starlette(
            routes=[
                Route("/invocations", self._no_get, methods=["POST"]),
                Route("/ping", self._ping),
                Route("/health", self._ping),
                Route("/version", self._say_version),
            ],
            exception_handlers={HTTPException: _http_error},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if scope["path"] == "/invocations" and scope["method"] == "POST":
            await self._invoke(scope, receive, send)
            return

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._face().headers]
            await send(message)

        await self._rest(scope, receive, named)

    def close(self) -> None:
        """Wait for the predictions under way."""
        self._pool.shutdown()

    # --- /invocations ---------------------------------------------------------------------------------------

    async def _invoke(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        face, status, rows = self._face(), 200, 0
        request = ""
        try:
            headers = dict(scope["headers"])
            request = _request_id(headers.get(b"x-request-id", b"")) or f"{self._prefix}-{next(self._count)}"
            body = await _body(headers.get(b"content-length", b""), receive, self._limits.body_bytes)
            if body is None:
                return
            face = self._face()
            content, rows = await self._run(face, body, headers.get(b"content-type", b"").decode("latin-1"), request)
        except Refused as error:
            status, content = error.status, error.body()
        except UsageError as error:
            status, content = 400, Refused(error.what).body()
        except Exception:  # the one place where a bug becomes an answer; its trace stays in the server's log
            _log.exception("request %s failed", request)
            status, content = (
                500,
                Refused(f"The server failed; see its log under {request}.", code="INTERNAL_ERROR").body(),
            )
        if _access.isEnabledFor(logging.INFO):
            _access.info(
                "invocations %d %d rows %.2f ms %s",
                status,
                rows,
                (time.perf_counter() - began) * 1e3,
                request,
            )
        await _send(send, status, content, (*face.headers, (b"x-request-id", request.encode("latin-1"))))

    async def _run(self, face: _Face, body: bytes, content_type: str, request: str) -> tuple[bytes, int]:
        if len(body) <= self._limits.inline_bytes:
            return self._answer(face, body, content_type, request)
        if self._heavy >= self._limits.heavy_waiting:
            raise Refused("Too many large requests are waiting; try again.", status=503, code="TEMPORARILY_UNAVAILABLE")
        self._heavy += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self._answer, face, body, content_type, request)
        finally:
            self._heavy -= 1

    def _answer(self, face: _Face, body: bytes, content_type: str, request: str) -> tuple[bytes, int]:
        if face.served is None or face.layout is None:
            raise Refused("No verified model is loaded.", status=503, code="TEMPORARILY_UNAVAILABLE")
        columns = parse(body, content_type, face.takes, max_rows=self._limits.rows)
        probabilities = face.served.model.predict(columns)
        at = time.time_ns() // 1000
        self._predictions.append(Record(at, request, face.layout, columns, probabilities))
        return answer(probabilities), len(probabilities)

    def _face(self) -> _Face:
        served = self._slot.current
        if self._known.served is not served:
            self._known = _face(served)
        return self._known

    # --- the rest -------------------------------------------------------------------------------------------

    async def _no_get(self, request: Request) -> Response:
        raise HTTPException(405)

    async def _ping(self, request: Request) -> Response:
        ready = self._slot.current is not None
        return Response("\n", 200 if ready else 503, media_type="application/json")

    async def _say_version(self, request: Request) -> Response:
        return JSONResponse(dict(self._version()))


def _face(served: Served | None) -> _Face:
    if served is None:
        return _Face(None, Signature(()), None, ())
    model, placed = served.model, served.placed
    time_column = model.info.get("time")
    takes = model.signature.with_optional(time_column, "datetime") if time_column else model.signature
    headers = (
        (b"x-gatehouse-digest", placed.digest.encode()),
        (b"x-gatehouse-version", placed.version.encode()),
    )
    return _Face(served, takes, Layout(takes, time_column, placed.digest), headers)


async def _body(length: bytes, receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None when the client went away.

    Raises:
        Refused: it is longer than `limit`; it is not read further.
    """
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        parts, size = [message.get("body", b"")], len(message.get("body", b""))
    else:
        parts, size = [], 0
        while message["type"] == "http.request":
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise _too_large(limit)
            if not message.get("more_body"):
                break
            message = await receive()
        else:
            return None
    if size > limit:
        raise _too_large(limit)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> Refused:
    return Refused(f"The body is over the limit of {limit} bytes.", status=413, code="BODY_TOO_LARGE")


async def _send(send: Send, status: int, content: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(content)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
    await send({"type": "http.response.body", "body": content})


def _request_id(given: bytes) -> str:
    """The client's own id, if it is short and printable: it is echoed and logged."""
    text = given.decode("latin-1")
    return text if text.isascii() and text.isprintable() and len(text) <= 128 else ""


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "ENDPOINT_NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(status, "BAD_REQUEST")
    message = "This server answers POST /invocations, GET /ping, /health and /version."
    return JSONResponse({"error_code": code, "message": message}, status)
