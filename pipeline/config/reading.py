"""Reading TOML into strict models, with errors that name the file, the key, what was expected and the nearest name."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A frozen model that knows all of its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse(text: str, where: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        UsageError: it is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not TOML: {error}", where=where) from error


def read_secret(file: Path, what: str) -> str:
    """What a file with a token, or the like, holds; it never stands in an error.

    Args:
        what: the file in words.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(
            f"{what} cannot be read: {error.strerror}", where=str(file), fix="name a file that this user may read"
        ) from error


def validate(model: type[Model], data: Mapping[str, Any], where: str) -> Model:
    """`data` as `model`.

    Raises:
        UsageError: naming the first key that is wrong, what was expected there, and the nearest name known.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _explain(model, error, where) from error


def _explain(model: type[BaseModel], error: ValidationError, where: str) -> UsageError:
    problems = error.errors(include_url=False)
    # A misspelt key is two problems, one unknown and one missing; the unknown one says more.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        known = _fields(model, location[:-1])
        return UsageError(f"unknown key '{location[-1]}'", where=f"{where}: {key}", fix=nearest(location[-1], known))
    expected = first["msg"][0].lower() + first["msg"][1:]
    given = "" if first["type"] == "missing" else f", got {first['input']!r:.80}"
    return UsageError(f"{expected}{given}", where=f"{where}: {key}", fix=f"{len(problems)} error(s) in all")


def _fields(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """Keys known at a place inside a model; looks through tuples of models and optional ones."""
    for part in location:
        if part.isdigit():
            continue
        field = next((f for name, f in model.model_fields.items() if (f.alias or name) == part), None)
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        if (found := _model_in(part)) is not None:
            return found
    return None


def nearest(name: str, known: Sequence[str]) -> str:
    """The known name most like `name`, and all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    listed = ", ".join(sorted(known)) or "none"
    return f"did you mean '{close[0]}'? known: {listed}" if close else f"known: {listed}"
