"""The command line as a shell sees it: exit codes, one screen, no traceback, quick help."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("mlflow", "torch", "pandas", "numpy", "sqlalchemy", "pyarrow", "matplotlib")


def gatehouse(*words, cwd):
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "GATEHOUSE_SETTINGS": str(cwd / "settings.toml")},
    )


@pytest.mark.parametrize(
    "words", [("frobnicate",), ("train",), ("promote", "--run", "r"), ("gate", "approve", "--run", "r")]
)
def test_bad_usage_is_exit_code_2_without_a_traceback(tmp_path, words):
    done = gatehouse(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_no_installation_is_explained_with_what_where_and_what_to_do(tmp_path):
    done = gatehouse("train", "--run", "r", cwd=tmp_path)
    assert done.returncode == 2
    assert "no installation found" in done.stderr
    assert str(tmp_path) in done.stderr.replace("\n", "")
    assert "what to do: gatehouse up" in done.stderr


def test_debug_shows_the_traceback(tmp_path):
    assert "Traceback" in gatehouse("--debug", "train", "--run", "r", cwd=tmp_path).stderr


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("gate", "approve", "--help"), ("serve", "--help")])
def test_help_loads_no_heavy_library(words):
    code = (
        "import sys\n"
        "from pipeline.cli import app\n"
        f"app({list(words)!r}, standalone_mode=False)\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout
