import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2, ks_2samp

from pipeline.domain.canonical import canonical
from pipeline.domain.divergence import chance_psi, js_distance, ks_statistic, psi
from pipeline.domain.drift import Profile, Thresholds, compare, profile
from pipeline.domain.monitoring import Baseline, Outcomes, months_of, quality, verdict
from pipeline.errors import UsageError

LIMITS = Thresholds()
LENIENT = Thresholds(min_rows=1)


def rng(seed=0):
    return np.random.default_rng(seed)


def objects(values):
    return np.array(values, dtype=object)


def only(reference, current, limits=LIMITS, name="x"):
    """The comparison of one column."""
    return compare(profile({name: reference}), {name: current}, limits)[0]


# --- the measures are those of scipy ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 100, 255])
def test_ks_is_exactly_scipys_while_the_reference_is_small(size):
    a, b = rng(1).normal(size=size), rng(2).normal(0.3, 1.2, size=400)
    assert ks_statistic(profile({"x": a}).columns["x"], b) == pytest.approx(ks_2samp(a, b).statistic, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.5, 4.0])
def test_ks_from_the_thinned_reference_is_scipys_to_one_in_256(shift):
    a, b = rng(1).gamma(2, size=30_000), rng(2).gamma(2, size=9_000) + shift
    exact = ks_2samp(a, b).statistic
    found = ks_statistic(profile({"x": a}).columns["x"], b)
    assert exact - 1 / 256 - 1e-3 <= found <= exact + 1e-12


def test_ks_is_exact_where_most_rows_share_one_value():
    a = np.where(rng(1).random(20_000) < 0.9, 0.0, rng(2).exponential(size=20_000))
    b = np.where(rng(3).random(5_000) < 0.7, 0.0, rng(4).exponential(size=5_000))
    found = ks_statistic(profile({"x": a}).columns["x"], b)
    assert found == pytest.approx(ks_2samp(a, b).statistic, abs=1e-3)


@pytest.mark.parametrize("counts", [([1, 2, 3], [3, 2, 1]), ([5, 0], [0, 9]), ([10, 0, 4], [7, 1, 0])])
def test_js_distance_is_scipys_in_base_two(counts):
    a, b = map(np.array, counts)
    assert js_distance(a, b) == pytest.approx(jensenshannon(a, b, base=2), abs=1e-12)


def test_psi_is_the_textbook_sum_where_no_bin_is_empty():
    a, b = np.array([300_000, 500_000, 200_000]), np.array([200_000, 500_000, 300_000])
    p, q = a / a.sum(), b / b.sum()
    assert psi(a, b) == pytest.approx(float(((q - p) * np.log(q / p)).sum()), rel=1e-4)


def test_chance_allows_the_quantile_of_chi_squared():
    exact = chi2.ppf(0.999, 19) * (1 / 500 + 1 / 2000)
    assert chance_psi(20, 500, 2000, 0.001) == pytest.approx(exact, rel=0.01)


def test_psi_of_equal_shares_is_zero_whatever_the_sizes():
    assert psi(np.array([1, 2, 0, 7]), np.array([100, 200, 0, 700])) == pytest.approx(0, abs=1e-15)


# --- laws -------------------------------------------------------------------------------------------------

counts = arrays(np.int64, 6, elements=st.integers(0, 1000)).filter(lambda array: array.sum() > 0)
numbers = arrays(
    np.float64,
    st.integers(1, 120),
    elements=st.one_of(st.floats(allow_nan=True, allow_infinity=True, width=32), st.sampled_from([0.0, 1.0, -0.0])),
)
words = st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "", "é"]), st.booleans()), min_size=1).map(objects)


@given(counts, counts)
def test_js_is_symmetric_and_at_most_one_and_psi_is_never_negative(a, b):
    assert js_distance(a, b) == js_distance(b, a)
    assert 0 <= js_distance(a, b) <= 1
    assert psi(a, b) >= 0
    assert psi(a, b) == pytest.approx(psi(b, a), abs=1e-12)
    assert math.isfinite(psi(a, b))


