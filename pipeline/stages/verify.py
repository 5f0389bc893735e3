"""verify: ask the live server, compare with offline predictions of the same bytes, measure latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.errors import PolicyRefused
from pipeline.ports import Columns, ModelServer, Predictor, Reporter

PARITY = 1e-6
BATCH = 200
SINGLES = 50


def run(
    rows: Sequence[Mapping[str, Any]],
    columns: Columns,
    *,
    offline: Predictor,
    server: ModelServer,
    latency_budget_ms: float,
    reporter: Reporter,
) -> Mapping[str, Any]:
    """Send real rows, in batches and one by one.

    Args:
        rows, columns: the same rows as JSON records and as columns.
        offline: the verified package, loaded here.
        server: the live server.
        latency_budget_ms: ceiling for the 95th percentile of a single-row request, milliseconds.

    Returns:
        The fact: rows sent, largest difference, latency.

    Raises:
        PolicyRefused: an answer came from other bytes, differs from the offline prediction, or took too long.
    """
    expected = offline.predict(columns)
    answers: list[float] = []
    digests: set[str] = set()
    times: list[float] = []
    with reporter.track(f"asking {server.url}", total=len(rows)) as tracker:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            got, digest = server.invoke({"dataframe_records": batch})
            answers += got
            digests.add(digest)
            tracker.advance(len(batch))
        for row in rows[:SINGLES]:
            began = time.perf_counter()
            _, digest = server.invoke({"dataframe_records": [row]})
            times.append((time.perf_counter() - began) * 1000)
            digests.add(digest)
    difference = float(np.max(np.abs(np.asarray(answers) - expected))) if len(answers) == len(rows) else None
    p95 = statistics.quantiles(times, n=20)[-1]
    _refuse_unless(digests == {offline.digest}, f"answers came from {', '.join(sorted(digests))}", server)
    _refuse_unless(
        difference is not None and difference <= PARITY, f"answers differ by {difference} from offline", server
    )
    _refuse_unless(p95 <= latency_budget_ms, f"p95 latency {p95:.1f} ms is over {latency_budget_ms:g} ms", server)
    return {
        "server": server.url,
        "package": offline.digest,
        "rows": len(rows),
        "max_abs_difference": difference,
        "single_row_p50_ms": round(statistics.median(times), 3),
        "single_row_p95_ms": round(p95, 3),
    }


def _refuse_unless(holds: bool, what: str, server: ModelServer) -> None:
    if not holds:
        raise PolicyRefused(f"the live server fails verification: {what}", where=server.url)
