"""What the pages share: the template environment, and how numbers are written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def template(name: str) -> Template:
    """One of our templates: escapes by itself, refuses unknown names."""
    return _environment().get_template(name)


def stylesheet(name: str) -> str:
    """One of our stylesheets, after what all pages share."""
    return "".join((TEMPLATES / part).read_text(encoding="utf-8") for part in ("base.css", name))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: tuple[Callable[..., str], ...] = (share, count, number, signed, brief, short, px, when)
    environment.filters |= {function.__name__: function for function in filters}
    return environment


def share(value: float | None, digits: int = 1) -> str:
    """A share as per cent; a dash where it is unknown. Never 0 or 100 % for what is not quite that."""
    if value is None:
        return "–"
    if 0 < value < 0.5 * 10 ** (-digits - 2):
        return f"< {10**-digits:g}%"
    text = f"{value * 100:.{digits}f}"
    return f"> {100 - 10**-digits:g}%" if value < 1 and float(text) == 100 else f"{text}%"


def count(value: float) -> str:
    """Thousands apart by a narrow space."""
    return f"{value:,.0f}".replace(",", "\u202f")


def number(value: float | None, digits: int = 3) -> str:
    """Fixed decimals; a dash where it is unknown."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None) -> str:
    """Four decimals with their sign: a difference."""
    return "–" if value is None else f"{value:+.4f}".replace("-", "−")


def brief(value: float | None) -> str:
    """Four significant digits."""
    return "–" if value is None else f"{value:.4g}".replace("-", "−")


def short(digest: str | None) -> str:
    """The beginning of a digest."""
    return "–" if digest is None else digest[:19] + "…"


def px(value: float) -> str:
    """A length in SVG units."""
    return f"{value:.1f}".removesuffix(".0")


def when(text: str | None) -> Markup:
    """An ISO 8601 time as people read it, in UTC, to the minute; the machine's form stays in the element."""
    if not text:
        return Markup("–")
    moment = datetime.fromisoformat(text).astimezone(UTC)
    return Markup('<time datetime="{}">{:%Y-%m-%d %H:%M} UTC</time>').format(text, moment)