@given(numbers, words)
def test_data_compared_with_itself_is_stable_and_zero(values, texts):
    for column in (values, texts):
        row = only(column, column, LENIENT)
        assert row.psi in (None, pytest.approx(0, abs=1e-12))
        assert row.js in (None, pytest.approx(0, abs=1e-7))
        assert row.ks in (None, 0)
        assert row.severity == pytest.approx(0, abs=1e-6)
        assert row.verdict == "stable" or "too few" in row.rule


@given(numbers, words)
def test_a_profile_survives_canonical_json(values, texts):
    made = profile({"number": values, "text": texts, "when": np.array(["2013-01-01"] * 3, "datetime64[us]")})
    assert Profile.from_json(json.loads(canonical(made.to_json()))) == made
    assert set(made.columns) == {"number", "text"}


@given(numbers, words, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(values, texts, random):
    for column in (values, texts):
        shuffled = column.copy()
        order = list(range(len(column)))
        random.shuffle(order)
        shuffled = column[order]
        before, after = profile({"x": column}).to_json(), profile({"x": shuffled}).to_json()
        for made in (before, after):
            made["columns"]["x"].pop("mean", None), made["columns"]["x"].pop("sd", None)  # sums of floats
        assert before == after
        mine, other = only(column, column, LENIENT), only(column, shuffled, LENIENT)
        assert (mine.psi, mine.ks, mine.js, mine.verdict) == (other.psi, other.ks, other.js, other.verdict)


# --- the traps --------------------------------------------------------------------------------------------


def test_a_random_half_is_stable_against_the_other_half():
    values = rng().normal(size=20_000)
    texts = objects(rng(1).choice(list("abcdefgh"), 20_000))
    found = compare(profile({"n": values[::2], "t": texts[::2]}), {"n": values[1::2], "t": texts[1::2]}, LIMITS)
    assert [row.verdict for row in found] == ["stable", "stable"]


def test_a_shifted_mean_drifts_and_says_by_which_rule():
    row = only(rng(1).normal(size=5_000), rng(2).normal(1, 1, size=5_000))
    assert row.verdict == "drifted"
    assert "PSI" in row.rule
    assert "≥ 0.2" in row.rule


def test_values_beyond_the_reference_are_counted():
    row = only(rng(1).random(5_000), rng(2).random(5_000) + 10)
    assert row.ks == 1
    assert row.js == pytest.approx(1)


def test_a_sentinel_in_few_rows_is_found():
    values = rng(1).normal(size=20_000)
    assert only(values, np.where(np.arange(20_000) % 33, values, -9999.0)).verdict == "drifted"


def test_a_constant_column_that_moves_has_drifted_and_one_that_stays_has_not():
    assert only(np.full(1000, 5.0), np.full(300, 5.0)).verdict == "stable"
    assert only(np.full(1000, 5.0), np.full(300, 5.001)).verdict == "drifted"


def test_few_whole_numbers_have_a_bin_each():
    row = only(np.repeat([0.0, 1.0, 2.0], 1000), np.repeat([0.0, 1.0, 2.0], [1000, 100, 1900]))
    assert [bar.label for bar in row.bars] == ["0", "1", "2"]
    assert row.verdict == "drifted"


def test_a_value_that_fills_a_bin_is_cut_off_from_its_neighbours():
    a = np.where(rng(1).random(10_000) < 0.5, 10.0, rng(2).random(10_000) * 10)
    edges = profile({"x": a}).columns["x"].edges
    assert 10.0 in edges
    assert max(edge for edge in edges if edge < 10) == max(a[a < 10])


def test_new_nulls_drift_although_the_known_values_are_the_same():
    values = rng().normal(size=4_000)
    holes = values.copy()
    holes[::4] = np.nan
    row = only(values, holes)
    assert row.verdict == "drifted"
    assert row.rule == "change of nulls 0.25 ≥ 0.1"
    assert row.psi < 0.05


def test_a_column_that_became_all_null_has_drifted():
    assert only(rng().normal(size=1000), np.full(500, np.nan)).verdict == "drifted"
    assert only(objects(["a", "b"] * 500), objects([None] * 500)).verdict == "drifted"


def test_a_column_that_always_was_null_cannot_be_judged_but_does_not_alarm():
    row = only(np.full(1000, np.nan), np.full(500, np.nan))
    assert row.verdict == "moderate"
    assert "too few to judge" in row.rule


def test_a_missing_column_has_drifted():
    row = compare(profile({"x": np.arange(1000.0)}), {"y": np.arange(1000.0)}, LIMITS)[0]
    assert (row.verdict, row.rule) == ("drifted", "the column is missing")


def test_text_where_numbers_were_has_drifted():
    row = only(np.arange(1000.0), objects(["a"] * 500))
    assert (row.verdict, row.rule) == ("drifted", "category where the reference has number")


def test_infinite_values_are_nulls():
    row = only(rng().normal(size=1000), np.where(np.arange(1000) % 2, np.inf, 0.1))
    assert row.null_current == 0.5


def test_unseen_categories_are_named_the_most_frequent_first():
    row = only(objects(["a", "b"] * 500), objects(["a", "b"] * 450 + ["new"] * 80 + ["newer"] * 20))
    assert row.unseen == ("new", "newer")
    assert row.unseen_share == 0.1
    assert "unseen categories 0.1 ≥ 0.05" in row.rule


def test_unseen_is_unknown_where_the_reference_kept_only_the_most_frequent():
    values = objects([f"tail {i % 700}" for i in range(7_000)])
    row = only(values, values)
    assert row.unseen_share is None
    assert row.verdict == "stable"


def test_a_small_sample_does_not_alarm_by_chance():
    reference = rng(99).normal(size=50_000)
    rows = [only(reference, rng(seed).normal(size=200)) for seed in range(50)]
    assert [row.verdict for row in rows].count("drifted") == 0
    assert any(row.js > LIMITS.js for row in rows), "the sizes were chosen so that the bare limit would alarm"


def test_a_sample_that_is_too_small_says_so():
    row = only(rng().normal(size=1000), rng(1).normal(5, size=20))
    assert row.verdict == "moderate"
    assert row.rule == "20 known values are too few to judge (fewer than 200)"


def test_what_is_not_watched_is_left_out():
    columns = {"month": np.repeat(np.arange(1.0, 7.0), 100), "x": rng().normal(size=600)}
    later = {"month": np.full(600, 9.0), "x": columns["x"]}
    assert [row.feature for row in compare(profile(columns), later, LIMITS, ignore=["month"])] == ["x"]


def test_a_reference_of_forty_columns_is_small():
    columns = {f"n{i}": rng(i).integers(0, 5000, 20_000) / 100 for i in range(12)}
    columns |= {f"c{i}": objects(rng(i).choice([f"value {k}" for k in range(500)], 20_000)) for i in range(8)}
    assert len(canonical(profile(columns).to_json())) < 200_000


# --- quality and the verdict ------------------------------------------------------------------------------


def world(n=6_000, rate=0.25, seed=0, month="2013-09"):
    random = rng(seed)
    signal = random.normal(size=n)
    p = 1 / (1 + np.exp(-(signal + math.log(rate / (1 - rate)))))
    y = (random.random(n) < p).astype(float)
    return {"signal": signal, "late": y}, Outcomes(y, p, objects([month] * n))


def promised(outcomes):
    counts = np.histogram(outcomes.p, bins=40, range=(0, 1))[0]
    row = quality(outcomes.y, outcomes.p, outcomes.months)[0]
    metrics = {"auc": row.auc, "calibration_error": row.calibration_error}
    return {"candidate": {"metrics": metrics, "curves": {"histogram": counts.tolist()}}}


def judged(columns, outcomes, limits=LIMITS, evidence=None, ignore=()):
    before, theirs = world(seed=77)
    return verdict(
        profile(before), columns, outcomes, limits, target="late", evidence=evidence or promised(theirs), ignore=ignore
    )


def test_the_same_world_is_stable():
    found = judged(*world(seed=1))
    assert found.passed
    assert found.reasons == ()
    assert found.not_measured == ()


def test_no_rows_refuse():
    found = judged({"signal": np.empty(0)}, None)
    assert found.refused
    assert not found.passed
    assert found.reasons == ("no rows in this window",)


def test_too_few_rows_refuse():
    found = judged(*world(n=50))
    assert found.refused
    assert "50 rows are too few" in found.reasons[0]


def test_nothing_watched_refuses():
    assert judged(*world(), ignore=["signal"]).reasons == ("no column is watched",)


def test_a_fallen_target_rate_is_found_in_its_month_although_the_window_hides_it():
    columns, august = world(n=20_000, rate=0.25, seed=3, month="2013-08")
    _, september = world(n=4_000, rate=0.10, seed=4, month="2013-09")
    both = Outcomes(
        *(
            np.concatenate(pair)
            for pair in zip(
                (august.y, august.p, august.months), (september.y, september.p, september.months), strict=True
            )
        )
    )
    found = judged(columns, both)
    assert found.drifted
    assert found.target.verdict != "drifted"
    assert any(reason.startswith("2013-09: target rate") for reason in found.reasons)
    assert not any(reason.startswith("2013-08") for reason in found.reasons)


def test_a_fallen_auc_comes_before_every_input():
    columns, outcomes = world(seed=5)
    noise = Outcomes(outcomes.y, rng(9).permutation(outcomes.p), outcomes.months)
    found = judged({**columns, "signal": columns["signal"] + 3}, noise)
    assert found.months[0].worse
    assert "AUC" in found.reasons[0]
    assert found.reasons[-1].startswith("signal: ")


def test_labels_that_have_not_arrived_are_reported_and_do_not_alarm():
    columns, outcomes = world(seed=6)
    found = judged(columns, Outcomes(np.full(len(outcomes.y), np.nan), outcomes.p, outcomes.months))
    assert found.passed
    assert "2013-09: no labels yet" in found.not_measured
    assert found.target is None


def test_without_evidence_the_missing_comparison_is_said():
    columns, outcomes = world(seed=6)
    found = judged(columns, outcomes, evidence={"candidate": {}})
    assert any("no hold-out metrics" in note for note in found.not_measured)


def test_a_number_of_drifted_inputs_may_be_allowed():
    columns, outcomes = world(seed=7)
    columns["signal"] = columns["signal"] + 3
    assert judged(columns, outcomes).drifted
    assert not judged(columns, outcomes, Thresholds(features=2)).drifted


def test_a_month_of_one_class_is_not_measured():
    row = quality(np.zeros(500), np.full(500, 0.2), objects(["2013-09"] * 500))[0]
    assert (row.auc, row.note) == (None, "only one class occurs")


def test_impossible_probabilities_are_bad_input():
    columns, outcomes = world()
    with pytest.raises(UsageError, match="outside"):
        judged(columns, Outcomes(outcomes.y, outcomes.p * 3, outcomes.months))


def test_rows_without_a_time_have_a_month_of_their_own():
    times = np.array(["2013-09-30T23:59", "NaT"], "datetime64[us]")
    assert months_of(times).tolist() == ["2013-09", "no time"]


def test_booleans_are_a_target_too():
    made = profile({"late": objects([True, False, False, None])})
    assert Baseline.of(made, "late").target_rate == pytest.approx(1 / 3)


def test_the_verdict_is_json():
    found = judged(*world(seed=1))
    again = json.loads(canonical(found.to_json()))
    assert type(found).model_validate(again) == found


def test_an_unknown_threshold_is_refused():
    with pytest.raises(ValueError, match="Extra inputs"):
        Thresholds(psy=0.2)
