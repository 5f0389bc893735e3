"""Locked library versions: ``name==version`` lines of a requirements file, held against what is installed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from pipeline.errors import UsageError


def pins(text: str) -> Mapping[str, str]:
    """Pinned versions by normalised name; lines that pin nothing, options and hashes are passed over.

    Raises:
        UsageError: a line is no requirement (PEP 508).
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.replace("\\\n", " ").splitlines(), start=1):
        words = line.split(" #")[0].split(" --hash")[0].strip()
        if not words or words.startswith(("#", "-")):
            continue
        try:
            requirement = Requirement(words)
        except InvalidRequirement as error:
            raise UsageError(f"no requirement: {words!r}", where=f"the project's lock, line {number}") from error
        exact = [item.version for item in requirement.specifier if item.operator == "=="]
        applies = requirement.marker is None or requirement.marker.evaluate()
        if applies and exact and not exact[0].endswith("*"):
            found[canonicalize_name(requirement.name)] = exact[0]
    return found


def differences(pinned: Mapping[str, str], installed: Callable[[str], str | None]) -> list[str]:
    """What differs, in words: ``numpy 2.4.6 is installed, 2.3.0 is locked``.

    Args:
        pinned: see `pins`.
        installed: version of a library, None when it is not there.
    """
    found = []
    for name, wanted in sorted(pinned.items()):
        version = installed(name)
        if version is None:
            found.append(f"{name} is not installed, {wanted} is locked")
        elif not _same(version, wanted):
            found.append(f"{name} {version} is installed, {wanted} is locked")
    return found


def _same(version: str, wanted: str) -> bool:
    """Equal but for a local part (``2.13.0+cpu``) that the lock does not name."""
    found, locked = Version(version), Version(wanted)
    return found == locked or (locked.local is None and found.public == str(locked))
