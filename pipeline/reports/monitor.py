"""The monitor's page: one self-contained HTML file, no script, no network; the plots are SVG written by the template.

The report is plain JSON: ``model``, ``environment``, ``version``, ``package``, ``window``, ``reference`` (its window),
``holdout`` (the one that quality is compared with), ``target``, ``created``, ``asked`` (from the
prediction log), and ``verdict`` as
`pipeline.domain.monitoring.MonitorVerdict` dumps it. ``monitor.json`` is the same content, canonical.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from pipeline.domain.canonical import canonical
from pipeline.domain.drift import OTHER
from pipeline.reports.templating import number, px, share, stylesheet, template

LEVELS = ("drifted", "moderate", "stable")
_KNOWN = ("model", "environment", "version", "package", "window", "reference", "holdout", "target", "created")

# Histograms, in SVG units.
WIDTH, HEIGHT = 320.0, 96.0
# Plots by month.
PLOT_WIDTH, PLOT_HEIGHT, LEFT, BELOW = 460.0, 190.0, 46.0, 24.0


def render(report: Mapping[str, Any]) -> dict[str, bytes]:
    """The page and its data, by file name: ``monitor.html`` and ``monitor.json``."""
    verdict = report["verdict"]
    html = template("monitor.html").render(
        **{key: report.get(key) for key in _KNOWN},
        verdict=verdict,
        css=Markup(stylesheet("monitor.css")),  # noqa: S704  # our own file
        headline=_headline(verdict),
        asked=_asked(report.get("asked") or {}),
        groups=_groups(verdict["features"]),
        shifts=[_card(shift) for shift in (verdict["prediction"],) if shift],
        plots=list(_plots(verdict, str(report.get("target") or "target"))),
    )
    return {"monitor.html": html.encode(), "monitor.json": canonical(dict(report))}


def _asked(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    rows = asked.get("features", ())
    return {"rows": asked.get("rows", 0), "drifted": [row["feature"] for row in rows if row["verdict"] == "drifted"]}


class Headline(NamedTuple):
    """What the page says first."""

    level: str
    title: str
    reasons: list[str]
    drifted: list[str]
    watched: int
    worst_auc: float | None


def _headline(verdict: Mapping[str, Any]) -> Headline:
    features = verdict["features"]
    drifted = [row for row in features if row["verdict"] == "drifted"]
    # Inputs are one line together, but for those that are not there at all.
    of_inputs = {f"{row['feature']}: {row['rule']}" for row in drifted if row["rows_current"]}
    level = "refused" if verdict["refused"] else "drifted" if verdict["drifted"] else "stable"
    measured = [month["auc"] for month in verdict["months"] if month["auc"] is not None]
    worse = any(month["worse"] for month in verdict["months"])
    compared = measured and verdict["baseline"]["metrics"].get("auc") is not None
    quality = "the model got worse" if worse else "quality holds" if compared else "quality is not known"
    titles = {
        "refused": "Refused: there is nothing to judge",
        "drifted": f"Drifted, and {quality}" if worse else f"Drifted; {quality}",
        "stable": f"Stable; {quality}",
    }
    return Headline(
        level=level,
        title=titles[level],
        reasons=[reason for reason in verdict["reasons"] if reason not in of_inputs],
        drifted=[row["feature"] for row in drifted] if level != "refused" else [],
        watched=len(features),
        worst_auc=min(measured, default=None),
    )


# --- histograms -------------------------------------------------------------------------------------------


class Rect(NamedTuple):
    """One bar, in the histogram's units, with the text a reader gets on pointing at it."""

    x: float
    width: float
    reference: float
    current: float
    title: str


class Tick(NamedTuple):
    """A label below the histogram."""

    x: float
    text: str
    anchor: str
    slanted: bool


class Card(NamedTuple):
    """One feature (or the predictions) as drawn. `others`: the bar of all other values, told and not drawn."""

    row: Mapping[str, Any]
    rects: list[Rect]
    outline: str
    ticks: list[Tick]
    others: Mapping[str, Any] | None


def _groups(features: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Card]]]:
    cards = {level: [_card(row) for row in features if row["verdict"] == level] for level in LEVELS}
    return [(level, found) for level, found in cards.items() if found]


def _card(row: Mapping[str, Any]) -> Card:
    # Drawn, the bar of all others would dwarf the values that are looked at.
    bars = [bar for bar in row["bars"] if bar["label"] != OTHER]
    others = next((bar for bar in row["bars"] if bar["label"] == OTHER), None)
    if not bars:
        return Card(row, [], "", [], others)
    ranged = _is_ranged(bars)
    step = WIDTH / len(bars)
    gap = 0.0 if ranged else step * 0.18
    top = max(max(bar["reference"], bar["current"]) for bar in bars) or 1.0
    rects = [
        Rect(
            x=i * step + gap / 2,
            width=step - gap,
            reference=HEIGHT * bar["reference"] / top,
            current=HEIGHT * bar["current"] / top,
            title=f"{bar['label']}: reference {share(bar['reference'])}, now {share(bar['current'])}",
        )
        for i, bar in enumerate(bars)
    ]
    return Card(row, rects, _outline(rects) if ranged else "", _ticks(bars, step, ranged=ranged), others)


