import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pipeline.domain.drift import Thresholds, profile
from pipeline.domain.monitoring import Outcomes, verdict
from pipeline.reports.monitor import render, share

VOID = {"meta", "path", "rect", "circle", "br", "i"}


def objects(values):
    return np.array(values, dtype=object)


def columns(n=2_000, seed=0, numbers=3, shift=0.0):
    random = np.random.default_rng(seed)
    found = {f"number {i}": random.normal(shift * (i == 0), 1, n) for i in range(numbers)}
    found["<b>carrier</b>"] = objects(random.choice(["AA", "UA & co", "a very long airline name"], n))
    found["late"] = (random.random(n) < 0.3).astype(float)
    return found


def outcomes(n=2_000, months=("2013-08", "2013-09")):
    random = np.random.default_rng(5)
    p = random.random(n)
    return Outcomes((random.random(n) < p).astype(float), p, objects([months[i % len(months)] for i in range(n)]))


def report(current, seen=None, reference=None):
    evidence = {"candidate": {"metrics": {"auc": 0.9}, "curves": {"histogram": [10] * 40}}}
    found = verdict(profile(reference or columns()), current, seen, Thresholds(), target="late", evidence=evidence)
    return {
        "model": "flights",
        "environment": "production",
        "version": "4",
        "package": "sha256:" + "3f" * 32,
        "window": "2013-08..2013-09",
        "reference": "2013-01..2013-06",
        "holdout": "2013-07",
        "target": "late",
        "created": "2026-11-23T21:15:00Z",
        "verdict": found.to_json(),
    }


def page(*args, **keywords):
    return render(report(*args, **keywords))["monitor.html"].decode()


class Parsed(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else"


def test_the_page_is_well_formed_and_needs_no_network_and_no_script():
    text = page(columns(seed=1, shift=2), outcomes())
    parsed = Parsed(text)
    assert parsed.open == []
    assert "script" not in parsed.tags
    assert "link" not in parsed.tags
    assert not [name for name, _ in parsed.attributes if name in {"src", "href", "style"} or name.startswith("on")]
    assert not re.search(r"https?://|url\(|@import", text)


def test_names_from_the_data_are_escaped():
    text = page(columns(seed=1))
    assert "<b>carrier" not in text
    assert "&lt;b&gt;carrier&lt;/b&gt;" in text
    assert "UA &amp; co" in text


def test_the_verdict_comes_first_with_quality_before_inputs():
    text = page(columns(seed=1, shift=2), outcomes())
    body = text[text.index("<body>") :]
    assert "Drifted, and the model got worse" in body
    places = [body.index(part) for part in ("got worse", "AUC 0.", "1 of 4 inputs", "Quality by month", "Inputs, most")]
    assert places == sorted(places)


def test_a_stable_window_says_so():
    text = page(columns(seed=1), None)
    assert "Stable; quality is not known" in text
    assert "Not measured:" in text


def test_an_empty_window_says_that_it_was_refused():
    empty = {name: values[:0] for name, values in columns().items()}
    text = page(empty)
    assert "Refused: there is nothing to judge" in text
    assert "no rows in this window" in text
    assert "Inputs, most severe first" not in text


def test_a_missing_column_is_named_at_the_top():
    current = columns(seed=1)
    del current["number 1"]
    assert "<li>number 1: the column is missing</li>" in page(current)


def test_two_months_are_plotted_and_one_is_only_tabled():
    assert 'aria-label="AUC by month"' in page(columns(seed=1), outcomes())
    single = page(columns(seed=1), outcomes(months=("2013-09",)))
    assert 'class="plot"' not in single
    assert "<th>2013-09</th>" in single


def test_all_null_columns_are_told_and_not_drawn():
    current = columns(seed=1)
    current["number 2"] = np.full(2_000, np.nan)
    assert "No values to draw." in page(current)


def test_forty_columns_are_all_there():
    current = columns(seed=1, numbers=39)
    text = page(current, outcomes(), reference=columns(numbers=39))
    assert len(re.findall(r'<article class="card', text)) == 40 + 1  # and the predictions
    assert text.count('<svg class="histogram"') == 41


def test_the_same_report_gives_the_same_bytes_and_the_data_beside_it():
    content = report(columns(seed=1), outcomes())
    first, second = render(content), render(content)
    assert first == second
    assert json.loads(first["monitor.json"]) == json.loads(json.dumps(content))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0.0%"), (0.00001, "< 0.1%"), (0.131, "13.1%"), (0.99999, "> 99.9%"), (1.0, "100.0%")],
)
def test_a_share_is_never_rounded_to_nothing_or_all(value, text):
    assert share(value) == text
