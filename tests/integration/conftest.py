"""One real stack (Postgres, MLflow, two model servers) for all integration tests, and helpers to drive it."""

from __future__ import annotations

import atexit
import json
import os
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from pipeline.graph import STAGES
from tests.warm import Warm

FLIGHTS = Path(__file__).parents[2] / "pipeline" / "examples" / "flights"
SAMPLE = 0.1
SMALL = {"epochs": 2, "members": 1, "hidden": 16, "refit": "false"}
QUICK = (
    *(word for key, value in SMALL.items() for word in ("--set", f"training.parameters.{key}={value}")),
    *("--set", "evaluation.resamples=50"),
)
LENIENT = (
    "--set",
    "policy.metric=[{metric='auc', min=0.5}]",
    "--set",
    "policy.slice=[]",
    "--set",
    "policy.not_worse=[{metric='auc', by=1.0}]",
)


@cache
def warm():
    """The parent of this process' gatehouse commands."""
    parent = Warm()
    atexit.register(parent.close)
    return parent


class Stack:
    """The stack, as a shell drives it."""

    def __init__(self, home):
        self.home = home
        self.settings_file = home / "settings.toml"

    def gatehouse(self, *words, settings=None, cwd=None, expected=(0,)):
        env = {**os.environ, "GATEHOUSE_SETTINGS": str(settings or self.settings_file)}
        done = warm().run(*words, env=env, cwd=cwd or self.home, timeout=300)
        assert done.returncode in expected, (
            f"gatehouse {' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def json(self, *words):
        return json.loads(self.gatehouse(*words, "--json").stdout)

    def place(self):
        from pipeline.bootstrap.installation import Installation
        from pipeline.config import load_settings

        return Installation(load_settings(self.settings_file))

    def open(self, run, *options, project=FLIGHTS, settings=None, expected=(0,)):
        words = ("ingest", "--run", run, "--project", str(project), *QUICK, *LENIENT, *options)
        return self.gatehouse(*words, settings=settings, expected=expected)

    def until(self, stage, run, *options, project=FLIGHTS, expected=(0,)):
        """Every stage up to this one, as `gatehouse run --until` does it; answers how the last one ended."""
        opening = ("--project", str(project), *QUICK, *LENIENT, *options)
        for known in STAGES:
            words = (*known.command, "--run", run, *(() if known.reads else opening))
            last = known.name == stage
            done = self.gatehouse(*words, expected=expected if last else {0, *expected})
            if last or done.returncode:
                return done
        raise AssertionError(f"no stage {stage}")

    def approve(self, run, who="grace", expected=(0,)):
        return self.gatehouse(
            "gate", "approve", "--run", run, "--reason", "a test", "--demo-identity", who, expected=expected
        )

    def evidence(self, run):
        """What was measured on a run."""
        place = self.place()
        fact = place.state(run).fact("evaluate")
        return json.loads(place.artifact(fact["evidence_file"], fact["uri"]).read_bytes())

    def kinds(self, run):
        return [row["kind"] for row in self.json("ledger", "show", "--run", run)]


@contextmanager
def bare(folder):
    """A stack of its own in a folder, whose files are a source; its warehouse is empty."""
    from pipeline.bootstrap import embedded

    home = folder / ".gatehouse"
    embedded.up(home)
    yield Stack(home)
    embedded.down(home)


@contextmanager
def started(folder):
    """A stack of its own in a folder, with the first flights in its warehouse."""
    from pipeline.adapters.console import ConsoleReporter
    from pipeline.embedded import warehouse

    with bare(folder) as stack:
        source = stack.place().settings.sources["warehouse"]
        warehouse.load(source, "2013-01", "2013-07", ConsoleReporter(), sample=SAMPLE)
        yield stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    with started(tmp_path_factory.mktemp("a home with spaces")) as stack:
        yield stack


@pytest.fixture(scope="session")
def staged(stack):
    """A run that stands before the production gate."""
    stack.until("verify staging", "staged-1")
    return "staged-1"


@pytest.fixture(scope="session")
def live(stack):
    """The version of a run that went into production."""
    run = "live-1"
    stack.until("verify staging", run)
    stack.approve(run)
    for stage in ("promote", "deploy", "verify"):
        stack.gatehouse(stage, "--env", "production", "--run", run)
    events = stack.json("ledger", "show", "--run", run)
    return next(e for e in events if e["kind"] == "model.promoted" and e["environment"] == "production")
