"""The evidence page: right under Jenkins' policy, safe with hostile text, the same bytes every time."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from pipeline.domain import comparison
from pipeline.domain.canonical import digest_json
from pipeline.domain.evidence import (
    Candidate,
    Champion,
    Data,
    Evidence,
    Latency,
    Lineage,
    MonthRows,
    Parity,
    Rows,
    Subject,
    Training,
    Windows,
)
from pipeline.reports.evidence import render

DIGEST = "sha256:" + "a" * 64
HOSTILE = '<img src=x onerror="alert(1)">'


def evidence(*, champion=True, slice_value="JFK"):
    rng = np.random.default_rng(1)
    y = (rng.random(2000) < 0.3).astype(float)
    p, q = (np.clip(0.3 + 0.2 * (y - 0.3) + rng.normal(0, noise, 2000), 0.01, 0.99) for noise in (0.15, 0.2))
    both = comparison.bootstrap(y, p, q if champion else None, resamples=50)
    rival = None
    if champion:
        rival = Champion(
            version="1",
            run="old",
            package=DIGEST,
            metrics=comparison.evaluate(y, q),
            intervals=both.champion,
            curves=comparison.curves(y, q),
        )
    return Evidence(
        run="r-1",
        project="flights",
        model="flights",
        environment="production",
        created="2026-11-23T20:00:00+00:00",
        target="late",
        windows=Windows(train="2013-01..2013-06", holdout="2013-07"),
        rows=Rows(train=10_000, holdout=2000, holdout_positives=int(y.sum())),
        subject=Subject(package=DIGEST, weights=DIGEST, data=DIGEST, code=DIGEST, policy=DIGEST),
        candidate=Candidate(
            metrics=comparison.evaluate(y, p), intervals=both.challenger, curves=comparison.curves(y, p)
        ),
        champion=rival,
        differences=both.difference,
        resamples=50,
        slices=tuple(comparison.by_slice(y, p, None, {"origin": np.full(2000, slice_value, dtype=object)})),
        latency=Latency(single_row_p50_ms=0.2, single_row_p95_ms=0.4, batch_rows_per_second=5e4, batch_rows=2000),
        package_bytes=700_000,
        parity=Parity(rows=10_000, max_abs_difference=3e-7),
        data=Data(checks_passed=True, months=(MonthRows(part="holdout", month="2013-07", rows=2000, positives=600),)),
        training=Training(framework="torch", seed=1, epochs=3, seconds=20.0),
        lineage=(Lineage(what="project", identity="commit", digest=DIGEST),),
    ).to_json()


VERDICT = {
    "passed": False,
    "policy_digest": DIGEST,
    "rules": [
        {"rule": "auc", "value": 0.6, "threshold": "≥ 0.7", "passed": False, "reason": "0.6 is not ≥ 0.7"},
        {"rule": "brier", "value": 0.1, "threshold": "≤ 0.2", "passed": True, "reason": "within bounds"},
    ],
}
APPROVAL = {
    "approved": True,
    "actor": "grace",
    "reason": HOSTILE,
    "at": "2026-11-23T20:00:00Z",
    "expires": "2026-11-26T20:00:00Z",
    "assurance": "demo",
}


def test_the_form_for_jenkins_has_no_script_no_inline_style_and_loads_nothing_from_elsewhere():
    files = render(evidence(), VERDICT, [APPROVAL])
    page = files["evidence.html"].decode()
    assert "<script" not in page
    assert "style=" not in page
    assert "<style" not in page
    loaded = re.findall(r'(?:src|srcset|href)="([^"]+)"', page)
    assert loaded
    assert all(name in files for name in loaded)
    for name, content in files.items():
        if name.endswith(".svg"):
            assert b"style=" not in content
            assert b"<style" not in content


def test_the_standalone_form_loads_nothing_at_all():
    page = render(evidence(), VERDICT)["evidence-standalone.html"].decode()
    assert all(url.startswith("data:") for url in re.findall(r'(?:src|srcset|href)="([^"]+)"', page))


def test_verdict_and_its_reasons_come_before_everything_else():
    page = render(evidence(), VERDICT)["evidence.html"].decode()
    assert (
        page.index("The policy refuses") < page.index("0.6 is not ≥ 0.7") < page.index("What exactly would be approved")
    )


def test_hostile_text_in_data_and_reasons_stays_text():
    page = render(evidence(slice_value=HOSTILE), VERDICT, [APPROVAL])["evidence.html"].decode()
    assert HOSTILE not in page
    assert "&lt;img src=x" in page


def test_a_decision_on_other_evidence_is_shown_as_void():
    one = evidence()
    own, other = ({**APPROVAL, "subject": {"evidence": digest}} for digest in (digest_json(one), DIGEST))
    assert "Void" not in render(one, VERDICT, [own])["evidence.html"].decode()
    assert "Void, taken on other evidence" in render(one, VERDICT, [other])["evidence.html"].decode()


def test_a_verdict_by_another_policy_than_the_runs_says_so():
    other = {**VERDICT, "policy_digest": "sha256:" + "b" * 64}
    assert "another policy" not in render(evidence(), VERDICT)["evidence.html"].decode()
    assert "another policy" in render(evidence(), other)["evidence.html"].decode()


def test_a_slice_with_many_values_does_not_push_another_off_the_page():
    one = evidence()
    row = one["slices"][0]
    many = [{**row, "slice": "tail", "value": f"N{i}", "auc": 0.8} for i in range(200)]
    one["slices"] = [*many, {**row, "slice": "zone", "value": "the worst of all", "auc": 0.41}]
    assert "the worst of all" in render(one)["evidence.html"].decode()


def test_failed_checks_are_named():
    one = evidence()
    check = {"part": "holdout", "column": "arr_time", "rule": "unique key", "passed": False, "count": 7}
    one["data"] = {**one["data"], "checks_passed": False, "checks": [check]}
    assert "arr_time: unique key (7 rows)" in render(one)["evidence.html"].decode()


def test_a_demo_identity_is_marked_as_such():
    page = render(evidence(), VERDICT, [APPROVAL])["evidence.html"].decode()
    assert "demonstration only" in page


def test_the_digest_on_the_page_is_that_of_the_json_beside_it():
    files = render(evidence())
    assert digest_json(json.loads(files["evidence.json"])) in files["evidence.html"].decode()


@pytest.mark.parametrize("champion", [True, False])
def test_the_same_evidence_gives_the_same_bytes_with_or_without_a_champion(champion):
    one = evidence(champion=champion)
    assert render(one, VERDICT) == render(one, VERDICT)


STANDING = {
    "granted": False,
    "approved_by": ["grace"],
    "missing": 1,
    "may_decide": ["hedy"],
    "problems": ["katherine's approval expired at 2026-11-22T10:00:00Z"],
    "rejected_by": None,
    "groups_missing": ["validation"],
    "glass": None,
    "excluded": ["ada"],
}
DECIDED = {
    "actor": "dorothy",
    "approved": True,
    "reason": HOSTILE,
    "at": "2026-11-23T10:00:00Z",
    "expires": "2026-11-26T10:00:00Z",
    "assurance": "oidc",
    "on_behalf_of": "grace",
}


def page(*arguments, **more):
    return render(*arguments, **more)["evidence.html"].decode()


def test_it_says_who_decided_for_whom_what_is_missing_and_who_may_not():
    text = page(evidence(), VERDICT, [DECIDED], STANDING)
    for words in (
        "dorothy</strong> for grace",
        "known by the identity provider",
        "2026-11-23 10:00 UTC",
        "expired at",
        "Missing: 1 approval, one of them from validation",
        "May decide: hedy",
        "Not ada",
    ):
        assert words in text, words
    assert HOSTILE not in text


def test_broken_glass_and_a_rejection_cannot_be_passed_over():
    glass = {"operators": ["otto", "olga"], "incident": "INC-7", "reason": "down", "expires": "2026-11-23T14:00:00Z"}
    assert "The glass is broken</strong> by otto and olga" in page(
        evidence(), VERDICT, [], {**STANDING, "glass": glass}
    )
    rejected = {**STANDING, "rejected_by": "grace", "problems": ["grace: no"]}
    assert "Rejected by grace: that is final" in page(evidence(), VERDICT, [], rejected)


def test_it_says_how_to_decide_in_the_ways_that_there_are():
    assert "ssh-keygen" not in page(evidence(), VERDICT)
    text = page(evidence(), VERDICT, ways=("signed", "oidc"))
    assert "ssh-keygen -Y sign -n gatehouse-decision" in text
    assert "--token-file" in text
    assert "answer the input" not in text


def test_it_shows_what_changed_since_the_champion_also_in_evidence_of_before_there_were_parts():
    changed = [
        {"part": "data", "name": "train", "before": "2013-01..2013-06", "after": "2013-01..2013-09"},
        {"part": "policy", "name": "metric auc", "before": "min 0.7", "after": HOSTILE},
        {"name": "epochs", "before": 3, "after": 4},
    ]
    old = {**evidence(), "changes": changed, "diff": ["+" + HOSTILE]}
    text = page(old, VERDICT)
    for words in ("2013-01..2013-09", "metric auc", "epochs", "line by line"):
        assert words in text
    assert HOSTILE not in text
    before_parts = {key: value for key, value in old.items() if key != "diff"}
    assert "epochs" in page({**before_parts, "changes": changed[2:]}, VERDICT)
