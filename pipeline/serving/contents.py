"""A model package's bytes: read once, digested, and handed on for loading or keeping.

Invariant: nothing of a package is parsed before its digest was compared, and nothing is read a second time
afterwards, so that a change of the files between check and use has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pipeline.domain.canonical import digest_bytes, digest_json
from pipeline.errors import IntegrityViolated


@dataclass(frozen=True, slots=True)
class Package:
    """The bytes of a package folder's files, by relative POSIX path, and the digest of those bytes."""

    files: Mapping[str, bytes]
    digest: str

    def require(self, expected: str, *, where: str) -> None:
        """Check the digest.

        Raises:
            IntegrityViolated: these are not the expected bytes.
        """
        if self.digest != expected:
            raise IntegrityViolated(
                f"the package is {self.digest}, expected {expected}",
                where=where,
                fix="do not load it; find out who changed these files, then restore them from the registry",
            )


def read(folder: Path) -> Package:
    """Read every file below `folder` once; the digest equals ``digest_tree(folder)``.

    Raises:
        IntegrityViolated: there is no package, or something in it is not a plain file (a link can change what
            it points at after the check).
    """
    if not folder.is_dir():
        raise IntegrityViolated("there is no package here", where=str(folder))
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise IntegrityViolated("a package holds plain files only, not links", where=str(path))
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
    digest = digest_json({name: digest_bytes(data) for name, data in files.items()})
    return Package(MappingProxyType(files), digest)