def _is_ranged(bars: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the bars are intervals side by side, not single values."""
    return len(bars) > 1 and all(" – " in bar["label"] for bar in bars)


def _outline(rects: Sequence[Rect]) -> str:
    """The current distribution as one stepped line."""
    steps = [f"M0 {px(HEIGHT)}"]
    for rect in rects:
        steps += [f"V{px(HEIGHT - rect.current)}", f"H{px(rect.x + rect.width)}"]
    return " ".join([*steps, f"V{px(HEIGHT)}"])


def _ticks(bars: Sequence[Mapping[str, Any]], step: float, *, ranged: bool) -> list[Tick]:
    labels = [bar["label"] for bar in bars]
    if ranged:
        middle = len(labels) // 2
        return [
            Tick(0, labels[0].split(" – ")[0], "start", False),
            Tick(middle * step, labels[middle].split(" – ")[0], "middle", False),
            Tick(WIDTH, labels[-1].split(" – ")[1], "end", False),
        ]
    slanted = max(map(len, labels)) * 5.6 > step
    return [
        Tick((i + 0.5) * step, text if len(text) <= 9 else text[:8] + "…", "end" if slanted else "middle", slanted)
        for i, text in enumerate(labels)
    ]


# --- by month ---------------------------------------------------------------------------------------------


class Dot(NamedTuple):
    """A measured value of one month."""

    x: float
    y: float
    text: str
    bad: bool


class Line(NamedTuple):
    """One series: its dots, the path through those of neighbouring months, and its name at the end."""

    name: str
    kind: str
    dots: list[Dot]
    path: str


class Rule(NamedTuple):
    """A horizontal line: what was promised, or where drift begins."""

    y: float
    text: str
    kind: str


class Plot(NamedTuple):
    """A plot over the months."""

    title: str
    lines: list[Line]
    rules: list[Rule]
    marks: list[tuple[float, str]]
    months: list[tuple[float, str]]


def _plots(verdict: Mapping[str, Any], target: str) -> Iterator[Plot]:
    """AUC, and observed against predicted rate; nothing for a single month, which the table says better."""
    months, baseline, limits = verdict["months"], verdict["baseline"], verdict["thresholds"]
    if len(months) < 2:
        return
    promised = baseline["metrics"].get("auc")
    if any(month["auc"] is not None for month in months):
        rules = [] if promised is None else [(promised, "hold-out", "promised")]
        rules += [] if promised is None else [(promised - limits["auc_drop"], "limit", "limit")]
        yield _plot("AUC", months, [("AUC", "now", "auc")], rules, as_share=False)
    if any(month["target_rate"] is not None or month["prediction_mean"] is not None for month in months):
        trained = baseline["target"]
        rate = trained[1] / sum(trained) if trained else None
        rules = [] if rate is None else [(rate, "training", "promised")]
        rules += [] if rate is None else [(rate + d * limits["target_rate"], "limit", "limit") for d in (-1, 1)]
        series = [(f"share of {target}", "now", "target_rate"), ("mean prediction", "other", "prediction_mean")]
        yield _plot(f"Share of {target}: observed and predicted", months, series, rules, as_share=True)


def _plot(
    title: str,
    months: Sequence[Mapping[str, Any]],
    series: Sequence[tuple[str, str, str]],
    rules: Sequence[tuple[float, str, str]],
    *,
    as_share: bool,
) -> Plot:
    values: list[float] = [month[key] for month in months for _, _, key in series if month[key] is not None]
    values += [value for value, _, _ in rules]
    low, high = min(values), max(values)
    pad = (high - low) * 0.12 or 0.05
    low, high = (max(0.0, low - pad) if as_share else low - pad), high + pad
    scale = (PLOT_HEIGHT - BELOW - 8) / (high - low)

    def across(i: int) -> float:
        return LEFT + (PLOT_WIDTH - LEFT - 12) * (i + 0.5) / len(months)

    def up(value: float) -> float:
        return 8 + scale * (high - value)

    def text(value: float) -> str:
        return share(value) if as_share else number(value)

    lines = []
    for name, kind, key in series:
        if all(month[key] is None for month in months):
            continue
        dots = [
            None
            if month[key] is None
            else Dot(across(i), up(month[key]), f"{month['month']}: {text(month[key])}", False)
            for i, month in enumerate(months)
        ]
        lines.append(Line(name, kind, [dot for dot in dots if dot], _path(dots)))
    marks = [(up(value), f"{value * 100:.0f}%" if as_share else f"{value:.2f}") for value in _round_values(low, high)]
    drawn = [Rule(up(value), f"{name} {text(value)}", kind) for value, name, kind in rules]
    return Plot(title, lines, drawn, marks, [(across(i), month["month"]) for i, month in enumerate(months)])


def _path(dots: Sequence[Dot | None]) -> str:
    """A line through neighbouring months; a month without a value is a gap."""
    parts, pen = [], "M"
    for dot in dots:
        if dot is None:
            pen = "M"
            continue
        parts.append(f"{pen}{px(dot.x)} {px(dot.y)}")
        pen = "L"
    return " ".join(parts)


def _round_values(low: float, high: float) -> list[float]:
    """Three to six round numbers between two values."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        if (high - low) / step <= 6:
            break
    first = int(low / step) + 1
    return [i * step for i in range(first, int(high / step) + 1)]
