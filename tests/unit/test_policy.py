"""Policy: missing evidence refuses, emptiness never passes, every rule is listed."""

from __future__ import annotations

import copy
import tomllib
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


# --- freezes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freeze", "moment", "frozen"),
    [
        ({"starts": "2026-12-20", "ends": "2027-01-03"}, "2026-12-20T00:00:00+00:00", True),
        ({"starts": "2026-12-20", "ends": "2027-01-03"}, "2027-01-03T23:59:59+00:00", True),
        ({"starts": "2026-12-20", "ends": "2027-01-03"}, "2027-01-04T00:00:00+00:00", False),
        ({"starts": "2026-12-20", "ends": "2026-12-20", "timezone": "Asia/Tokyo"}, "2026-12-19T16:00:00+00:00", True),
        ({"starts": "2026-12-20T18:00:00Z", "ends": "2026-12-20T20:00:00Z"}, "2026-12-20T17:59:59+00:00", False),
        ({"weekdays": ["friday", "saturday"]}, "2026-11-27T09:00:00+00:00", True),
        ({"weekdays": ["friday"]}, "2026-11-26T23:30:00+00:00", False),
        ({"weekdays": ["friday"], "timezone": "Europe/Vienna"}, "2026-11-26T23:30:00+00:00", True),
    ],
)
def test_a_freeze_refuses_in_its_window_and_in_no_other_time(freeze, moment, frozen):
    policy = POLICY.model_validate({**POLICY.model_dump(), "freeze": [{"reason": "closing of the year", **freeze}]})
    now = datetime.fromisoformat(moment)
    evidence = {**EVIDENCE, "created": now.isoformat()}
    verdict = judge(policy, evidence, now)
    assert verdict.passed != frozen
    if frozen:
        assert verdict.refusals[0].reason == "closing of the year"


@pytest.mark.parametrize(
    "freeze",
    [
        {},
        {"starts": "2026-12-20"},
        {"starts": "2026-12-20", "ends": "2026-12-19"},
        {"starts": "someday", "ends": "2026-12-19"},
        {"weekdays": ["caturday"]},
        {"weekdays": ["friday"], "timezone": "Mars/Olympus"},
        {"weekdays": ["friday"], "starts": "2026-12-20", "ends": "2026-12-21"},
    ],
)
def test_a_freeze_that_makes_no_sense_is_refused_when_it_is_read(freeze):
    with pytest.raises(ValidationError):
        Policy.model_validate({"freeze": [{"reason": "x", **freeze}]})


def test_tomls_own_dates_are_dates_and_the_policy_still_has_a_digest():
    written = tomllib.loads('freeze = [{ reason = "x", starts = 2026-12-20, ends = 2027-01-03 }]')
    quoted = {"freeze": [{"reason": "x", "starts": "2026-12-20", "ends": "2027-01-03"}]}
    assert Policy.model_validate(written).digest == Policy.model_validate(quoted).digest


# --- drift --------------------------------------------------------------------------------------------------

DRIFT = {"drift": {"features": [{"feature": "wind", "psi": 0.3}, {"feature": "carrier", "psi": 0.05}]}}


@pytest.mark.parametrize(
    ("rule", "evidence", "passed", "says"),
    [
        ({"max_psi": 0.4}, DRIFT, True, "wind"),
        ({"max_psi": 0.25}, DRIFT, False, "wind"),
        ({"max_psi": 0.1, "features": ["carrier"]}, DRIFT, True, "carrier"),
        ({"max_psi": 0.1, "features": ["carrier", "tail"]}, DRIFT, False, "tail"),
        ({"max_psi": 0.1}, {"drift": None}, False, "no drift"),
        ({"max_psi": 0.1}, {}, False, "no drift"),
    ],
)
def test_drift_is_held_to_its_ceiling_and_missing_drift_refuses(rule, evidence, passed, says):
    policy = POLICY.model_validate({**POLICY.model_dump(), "drift": [rule]})
    verdict = judge(policy, {**EVIDENCE, **evidence}, NOW)
    assert verdict.passed == passed
    (ruling,) = [ruling for ruling in verdict.rules if ruling.rule.startswith("drift")]
    assert says in f"{ruling.rule} {ruling.reason}"
