"""Processes that outlive their parent are found again, and nobody else's is ever touched."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from pipeline.embedded import processes
from pipeline.errors import Unreachable

SLEEP = [sys.executable, "-c", "import signal; signal.pause()"]
STUBBORN = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").close()
while True:
    signal.pause()
"""
PARENT = """
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
with open(sys.argv[1], "w") as stream:
    stream.write(str(child.pid))
signal.pause()
"""


@pytest.fixture
def home(tmp_path):
    place = tmp_path / "a home with spaces"
    place.mkdir()
    yield place
    for name in ("sleeper", "parent"):
        processes.stop(name, place, grace=1)


def spawn(name, argv, home):
    return processes.spawn(name, argv, home, processes.clean_environment(home))


def spawn_and_hear(code, home):
    """Start a program that writes to the pipe it is given, and answer what it wrote."""
    pipe = home / "pipe"
    os.mkfifo(pipe)
    spawn("parent", [sys.executable, "-c", code, str(pipe)], home)
    return pipe.read_text()


def test_a_process_outlives_the_one_that_started_it_and_is_found_again(home):
    code = (
        "import sys; from pathlib import Path; from pipeline.embedded import processes; "
        "home = Path(sys.argv[1]); processes.spawn('sleeper', sys.argv[2:], home, processes.clean_environment(home))"
    )
    subprocess.run([sys.executable, "-c", code, str(home), *SLEEP], check=True)
    found = processes.find("sleeper", home)
    assert found is not None
    assert os.getsid(found.pid) == found.pid  # closing the terminal does not end it
    assert spawn("sleeper", SLEEP, home) == found.pid


def test_stopping_twice_is_the_same_as_once(home):
    process = psutil.Process(spawn("sleeper", SLEEP, home))
    processes.stop("sleeper", home)
    processes.stop("sleeper", home)
    assert processes.wait_ended([process], 0)
    assert processes.find("sleeper", home) is None


def test_one_that_does_not_listen_is_killed_after_the_grace(home):
    spawn_and_hear(STUBBORN, home)
    process = processes.find("parent", home)
    processes.stop("parent", home, grace=0.1)
    assert processes.wait_ended([process], 0)


def test_children_end_with_their_parent(home):
    child = psutil.Process(int(spawn_and_hear(PARENT, home)))
    processes.stop("parent", home)
    assert processes.wait_ended([child], 0)


@pytest.mark.parametrize("next_act", ["stop", "spawn"])
def test_children_of_a_killed_parent_are_ended_before_they_can_hold_its_port(home, next_act):
    child = psutil.Process(int(spawn_and_hear(PARENT, home)))
    parent = processes.find("parent", home)
    parent.send_signal(signal.SIGKILL)
    assert processes.wait_ended([parent], 10)
    assert child.is_running()
    if next_act == "stop":
        processes.stop("parent", home)
    else:
        spawn("parent", SLEEP, home)
    assert processes.wait_ended([child], 0)


def test_a_number_that_belongs_to_another_process_by_now_is_neither_believed_nor_killed(home):
    with subprocess.Popen(SLEEP, start_new_session=True) as stranger:
        record = home / "run" / "sleeper.json"
        record.parent.mkdir()
        record.write_text(json.dumps({"pid": stranger.pid, "began": 12345.0}))
        assert processes.find("sleeper", home) is None
        processes.stop("sleeper", home)
        assert stranger.poll() is None
        stranger.kill()


def test_a_torn_record_means_that_nothing_runs(home):
    (home / "run").mkdir()
    (home / "run" / "sleeper.json").write_text('{"pid": 1')
    assert processes.find("sleeper", home) is None
    processes.stop("sleeper", home)


def test_a_port_is_kept_until_somebody_else_takes_it(home):
    first = processes.port("web", home)
    assert processes.port("web", home) == first
    with socket.create_server((processes.HOST, first)):
        assert processes.port("web", home) != first


def test_a_torn_port_file_gives_a_new_port(home):
    kept = processes.port("web", home)
    (home / "run" / "web.port").write_text("")
    assert processes.port("web", home) > 0
    assert (home / "run" / "web.port").read_text() != ""
    assert kept > 0


def test_a_server_that_ends_at_once_is_reported_with_the_end_of_its_log_and_without_waiting(home):
    spawn("parent", [sys.executable, "-c", "raise SystemExit('the disk is full')"], home)
    with pytest.raises(Unreachable) as caught:
        processes.wait_for_http("http://127.0.0.1:9/health", "parent", home, seconds=60)
    assert "the disk is full" in caught.value.what
    assert caught.value.where == str(home / "log" / "parent.log")


def test_children_see_no_proxy_no_libpq_settings_and_write_nothing_outside_home(home, monkeypatch):
    for name in ("HTTPS_PROXY", "no_proxy", "PGPASSWORD", "PGSERVICE", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "x")
    env = processes.clean_environment(home)
    assert not {"HTTPS_PROXY", "no_proxy", "PGPASSWORD", "PGSERVICE", "MLFLOW_TRACKING_URI"} & set(env)
    assert all(env[name].startswith(str(home)) for name in ("TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR"))


def test_two_starts_of_one_folder_take_turns(home):
    with processes.alone(home), (home / "run" / "lock").open() as stream, pytest.raises(BlockingIOError):
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (home / "run" / "lock").open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
