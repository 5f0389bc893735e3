"""A merge request on the server that has the repository: which one, through which client, and our one comment on it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping

from pipeline.config import ForgeSettings
from pipeline.config.reading import read_secret
from pipeline.errors import UsageError
from pipeline.ports import Comment, Forge
from pipeline.reports.comment import marker, read_marker, shorten


def forge_of(settings: ForgeSettings, request: int) -> Forge:
    """The adapter of the configured server.

    Raises:
        UsageError: its client is not installed, or the token cannot be read.
    """
    token = read_secret(settings.token_file, "the file with the forge's token")
    try:
        match settings.kind:
            case "gitlab":
                from pipeline.adapters.forge_gitlab import GitLab as Known
            case "github":
                from pipeline.adapters.forge_github import GitHub as Known  # type: ignore[assignment]
            case "bitbucket":
                from pipeline.adapters.forge_bitbucket import BitbucketServer as Known  # type: ignore[assignment]
            case "gitea":
                from pipeline.adapters.forge_gitea import Gitea as Known  # type: ignore[assignment]
    except ImportError as error:
        raise UsageError(
            f"the client of {settings.kind} is not installed",
            where="settings: forge.kind",
            fix="pip install 'gatehouse[forges]'",
        ) from error
    return Known(settings.url.rstrip("/"), settings.repository, request, token, settings.ca_file)


def request_in(environment: Mapping[str, str]) -> int:
    """The merge request that a CI's variables name: GitLab's, Jenkins', GitHub's and Gitea's.

    Raises:
        UsageError: they name none.
    """
    named = re.fullmatch(r"refs/pull/(\d+)/(merge|head)", environment.get("GITHUB_REF", ""))
    for found in (environment.get("CI_MERGE_REQUEST_IID"), environment.get("CHANGE_ID"), named and named[1]):
        if found and found.isdecimal():
            return int(found)
    raise UsageError("of which merge request?", where="--request", fix="name its number: no CI's variable does")


def post(forge: Forge, model: str, pictures: Mapping[str, bytes], write: Callable[[Mapping[str, str]], str]) -> str:
    """Post a report about a model, or bring ours up to date; answers what was done. Safe to do again.

    Args:
        forge: the merge request.
        model: whose report it is.
        pictures: PNGs by name.
        write: the report, given the addresses of the pictures by name.
    """
    me = forge.user()
    mine = _mine(forge, me, model)
    known = (read_marker(mine[0].body) or {}).get("pictures", {}) if mine else {}
    files = {name: f"{model}-{name}-{hashlib.sha256(data).hexdigest()[:16]}.png" for name, data in pictures.items()}
    kept = {file: known.get(file) or forge.attach(file, pictures[name]) for name, file in files.items()}
    there = {file: url for file, url in kept.items() if url is not None}
    first = f"{marker(model, there)}\n"
    report = write({name: there[file] for name, file in files.items() if file in there})
    body = first + shorten(report, forge.longest - len(first))
    if not mine:
        forge.create(body)
        _sweep(forge, _mine(forge, me, model))
        return "posted"
    _sweep(forge, mine)
    if _same(mine[0].body, body):
        return "already there"
    forge.update(mine[0], body)
    return "brought up to date"


def _mine(forge: Forge, me: str, model: str) -> list[Comment]:
    """Comments that we wrote about a model. Somebody's answer that quotes one is not ours."""
    return [
        one
        for one in forge.comments()
        if one.author.casefold() == me.casefold() and (read_marker(one.body) or {}).get("model") == model
    ]


def _sweep(forge: Forge, mine: list[Comment]) -> None:
    """Leave the oldest: two that were posted at once are one report."""
    for one in mine[1:]:
        forge.delete(one)


def _same(there: str, body: str) -> bool:
    return there.replace("\r\n", "\n").strip() == body.strip()
