"""A project as an MLflow Project: ``MLproject`` with the whole line as its main entry point, and one for each stage.

https://mlflow.org/docs/latest/ml/projects/
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pipeline.faces.generated import seal
from pipeline.graph import STAGES, Stage

FILE = "MLproject"


def text(name: str, train: str, holdout: str, stages: Sequence[Stage] = STAGES) -> str:
    """The file's text, sealed.

    Args:
        name: the project's.
        train, holdout: its own windows, the defaults of parameters.
        stages: the graph.
    """
    before_gate = stages[next(number for number, stage in enumerate(stages) if stage.gate) - 1]
    windows = {"train": train, "holdout": holdout}
    options = "--train {train} --holdout {holdout}"
    whole = f"gatehouse run --project . --until {{until}} {options}"
    lines = [f"name: {json.dumps(name)}", "", "entry_points:"]
    lines += _entry("main", {"until": before_gate.name, **windows}, whole)
    for stage in stages:
        command = f"gatehouse {' '.join(stage.command)} --run {{run}}"
        opens = not stage.reads
        parameters: Mapping[str, str | None] = {"run": None, **(windows if opens else {})}
        lines += _entry(stage.slug, parameters, f"{command} --project . {options}" if opens else command)
    return seal("\n".join(lines) + "\n")


def _entry(name: str, parameters: Mapping[str, str | None], command: str) -> list[str]:
    defaults = (f", default: {json.dumps(value)}" if value is not None else "" for value in parameters.values())
    rows = [f"      {key}: {{type: string{default}}}" for key, default in zip(parameters, defaults, strict=True)]
    return [f"  {name}:", "    parameters:", *rows, f"    command: {json.dumps(command)}"]
