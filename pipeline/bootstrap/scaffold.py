"""``gatehouse init``: a new project that works, from the flights example."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from pipeline.config import load_project
from pipeline.errors import UsageError
from pipeline.frameworks.registry import FRAMEWORKS

EXAMPLE = "flights"
DEFAULT = "torch"


def scaffold(parent: Path, name: str, framework: str = DEFAULT) -> str:
    """Copy the flights example to ``parent/name``, with its model in a framework; answers what to do next.

    Raises:
        UsageError: the name is no project name, the folder is there already, or there is no such framework.
    """
    if framework not in FRAMEWORKS:
        raise UsageError(f"no framework '{framework}'", where="--framework", fix=f"one of: {', '.join(FRAMEWORKS)}")
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
        if framework != DEFAULT:
            text = _translated(source.name, text, framework)
        target = f"{module}.py" if source.name == f"{EXAMPLE}.py" else source.name
        (folder / target).write_text(text, encoding="utf-8")
    load_project(folder)
    return f"{folder}: edit project.toml and {module}.py, then: gatehouse run --project {name}"


def _translated(file: str, text: str, framework: str) -> str:
    """One file of the example with the framework's model and parameters in the place of PyTorch's."""
    variants = resources.files("pipeline.examples.flights_frameworks")
    if file == "project.toml":
        parameters = (variants / f"{framework}.toml").read_text(encoding="utf-8")
        text = text.replace(f'framework = "{DEFAULT}"', f'framework = "{framework}"')
        return re.sub(r"(?ms)^\[training\.parameters\]\n.*?(?=^\[)", lambda _: f"{parameters}\n", text)
    if file == f"{EXAMPLE}.py":
        variant = (variants / f"{framework}.py").read_text(encoding="utf-8")
        types = re.search(r"(?m)^if TYPE_CHECKING:\n((?:    .*\n)+)", variant)
        assert types is not None
        text = text.replace("    from torch import Tensor, nn\n", types[1]).replace(
            "from itertools import pairwise\n", ""
        )
        factory = variant[variant.index("def model(") :]
        return re.sub(r"(?ms)^def model\(.*?(?=^def schema)", lambda _: f"{factory}\n\n", text)
    return text
