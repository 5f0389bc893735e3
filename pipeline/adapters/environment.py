"""What a training ran in: the machine, Python, every installed distribution, and Gatehouse's own code."""

from __future__ import annotations

import io
import os
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pipeline
from pipeline.domain.canonical import digest_json, file_digests

CODE = Path(pipeline.__file__).parent


def describe() -> Mapping[str, Any]:
    """The environment of this process, as JSON.

    Returns:
        `hardware` (machine, processor, cores, libc), `python`, `packages` (version by name)
        and `gatehouse` (digest of its code).
    """
    libc, version = platform.libc_ver()
    return {
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count() or 0,
            "libc": f"{libc} {version}",
        },
        "python": platform.python_version(),
        "packages": {_name(found.metadata["Name"]): found.version for found in distributions()},
        "gatehouse": digest_of_code(),
    }


def digest_of_code(folder: Path = CODE) -> str:
    """Digest of Gatehouse's own files by relative path, without what Python compiles beside them."""
    digests = file_digests(folder)
    return digest_json({name: digest for name, digest in digests.items() if "__pycache__" not in name.split("/")})


def copy_code(target: Path) -> None:
    """Copy Gatehouse's own code to ``target/pipeline``."""
    shutil.rmtree(target / "pipeline", ignore_errors=True)
    shutil.copytree(CODE, target / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))


def check_out(commit: str, target: Path) -> str | None:
    """Gatehouse's code of a commit of the repository that it runs from, to ``target/pipeline``; answers its digest.

    None where it does not run from a repository, or that has no such commit.
    """
    words = ["git", "-C", str(CODE.parent), "archive", "--format=tar", commit, CODE.name]
    try:
        done = subprocess.run(words, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(target, filter="data")
    return digest_of_code(target / CODE.name)


def _name(text: str) -> str:
    """A distribution's normalised name: https://packaging.python.org/en/latest/specifications/name-normalization/."""
    return re.sub(r"[-_.]+", "-", text).lower()


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*: (.+)$", text, flags=re.MULTILINE)
    return found[1] if found else platform.processor()
