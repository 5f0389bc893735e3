"""A version's passport as one file: for auditors, mail and paper."""

from __future__ import annotations

from dataclasses import asdict

from markupsafe import Markup

from pipeline.domain.canonical import canonical
from pipeline.domain.passport import Passport
from pipeline.reports.templating import stylesheet, template


def render(passport: Passport) -> dict[str, bytes]:
    """``passport.html`` (one file, no script) and ``passport.json``. The same passport gives the same bytes."""
    css = Markup(stylesheet("passport.css"))  # noqa: S704  # our own stylesheet
    page = template("passport.html").render(passport=passport, css=css)
    return {"passport.html": page.encode(), "passport.json": canonical(asdict(passport))}
