"""Requests as MLflow's clients send them, good and bad."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.serving.payload import answer, parse
from pipeline.serving.signature import Input, Refused, Signature

SIGNATURE = Signature(
    (
        Input("carrier", "string", required=True),
        Input("distance", "double", required=True),
        Input("hour", "long", required=True),
        Input("scheduled", "datetime", required=False),
        Input("holiday", "boolean", required=False),
    )
)
NAMES = ["carrier", "distance", "hour", "scheduled", "holiday"]
ROWS: list[list[Any]] = [
    ["UA", 1400.5, 5, "2013-07-01T05:15:00", True],
    [None, None, 23, None, None],
    ["B6", 7, 0, "2013-07-01T05:15:00+02:00", False],
]
RECORDS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
COLUMNS = {name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}
CSV = """,carrier,distance,hour,scheduled,holiday,unknown
0,UA,1400.5,5,2013-07-01T05:15:00,True,x
1,,,23,,,
2,B6,7,0,2013-07-01T05:15:00+02:00,False,"a,b"
"""
FORMS: dict[str, tuple[bytes, str]] = {
    "split": (json.dumps({"dataframe_split": {"columns": NAMES, "data": ROWS}}).encode(), "application/json"),
    "records": (json.dumps({"dataframe_records": RECORDS}).encode(), "application/json; charset=utf-8"),
    "inputs by column": (json.dumps({"inputs": COLUMNS}).encode(), "application/json"),
    "inputs by row": (json.dumps({"inputs": RECORDS}).encode(), "application/json"),
    "instances by row": (json.dumps({"instances": RECORDS}).encode(), "application/json"),
    "instances by column": (json.dumps({"instances": COLUMNS}).encode(), ""),
    "csv": (CSV.encode(), "text/csv"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_columns(form: str) -> None:
    columns = parse(*FORMS[form], SIGNATURE)

    assert list(columns) == NAMES
    assert columns["carrier"].tolist() == ["UA", None, "B6"]
    np.testing.assert_array_equal(columns["distance"], np.array([1400.5, np.nan, 7.0]))
    np.testing.assert_array_equal(columns["hour"], np.array([5.0, 23.0, 0.0]))
    expected = np.array(["2013-07-01T05:15", "NaT", "2013-07-01T03:15"], dtype="datetime64[us]")
    np.testing.assert_array_equal(columns["scheduled"], expected)
    assert columns["holiday"].tolist() == [True, None, False]
    assert {name: column.dtype.str for name, column in columns.items()} == {
        "carrier": "|O",
        "distance": "<f8",
        "hour": "<f8",
        "scheduled": "<M8[us]",
        "holiday": "|O",
    }


def refusal(payload: Any, content_type: str = "application/json", **options: Any) -> Refused:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    with pytest.raises(Refused) as caught:
        parse(body, content_type, SIGNATURE, **options)
    return caught.value


def record(**changes: Any) -> dict[str, Any]:
    return {"dataframe_records": [{"carrier": "UA", "distance": 1.0, "hour": 5, **changes}]}


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"inputs": "\xff"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        ([1, 2], "exactly one of"),
        ({}, "exactly one of"),
        ({"columns": [], "data": []}, "exactly one of"),
        ({"inputs": COLUMNS, "instances": RECORDS}, "exactly one of"),
        ({"dataframe_records": []}, "no rows"),
        ({"dataframe_records": RECORDS[0]}, "list of objects"),
        ({"dataframe_records": [1]}, "list of objects"),
        ({"dataframe_split": [1]}, "must be an object"),
        ({"dataframe_split": {"columns": NAMES, "data": ROWS, "extra": 1}}, "must be an object"),
        ({"dataframe_split": {"data": ROWS}}, "needs 'columns'"),
        ({"dataframe_split": {"columns": NAMES, "data": [[1]]}}, "5 values each"),
        ({"dataframe_split": {"columns": ["hour", "hour"], "data": [[1, 2]]}}, "twice"),
        ({"inputs": 5}, "object of columns"),
        ({"inputs": {"unknown": [1]}}, "missing inputs ['carrier', 'distance', 'hour']"),
        ({"inputs": {"carrier": ["UA"], "distance": [1.0], "hour": [1, 2]}}, "not the same"),
        ({"inputs": {"carrier": "UA", "distance": [1.0], "hour": 1}}, "a list for every column"),
        ({"dataframe_records": [{"carrier": "UA"}]}, "missing inputs ['distance', 'hour']"),
        (record(distance="far"), "Column 'distance' expects double, got text in row 0"),
        (record(distance="1.5"), "Column 'distance' expects double, got text in row 0"),
        (record(distance=True), "Column 'distance' expects double, got a boolean in row 0"),
        (record(distance=[1]), "Column 'distance' expects double, got a list or object in row 0"),
        (record(distance=10**400), "too large"),
        (b'{"inputs": {"carrier": ["UA"], "distance": [1e999], "hour": [1]}}', "not finite in row 0"),
        (b'{"inputs": {"carrier": ["UA"], "distance": [-Infinity], "hour": [1]}}', "not a finite number"),
        (record(carrier=5), "Column 'carrier' expects string, got a number in row 0"),
        (record(hour=5.5), "Column 'hour' expects long, row 0"),
        (record(hour=2**60), "Column 'hour' expects long, row 0"),
        (record(hour=None), "Column 'hour' expects long, got null in row 0"),
        (record(scheduled="tomorrow"), "Column 'scheduled' expects an ISO 8601 datetime in row 0"),
        (record(scheduled=1372655700), "Column 'scheduled' expects datetime, got a number in row 0"),
        (record(holiday=1), "Column 'holiday' expects boolean, got a number in row 0"),
    ],
)
def test_a_bad_payload_is_refused_with_what_is_wrong(payload: Any, says: str) -> None:
    error = refusal(payload)

    assert says in error.what
    assert error.status == 400
    assert json.loads(error.body()) == {"error_code": "BAD_REQUEST", "message": error.what}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not CSV with a header"),
        ("carrier,distance,hour\n", "no rows"),
        ("carrier,distance,hour\nUA,1\n", "row 1 has 2 values, the header 3"),
        ("carrier,distance,distance\nUA,1,2\n", "twice"),
        ("carrier,distance\nUA,1\n", "missing inputs ['hour']"),
        ("carrier,distance,hour\nUA,far,5\n", "Column 'distance' expects double"),
        ("carrier,distance,hour\nUA,inf,5\n", "not finite"),
        ("carrier,distance,hour,holiday\nUA,1,5,maybe\n", "Column 'holiday' expects boolean"),
    ],
)
def test_a_bad_csv_is_refused_with_what_is_wrong(text: str, says: str) -> None:
    assert says in refusal(text.encode(), "text/csv").what


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
def test_another_content_type_is_refused_with_415(content_type: str) -> None:
    assert refusal(FORMS["records"][0], content_type).status == 415


def test_more_rows_than_allowed_are_refused_with_413() -> None:
    assert refusal({"dataframe_records": RECORDS}, max_rows=2).status == 413


def test_nan_as_mlflows_own_client_writes_it_counts_as_null() -> None:
    body = b'{"dataframe_split": {"columns": ["carrier", "distance", "hour"], "data": [[NaN, NaN, 5]]}}'

    columns = parse(body, "application/json", SIGNATURE)

    assert columns["carrier"].tolist() == [None]
    assert np.isnan(columns["distance"][0])


def test_a_field_that_some_records_lack_is_null_there() -> None:
    payload = {"dataframe_records": [RECORDS[0], {"carrier": "B6", "hour": 1}]}

    assert np.isnan(parse(json.dumps(payload).encode(), "", SIGNATURE)["distance"][1])


def test_single_values_in_inputs_are_one_row() -> None:
    payload = {"inputs": {"carrier": "UA", "distance": 1.0, "hour": 5}, "params": {"ignored": 1}}

    columns = parse(json.dumps(payload).encode(), "", SIGNATURE)

    assert {name: len(column) for name, column in columns.items()} == dict.fromkeys(NAMES, 1)


def test_optional_columns_that_were_not_sent_are_null() -> None:
    columns = parse(json.dumps(record()).encode(), "", SIGNATURE)

    assert np.isnat(columns["scheduled"][0])
    assert columns["holiday"].tolist() == [None]


def test_a_message_does_not_repeat_a_whole_payload() -> None:
    error = refusal({f"key-{number}": 0 for number in range(10_000)})

    assert len(error.what) < 500


def test_a_signature_with_an_unknown_type_is_refused() -> None:
    with pytest.raises(UsageError, match="type 'tensor'"):
        Signature.from_json({"inputs": [{"name": "x", "type": "tensor", "required": True}]})


def test_predictions_are_answered_exactly() -> None:
    probabilities = np.array([0.1, np.float64(np.float32(0.3))])

    assert json.loads(answer(probabilities)) == {"predictions": probabilities.tolist()}
