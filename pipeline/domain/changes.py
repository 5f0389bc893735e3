"""What changed between two runs: data, code, parameters, policy, libraries, as an approver weighs it. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.domain.evidence import Change, Part, Scalar

DIFF_LINES = 120


def between(part: Part, before: Mapping[str, Scalar], after: Mapping[str, Scalar]) -> tuple[Change, ...]:
    """Entries that differ, by name; None stands where one is not there."""
    missing = object()
    return tuple(
        Change(part=part, name=name, before=before.get(name), after=after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name, missing) != after.get(name, missing)
    )


def of_code(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Change, ...]:
    """Files that differ, each with its lines added and removed (``+12 −3``)."""
    return tuple(
        Change(part="code", name=name, before=None, after=_stat(before.get(name), after.get(name)))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def diff(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """The files' differences as a unified diff, cut off after `DIFF_LINES` lines."""
    lines = list(_unified(before, after))
    if len(lines) <= DIFF_LINES:
        return tuple(lines)
    return (*lines[:DIFF_LINES], f"… {len(lines) - DIFF_LINES} lines more")


def of_policy(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """Rules and reviewers that differ: each rule by what it is about, with its bounds before and after.

    Args:
        before, after: JSON of `policy`, `risk_tier`, `approvers` and `reviews` of two projects.
    """
    return between("policy", dict(_rules(before)), dict(_rules(after)))


def _rules(gate: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    yield "risk tier", gate["risk_tier"]
    yield "approvers", ", ".join(gate["approvers"])
    yield from ((f"reviews of {name}", count) for name, count in gate["reviews"].items())
    for kind, value in gate["policy"].items():
        if not isinstance(value, Sequence) or isinstance(value, str):
            yield kind.replace("_", " "), value
            continue
        for rule in value:
            about = [str(rule[key]) for key in ("metric", "slice", "value", "reason") if rule.get(key)]
            bounds = {key: given for key, given in rule.items() if str(given) not in about and given not in (None, [])}
            yield (
                " ".join([kind.replace("_", " "), *about]),
                ", ".join(f"{key} {bounds[key]}" for key in sorted(bounds)),
            )


def _stat(before: str | None, after: str | None) -> str:
    if before is None or after is None:
        lines = (before or after or "").splitlines()
        return f"{'new' if before is None else 'removed'}, {len(lines)} lines"
    changed = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))[2:]
    added, removed = (sum(line.startswith(sign) for line in changed) for sign in "+-")
    return f"+{added} −{removed}"


def _unified(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, ""), after.get(name, "")
        if old != new:
            yield from difflib.unified_diff(old.splitlines(), new.splitlines(), name, name, lineterm="", n=2)
