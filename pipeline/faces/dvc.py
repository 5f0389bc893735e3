"""``dvc.yaml`` from the stage graph: each stage one command, its facts as outputs, the project's keys as parameters.

The format is DVC's own: https://dvc.org/doc/user-guide/project-structure/dvcyaml-files
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping

from pipeline.faces.generated import seal
from pipeline.graph import STAGES, Stage

FILE = "dvc.yaml"
FOLDER = "facts"
CHECK = "ledger"
METRICS, ROC, RELIABILITY = (f"{FOLDER}/{name}.json" for name in ("metrics", "roc", "reliability"))
_PROJECT = "project.toml"
_EVALUATE = "evaluate"
# Whatever nobody claims belongs to the first stage: it opens the run.
_CLAIMS: Mapping[str, tuple[str, ...]] = {
    "validate": ("max_null_share",),
    "train": ("framework", "module", "model", "training", "search"),
    _EVALUATE: ("evaluation",),
    "gate production": ("policy", "risk_tier", "approvers", "reviews"),
}


def fact_file(stage: Stage) -> str:
    """Where the stage's fact stands, below the project's folder."""
    return f"{FOLDER}/{stage.slug}.json"


def text(files: Collection[str], keys: Collection[str]) -> str:
    """Render ``dvc.yaml``, sealed.

    Args:
        files: names of the project's files; a change in any of them is a new run.
        keys: top-level keys of its ``project.toml``.
    """
    lines = ["stages:"]
    for stage in STAGES:
        lines += _stage(stage, files, keys)
    lines += [
        f"  {CHECK}:",
        "    desc: holds every output, however it came here, to the ledger",
        "    cmd: gatehouse dvc check",
        "    always_changed: true",
        "    deps:",
        *(f"      - {fact_file(stage)}" for stage in STAGES),
    ]
    return seal("\n".join(lines) + "\n")


def _stage(stage: Stage, files: Collection[str], keys: Collection[str]) -> Iterator[str]:
    yield f"  {stage.slug}:"
    if stage.gate:
        yield "    desc: stops here, exit code 4, until somebody entitled has decided; then repro goes on"
    yield f"    cmd: gatehouse dvc stage {stage.slug}"
    yield "    deps:"
    before = [fact_file(other) for other in STAGES if other.name in stage.reads]
    yield from (f"      - {json.dumps(name)}" for name in before or sorted(files))
    if parameters := sorted(set(keys) & _claimed(stage, keys)):
        yield "    params:"
        yield f"      - {_PROJECT}:"
        yield from (f"          - {key}" for key in parameters)
    yield "    outs:"
    yield f"      - {fact_file(stage)}"
    if stage.name == _EVALUATE:
        yield "    metrics:"
        yield f"      - {METRICS}:"
        yield "          cache: false"
        yield "    plots:"
        yield from _plot(ROC, "ROC on the hold-out", "false_positive_rate", "true_positive_rate")
        yield from _plot(RELIABILITY, "Reliability on the hold-out", "predicted", "observed")


def _claimed(stage: Stage, keys: Collection[str]) -> set[str]:
    if not stage.reads:
        return set(keys) - {key for claim in _CLAIMS.values() for key in claim}
    return set(_CLAIMS.get(stage.name, ()))


def _plot(file: str, title: str, x: str, y: str) -> Iterator[str]:
    yield f"      - {file}:"
    yield "          cache: false"
    yield f"          title: {title}"
    yield f"          x: {x}"
    yield f"          y: {y}"
