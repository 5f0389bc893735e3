"""The shell scripts, as far as they go without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "scripts"
TOOLS = ("bash", "cat", "cksum", "dirname", "flock", "grep", "ln", "mkdir", "readlink", "rm", "sed", "tail", "timeout")


@pytest.fixture
def checkout(tmp_path):
    """A checkout in a path with spaces, without .venv."""
    place = tmp_path / "a check out"
    shutil.copytree(SCRIPTS, place / "scripts")
    (place / "infra" / "python").mkdir(parents=True)
    shutil.copy(REPOSITORY / "infra" / "python" / "constraints.txt", place / "infra" / "python")
    shutil.copy(REPOSITORY / "pyproject.toml", place)
    return place


@pytest.fixture
def path(tmp_path):
    """A PATH with the tools that every Linux has, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool))
    return folder


def python(path, body, name="python3"):
    (path / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
    (path / name).chmod(0o755)


def run(script, path, *words):
    return subprocess.run(
        ["bash", str(script), *words], env={"PATH": str(path), "HOME": "/nonexistent"}, capture_output=True, text=True
    )


@pytest.mark.parametrize("name", ["setup", "demo", "test"])
def test_the_script_is_whole_and_may_be_run(name):
    subprocess.run(["bash", "-n", str(SCRIPTS / name)], check=True)
    assert os.access(SCRIPTS / name, os.X_OK)


@pytest.mark.parametrize("script", ["setup", "demo", "test"])
def test_without_a_python_that_is_new_enough_it_says_which_to_install(checkout, path, script):
    python(path, "exit 1")
    done = run(checkout / "scripts" / script, path)
    assert done.returncode == 2
    assert "no Python 3.11 or newer" in done.stderr
    assert not (checkout / ".venv").exists()


def test_without_the_venv_module_it_says_what_to_install(checkout, path):
    python(path, 'case "$*" in --version) echo Python 3.11.2 ;; *"import ensurepip"*|*"import pip"*) exit 1 ;; esac')
    done = run(checkout / "scripts" / "setup", path)
    assert done.returncode == 2
    assert "apt install python3-venv" in done.stderr


def fake_venv(checkout, body):
    """A .venv whose Python writes down how it was called, once the real one would be made."""
    (checkout / ".venv" / "bin").mkdir(parents=True)
    python(checkout / ".venv" / "bin", f'echo "$@" >>"{checkout.parent}/calls"\n{body}', "python")


def calls(checkout):
    file = checkout.parent / "calls"
    return file.read_text().splitlines() if file.is_file() else []


def test_what_is_set_up_already_is_left_alone_until_the_pins_change(checkout, path):
    fake_venv(checkout, "exit 0")
    assert run(checkout / "scripts" / "setup", path).returncode == 0
    first = calls(checkout)
    assert any(line.endswith(f"-e {checkout}[embedded,dev,keras,sklearn,lightgbm]") for line in first)
    assert run(checkout / "scripts" / "setup", path).returncode == 0
    assert calls(checkout) == first
    with (checkout / "infra" / "python" / "constraints.txt").open("a") as stream:
        stream.write("something==1.0\n")
    assert run(checkout / "scripts" / "setup", path).returncode == 0
    assert len(calls(checkout)) > len(first)


def test_a_set_up_that_failed_is_finished_the_next_time(checkout, path):
    fake_venv(checkout, 'case "$*" in *"[embedded,dev,keras,sklearn,lightgbm]"*) exit 1 ;; esac')
    assert run(checkout / "scripts" / "setup", path).returncode == 1
    before = len(calls(checkout))
    assert run(checkout / "scripts" / "setup", path).returncode == 1
    assert len(calls(checkout)) > before


def test_an_environment_that_was_moved_is_made_right(checkout, path):
    fake_venv(checkout, "exit 0")
    assert run(checkout / "scripts" / "setup", path).returncode == 0
    moved = checkout.rename(checkout.with_name("moved"))
    assert run(moved / "scripts" / "setup", path).returncode == 0
    assert any(line.endswith(f"-e {moved}[embedded,dev,keras,sklearn,lightgbm]") for line in calls(checkout))


@pytest.mark.parametrize("word", ["--stop", "--clean"])
def test_the_demo_stops_and_cleans_where_nothing_was_ever_made(checkout, path, word):
    done = run(checkout / "scripts" / "demo", path, word)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (checkout / ".gatehouse").exists()
    assert not (checkout / ".venv").exists()


def test_clean_ends_what_runs_even_when_the_environment_was_removed_first(checkout, path):
    home = checkout / ".gatehouse"
    (home / "run").mkdir(parents=True)
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); print(flush=True); signal.pause()"
    with (
        subprocess.Popen([sys.executable, "-c", code, f"{home}/artifacts"], stdout=subprocess.PIPE) as ours,
        subprocess.Popen([sys.executable, "-c", code, "elsewhere"], stdout=subprocess.PIPE) as stranger,
    ):
        for process, name in ((ours, "mlflow"), (stranger, "server-staging")):
            process.stdout.readline()
            (home / "run" / f"{name}.json").write_text(f'{{"pid": {process.pid}, "began": 1.5}}')
        run_clean = subprocess.Popen(
            ["bash", str(checkout / "scripts" / "demo"), "--clean"], env={"PATH": str(path), "HOME": "/nonexistent"}
        )
        assert ours.wait(10) != 0
        assert run_clean.wait(20) == 0
        assert stranger.poll() is None
        stranger.kill()
    assert not home.exists()


def test_an_agents_own_environment_is_used_if_it_is_the_one_wanted(checkout, path, tmp_path):
    agents, wanted = (
        tmp_path / "an agent" / "venv",
        "".join((checkout / name).read_text() for name in ("pyproject.toml", "infra/python/constraints.txt")),
    )
    (agents / "bin").mkdir(parents=True)
    sums = subprocess.run(["cksum"], input=wanted, capture_output=True, text=True, check=True).stdout.strip()
    (agents / ".gatehouse-setup").write_text(f"/somewhere else {sums}")
    environment = {"PATH": str(path), "HOME": "/nonexistent", "GATEHOUSE_VENV": str(agents)}
    command = ["bash", str(checkout / "scripts" / "setup")]
    for _ in range(2):
        subprocess.run(command, env=environment, check=True, capture_output=True)
    assert (checkout / ".venv").resolve() == agents
    (agents / ".gatehouse-setup").write_text("/somewhere else 1 2")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "other requirements" in done.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["scripts/trigger", "--p"], ["--param"]),
        (["./approve", "--"], ["--reason", "--help"]),
        (["gatehouse", "gate", "rev"], ["revoke"]),
    ],
)
def test_the_shell_completes_what_the_commands_know(words, offered):
    line = " ".join(f"'{word}'" for word in words)
    script = f"source scripts/completion; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _gatehouse_complete"
    done = subprocess.run(
        ["bash", "-c", script + '; printf "%s\\n" "${COMPREPLY[@]}"'], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout.split() == offered, done.stderr
