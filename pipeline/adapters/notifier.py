"""Messages to people through apprise: mail, Teams, Slack, Mattermost, webhooks.

Apprise's addresses carry passwords and tokens. They stand in a file that only its owner may read, and in no message,
error or log of ours.
"""

from __future__ import annotations

import logging
import stat
from pathlib import Path

from pipeline.domain.notices import Message
from pipeline.errors import Unreachable, UsageError

TIMEOUT_SECONDS = 5


def addresses(file: Path) -> list[str]:
    """The apprise addresses in a channel's file, one a line; # begins a comment.

    Raises:
        UsageError: the file cannot be read, is readable by others, or holds no address.
    """
    try:
        mode = file.stat().st_mode
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"a channel's file cannot be read: {error.strerror}", where=str(file)) from error
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        raise UsageError("others may read a channel's file", where=str(file), fix=f"chmod 600 '{file}'")
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise UsageError("a channel's file holds no address", where=str(file))
    return found


def send(channel: str, file: Path, message: Message) -> None:
    """Send a message to every address of a channel.

    Raises:
        UsageError: the file is wrong, or apprise knows no such kind of address.
        Unreachable: at least one address did not take it.
    """
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    outbox = apprise.Apprise()
    for number, address in enumerate(addresses(file), 1):
        joined = "&" if "?" in address else "?"
        if not outbox.add(f"{address}{joined}cto={TIMEOUT_SECONDS}&rto={TIMEOUT_SECONDS}&redirect=no"):
            raise UsageError(
                "apprise knows no such address", where=f"{file}, address {number}", fix="infra/notifications/README.md"
            )
    kind = apprise.NotifyType.FAILURE if message.loud else apprise.NotifyType.INFO
    if not outbox.notify(body=message.text, title=message.title, notify_type=kind):
        raise Unreachable(f"channel {channel} did not take the message", where=f"channel {channel}")
