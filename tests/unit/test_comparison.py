"""Metrics against scikit-learn's, laws that hold for any rows, and intervals that can be believed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from pipeline.domain import comparison
from pipeline.domain.evidence import METRICS
from pipeline.errors import UsageError


def rows(n=3000, *, seed=0, decimals=None, noise=0.0):
    """Labels drawn from calibrated probabilities, and those probabilities blurred by `noise`."""
    random = np.random.default_rng(seed)
    score = random.normal(-1, 1, n)
    y = (random.random(n) < 1 / (1 + np.exp(-score))).astype(float)
    p = 1 / (1 + np.exp(-(score + noise * random.normal(size=n))))
    return y, p if decimals is None else np.round(p, decimals)


@st.composite
def labelled(draw, max_size=60):
    """Rows of both classes with many ties among the predictions."""
    pairs = draw(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=max_size))
    y = np.array([float(label) for label, _ in pairs])
    assume(0 < y.sum() < len(y))
    return y, np.array([level / 20 for _, level in pairs])


# --- against scikit-learn ---------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [None, 2, 1, 0])
def test_metrics_are_those_of_scikit_learn_with_and_without_ties(decimals):
    y, p = rows(decimals=decimals)
    found = comparison.evaluate(y, p)
    assert found.auc == pytest.approx(reference.roc_auc_score(y, p), abs=1e-12)
    assert found.average_precision == pytest.approx(reference.average_precision_score(y, p), abs=1e-12)
    assert found.brier == pytest.approx(reference.brier_score_loss(y, p), abs=1e-12)
    assert found.log_loss == pytest.approx(reference.log_loss(y, p), abs=1e-9)


def test_each_metric_alone_is_the_one_in_the_whole():
    y, p = rows(decimals=2)
    alone = {name: getattr(comparison, name)(y, p) for name in METRICS}
    assert comparison.evaluate(y, p).model_dump() == pytest.approx(alone, abs=1e-12)


def test_calibration_error_is_the_mean_gap_over_bins_of_equal_mass():
    y, p = rows(1500)
    order = np.argsort(p)
    bins = zip(np.split(y[order], 15), np.split(p[order], 15), strict=True)
    by_hand = np.mean([abs(labels.mean() - predicted.mean()) for labels, predicted in bins])
    assert comparison.calibration_error(y, p) == pytest.approx(by_hand, abs=1e-12)


def test_the_roc_curve_passes_through_scikit_learns_points():
    y, p = rows(400)
    false, true, _ = reference.roc_curve(y, p, drop_intermediate=False)
    known = {(round(float(a), 6), round(float(b), 6)) for a, b in zip(false, true, strict=True)}
    points = comparison.roc_points(y, p)
    assert set(points) <= known
    assert points[0] == (0, 0)
    assert points[-1] == (1, 1)


def test_the_precision_recall_curve_passes_through_scikit_learns_points():
    y, p = rows(400)
    precision, recall, _ = reference.precision_recall_curve(y, p)
    known = {(round(float(a), 6), round(float(b), 6)) for a, b in zip(recall, precision, strict=True)}
    points = comparison.pr_points(y, p)
    assert set(points) <= known
    assert points[-1] == (1, round(float(y.mean()), 6))


# --- laws -------------------------------------------------------------------------------------------------


@given(labelled())
def test_auc_does_not_change_under_a_rising_map(sample):
    y, p = sample
    assert comparison.auc(y, np.exp(3 * p) - 7) == pytest.approx(comparison.auc(y, p), abs=1e-12)


@given(labelled())
def test_swapping_the_classes_or_turning_the_scores_mirrors_auc(sample):
    y, p = sample
    assert comparison.auc(1 - y, p) == pytest.approx(1 - comparison.auc(y, p), abs=1e-12)
    assert comparison.auc(y, -p) == pytest.approx(1 - comparison.auc(y, p), abs=1e-12)


@given(labelled(), st.randoms(use_true_random=False))
def test_no_metric_depends_on_the_order_of_rows(sample, random):
    y, p = sample
    order = list(range(len(y)))
    random.shuffle(order)
    mixed = comparison.evaluate(y[order], p[order]).model_dump()
    assert mixed == pytest.approx(comparison.evaluate(y, p).model_dump(), abs=1e-9)


@given(labelled(), st.data())
def test_a_resample_measures_what_the_drawn_rows_measure(sample, data):
    y, p = sample
    drawn = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(y), max_size=len(y))))
    repeated_y, repeated_p = np.repeat(y, drawn), np.repeat(p, drawn)
    assume(0 < repeated_y.sum() < len(repeated_y))
    weighted = comparison._Measured(y, p)(drawn.astype(float))
    expected = list(comparison.evaluate(repeated_y, repeated_p).model_dump().values())
    assert list(weighted) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40)
@given(labelled(), st.integers(0, 9))
def test_every_interval_contains_its_value(sample, seed):
    y, p = sample
    found = comparison.bootstrap(y, p, np.sqrt(p), resamples=20, seed=seed)
    for interval in (*found.challenger.values(), *found.champion.values(), *found.difference.values()):
        if interval.low is not None:
            assert interval.low - 1e-12 <= interval.value <= interval.high + 1e-12


@given(labelled())
def test_reliability_bins_hold_every_row_once_and_their_intervals_hold_the_share(sample):
    y, p = sample
    bins = comparison.reliability(y, p)
    assert sum(b.n for b in bins) == len(y)
    assert all(0 <= b.low <= b.observed + 1e-6 and b.observed - 1e-6 <= b.high <= 1 for b in bins)
    assert [b.predicted for b in bins] == sorted(b.predicted for b in bins)


# --- the bootstrap ----------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    y, p = rows(500)
    first, again, other = (comparison.bootstrap(y, p, resamples=30, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.challenger["auc"] != other.challenger["auc"]


def test_a_model_does_not_differ_from_itself():
    y, p = rows(500)
    found = comparison.bootstrap(y, p, p, resamples=30)
    assert found.challenger == found.champion
    for interval in found.difference.values():
        assert (interval.value, interval.low, interval.high) == (0, 0, 0)


def test_swapping_the_models_turns_the_difference_round():
    y, p = rows(500)
    q = rows(500, noise=0.5)[1]
    one = comparison.bootstrap(y, p, q, resamples=60).difference["auc"]
    two = comparison.bootstrap(y, q, p, resamples=60).difference["auc"]
    assert (one.value, one.low, one.high) == pytest.approx((-two.value, -two.high, -two.low), abs=1e-12)


def test_pairing_sees_a_difference_that_the_single_intervals_hide():
    y, p = rows(4000)
    q = rows(4000, noise=0.4)[1]
    found = comparison.bootstrap(y, p, q, resamples=200)
    assert found.challenger["auc"].low < found.champion["auc"].high  # they overlap
    assert found.difference["auc"].low > 0


def test_an_interval_is_as_wide_as_theory_says():
    """Brier is a mean over rows: its interval is the normal one, ± 1.96 standard errors."""
    y, p = rows(4000)
    interval = comparison.bootstrap(y, p, resamples=1000).challenger["brier"]
    standard_error = ((p - y) ** 2).std() / np.sqrt(len(y))
    assert (interval.high - interval.low) / (2 * 1.96 * standard_error) == pytest.approx(1, abs=0.1)


def test_the_interval_of_a_difference_is_that_of_the_differences_drawn():
    y, p = rows(40)
    q = rows(40, noise=2.0)[1]
    interval = comparison.bootstrap(y, p, q, resamples=80, seed=3).difference["brier"]
    row = (p - y) ** 2 - (q - y) ** 2
    low, middle, high = np.quantile([w @ row / 40 for w in comparison._resamples(40, 80, 3)], [0.025, 0.5, 0.975])
    assert interval.value == pytest.approx(row.mean(), abs=1e-12)
    assert interval.low - interval.value == pytest.approx(low - middle, abs=1e-12)
    assert interval.high - interval.value == pytest.approx(high - middle, abs=1e-12)


@pytest.mark.parametrize("wrong", [{"resamples": 1}, {"level": 0.0}, {"level": 1.0}])
def test_a_bootstrap_that_could_say_nothing_is_refused(wrong):
    with pytest.raises(UsageError, match="two resamples"):
        comparison.bootstrap(*rows(50), **wrong)


def test_without_a_champion_there_is_no_difference():
    found = comparison.bootstrap(*rows(200), resamples=10)
    assert found.champion is None
    assert found.difference is None


# --- slices -----------------------------------------------------------------------------------------------


def test_slices_are_measured_on_their_own_rows_worst_first():
    y, p = rows(900)
    place = np.array(["EWR", "JFK", "LGA"] * 300, dtype=object)
    found = comparison.by_slice(y, p, None, {"origin": place})
    assert [row.auc for row in found] == sorted(row.auc for row in found)
    assert {row.value for row in found} == {"EWR", "JFK", "LGA"}
    for row in found:
        here = place == row.value
        assert row.n == 300
        assert row.auc == pytest.approx(reference.roc_auc_score(y[here], p[here]), abs=1e-12)
        assert row.champion_auc is None


def test_a_slice_shows_the_champion_and_the_difference_on_the_same_rows():
    y, p = rows(600)
    q = rows(600, noise=0.5)[1]
    (row,) = comparison.by_slice(y, p, q, {"all": np.full(600, "x", dtype=object)})
    assert row.champion_auc == pytest.approx(reference.roc_auc_score(y, q), abs=1e-12)
    assert row.auc_difference == pytest.approx(row.auc - row.champion_auc, abs=1e-12)


def test_what_cannot_be_measured_in_a_slice_is_none_and_says_why():
    y = np.array([0.0, 1.0] * 100 + [0.0] * 150 + [1.0] * 155)
    values = np.array(["both"] * 200 + ["on time"] * 150 + ["late"] * 150 + ["rare"] * 5, dtype=object)
    p = np.linspace(0, 1, len(y))
    notes = {row.value: (row.auc, row.note) for row in comparison.by_slice(y, p, None, {"s": values}, min_rows=100)}
    assert notes["on time"] == (None, "only one class occurs")
    assert notes["late"] == (None, "only one class occurs")
    assert notes["rare"] == (None, "fewer than 100 rows")
    assert notes["both"][1] is None


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_rows_where_the_slice_is_missing_stand_for_themselves(missing):
    y, p = rows(400)
    values = np.array([missing, "N123"] * 200, dtype=object)
    found = {row.value: row.n for row in comparison.by_slice(y, p, None, {"tail": values})}
    assert found == {None: 200, "N123": 200}


# --- what is drawn ----------------------------------------------------------------------------------------


def test_curves_stay_small_enough_to_draw():
    y, p = rows(20_000)
    drawn = comparison.curves(y, p)
    assert len(drawn.roc) <= 200
    assert len(drawn.pr) <= 200
    assert sum(drawn.histogram) == 20_000


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "p", "problem"),
    [
        ([], [], "not rows of equal number"),
        ([0, 1], [0.5], "not rows of equal number"),
        ([0, 2], [0.5, 0.5], "other than 0 and 1"),
        ([0, 1], [0.5, float("nan")], "not finite"),
        ([0, 1], [0.5, 1.5], "outside"),
        ([1, 1], [0.5, 0.6], "only one class"),
    ],
)
def test_rows_that_cannot_be_measured_are_refused_with_the_reason(y, p, problem):
    with pytest.raises(UsageError, match=problem):
        comparison.evaluate(y, p)


def test_certain_and_wrong_is_finite():
    assert np.isfinite(comparison.log_loss([0, 1], [1.0, 0.0]))
