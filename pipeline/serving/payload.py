"""MLflow's scoring protocol, read without pandas: the bytes of a request become typed columns. Pure.

Follows ``mlflow.pyfunc.scoring_server`` (3.17): exactly one of the four fields, columns that the signature
does not name are ignored, ``params`` is accepted and has no effect. It is stricter where MLflow's casting
hides a client's mistake: text for a number, a number for text, a fraction for an integer and infinities are
refused. The literal ``NaN``, which MLflow's own client writes for a missing value, counts as null.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from pipeline.ports import Columns
from pipeline.serving.signature import Input, Refused, Signature

FORMS = ("dataframe_split", "dataframe_records", "inputs", "instances")
MAX_ROWS = 100_000
_TRUTH = {"true": True, "false": False}
# What pandas.read_csv, and so MLflow, takes for a missing value.
_CSV_NULLS = frozenset((
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
))  # fmt: skip


def parse(body: bytes, content_type: str, signature: Signature, *, max_rows: int = MAX_ROWS) -> Columns:
    """Read a request's body into one array per input of the signature.

    Args:
        body: the whole body.
        content_type: the header's value; empty counts as JSON.
        signature: what the model takes.
        max_rows: more rows than this are refused.

    Returns:
        Columns: float64 with NaN for null, object with None, datetime64[us] with NaT; optional columns that
        were not sent are all null.

    Raises:
        Refused: naming what is wrong, with status 400, 413 (rows) or 415 (content type).
    """
    media = _media_type(content_type)
    raw, rows = _read_csv(body, signature) if media == "text/csv" else _read_json(body, signature)
    if rows == 0:
        raise Refused("The payload has no rows.")
    if rows > max_rows:
        raise Refused(f"{rows} rows are more than the {max_rows} of one request.", status=413, code="TOO_MANY_ROWS")
    missing = [name for name in signature.required if name not in raw]
    if missing:
        raise Refused(f"Model is missing inputs {missing}.")
    return signature.read(raw, rows)


def _media_type(content_type: str) -> str:
    if content_type == "application/json":
        return content_type
    media, *parameters = (part.strip() for part in content_type.split(";"))
    media = media.lower() or "application/json"
    if media not in ("application/json", "text/csv"):
        raise Refused(
            f"This server reads application/json and text/csv, got '{media}'.",
            status=415,
            code="UNSUPPORTED_MEDIA_TYPE",
        )
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.lower() != "charset" or value.strip('"').lower() not in ("utf-8", "utf8"):
            raise Refused(
                f"Content type parameter '{parameter}' is not supported; only charset=utf-8 is.",
                status=415,
                code="UNSUPPORTED_MEDIA_TYPE",
            )
    return media


# --- the four JSON forms ----------------------------------------------------------------------------------


def _constant(literal: str) -> None:
    if literal != "NaN":
        raise Refused(f"{literal} is not a finite number.")


_DECODE = json.JSONDecoder(parse_constant=_constant).decode

Table = tuple[Mapping[str, Sequence[Any]], int]


def _read_json(body: bytes, signature: Signature) -> Table:
    try:
        payload = _DECODE(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(f"The body is not valid JSON in UTF-8: {_short(str(error))}.") from error
    present = [form for form in FORMS if form in payload] if isinstance(payload, dict) else []
    if len(present) != 1:
        found = f"fields {sorted(payload)}" if isinstance(payload, dict) else f"a {type(payload).__name__}"
        raise Refused(f"The input must be a JSON object with exactly one of {', '.join(FORMS)}; got {_short(found)}.")
    form = present[0]
    return _READERS[form](payload[form], signature)


def _read_split(value: Any, signature: Signature) -> Table:
    if not isinstance(value, dict) or "data" not in value or value.keys() - {"columns", "data", "index"}:
        raise Refused("dataframe_split must be an object with 'data' and 'columns', and optionally 'index'.")
    names, data = value.get("columns"), value["data"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refused("dataframe_split needs 'columns', a list of names.")
    if len(set(names)) != len(names):
        raise Refused("dataframe_split names a column twice.")
    width = len(names)
    if not isinstance(data, list) or not all(isinstance(row, list) and len(row) == width for row in data):
        raise Refused(f"dataframe_split's 'data' must be a list of rows with {width} values each.")
    return dict(zip(names, zip(*data, strict=True), strict=True)) if data else {}, len(data)


def _read_records(value: Any, signature: Signature) -> Table:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise Refused("Records must be a list of objects, one per row.")
    try:
        columns = zip(*map(signature.pick, value), strict=True)
    except KeyError:
        return _uneven_records(value, signature.names), len(value)
    return dict(zip(signature.names, columns, strict=False)), len(value)


def _uneven_records(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Mapping[str, Sequence[Any]]:
    """As in pandas: null where a record lacks a name, missing when every record does."""
    present = [name for name in names if any(name in row for row in records)]
    return {name: [row.get(name) for row in records] for name in present}


def _read_columns(value: Any, signature: Signature) -> Table:
    if isinstance(value, list) and len(signature.inputs) == 1 and not any(isinstance(e, dict) for e in value):
        value = {signature.inputs[0].name: value}
    if isinstance(value, list):
        return _read_records(value, signature)
    if not isinstance(value, dict):
        raise Refused("inputs and instances must be an object of columns or a list of records.")
    columns = {entry.name: value[entry.name] for entry in signature.inputs if entry.name in value}
    if columns and not any(isinstance(each, list) for each in columns.values()):
        columns = {name: [each] for name, each in columns.items()}
    if not all(isinstance(each, list) for each in columns.values()):
        raise Refused("inputs and instances must have a list for every column, or a single value for every column.")
    lengths = {len(each) for each in columns.values()}
    if len(lengths) > 1:
        raise Refused("The length of values for each input/column name are not the same.")
    if not lengths:
        raise Refused(f"Model is missing inputs {[e.name for e in signature.inputs if e.required]}.")
    return columns, lengths.pop()


_READERS: Mapping[str, Callable[[Any, Signature], Table]] = {
    "dataframe_split": _read_split,
    "dataframe_records": _read_records,
    "inputs": _read_columns,
    "instances": _read_columns,
}


# --- CSV --------------------------------------------------------------------------------------------------


def _read_csv(body: bytes, signature: Signature) -> Table:
    try:
        header, *lines = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
    except (ValueError, csv.Error) as error:
        raise Refused(f"The body is not CSV with a header, in UTF-8: {_short(str(error))}.") from error
    lines = [line for line in lines if line]
    if len(set(header)) != len(header):
        raise Refused("The CSV header names a column twice.")
    for number, line in enumerate(lines, start=1):
        if len(line) != len(header):
            raise Refused(f"CSV row {number} has {len(line)} values, the header {len(header)}.")
    cells = dict(zip(header, zip(*lines, strict=True), strict=True)) if lines else {}
    return {e.name: _from_csv(e, cells[e.name]) for e in signature.inputs if e.name in cells}, len(lines)


def _from_csv(entry: Input, cells: Sequence[str]) -> Sequence[Any]:
    read = _CSV_CELLS.get(entry.type)
    if read is None:
        return [None if cell in _CSV_NULLS else cell for cell in cells]
    try:
        return [None if cell in _CSV_NULLS else read(cell) for cell in cells]
    except (ValueError, KeyError) as error:
        raise Refused(f"Column '{entry.name}' expects {entry.type}: {_short(str(error))}.") from error


_CSV_CELLS: Mapping[str, Callable[[str], Any]] = {
    "double": float,
    "long": float,
    "boolean": lambda cell: _TRUTH[cell.strip().lower()],
}


def answer(predictions: NDArray[Any]) -> bytes:
    """MLflow's answer for float64 predictions [n]."""
    return json.dumps({"predictions": predictions.tolist()}).encode()


def _short(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
