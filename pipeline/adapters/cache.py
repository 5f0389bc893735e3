"""A content-addressed cache on this machine. Losing it costs time, never state; what it gives back was verified."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pipeline.domain.canonical import digest_file, digest_tree
from pipeline.errors import IntegrityViolated


class Cache:
    """Files and folders by digest, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, digest: str, fetch: Callable[[Path], Path], what: str) -> Path:
        """The file or folder with this digest, fetched when it is not here or not intact any more.

        Args:
            digest: of the file's bytes, or of the tree.
            fetch: puts it below an empty folder and answers where.
            what: for the error: what it is and where it came from.

        Raises:
            IntegrityViolated: what was fetched has another digest.
        """
        place = self._place(digest)
        if place.exists() and _digest(place) == digest:
            return place
        with self.scratch() as scratch:
            got = fetch(Path(scratch))
            if (actual := _digest(got)) != digest:
                raise IntegrityViolated(
                    f"the bytes are not those that the ledger names: {actual}, expected {digest}",
                    where=what,
                    fix="somebody changed them after they were recorded: nothing was promoted",
                )
            self._move(got, place)
        return place

    def put(self, path: Path) -> str:
        """Keep a copy of a file or folder; answers its digest."""
        digest = _digest(path)
        if not self._place(digest).exists():
            with self.scratch() as scratch:
                copy = Path(scratch) / "copy"
                if path.is_dir():
                    shutil.copytree(path, copy)
                else:
                    shutil.copyfile(path, copy)
                self._move(copy, self._place(digest))
        return digest

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """A folder for work in progress, on the cache's own disk, removed afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix="work-", dir=self.folder)

    def _place(self, digest: str) -> Path:
        return self.folder / digest.partition(":")[2]

    def _move(self, source: Path, place: Path) -> None:
        # Two processes may bring the same bytes: whoever comes second finds them there. A damaged copy makes way.
        with tempfile.TemporaryDirectory(prefix="gone-", dir=self.folder) as gone:
            if place.exists():
                place.rename(Path(gone) / "old")
            source.rename(place)


def _digest(path: Path) -> str:
    return digest_tree(path) if path.is_dir() else digest_file(path)
