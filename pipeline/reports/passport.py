"""A version's passport as one file: for auditors, mail and paper."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from markupsafe import Markup

from pipeline.domain.canonical import canonical
from pipeline.domain.passport import Passport
from pipeline.errors import UsageError
from pipeline.reports.templating import stylesheet, template


def render(passport: Passport) -> dict[str, bytes]:
    """``passport.html`` (one file, no script) and ``passport.json``. The same passport gives the same bytes."""
    css = Markup(stylesheet("passport.css"))  # noqa: S704  # our own stylesheet
    page = template("passport.html").render(passport=passport, css=css)
    return {"passport.html": page.encode(), "passport.json": canonical(asdict(passport))}


def write(passport: Passport, folder: Path) -> Path:
    """Write both files; answers the page.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in render(passport).items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write: {error}", where="--out", fix="name a folder with room") from error
    return folder / "passport.html"
