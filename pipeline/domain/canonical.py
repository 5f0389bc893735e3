"""Canonical JSON (RFC 8785) and SHA-256 digests. A digest never travels without its algorithm."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rfc8785

ALGORITHM = "sha256"
_CHUNK = 1 << 20


def canonical(value: Any) -> bytes:
    """Serialise a JSON value as RFC 8785 (JCS) bytes.

    Raises:
        ValueError: for NaN, infinities, integers beyond 2**53 and anything that is not JSON.
    """
    return rfc8785.dumps(value)


def digest_bytes(data: bytes) -> str:
    """SHA-256 of `data` as ``sha256:<64 hex digits>``."""
    return f"{ALGORITHM}:{hashlib.sha256(data).hexdigest()}"


def digest_json(value: Any) -> str:
    """Digest of a JSON value's canonical bytes."""
    return digest_bytes(canonical(value))


def digest_file(path: Path) -> str:
    """Digest of a file's bytes, read in constant memory."""
    state = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
    return f"{ALGORITHM}:{state.hexdigest()}"


def digest_tree(folder: Path) -> str:
    """Digest of a folder: its files' digests by relative POSIX path, as canonical JSON.

    Independent of file order, times and permissions. Used for the package digest and the project digest.
    """
    return digest_json(file_digests(folder))


def file_digests(folder: Path) -> Mapping[str, str]:
    """Digest of every file below `folder`, by relative POSIX path."""
    return {
        path.relative_to(folder).as_posix(): digest_file(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
