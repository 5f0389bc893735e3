"""``gatehouse init``: a new project that works, from the flights example."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from pipeline.config import load_project
from pipeline.errors import UsageError

EXAMPLE = "flights"


def scaffold(parent: Path, name: str) -> str:
    """Copy the flights example to ``parent/name`` under the new name; answers what to do next.

    Raises:
        UsageError: the name is no project name, or the folder is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,40}", name):
        raise UsageError(
            f"'{name}' is no project name", where="NAME", fix="lower-case letters, digits, - and _, a letter first"
        )
    folder = parent / name
    if folder.exists():
        raise UsageError("the folder is there already", where=str(folder), fix="choose another name")
    folder.mkdir(parents=True)
    module = name.replace("-", "_")
    for source in resources.files("pipeline.examples.flights").iterdir():
        if source.name.startswith("__") or not source.is_file():
            continue
        text = source.read_text(encoding="utf-8")
        if source.name == "project.toml":
            text = re.sub(r'(?m)^name = ".*"$', f'name = "{name}"', text)
            text = re.sub(r'(?m)^module = ".*"$', f'module = "{module}"', text)
        target = f"{module}.py" if source.name == f"{EXAMPLE}.py" else source.name
        (folder / target).write_text(text, encoding="utf-8")
    load_project(folder)
    return f"{folder}: edit project.toml and {module}.py, then: gatehouse run --project {name}"
