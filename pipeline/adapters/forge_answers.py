"""What a forge's refusals mean. Pure; one module for each server talks to it."""

from __future__ import annotations

from pipeline.errors import GatehouseError, Unreachable, UsageError

TIMEOUT_SECONDS = 30.0


def meaning(status: int | None, where: str) -> GatehouseError:
    """The error that an HTTP status stands for; None: there was no answer."""
    if status is None or status >= 500 or status == 429:
        said = "does not answer" if status is None else f"answers {status}"
        return Unreachable(
            f"the server {said}", where=where, fix="run it again when it is well: it posts nothing twice"
        )
    if status == 409:
        return Unreachable("somebody else changed the comment meanwhile", where=where, fix="run it again")
    if status in (401, 403):
        return UsageError(
            "the server refuses this token",
            where=where,
            fix="the file that `forge.token_file` names must hold one that may comment: infra/forges/README.md",
        )
    if status == 404:
        return UsageError(
            "there is no such merge request, or this token may not see it",
            where=where,
            fix="look at settings: forge.repository, and at --request",
        )
    return UsageError(f"the server answers {status}", where=where)
