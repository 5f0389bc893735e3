"""A version's model card in Markdown: what it is for, how good it is, where it is weak, how it came about. Pure.

After Mitchell et al., Model Cards for Model Reporting (2019), https://arxiv.org/abs/1810.03993. Short enough for the
description of a version in MLflow, which takes 5,000 characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.domain.canonical import digest_json
from pipeline.domain.evidence import METRICS
from pipeline.reports.markdown import NOTHING, plain, table

LONGEST = 5_000
WORST = 5
_PURPOSE = 600


def card(
    evidence: Mapping[str, Any],
    *,
    purpose: str | None,
    approvals: Sequence[Mapping[str, Any]],
    commit: str | None,
) -> str:
    """The card, at most 5,000 characters. The same arguments give the same text.

    Args:
        evidence: JSON of `pipeline.domain.evidence.Evidence`.
        purpose: what the project says that it is for.
        approvals: decisions that let it through, each with actor, at, assurance and reason; none yet when empty.
        commit: of the project's code.
    """
    windows, rows = evidence["windows"], evidence["rows"]
    share = rows["holdout_positives"] / rows["holdout"]
    measured_on = f"{windows['holdout']}, which it never saw ({rows['holdout']:,} rows, {share:.1%} positive)"
    use = plain((purpose or "").strip()[:_PURPOSE]) or "Not said in the project."
    target = plain(evidence["target"])
    about = [
        f"# {plain(evidence['model'])}: run {plain(evidence['run'])}",
        f"**Intended use.** {use} It answers the probability that {target} is 1.",
        f"**Data.** Trained on {windows['train']} ({rows['train']:,} rows), measured on {measured_on}.",
    ]
    tail = [
        table("Approvals", ("who", "when", "known by", "why"), map(_approval, approvals))
        if approvals
        else "**Approvals.** None yet.",
        table("Digests", ("of", "SHA-256"), _digests(evidence)),
        _reproduction(evidence, commit),
    ]
    measured = table("Measured", ("metric", "value", "95 % interval", "against the champion"), _metrics(evidence))
    relies = table("Relies on", ("column", "AUC lost when shuffled"), _reliance(evidence))
    weak = table("Weakest slices", ("slice", "rows", "AUC", "champion"), weakest(evidence["slices"]))
    text = "\n\n".join(part for part in (*about, measured, weak, relies, *tail) if part) + "\n"
    return text if len(text) <= LONGEST else text[: LONGEST - 2] + "…\n"


def purpose_in(files: Mapping[str, str]) -> str | None:
    """What a project's README says first, its title and other headings left out; None without one."""
    paragraphs = re.split(r"\n\s*\n", files.get("README.md", ""))
    found = (" ".join(part.split()) for part in paragraphs if part.strip() and not part.lstrip().startswith(("#", "|")))
    return next(found, None)


def _metrics(evidence: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    differences = evidence["differences"] or {}
    for name in METRICS:
        if own := evidence["candidate"]["intervals"].get(name):
            against = differences.get(name)
            yield (name, f"{own['value']:.4f}", _interval(own), f"{against['value']:+.4f}" if against else NOTHING)


def _interval(value: Mapping[str, Any]) -> str:
    return NOTHING if value["low"] is None else f"{value['low']:.4f} to {value['high']:.4f}"


def weakest(rows: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, ...]]:
    """The slices with the lowest AUC: name and value, rows, AUC, the champion's."""
    measured = sorted((row for row in rows if row["auc"] is not None), key=lambda row: row["auc"])
    for row in measured[:WORST]:
        theirs = NOTHING if row["champion_auc"] is None else f"{row['champion_auc']:.4f}"
        yield (f"{row['slice']} = {row['value']}", f"{row['n']:,}", f"{row['auc']:.4f}", theirs)


def _reliance(evidence: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for row in evidence.get("relies_on", ())[:WORST]:
        yield (row["column"], f"{row['auc_lost']:.4f}")


def _approval(decision: Mapping[str, Any]) -> tuple[str, ...]:
    return (decision["actor"], decision["at"][:16], decision["assurance"], decision["reason"][:120])


def _digests(evidence: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield from ((name, digest.removeprefix("sha256:")) for name, digest in evidence["subject"].items())
    yield ("evidence", digest_json(evidence).removeprefix("sha256:"))


def _reproduction(evidence: Mapping[str, Any], commit: str | None) -> str:
    training, windows = evidence["training"], evidence["windows"]
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(training["libraries"].items()))
    return (
        f"**How to reproduce.** `gatehouse reproduce --version` and this version's number in its environment: the "
        f"ledger has the project's text, all parameters, the data's digest and the libraries, and the weights come out "
        f"the same. Commit {plain(commit or 'none')}, seed {training['seed']}, windows {windows['train']} and "
        f"{windows['holdout']}, {plain(libraries)}."
    )
