"""The evidence page's plots: SVG that is the same bytes for the same evidence, and right under a strict CSP.

matplotlib writes inline ``style`` attributes and a ``<style>`` element, which ``style-src 'self'`` blocks where
the SVG is inlined; both become presentation attributes here. Text stays text, in the reader's own fonts.
Each plot comes twice, for light and for dark pages: an SVG shown as an image cannot see the page's colours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Mapping
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pipeline.domain.evidence import METRICS, Curves, Drift, Evidence, FeatureDrift, Intervals

INK, QUIET, GRID, PAPER = "#1f2933", "#5f6c7b", "#e3e8ee", "#ffffff"
CHALLENGER, CHAMPION, GOOD, BAD = "#1f5fc4", "#8a6d3b", "#1a7f4b", "#c0362c"
DARK: Mapping[str, str] = {
    INK: "#e6ebf1",
    QUIET: "#9aa7b6",
    GRID: "#2c3642",
    PAPER: "#171d25",
    CHALLENGER: "#79aaf7",
    CHAMPION: "#d3b06a",
    GOOD: "#5cc98f",
    BAD: "#f08a80",
}
LABELS: Mapping[str, str] = {
    "auc": "AUC",
    "average_precision": "Average precision",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "calibration_error": "Calibration error",
}
LOWER_IS_BETTER = frozenset({"brier", "log_loss", "calibration_error"})
MAX_DRIFT_BARS = 20
PICTURE_DPI = 110
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Helvetica, Arial, sans-serif"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gatehouse",
    "font.size": 10,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "text.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
}


def draw(evidence: Evidence) -> dict[str, bytes]:
    """Every plot the evidence has data for, by file name: ``roc.svg`` and ``roc-dark.svg``, and so on."""
    figures = _figures(evidence)
    plots: dict[str, bytes] = {}
    with mpl.rc_context(dict(_STYLE)):  # type: ignore[arg-type]  # the stubs list every key literally
        for name, (width, height, paint) in figures.items():
            svg = presentation(_svg(width, height, paint))
            plots[f"{name}.svg"], plots[f"{name}-dark.svg"] = svg, _darkened(svg)
    return plots


def pictures(evidence: Evidence, names: Collection[str]) -> dict[str, bytes]:
    """Some of the plots as PNG, by name, for where no SVG is shown: those that the evidence has data for."""
    found: dict[str, bytes] = {}
    with mpl.rc_context(dict(_STYLE)):  # type: ignore[arg-type]  # the stubs list every key literally
        for name, (width, height, paint) in _figures(evidence).items():
            if name in names:
                figure = Figure(figsize=(width, height), layout="constrained", dpi=PICTURE_DPI)
                paint(figure)
                out = io.BytesIO()
                FigureCanvasAgg(figure).print_png(out, metadata={"Software": None})  # type: ignore[no-untyped-call]
                found[name] = out.getvalue()
    return found


def _figures(evidence: Evidence) -> dict[str, tuple[float, float, Callable[[Figure], None]]]:
    mine = evidence.candidate.curves
    theirs = evidence.champion.curves if evidence.champion else None
    base_rate = evidence.rows.holdout_positives / max(1, evidence.rows.holdout)
    found: dict[str, tuple[float, float, Callable[[Figure], None]]] = {}
    if mine.roc:
        found["roc"] = (3.7, 3.5, lambda figure: _roc(figure, mine, theirs))
    if mine.pr:
        found["pr"] = (3.7, 3.5, lambda figure: _pr(figure, mine, theirs, base_rate))
    if mine.reliability:
        found["calibration"] = (3.7, 3.5, lambda figure: _calibration(figure, mine, theirs))
    if evidence.differences:
        differences = evidence.differences
        found["differences"] = (7.4, 2.6, lambda figure: _differences(figure, differences))
    if evidence.drift and (bars := _most_drifted(evidence.drift)):
        drift = evidence.drift
        found["drift"] = (7.4, 0.9 + 0.24 * len(bars), lambda figure: _drift(figure, drift, bars))
    return found


# --- figures ----------------------------------------------------------------------------------------------


def _roc(figure: Figure, mine: Curves, theirs: Curves | None) -> None:
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=(0, (2, 3)))
    _curves(axes, mine.roc, theirs.roc if theirs else ())
    axes.set(xlabel="False positive rate", ylabel="True positive rate")
    _unit_square(axes)
    axes.legend(loc="lower right")


def _pr(figure: Figure, mine: Curves, theirs: Curves | None, base_rate: float) -> None:
    axes = figure.add_subplot()
    axes.axhline(base_rate, color=QUIET, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.text(0.02, base_rate - 0.02, f"base rate {base_rate:.0%}", color=QUIET, fontsize=9, va="top")
    _curves(axes, mine.pr, theirs.pr if theirs else ())
    axes.set(xlabel="Recall", ylabel="Precision")
    _unit_square(axes)
    axes.legend(loc="upper right")


def _calibration(figure: Figure, mine: Curves, theirs: Curves | None) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=(0, (2, 3)))
    if theirs:
        upper.plot(*_reliability(theirs), color=CHAMPION, linewidth=1.3, linestyle=(0, (4, 2)), label="champion")
    bins = mine.reliability
    upper.vlines([b.predicted for b in bins], [b.low for b in bins], [b.high for b in bins], color=CHALLENGER)
    upper.plot(*_reliability(mine), color=CHALLENGER, marker="o", markersize=3.5, label="challenger")
    upper.set(ylabel="Observed share")
    _unit_square(upper)
    upper.legend(loc="upper left")
    width = 1 / max(1, len(mine.histogram))
    lower.bar(
        [(i + 0.5) * width for i in range(len(mine.histogram))],
        mine.histogram,
        width=width * 0.85,
        color=CHALLENGER,
        alpha=0.55,
        linewidth=0,
    )
    lower.set(xlabel="Predicted probability", ylabel="Rows", yticks=[])
    lower.spines["left"].set_visible(False)


def _reliability(curves: Curves) -> tuple[list[float], list[float]]:
    return [b.predicted for b in curves.reliability], [b.observed for b in curves.reliability]


def _differences(figure: Figure, differences: Intervals) -> None:
    """Forest plot; signs are turned so that right is better for the challenger in every row."""
    axes = figure.add_subplot()
    names = [name for name in METRICS if name in differences]
    axes.axvline(0, color=INK, linewidth=1)
    for row, name in enumerate(reversed(names)):
        interval = differences[name]
        sign = -1 if name in LOWER_IS_BETTER else 1
        low, high = (sign * (interval.value if end is None else end) for end in (interval.low, interval.high))
        low, high = min(low, high), max(low, high)
        color = GOOD if low > 0 else BAD if high < 0 else QUIET
        axes.plot([low, high], [row, row], color=color, linewidth=2.6, solid_capstyle="butt")
        axes.plot([sign * interval.value], [row], color=color, marker="o", markersize=6.5)
    axes.set_yticks(range(len(names)), [LABELS[name] for name in reversed(names)], color=INK)
    axes.set_ylim(-0.6, len(names) - 0.4)
    limit = max(abs(edge) for edge in axes.get_xlim())
    axes.set_xlim(-limit, limit)
    axes.set_xlabel("← champion better   ·   in the metric's own units   ·   challenger better →")
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)


def _drift(figure: Figure, drift: Drift, bars: list[FeatureDrift]) -> None:
    axes = figure.add_subplot()
    rows = list(reversed(bars))
    values = [row.psi or 0.0 for row in rows]
    colors = [BAD if row.drifted else CHALLENGER for row in rows]
    axes.barh(range(len(rows)), values, color=colors, height=0.62, linewidth=0)
    for index, value in enumerate(values):
        axes.annotate(
            f"{value:.3f}",
            (value, index),
            (4, 0),
            textcoords="offset points",
            va="center",
            color=QUIET,
            fontsize=9,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1},  # the limit's line must not cross a number
        )
    top = max([*values, (drift.psi_limit or 0) * 1.05, 0.01])
    if drift.psi_limit is not None:
        axes.axvline(drift.psi_limit, color=BAD, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(rows)), [_clipped(row.feature) for row in rows], color=INK)
    axes.set_xlim(0, top * 1.12)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("Population stability index")
    axes.grid(axis="x")


def _most_drifted(drift: Drift) -> list[FeatureDrift]:
    known = [row for row in drift.features if row.psi is not None]
    return sorted(known, key=lambda row: (-(row.psi or 0.0), row.feature))[:MAX_DRIFT_BARS]


def _clipped(text: str, limit: int = 28) -> str:
    # A dollar sign would start mathematics.
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text.replace("$", r"\$")


def _curves(axes: Axes, mine: tuple[tuple[float, float], ...], theirs: tuple[tuple[float, float], ...]) -> None:
    if theirs:
        axes.plot(*zip(*theirs, strict=True), color=CHAMPION, linewidth=1.5, linestyle=(0, (4, 2)), label="champion")
    axes.plot(*zip(*mine, strict=True), color=CHALLENGER, label="challenger")


def _unit_square(axes: Axes) -> None:
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xticks=ticks, yticks=ticks)
    axes.set_xticks(ticks, ["0", ".25", ".5", ".75", "1"])
    axes.set_yticks(ticks, ["0", ".25", ".5", ".75", "1"])
    axes.grid()


# --- SVG --------------------------------------------------------------------------------------------------


def _svg(width: float, height: float, paint: Callable[[Figure], None]) -> bytes:
    figure = Figure(figsize=(width, height), layout="constrained")
    paint(figure)
    out = io.BytesIO()
    # Without a date, creator and the like the bytes depend on the evidence alone.
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(out, metadata=nothing)  # type: ignore[no-untyped-call]  # untyped there
    return out.getvalue()


def presentation(svg: bytes) -> bytes:
    """An SVG with presentation attributes in place of inline styles; no doctype, metadata or outside names."""
    root = ElementTree.fromstring(svg)  # noqa: S314  # matplotlib's own output
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        _attributes(element)
    # What matplotlib's <style> element sets for everything; both are inherited.
    root.set("stroke-linejoin", "round")
    root.set("stroke-linecap", "butt")
    ElementTree.register_namespace("", _SVG)
    document: bytes = ElementTree.tostring(root, encoding="utf-8")
    return document


def _attributes(element: ElementTree.Element) -> None:
    for key in [key for key in element.attrib if key.startswith(_XLINK)]:
        element.set(key.removeprefix(_XLINK), element.attrib.pop(key))
    for declaration in element.attrib.pop("style", "").split(";"):
        name, _, value = declaration.partition(":")
        if name.strip() == "font":
            _font(element, value.strip())
        elif name.strip():
            element.set(name.strip(), value.strip())


def _font(element: ElementTree.Element, shorthand: str) -> None:
    size = re.search(r"([\d.]+)px", shorthand)
    element.set("font-size", size.group(1) if size else "10")
    element.set("font-family", _FONT)


def _darkened(svg: bytes) -> bytes:
    text = svg.decode()
    return re.sub("|".join(DARK), lambda match: DARK[match.group()], text).encode()
