"""Data checks: each kind of bad data is found, counted and shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandera.pandas as pandera
import pyarrow as pa
import pytest
from pandera.pandas import Check, Column, DataFrameSchema

from pipeline.adapters import validation
from pipeline.domain.canonical import canonical
from pipeline.domain.checks import FailedCheck
from pipeline.domain.window import Window
from pipeline.errors import UsageError

ROWS = 120
WINDOW = Window.parse("2013-01..2013-02")
SCHEMA = DataFrameSchema(
    {
        "id": Column(int),
        "month": Column(int, Check.in_range(1, 12)),
        "carrier": Column(str, Check.str_length(2, 2)),
        "wind": Column(float, Check.ge(0), nullable=True),
        "gust": Column(float, nullable=True, metadata={"max_null_share": 0.9}),
        "late": Column(bool),
        "time": Column("datetime64[ns, UTC]"),
    }
)


def good() -> dict[str, list[Any]]:
    start = datetime(2013, 1, 1, tzinfo=UTC)
    times = [start + timedelta(hours=11.5 * i) for i in range(ROWS)]
    return {
        "id": list(range(ROWS)),
        "month": [time.month for time in times],
        "carrier": ["UA", "AA"] * (ROWS // 2),
        "wind": [None if i % 10 == 0 else i / 2 for i in range(ROWS)],
        "gust": [None if i % 2 else 1.0 for i in range(ROWS)],
        "late": [i % 3 == 0 for i in range(ROWS)],
        "time": times,
    }


def check(changes: dict[str, list[Any]] | None = None, schema: Any = SCHEMA, **more: Any) -> list[FailedCheck]:
    columns = good() | (changes or {})
    options: dict[str, Any] = {"target": "late", "key": ["id"], "time": "time", "window": WINDOW} | more
    found = validation.check(pa.table(columns), schema, **options)
    for failure in found:
        json.loads(canonical(failure.to_json()))
    return found


def only(found: list[FailedCheck]) -> FailedCheck:
    assert len(found) == 1, found
    return found[0]


def changed(name: str, positions: list[int], value: Any) -> dict[str, list[Any]]:
    cells = good()[name]
    for position in positions:
        cells[position] = value
    return {name: cells}


def test_good_data_passes() -> None:
    assert check() == []


def test_a_value_outside_its_range_is_counted_and_shown_with_its_key() -> None:
    failure = only(check(changed("month", [7, 9], 13)))
    assert (failure.column, failure.rule, failure.count, failure.share) == ("month", "in_range(1, 12)", 2, 2 / ROWS)
    assert [example["id"] for example in failure.examples] == [7, 9]
    assert failure.examples[0] == {"id": 7, "time": "2013-01-04T08:30:00Z", "month": 13}


def test_rows_are_counted_right_where_others_are_null() -> None:
    failure = only(check({"wind": [None if i % 10 == 0 else -1.0 for i in range(ROWS)]}))
    assert (failure.column, failure.count) == ("wind", ROWS * 9 // 10)
    assert [example["id"] for example in failure.examples] == [1, 2, 3, 4, 5]


def test_text_is_checked_too() -> None:
    assert only(check(changed("carrier", [3], "UAL"))).examples[0]["carrier"] == "UAL"


def test_every_failure_is_reported_at_once() -> None:
    found = check(changed("month", [1], 0) | changed("carrier", [2], "") | changed("id", [5], 4))
    assert {failure.column for failure in found} == {"month", "carrier", "id"}


def test_an_empty_table_fails() -> None:
    empty = pa.table(good()).slice(0, 0)
    failure = only(validation.check(empty, SCHEMA, target="late", key=["id"], time="time"))
    assert failure.rule == "at least one row"


@pytest.mark.parametrize("name", ["month", "late", "id", "time"])
def test_a_missing_column_is_named(name: str) -> None:
    columns = {key: values for key, values in good().items() if key != name}
    found = validation.check(pa.table(columns), SCHEMA, target="late", key=["id"], time="time", window=WINDOW)
    assert [(failure.column, failure.rule) for failure in found] == [(name, "present")]


@pytest.mark.parametrize(
    ("name", "cells", "rule"),
    [
        ("month", ["1"] * ROWS, "type int, not string"),
        ("month", [1.5] * ROWS, "type int, not double"),
        ("carrier", [7] * ROWS, "type str, not int64"),
        ("late", [0, 1] * (ROWS // 2), "type bool, not int64"),
        ("time", ["2013-01-01"] * ROWS, "type date, not string"),
    ],
)
def test_a_wrong_type_is_said_once(name: str, cells: list[Any], rule: str) -> None:
    failure = only([each for each in check({name: cells}) if each.rule.startswith("type")])
    assert (failure.column, failure.rule, failure.count) == (name, rule, ROWS)
    assert [each for each in check({name: cells}) if each.column == name] == [failure]


def test_whole_numbers_are_good_where_numbers_are_asked_for() -> None:
    assert check({"wind": [3] * ROWS}) == []


def test_whole_numbers_with_nulls_are_still_whole_numbers() -> None:
    schema = SCHEMA.update_column("month", nullable=True)
    assert check(changed("month", [0], None), schema) == []


def test_duplicated_keys_are_found() -> None:
    failure = only(check(changed("id", [5, 6], 4)))
    assert (failure.column, failure.rule, failure.count) == ("id", "unique key", 2)
    assert check(changed("id", [5, 6], 4), key=["id", "time"]) == []


def test_a_target_with_one_class_is_found() -> None:
    failure = only(check({"late": [True] * ROWS}))
    assert (failure.column, failure.rule, failure.count) == ("late", "two classes", ROWS)


@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "NaN"), (np.inf, "Infinity"), (-np.inf, "-Infinity")])
def test_values_that_are_not_finite_are_found(value: float, shown: str) -> None:
    failure = next(each for each in check(changed("wind", [1, 2], value)) if each.rule == "finite")
    assert (failure.column, failure.count, failure.examples[0]["wind"]) == ("wind", 2, shown)


def test_forty_percent_nulls_are_too_many() -> None:
    failure = only(check({"wind": [None if i % 5 < 2 else 1.0 for i in range(ROWS)]}))
    assert (failure.column, failure.rule, failure.share) == ("wind", "at most 20% null", 0.4)


def test_a_column_that_is_all_null_is_found() -> None:
    columns = good() | {"wind": pa.nulls(ROWS, pa.float64())}
    found = validation.check(pa.table(columns), SCHEMA, target="late", key=["id"], time="time", window=WINDOW)
    assert [(failure.column, failure.share) for failure in found] == [("wind", 1.0)]


def test_a_column_may_have_its_own_limit_of_nulls() -> None:
    found = check({"gust": [None if i % 20 else 1.0 for i in range(ROWS)]})
    assert only(found).rule == "at most 90% null"


def test_nulls_where_none_are_allowed_are_found_at_any_share() -> None:
    failure = only(check(changed("carrier", [3], None)))
    assert (failure.column, failure.rule, failure.count, failure.examples[0]["id"]) == ("carrier", "not null", 1, 3)


def test_a_null_in_the_key_is_found_even_if_the_schema_allows_it() -> None:
    found = check(changed("id", [3], None), SCHEMA.update_column("id", nullable=True))
    assert ("id", "not null") in {(failure.column, failure.rule) for failure in found}


def test_a_month_without_rows_is_named() -> None:
    found = check(window=Window.parse("2013-01..2013-04"))
    assert [failure.rule for failure in found] == ["rows in 2013-03", "rows in 2013-04"]


def test_rows_outside_the_window_are_found_with_a_day_of_grace() -> None:
    stray = datetime(2013, 5, 5, tzinfo=UTC)
    failure = only(check(changed("time", [8], stray)))
    assert (failure.rule, failure.count) == ("inside 2013-01..2013-02", 1)
    assert check(changed("time", [8], datetime(2012, 12, 31, 23, tzinfo=UTC))) == []


def test_checks_across_columns_and_uniqueness_are_reported() -> None:
    schema = DataFrameSchema(
        {"carrier": Column(str, unique=True)},
        checks=Check(lambda frame: frame["id"] < 100, error="ids below 100"),
    )
    found = {(failure.column, failure.rule): failure.count for failure in check(schema=schema)}
    assert found[("", "ids below 100")] == ROWS - 100
    assert found[("carrier", "unique")] == ROWS


def test_a_strict_schema_names_the_column_it_does_not_know() -> None:
    schema = DataFrameSchema({name: Column(None, nullable=True) for name in good() if name != "gust"}, strict=True)
    found = check(schema=schema)
    assert ("gust", "not in the schema") in {(failure.column, failure.rule) for failure in found}


def test_a_check_that_fails_itself_is_a_failed_check() -> None:
    schema = SCHEMA.update_column("wind", checks=Check(lambda values: values.no_such_thing, name="calm"))
    failure = only(check(schema=schema))
    assert failure.column == "wind"
    assert "calm" in failure.rule
    assert "no_such_thing" in failure.rule


def test_the_project_s_schema_is_left_as_it_was() -> None:
    before = repr(SCHEMA)
    check(changed("month", [1], 13))
    assert repr(SCHEMA) == before
    assert SCHEMA.columns["month"].checks[0].n_failure_cases is None


def test_a_data_frame_model_is_a_schema_too() -> None:
    class Flights(pandera.DataFrameModel):  # type: ignore[misc]  # pandera is not followed by the type checker
        month: int = pandera.Field(le=1)

    assert only(check(schema=Flights, max_null_share=0.5)).column == "month"


@pytest.mark.parametrize("schema", [None, {"month": int}, int])
def test_something_else_than_a_schema_is_bad_usage(schema: Any) -> None:
    with pytest.raises(UsageError, match="not a pandera DataFrameSchema"):
        check(schema=schema)
