"""Detached child processes with pid files. A pid is believed only together with the time its process began."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import requests

from pipeline import QUIET
from pipeline.errors import Unreachable

_LOOK_EVERY_SECONDS = 0.05
_KILLED_SECONDS = 10
_TAIL = 2_000
_MARK = "GATEHOUSE_PROCESS"
HOST = "127.0.0.1"


def spawn(name: str, argv: Sequence[str], home: Path, env: Mapping[str, str]) -> int:
    """Start a process that outlives this one; its output goes to ``<home>/log/<name>.log``. Answers its pid.

    One that runs already is left alone.
    """
    found = find(name, home)
    if found is not None:
        return int(found.pid)
    _end(_left_behind(name, home))
    log = home / "log" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=home,
            env={**env, _MARK: str(_pid_file(name, home).resolve())},
            start_new_session=True,
        )
    leave(child)
    record = {"pid": child.pid, "began": psutil.Process(child.pid).create_time()}
    _replace(_pid_file(name, home), json.dumps(record))
    return child.pid


def leave(child: subprocess.Popen[bytes]) -> None:
    """Tell Python that nobody waits for this child: it is meant to outlive us."""
    child.returncode = 0


def find(name: str, home: Path) -> psutil.Process | None:
    """The process started under this name, if it still runs."""
    try:
        record = json.loads(_pid_file(name, home).read_text(encoding="utf-8"))
        process = psutil.Process(record["pid"])
        same = abs(process.create_time() - record["began"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        return None
    return process if same else None


def stop(name: str, home: Path, grace: float = 10.0) -> None:
    """End a process and its children: asked first, killed after `grace` seconds. Safe when it does not run."""
    process = find(name, home)
    if process is not None:
        family = [process, *process.children(recursive=True)]
        process.terminate()
        wait_ended([process], grace)
        _end(family)
    _end(_left_behind(name, home))
    _pid_file(name, home).unlink(missing_ok=True)


def wait_ended(family: Sequence[psutil.Process], seconds: float) -> bool:
    """Whether all of them ended within `seconds`.

    A zombie has ended: in a container nobody may ever collect it, and on other machines it can take seconds. But
    only with its last thread: until then its port is taken.
    """
    deadline = time.monotonic() + seconds
    while not all(_has_ended(process) for process in family):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_SECONDS)
    return True


def _has_ended(process: psutil.Process) -> bool:
    try:
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            return False
        return not process.is_running() or process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True


def port(name: str, home: Path) -> int:
    """The port kept for a name: the same as last time while nobody else took it, else a free one."""
    place = home / "run" / f"{name}.port"
    kept = place.read_text(encoding="utf-8").strip() if place.is_file() else ""
    if kept.isdecimal():
        if find(name, home) is not None:
            return int(kept)
        _end(_left_behind(name, home))
        if _is_free(int(kept)):
            return int(kept)
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        free = int(probe.getsockname()[1])
    _replace(place, str(free))
    return free


def wait_for_http(url: str, name: str, home: Path, seconds: float) -> None:
    """Wait until `url` answers, whatever its status below 500.

    Raises:
        Unreachable: it does not within `seconds`, or its process ended; shows the end of its log.
    """
    deadline = time.monotonic() + seconds
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < deadline and find(name, home) is not None:
            try:
                if session.get(url, timeout=2).status_code < requests.codes.server_error:
                    return
            except requests.RequestException:
                pass
            time.sleep(_LOOK_EVERY_SECONDS)
    log = home / "log" / f"{name}.log"
    tail = log.read_text(encoding="utf-8", errors="replace")[-_TAIL:] if log.is_file() else ""
    raise Unreachable(f"{name} did not start:\n{tail}", where=str(log), fix="the end of its log stands above")


def clean_environment(home: Path) -> dict[str, str]:
    """The environment for child processes: nobody's proxies or telemetry, and caches inside `home`."""
    keep = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("MLFLOW_", "PG", "GATEHOUSE_")) and "proxy" not in key.lower()
    }
    caches = home / "caches"
    temporary = home / "tmp"
    for folder in (caches, temporary):
        folder.mkdir(parents=True, exist_ok=True)
    return keep | {
        **QUIET,
        "MPLCONFIGDIR": str(caches),
        "XDG_CACHE_HOME": str(caches),
        "TMPDIR": str(temporary),
        "GATEHOUSE_SETTINGS": str(home / "settings.toml"),
    }


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Hold this folder against other starts and stops; waits for those under way. A killed holder lets go."""
    place = home / "run" / "lock"
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _left_behind(name: str, home: Path) -> list[psutil.Process]:
    """Children that outlived a killed process, in whatever group they put themselves: known by their environment."""
    mark = str(_pid_file(name, home).resolve())
    return [process for process in psutil.process_iter() if _environment(process).get(_MARK) == mark]


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except (OSError, psutil.Error):  # another user's, or gone
        return {}


def _end(family: Sequence[psutil.Process]) -> None:
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    wait_ended(family, _KILLED_SECONDS)


def _replace(place: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f"{place.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(place)


def _pid_file(name: str, home: Path) -> Path:
    return home / "run" / f"{name}.json"


def _is_free(number: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, number))
        except OSError:
            return False
        return True
