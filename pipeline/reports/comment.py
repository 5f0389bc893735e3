"""The report in the merge request: verdict, measurements beside the champion and the target branch, pictures. Pure.

Markdown that GitLab, GitHub, Bitbucket and Gitea all show alike, and that ``cml comment create`` takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.domain.canonical import digest_json
from pipeline.domain.evidence import METRICS
from pipeline.reports.card import weakest
from pipeline.reports.markdown import NOTHING, plain, table

_MARKER = re.compile(r"<!-- gatehouse (\{.*?\}) -->")
_SHORT = 12


@dataclass(frozen=True, slots=True)
class Target:
    """The newest run of the target branch: its id, its hold-out window, its metrics."""

    run: str
    holdout: str
    metrics: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Page:
    """What a comment shows beside the evidence.

    Attributes:
        headline: the verdict and what is missing, in a line.
        rules: of the policy, each with passed, rule, value, threshold and reason.
        may_decide: who could let it through.
        target: of the target branch; None when it has no run.
        pictures: address by caption.
        link: where the whole evidence page is.
    """

    headline: str
    rules: Sequence[Mapping[str, Any]]
    may_decide: Sequence[str] = ()
    target: Target | None = None
    pictures: Mapping[str, str] = field(default_factory=dict)
    link: str | None = None


def marker(model: str, pictures: Mapping[str, str]) -> str:
    """The comment's first line, which no reader sees: whose it is, and the pictures that it has already, by file."""
    return f"<!-- gatehouse {json.dumps({'model': model, 'pictures': dict(pictures)}, sort_keys=True)} -->"


def read_marker(body: str) -> Mapping[str, Any] | None:
    """What a comment's first line says; None where it is not one of ours."""
    found = _MARKER.match(body)
    try:
        return None if found is None else dict(json.loads(found[1]))
    except ValueError:
        return None


def comment(evidence: Mapping[str, Any], page: Page) -> str:
    """The report. The same arguments give the same text.

    Args:
        evidence: JSON of `pipeline.domain.evidence.Evidence`.
        page: what else it shows.
    """
    windows, rows = evidence["windows"], evidence["rows"]
    champion = "" if evidence["champion"] else " No champion serves yet."
    share = rows["holdout_positives"] / rows["holdout"]
    about = (
        f"Run `{_code(evidence['run'])}`: trained on {windows['train']} ({rows['train']:,} rows), measured on "
        f"{windows['holdout']} ({rows['holdout']:,} rows, {share:.1%} positive).{champion} "
        f"{_beside(page.target, windows['holdout'])}"
    )
    parts = [
        f"### {plain(evidence['model'])}: {plain(page.headline)}",
        about,
        table("Measured", _columns(evidence, page), _metrics(evidence, page)),
        table("Refused by", ("rule", "value", "threshold", "why"), _refusals(page.rules)),
        table("Weakest slices", ("slice", "rows", "AUC", "champion"), weakest(evidence["slices"])),
        f"**May decide:** {', '.join(map(plain, page.may_decide))}" if page.may_decide else "",
        "\n".join(f"![{caption}]({url})" for caption, url in page.pictures.items()),
        " · ".join(_proofs(evidence, page.link)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def shorten(text: str, longest: int) -> str:
    """The text, cut at the end of a line and saying so where a server takes no more than `longest` characters."""
    remark = "\n\n*Cut here: the server takes no longer comments. The evidence page has the rest.*\n"
    if len(text) <= longest:
        return text
    return text[: longest - len(remark)].rpartition("\n")[0] + remark


def _beside(target: Target | None, holdout: str) -> str:
    if target is None:
        return "The target branch has no run to compare with."
    other = f", on another hold-out ({target.holdout})" if target.holdout != holdout else ""
    return f"The target branch's newest run is `{_code(target.run)}`{other}."


def _columns(evidence: Mapping[str, Any], page: Page) -> tuple[str, ...]:
    champion = ("champion", "against it (95 %)") if evidence["champion"] else ()
    return ("metric", "this run", *champion, *(("target branch", "difference") if page.target else ()))


def _metrics(evidence: Mapping[str, Any], page: Page) -> Iterable[tuple[str, ...]]:
    champion, differences = evidence["champion"], evidence["differences"] or {}
    for name in METRICS:
        own = evidence["candidate"]["intervals"].get(name)
        if own is None:
            continue
        row = [name, _number(own["value"])]
        if champion:
            theirs, better = champion["intervals"].get(name), differences.get(name)
            row += [_number(theirs and theirs["value"]), _interval(better)]
        if page.target:
            before = page.target.metrics.get(name)
            row += [_number(before), NOTHING if before is None else f"{own['value'] - before:+.4f}"]
        yield tuple(row)


def _refusals(rules: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, ...]]:
    for rule in rules:
        if not rule["passed"]:
            yield (str(rule["rule"]), _number(rule["value"]), _number(rule["threshold"]), str(rule["reason"]))


def _proofs(evidence: Mapping[str, Any], link: str | None) -> Iterable[str]:
    if link:
        yield f"[Evidence]({link.replace(' ', '%20').replace(')', '%29')})"
    yield f"package `{evidence['subject']['package'].removeprefix('sha256:')[:_SHORT]}`"
    yield f"evidence `{digest_json(evidence).removeprefix('sha256:')[:_SHORT]}`"
    yield f"`gatehouse gate show --run {_code(evidence['run'])}`"


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else NOTHING if value is None else str(value)


def _interval(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return NOTHING
    within = "" if value["low"] is None else f" ({value['low']:+.4f} to {value['high']:+.4f})"
    return f"{value['value']:+.4f}{within}"


def _code(text: str) -> str:
    return text.replace("`", "'")
