"""Features: what a project's author and a caller of the server notice."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.features import Bins, Category, Features, Number, Wave
from pipeline.domain.transformer import Encoded, Transformer
from pipeline.errors import UsageError


def text(*values):
    return np.array(values, object)


COLUMNS = {
    "carrier": text("UA", "DL", "UA", None),
    "hour": np.array([5.0, 6.0, 6.0, np.nan]),
    "gust": np.array([10.0, np.nan, 30.0, 20.0]),
    "rain": np.array([0.0, 1.0, 3.0, 0.5]),
}
ITEMS = (
    Category("carrier"),
    Category("hour"),
    Bins("rain", 4),
    Number("gust"),
    Number("rain", log=True),
    Wave("hour", 24, 2),
)


@pytest.fixture
def transformer():
    return Features(*ITEMS).fit(COLUMNS)


def test_widths_and_cardinalities_describe_what_apply_gives(transformer):
    encoded = transformer.apply(COLUMNS)
    assert encoded.categories.dtype == np.int64 and encoded.numbers.dtype == np.float32
    assert encoded.categories.shape == (4, len(transformer.cardinalities)) == (4, 3)
    assert encoded.numbers.shape == (4, transformer.width) == (4, 2 + 1 + 4)
    assert (encoded.categories < np.array(transformer.cardinalities)).all()


def test_the_inputs_name_each_source_column_once_with_its_kind(transformer):
    assert dict(transformer.inputs) == {"rain": "double", "gust": "double", "hour": "double", "carrier": "string"}


def test_a_null_and_an_unseen_category_are_index_zero(transformer):
    rows = {**COLUMNS, "carrier": text("DL", None, "ZZ", "UA"), "hour": np.array([5.0, 99.0, np.nan, 6.0])}
    assert transformer.apply(rows).categories[:, :2].tolist() == [[1, 1], [0, 0], [0, 0], [2, 2]]


def test_a_rare_category_counts_as_unseen():
    fitted = Features(Category("carrier", min_count=2)).fit(COLUMNS)
    assert fitted.cardinalities == (2,)
    assert fitted.apply(COLUMNS).categories[:, 0].tolist() == [1, 0, 1, 0]


def test_a_boolean_category_keeps_its_two_values():
    fitted = Features(Category("late")).fit({"late": text(True, False, None)})
    assert dict(fitted.inputs) == {"late": "boolean"}
    assert fitted.apply({"late": text(False, True, None)}).categories[:, 0].tolist() == [1, 2, 0]


def test_a_missing_number_becomes_the_mean_and_raises_its_flag(transformer):
    gust, rain_log, flag = transformer.apply(COLUMNS).numbers[:, :3].T
    assert gust[1] == 0 and flag.tolist() == [0, 1, 0, 0]
    assert abs(gust[[0, 2, 3]].mean()) < 1e-6
    assert rain_log.std() == pytest.approx(1, abs=1e-5)


def test_a_flag_can_be_asked_for_or_declined():
    assert Features(Number("rain", flag=True)).fit(COLUMNS).width == 2
    assert Features(Number("gust", flag=False)).fit(COLUMNS).width == 1


def test_an_extreme_number_is_cut_at_eight_deviations(transformer):
    rows = {**COLUMNS, "gust": np.array([1e9, -1e9, 20.0, 20.0])}
    assert transformer.apply(rows).numbers[:2, 0].tolist() == [8.0, -8.0]


def test_a_constant_or_empty_column_encodes_as_zero():
    fitted = Features(Number("a"), Number("b"), Bins("b")).fit({"a": np.full(3, 7.0), "b": np.full(3, np.nan)})
    encoded = fitted.apply({"a": np.array([7.0]), "b": np.array([np.nan])})
    assert encoded.numbers.tolist() == [[0.0, 0.0, 1.0]] and encoded.categories.tolist() == [[0]]


def test_bins_hold_about_equally_many_rows_and_do_not_extrapolate():
    values = np.random.default_rng(0).normal(size=4000)
    fitted = Features(Bins("x", 8)).fit({"x": values})
    counts = np.bincount(fitted.apply({"x": values}).categories[:, 0])
    assert counts[0] == 0 and counts[1:].min() > 450 and len(counts) == 9
    assert fitted.apply({"x": np.array([-1e9, 1e9, np.nan])}).categories[:, 0].tolist() == [1, 8, 0]


def test_a_wave_is_periodic_and_a_null_is_its_centre():
    fitted = Features(Wave("hour", 24)).fit(COLUMNS)
    waves = fitted.apply({"hour": np.array([0.0, 24.0, 6.0, np.nan])}).numbers
    assert np.allclose(waves, [[0, 1], [0, 1], [1, 0], [0, 0]], atol=1e-6)


def test_one_row_is_encoded_as_it_is_among_many():
    generator = np.random.default_rng(1)
    columns = {
        "carrier": generator.choice(text("UA", "DL", "AA"), 40_000),
        **{name: generator.normal(size=40_000) for name in ("hour", "gust", "rain")},
    }
    for name in ("hour", "gust", "rain"):
        columns[name][[7, 16_384]] = np.nan
    fitted = Features(*ITEMS).fit(columns)
    together = fitted.apply(columns)
    for row in (0, 7, 16_383, 16_384, 39_999):
        alone = fitted.apply({name: column[row : row + 1] for name, column in columns.items()})
        assert np.array_equal(alone.categories[0], together.categories[row])
        assert np.array_equal(alone.numbers[0], together.numbers[row])


def test_serving_values_of_integer_or_object_dtype_are_numbers_too(transformer):
    rows = {**COLUMNS, "hour": np.array([5, 6, 6, 7]), "gust": text(10, None, 30.0, 20)}
    assert np.isfinite(transformer.apply(rows).numbers).all()
    assert transformer.apply(rows).categories[:, 1].tolist() == [1, 2, 2, 0]


def test_no_rows_give_no_rows(transformer):
    nothing = {name: column[:0] for name, column in COLUMNS.items()}
    assert len(transformer.apply(nothing)) == 0


def test_rows_can_be_chosen_from_the_encoded():
    encoded = Encoded(np.arange(6).reshape(3, 2), np.ones((3, 1), np.float32))
    assert encoded.rows(np.array([2, 0])).categories.tolist() == [[4, 5], [0, 1]]


@pytest.mark.parametrize(
    ("changed", "column", "word"),
    [
        ({"gust": text("10", "20", "30", "40")}, "gust", "not a number"),
        ({"gust": np.array(["2013-01-01"] * 4, "datetime64[us]")}, "gust", "not a number"),
        ({"gust": np.array([1.0, np.inf, 2.0, 3.0])}, "gust", "infinite"),
        ({"rain": np.array([1.0, -np.inf, 2.0, 3.0])}, "rain", "infinite"),
        ({"carrier": np.array([1.0, 2.0, 3.0, 4.0])}, "carrier", "text"),
        ({"carrier": text(["UA"], "DL", "UA", "UA")}, "carrier", "plain value"),
        ({"hour": text("five", "six", "six", "six")}, "hour", "not a number"),
        ({"rain": np.array([1.0])}, "rain", "rows"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_column(transformer, changed, column, word):
    with pytest.raises(UsageError, match=word) as refused:
        transformer.apply({**COLUMNS, **changed})
    assert column in refused.value.where or column == "rain"


def test_a_missing_column_is_named_together_with_those_that_are_there(transformer):
    with pytest.raises(UsageError, match="'gust' is missing") as refused:
        transformer.apply({name: column for name, column in COLUMNS.items() if name != "gust"})
    assert refused.value.where == "gust" and "carrier" in refused.value.fix


@pytest.mark.parametrize(
    "items",
    [
        (),
        (Number("a"), Number("a")),
        (Category("a", min_count=0),),
        (Bins("a", 1),),
        (Wave("a", 0),),
        (Wave("a", 24, 0),),
    ],
)
def test_an_impossible_declaration_is_refused(items):
    with pytest.raises(UsageError):
        Features(*items)


@pytest.mark.parametrize(
    ("item", "columns"),
    [
        (Number("a"), {"a": np.array([])}),
        (Number("a"), {"b": np.ones(3)}),
        (Number("a"), {"a": np.array([1.0, np.inf])}),
        (Bins("a"), {"a": np.array([1.0, np.inf])}),
        (Category("a"), {"a": text("x", 1.0)}),
        (Category("a"), {"a": np.array(["2013-01-01"], "datetime64[us]")}),
    ],
)
def test_training_rows_that_cannot_be_learned_from_are_refused(item, columns):
    with pytest.raises(UsageError):
        Features(item).fit(columns)


@pytest.mark.parametrize("state", [{}, {"format": 2}, {"format": 1, "categories": [{}]}, {"format": 1}])
def test_a_damaged_state_is_refused(state):
    with pytest.raises(UsageError):
        Transformer.from_json(state)


numbers = st.one_of(st.just(float("nan")), st.floats(-1e6, 1e6, allow_nan=False))
words = st.one_of(st.none(), st.text(max_size=3))


@given(st.lists(st.tuples(words, numbers, numbers), min_size=1, max_size=50))
def test_the_state_goes_through_json_unchanged(rows):
    names, first, second = zip(*rows, strict=True)
    columns = {"name": text(*names), "first": np.array(first), "second": np.array(second)}
    fitted = Features(
        Category("name"),
        Category("first"),
        Bins("first", 4),
        Number("first"),
        Number("second", log=True),
        Wave("second", 7, 2),
    ).fit(columns)
    again = Transformer.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted and again.to_json() == fitted.to_json()
    before, after = fitted.apply(columns), again.apply(columns)
    assert np.array_equal(before.categories, after.categories)
    assert np.array_equal(before.numbers, after.numbers) and np.isfinite(before.numbers).all()
