"""Columns as JSON rows: what a client sends to a model server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def json_value(value: Any) -> Any:
    """A column's value as JSON: null for missing or not finite, ISO text for a time."""
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value.astype("datetime64[s]"))
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def rows_of(columns: Mapping[str, NDArray[Any]], names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows as JSON objects, with the named columns or all of them."""
    chosen = {name: columns[name] for name in names or columns}
    return [dict(zip(chosen, map(json_value, row), strict=True)) for row in zip(*chosen.values(), strict=True)]
