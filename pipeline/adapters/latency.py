"""How fast a package answers on this machine: the one measurement of the evidence that is not reproducible."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.evidence import Latency
from pipeline.errors import UsageError
from pipeline.ports import Columns

SINGLE_ROWS = 200
_WARM_UP = 10
_BATCH_SECONDS = 0.2


def measure_latency(predict: Callable[[Columns], NDArray[Any]], columns: Columns) -> Latency:
    """Time `predict` row by row and as one batch, features included, after a warm-up.

    Args:
        predict: columns of n rows to probabilities [n].
        columns: rows to take, n ≥ 1; with fewer than 200 they are taken again from the start.

    Returns:
        p50 and p95 of 200 single rows in ms, and the batch throughput of all rows in rows/s.

    Raises:
        UsageError: no rows.
    """
    n = len(next(iter(columns.values()), ()))
    if not n:
        raise UsageError("no rows to time", where="latency")
    singles = [_row(columns, index % n) for index in range(SINGLE_ROWS)]
    for row in singles[:_WARM_UP]:
        predict(row)
    times = [_seconds(predict, row) for row in singles]
    p50, p95 = (np.quantile(times, [0.5, 0.95]) * 1000).tolist()
    return Latency(
        single_row_p50_ms=round(p50, 4),
        single_row_p95_ms=round(p95, 4),
        batch_rows_per_second=round(n / _batch(predict, columns), 1),
        batch_rows=n,
    )


def _row(columns: Columns, index: int) -> Columns:
    return {name: values[index : index + 1] for name, values in columns.items()}


def _seconds(predict: Callable[[Columns], NDArray[Any]], columns: Columns) -> float:
    start = time.perf_counter()
    predict(columns)
    return time.perf_counter() - start


def _batch(predict: Callable[[Columns], NDArray[Any]], columns: Columns) -> float:
    """Best of repeated batches: what the machine can do when nothing else takes its time."""
    best = _seconds(predict, columns)
    start = time.perf_counter()
    while time.perf_counter() - start < _BATCH_SECONDS:
        best = min(best, _seconds(predict, columns))
    return max(best, 1e-9)
