"""Channels through apprise: mail, Teams, Slack, Mattermost, webhooks.

An apprise address carries the secret that it is used with. So none of them, nor anything that apprise or a server says
about one, leaves this module: errors name the channel and the place of the address in its file.
"""

from __future__ import annotations

import logging
import re
import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.domain.notices import Message
from pipeline.errors import Unreachable, UsageError

if TYPE_CHECKING:
    from apprise import Apprise, AppriseResult

SECONDS = 5.0
_SENDER = "gatehouse-sender"


def addresses(file: Path) -> list[str]:
    """The apprise addresses in a channel's file, one a line; # begins a comment.

    Raises:
        UsageError: the file cannot be read, is readable by others, or holds no address.
    """
    try:
        mode = file.stat().st_mode
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:  # its words hold a piece of the file
        raise UsageError("a channel's file is not UTF-8", where=str(file)) from None
    except OSError as error:
        raise UsageError(f"a channel's file cannot be read: {error.strerror}", where=str(file)) from error
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        raise UsageError("others may read a channel's file", where=str(file), fix=f"chmod 600 '{file}'")
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise UsageError("a channel's file holds no address", where=str(file))
    return found


def send(channel: str, number: int, address: str, message: Message, seconds: float = SECONDS) -> None:
    """Send a message to one address of a channel, and wait for its word that it has it.

    Args:
        channel, number: which address it is, from 1; for the error's words.
        address: an apprise address.
        message: what to send.
        seconds: how long it may take, looking up the name and all.

    Raises:
        UsageError: apprise knows no such address.
        Unreachable: the service did not take it, or did not say so in time.
    """
    where = f"channel {channel}, address {number}"
    _silence()
    sender = _sender(address, seconds)
    if sender is None:
        raise UsageError("apprise knows no such address", where=where, fix="infra/notifications/README.md")
    answers: list[str | None] = []
    # A name that is not found, or a server that answers a byte at a time, outlasts every timeout of a socket. Nobody
    # waits for a daemon's end, not even the interpreter.
    worker = threading.Thread(target=lambda: answers.append(_try(sender, message)), name=_SENDER, daemon=True)
    worker.start()
    worker.join(seconds)
    problem = answers[0] if answers else f"did not answer in {seconds:g} s"
    if problem is not None:
        raise Unreachable(f"address {number} {problem}", where=where, fix="it is tried again by itself")


def _try(sender: Apprise, message: Message) -> str | None:
    """What went wrong, without the address; None when the service took the message."""
    from apprise import NotifyFormat, NotifyType

    kind = NotifyType.FAILURE if message.loud else NotifyType.INFO
    try:
        result = sender.notify(message.text, message.title, kind, body_format=NotifyFormat.TEXT)
    except Exception as error:  # noqa: BLE001 - a hundred services' modules, whose words may hold the address
        return f"failed: {type(error).__name__}"
    return _refusal(result)


def _sender(address: str, seconds: float) -> Apprise | None:
    """One address, and no other place: no redirects, no pictures from the internet, nothing kept on disk."""
    import apprise

    asset = apprise.AppriseAsset(
        app_id="Gatehouse",
        app_desc="Gatehouse",
        app_url="",
        image_url_mask="",
        image_url_logo="",
        http_redirects=False,
        pgp_autogen=False,
        pem_autogen=False,
        async_mode=False,
        storage_mode=apprise.PersistentStoreMode.MEMORY,
        service_timeout=0,  # `send` has its own, which a dead server cannot outlast
    )
    service = apprise.Apprise.instantiate(address, asset=asset, suppress_exceptions=True)
    if not isinstance(service, apprise.NotifyBase):
        return None
    service.redirects = False  # whatever the address says
    service.socket_connect_timeout = service.socket_read_timeout = seconds
    sender = apprise.Apprise(asset=asset)
    sender.add(service)
    return sender


def _refusal(result: AppriseResult) -> str | None:
    """Why a message was not taken. An address marked as optional has to take it too."""
    if len(result) and all(any(one.attempts) for one in result):
        return None
    return _status(entry.message for entry in result.logs())


def _status(lines: Iterable[str]) -> str:
    """The HTTP status, where there is one: the only thing of a service's words that certainly holds no secret."""
    codes = [found[1] for line in lines if (found := re.search(r"\berror=(\d{3})\b", line))]
    return f"answered HTTP {codes[-1]}" if codes else "cannot be reached, or refuses"


class _Unspoken(logging.Filter):
    """Drops what is said while sending: at debug level the libraries write addresses into the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.threadName != _SENDER


_UNSPOKEN = _Unspoken()


def _silence() -> None:
    """Keep apprise and the HTTP library below it from writing addresses into a log. Safe to run again."""
    apprises = logging.getLogger("apprise")
    apprises.propagate = False
    if not apprises.handlers:
        apprises.addHandler(logging.NullHandler())
    for name in ("urllib3.connectionpool", "urllib3.util.retry", "urllib3.connection"):
        logging.getLogger(name).addFilter(_UNSPOKEN)
