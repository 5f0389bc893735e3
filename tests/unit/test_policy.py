"""Policy: missing evidence refuses, emptiness never passes, every rule is listed."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.domain.policy import LimitRule, MetricRule, NotWorseRule, Policy, SliceRule, judge

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
EVIDENCE = {
    "created": (NOW - timedelta(hours=1)).isoformat(),
    "candidate": {"metrics": {"auc": 0.75, "calibration_error": 0.02}},
    "champion": {"version": "1"},
    "differences": {"auc": {"low": -0.002, "high": 0.01}, "brier": {"low": -0.01, "high": 0.003}},
    "slices": [
        {"slice": "origin", "value": "JFK", "n": 900, "auc": 0.70},
        {"slice": "origin", "value": "LGA", "n": 800, "auc": 0.66},
        {"slice": "origin", "value": "XXX", "n": 3, "auc": None},
    ],
    "latency": {"single_row_p95_ms": 1.5},
    "data": {"checks_passed": True},
}
POLICY = Policy(
    metric=(MetricRule(metric="auc", min=0.7),),
    slice=(SliceRule(slice="origin", metric="auc", min=0.65),),
    not_worse=(NotWorseRule(metric="auc", by=0.005), NotWorseRule(metric="brier", by=0.005)),
    limit=(LimitRule(value="latency.single_row_p95_ms", max=5),),
)


def test_good_evidence_passes_and_every_rule_is_listed_with_its_value():
    verdict = judge(POLICY, EVIDENCE, NOW)
    assert verdict.passed
    assert len(verdict.rules) == 7
    assert {rule.rule: rule.value for rule in verdict.rules}["auc"] == 0.75
    assert any("worst is LGA" in rule.rule for rule in verdict.rules)


@pytest.mark.parametrize(
    "path", ["created", "candidate.metrics.auc", "differences", "slices", "latency", "data", "champion"]
)
def test_missing_evidence_refuses(path):
    evidence = copy.deepcopy(EVIDENCE)
    *parents, last = path.split(".")
    node = evidence
    for part in parents:
        node = node[part]
    del node[last]
    if path == "champion":  # a champion that is not even said to be none is missing evidence, not a first model
        del evidence["differences"]
    assert not judge(POLICY, evidence, NOW).passed


def test_an_empty_policy_passes_nothing():
    assert not judge(Policy(), EVIDENCE, NOW).passed


def test_a_first_model_has_no_champion_to_be_worse_than():
    evidence = {**EVIDENCE, "champion": None, "differences": None}
    assert judge(POLICY, evidence, NOW).passed


@pytest.mark.parametrize(
    ("difference", "passes"), [({"low": -0.004, "high": 0.1}, True), ({"low": -0.006, "high": 0.1}, False)]
)
def test_the_unfavourable_end_of_the_interval_decides(difference, passes):
    evidence = {**EVIDENCE, "differences": {**EVIDENCE["differences"], "auc": difference}}
    assert judge(POLICY, evidence, NOW).passed is passes


def test_for_a_loss_the_upper_end_is_the_unfavourable_one():
    evidence = {**EVIDENCE, "differences": {**EVIDENCE["differences"], "brier": {"low": -1.0, "high": 0.006}}}
    assert not judge(POLICY, evidence, NOW).passed


def test_a_large_slice_that_could_not_be_measured_refuses():
    rows = [*EVIDENCE["slices"], {"slice": "origin", "value": "EWR", "n": 5000, "auc": None}]
    assert not judge(POLICY, {**EVIDENCE, "slices": rows}, NOW).passed


@pytest.mark.parametrize("hours", [-1, 169])
def test_evidence_that_is_too_old_or_from_the_future_refuses(hours):
    evidence = {**EVIDENCE, "created": (NOW - timedelta(hours=hours)).isoformat()}
    assert not judge(POLICY, evidence, NOW).passed


def test_a_rule_without_a_bound_is_no_rule():
    with pytest.raises(ValidationError, match="min"):
        MetricRule(metric="auc")


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_floor_passes_exactly_what_reaches_it(value, floor):
    evidence = {**EVIDENCE, "candidate": {"metrics": {"auc": value}}}
    policy = Policy(metric=(MetricRule(metric="auc", min=floor),))
    assert judge(policy, evidence, NOW).passed == (value >= floor)


def test_loosening_any_threshold_changes_the_digest():
    loosened = POLICY.model_copy(update={"metric": (MetricRule(metric="auc", min=0.6),)})
    assert loosened.digest != POLICY.digest
