"""Bundles as files: a plain tar whose bytes follow from its content, and unpacking that trusts nothing in it.

Only regular files with plain names are taken, as many bytes as the file itself has: no compression that could expand,
no links, no devices, no sparse files. https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html
"""

from __future__ import annotations

import re
import shutil
import tarfile
from pathlib import Path

from pipeline.errors import IntegrityViolated, UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){0,3}")
_MAX_FILES = 10_000
_FIX = "nothing of it was taken in; have it exported or copied again"


def pack(folder: Path, out: Path) -> None:
    """Write a folder's files as a tar: sorted, without times, owners or permissions of this machine.

    Raises:
        UsageError: `out` cannot be written.
    """
    partial = out.with_name(f"{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
                entry.size, entry.mode = path.stat().st_size, 0o644
                with path.open("rb") as stream:
                    archive.addfile(entry, stream)
        partial.replace(out)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot write: {error}", where=str(out), fix="name a file in a folder with room") from error
    finally:
        partial.unlink(missing_ok=True)


def unpack(file: Path, folder: Path) -> None:
    """Take a tar's files out into an empty folder.

    Raises:
        IntegrityViolated: it is cut off, compressed, or holds anything but regular files with plain names.
        UsageError: it cannot be read, or there is no room.
    """
    if not file.is_file():
        raise UsageError(
            "there is no such bundle", where=str(file), fix="name a file that gatehouse bundle export made"
        )
    seen: set[str] = set()
    try:
        with tarfile.open(file, "r:") as archive:
            for entry in archive:
                if entry.name in seen or len(seen) >= _MAX_FILES:
                    raise IntegrityViolated(f"'{entry.name}' is one too many", where=str(file), fix=_FIX)
                seen.add(entry.name)
                _take(archive, entry, folder, file)
    except (tarfile.TarError, EOFError, ValueError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise IntegrityViolated(f"this is no whole bundle: {error}", where=str(file), fix=_FIX) from error
    except OSError as error:
        raise UsageError(f"the bundle cannot be unpacked: {error}", where=str(file)) from error


def _take(archive: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path, file: Path) -> None:
    if entry.type != tarfile.REGTYPE or entry.issparse() or entry.pax_headers:
        raise IntegrityViolated(f"'{entry.name}' in the bundle is no regular file", where=str(file), fix=_FIX)
    if not _NAME.fullmatch(entry.name):
        raise IntegrityViolated(f"'{entry.name}' is no name for a file of a bundle", where=str(file), fix=_FIX)
    stream = archive.extractfile(entry)
    assert stream is not None
    path = folder / entry.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with stream, path.open("xb") as out:
        shutil.copyfileobj(stream, out)
    if path.stat().st_size != entry.size:
        raise IntegrityViolated(f"'{entry.name}' is cut off", where=str(file), fix=_FIX)
