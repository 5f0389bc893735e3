"""Markdown that shows data as data: nothing in it is markup, a mention or a reference. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")
# A name after it would be told, a server's page linked.
_CALLS = re.compile(r"(?<=[@!])(?=\w)|(?<=://)|(?<=www\.)")
_JOINER = "\u2060"
NOTHING = "–"


def plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line; nobody is mentioned and nothing linked."""
    return _CALLS.sub(_JOINER, _SPECIAL.sub(r"\\\1", " ".join(text.split())))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table under a title of its own; empty when there are no rows."""
    lines = [" | ".join(map(plain, row)) for row in rows]
    if not lines:
        return ""
    head = [" | ".join(columns), " | ".join("---" for _ in columns)]
    return f"**{title}**\n\n" + "\n".join(f"| {line} |" for line in (*head, *lines))
