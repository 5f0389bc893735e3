"""validate: hold the snapshots against the project's schema. Data that fails goes no further."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.errors import PolicyRefused
from pipeline.ports import Reporter


def run(
    parts: Mapping[str, Callable[[], Sequence[Mapping[str, Any]]]],
    *,
    refuse: Callable[[Mapping[str, Any]], None],
    reporter: Reporter,
) -> Mapping[str, Any]:
    """Check every part.

    Args:
        parts: by part name, a function that checks it and answers the failed checks
            (column, rule, count, examples), none when all is well.
        refuse: records the verdict when anything failed, before it is raised.
        reporter: told about progress.

    Returns:
        The fact: the checks that were made.

    Raises:
        PolicyRefused: some checks failed; the message lists them.
    """
    failures: list[Mapping[str, Any]] = []
    with reporter.track("checking the data", total=len(parts)) as tracker:
        for part, check in parts.items():
            failures += [{"part": part, **failure} for failure in check()]
            tracker.advance()
    verdict = {"passed": not failures, "parts": list(parts), "failures": failures}
    if failures:
        refuse(verdict)
        raise PolicyRefused(
            "the data fails its checks:\n" + "\n".join(f"  {_line(failure)}" for failure in failures[:10]),
            where=f"{len(failures)} check(s)",
            fix="mend the source, or the schema if the data is right; then start a new run",
        )
    return verdict


def _line(failure: Mapping[str, Any]) -> str:
    return f"{failure['part']}: {failure['column']}: {failure['rule']} ({failure['count']} rows)"
