"""Where groovy is, and how the checker is run: once for all files, because a Java machine takes its time to start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
MISSING = "groovy or java is missing; to get them: apt-get install -y groovy default-jre-headless"


def groovy_environment() -> dict[str, str] | None:
    """The environment in which Debian's groovy starts, or None where it cannot."""
    java = shutil.which("java")
    if java is None or shutil.which("groovy") is None:
        return None
    home = os.environ.get("JAVA_HOME") or str(Path(java).resolve().parents[1])
    return {**os.environ, "JAVA_HOME": home}


def wait_until(holds, seconds):
    """Wait until something holds; answers it. A condition is polled: the build is another process."""
    until = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="session")
def groovy():
    """Runs a Groovy program of this folder; skips where there is no Groovy."""
    environment = groovy_environment()
    if environment is None:
        pytest.skip(MISSING)

    def run(program, *words, **more):
        command = ["groovy", "-cp", f"{HERE}/checker:{HERE}", str(HERE / program), *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=300, env={**environment, **more.pop("env", {})}, **more
        )

    return run


@pytest.fixture(scope="session")
def check(groovy):
    """Checks Jenkinsfiles; answers each file's findings."""

    def run(paths):
        done = groovy("check.groovy", *paths)
        assert done.returncode == 0, done.stderr
        findings = {Path(path): [] for path in paths}
        for finding in json.loads(done.stdout):
            findings[Path(finding["file"])].append(finding)
        return findings

    return run
