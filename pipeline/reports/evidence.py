"""The evidence page: what an approver decides on, in two forms made from one template.

``evidence.html`` is for Jenkins, whose default policy for artifacts is ``sandbox; default-src 'none';
img-src 'self'; style-src 'self'``: a stylesheet file beside it, plots as image files, no script, no inline style.
``evidence-standalone.html`` is one file for mail and MLflow, with stylesheet and plots inside. Verdict and
approvals come later than the evidence and are rendered beside it; the digest is of the evidence alone.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.domain.canonical import canonical, digest_json
from pipeline.domain.evidence import METRICS, Evidence
from pipeline.domain.policy import LOWER_IS_BETTER
from pipeline.reports import plots
from pipeline.reports.templating import stylesheet, template

CAPTIONS = {
    "roc": "ROC curve on the hold-out",
    "pr": "Precision and recall on the hold-out",
    "calibration": "Calibration: predicted against observed share",
    "differences": "Improvement over the champion on the same rows, with its interval",
    "drift": "Drift of the hold-out against the training window (PSI)",
}
NAMES = {
    "auc": "AUC",
    "average_precision": "Average precision",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "calibration_error": "Calibration error",
}
SHOWN_PER_SLICE = 25
PARTS = ("data", "code", "parameter", "policy", "library")


def render(
    evidence: Mapping[str, Any],
    verdict: Mapping[str, Any] | None = None,
    approvals: Sequence[Mapping[str, Any]] = (),
    standing: Mapping[str, Any] | None = None,
    ways: Sequence[str] = ("jenkins",),
) -> dict[str, bytes]:
    """The files of the page, by name. The same arguments give the same bytes.

    Args:
        evidence: JSON of `pipeline.domain.evidence.Evidence`.
        verdict: JSON of `pipeline.domain.policy.Verdict`; None while no policy has judged.
        approvals: recorded decisions: actor, approved, reason, at, expires, assurance, on_behalf_of.
        standing: where the approval stands: JSON of `pipeline.domain.approval.Standing`, with `glass` and `excluded`.
        ways: how the installation recognises people: ``jenkins``, ``github``, ``signed``, ``oidc``.
    """
    known, digest = Evidence.model_validate(evidence), digest_json(evidence)
    drawn = plots.draw(known)
    css = stylesheet("evidence.css")
    shared = {
        "e": evidence,
        "digest": digest,
        "verdict": verdict,
        "approvals": [{"on_behalf_of": None, **approval, "void": _is_void(approval, digest)} for approval in approvals],
        "standing": standing,
        "diff": evidence.get("diff", ()),
        "ways": ways,
        "changed": [(name, rows) for name in PARTS if (rows := _changes_of(evidence, name))],
        "metrics": [_metric(evidence, name) for name in METRICS],
        "slices": _worst(evidence["slices"]),
        "drift": sorted((evidence["drift"] or {}).get("features", ()), key=lambda row: -(row["psi"] or 0)),
        "captions": {name: text for name, text in CAPTIONS.items() if f"{name}.svg" in drawn},
    }
    page = template("evidence.html")
    jenkins = page.render(**shared, css=None, sources={name: name for name in drawn})
    inside = {name: Markup(f"data:image/svg+xml;base64,{_base64(svg)}") for name, svg in drawn.items()}  # noqa: S704
    alone = page.render(**shared, css=Markup(css), sources=inside)  # noqa: S704  # our own stylesheet
    return {
        "evidence.html": jenkins.encode(),
        "evidence-standalone.html": alone.encode(),
        "evidence.css": css.encode(),
        "evidence.json": canonical(dict(evidence)),
        **drawn,
    }


def _changes_of(evidence: Mapping[str, Any], part: str) -> list[Mapping[str, Any]]:
    """Changes of one part; evidence of before there were parts names parameters only."""
    return [change for change in evidence["changes"] if change.get("part", "parameter") == part]


def _is_void(approval: Mapping[str, Any], digest: str) -> bool:
    """Whether a decision was taken on other evidence than this."""
    subject: Mapping[str, Any] = approval.get("subject") or {}
    return bool(subject.get("evidence", digest) != digest)


def _worst(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The worst values of every slice: one slice with many values must not push another off the page."""
    shown: list[Mapping[str, Any]] = []
    for name in dict.fromkeys(row["slice"] for row in rows):
        mine = [row for row in rows if row["slice"] == name]
        shown += sorted(mine, key=lambda row: (row["auc"] is None, row["auc"] or 0.0))[:SHOWN_PER_SLICE]
    return shown


def _metric(evidence: Mapping[str, Any], name: str) -> dict[str, Any]:
    champion = evidence["champion"]
    difference = (evidence["differences"] or {}).get(name)
    return {
        "name": NAMES[name],
        "better": "lower" if name in LOWER_IS_BETTER else "higher",
        "mine": evidence["candidate"]["intervals"][name],
        "theirs": champion["intervals"][name] if champion else None,
        "difference": difference,
        "says": _says(difference, name),
    }


def _says(difference: Mapping[str, Any] | None, name: str) -> str:
    """Whether the interval of a difference is on one side of zero, and on which."""
    if difference is None or difference["low"] is None or difference["low"] <= 0 <= difference["high"]:
        return "same" if difference else ""
    return "better" if (difference["low"] > 0) != (name in LOWER_IS_BETTER) else "worse"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
