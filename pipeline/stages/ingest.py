"""ingest: take the source's rows of the training and hold-out windows, once, as immutable snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pipeline.domain.canonical import digest_file, digest_json
from pipeline.domain.window import Window
from pipeline.errors import UsageError
from pipeline.ports import Reporter, Tracking


class Written(Protocol):
    """What writing a snapshot tells: rows, logical digest (every row, every column), and per column."""

    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def column_digests(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def bytes(self) -> int: ...  # noqa: D102


def run(
    windows: Mapping[str, Window],
    take: Callable[[Window, Path, Callable[[float], None]], Written],
    *,
    tracking: Tracking,
    run_id: str,
    folder: Path,
    keep: Callable[[Path], str],
    source: str,
    reporter: Reporter,
) -> Mapping[str, Any]:
    """Snapshot each window of the source and upload it.

    Args:
        windows: by part, ``train`` and ``holdout``.
        take: reads a window of the source, writes it as Parquet to a path, and tells how many rows it has so far.
        tracking, run_id: where the files go.
        folder: empty, for work in progress.
        keep: keeps a local copy for the next stages on this machine.
        source: name of the source, for people.
        reporter: told about progress.

    Returns:
        The fact: rows, digests and URIs by part, and one digest over all of them.

    Raises:
        UsageError: a window has no rows.
    """
    parts: dict[str, Any] = {}
    for part, window in windows.items():
        path = folder / f"{part}.parquet"
        with reporter.track(f"reading {window} ({part})") as tracker:
            written = take(window, path, tracker.advance)
            tracker.say(f"{written.rows:,} rows")
        if written.rows == 0:
            raise UsageError(
                f"the source has no rows in {window}",
                where=f"{source}, {part} window",
                fix="check the window, or whether the data has arrived",
            )
        uri = tracking.upload(run_id, path, "data")
        keep(path)
        parts[part] = {
            "window": str(window),
            "rows": written.rows,
            "digest": written.digest,
            "columns": dict(written.column_digests),
            "bytes": written.bytes,
            "file": digest_file(path),
            "uri": uri,
        }
        tracking.log_dataset(run_id, name=part, digest=written.digest, source=source)
    return {"source": source, "digest": digest_json({part: parts[part]["digest"] for part in parts}), "parts": parts}
