"""The main job on real flights, each stage a process of its own, exactly as Jenkins runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule

from pipeline.bootstrap import embedded
from pipeline.bootstrap.installation import Installation
from pipeline.bootstrap.runner import new_run_id
from pipeline.errors import GatehouseError
from pipeline.graph import BY_NAME, STAGES

APPROVER = "grace"
FIRST, LATER = "2013-07", "2013-10"
REPLAY_ROWS = 6_000
PROJECT = Path(__file__).parent.parent / "examples" / "flights"
# On a sample the intervals are wide and the models weaker; the policy of the whole data would refuse all of them.
SAMPLED = (
    *("--set", "policy.metric=[{metric='auc', min=0.55}]"),
    *("--set", "policy.slice=[]"),
    *("--set", "policy.not_worse=[{metric='auc', by=0.05}]"),
)


class Demo:
    """The story, and the times of its parts."""

    def __init__(self, home: Path, sample: float) -> None:
        self.home, self.sample, self.options = home, sample, SAMPLED if sample < 1 else ()
        self.console = Console(highlight=False, soft_wrap=True)
        self.seconds: dict[str, float] = {}

    def play(self) -> None:
        """Run it all."""
        began = time.monotonic()
        with self._timed("starting the stack"):
            place = embedded.up(self.home)
        self._load(place, "2013-01", FIRST)
        first = self._first(place)
        self._load(place, "2013-08", LATER)
        self._refused(place)
        self._second(place)
        self._roll_back()
        self._drift(place)
        self._audit(place)
        self._summary(place, first, time.monotonic() - began)

    # --- the chapters -------------------------------------------------------------------------------------

    def _first(self, place: Installation) -> str:
        self._chapter("First model: January to June, measured on July")
        run = self._to_the_gate(place, "2013-01..2013-06", "2013-07")
        self._approve(run, "Better than no forecast at all; calibrated; no slice below its floor.")
        self._into_production(run)
        return run

    def _refused(self, place: Installation) -> None:
        self._chapter("A challenger that the policy refuses: two weeks of August only, measured on October")
        run = self._measured(place, "2013-08-01..2013-08-14", "2013-10", until="register")
        code = self._command("gate", "show", "--run", run, expected=(3,))
        self.console.print(f"exit code {code}: the policy refused, nobody was asked, nothing was promoted")

    def _second(self, place: Installation) -> None:
        self._chapter("A challenger that goes live: January to September, measured on October")
        run = self._to_the_gate(place, "2013-01..2013-09", "2013-10")
        self._approve(run, "Not worse than the champion on October, and it has seen the summer.")
        self._into_production(run)

    def _roll_back(self) -> None:
        self._chapter("Rollback: the operators want the first version back")
        reason = "demonstration: complaints from one airline"
        with self._timed("rollback"):
            self._command("rollback", "--env", "production", "--reason", reason)
        self._command("history", "--env", "production")

    def _drift(self, place: Installation) -> None:
        self._chapter("Monitoring: August and September pass through the server; then the drift is measured")
        with self._timed("replaying flights"):
            sent = _replay(place, "2013-08..2013-09")
        self.console.print(f"{sent:,} flights of August and September were asked of the production server")
        out = self.home / "pages" / "monitor"
        with self._timed("monitor"):
            code = self._command("monitor", "--window", "2013-08..2013-09", "--out", str(out), expected=(3,))
        self.console.print(f"exit code {code}: September's drift was found; page: {out / 'monitor.html'}")

    def _audit(self, place: Installation) -> None:
        self._chapter("An auditor looks: does everything agree, and what is behind what serves?")
        with self._timed("reconcile"):
            self._command("reconcile")
        wanted, _ = _production(place)
        out = self.home / "pages" / "passport"
        with self._timed("passport"):
            self._command("passport", "--version", wanted.version, "--out", str(out))

    # --- the pieces ---------------------------------------------------------------------------------------

    def _measured(self, place: Installation, train: str, holdout: str, *, until: str) -> str:
        run = new_run_id("flights", place)
        self.console.print(f"run {run}")
        opening = ("--project", str(PROJECT), "--train", train, "--holdout", holdout, *self.options)
        for stage in STAGES:
            self._stage(stage.name, run, *(opening if stage.name == "ingest" else ()))
            if stage.name == until:
                break
        return run

    def _to_the_gate(self, place: Installation, train: str, holdout: str) -> str:
        run = self._measured(place, train, holdout, until="verify staging")
        self._command("gate", "check", "--run", run, expected=(4,))
        self._command("gate", "show", "--run", run)
        self._command("report", run, "--out", str(self.home / "pages" / run))
        return run

    def _approve(self, run: str, reason: str) -> None:
        self.console.print(f"A second person decides. {APPROVER} is a DEMO identity, and the ledger says so.")
        with self._timed("gate production"):
            self._command("gate", "approve", "--run", run, "--reason", reason, "--demo-identity", APPROVER)
        self._command("report", run, "--out", str(self.home / "pages" / run))

    def _into_production(self, run: str) -> None:
        for stage in STAGES[-3:]:
            self._stage(stage.name, run)

    def _stage(self, name: str, run: str, *options: str) -> None:
        with self._timed(name):
            self._command(*BY_NAME[name].command, "--run", run, *options)

    def _load(self, place: Installation, first: str, last: str) -> None:
        from pipeline.embedded import warehouse

        self._chapter(f"New data: the real flights of {first} to {last} arrive in the source table")
        uri = place.settings.sources["warehouse"]
        with self._timed("loading flights"):
            rows = warehouse.load(uri, first, last, place.reporter, sample=self.sample)
        self.console.print(f"{rows:,} flights loaded" if rows else "they are there already")

    def _command(self, *words: str, expected: Sequence[int] = (0,)) -> int:
        self.console.print(f"[bold]$ gatehouse {' '.join(words)}[/]", markup=True)
        code = subprocess.run([sys.executable, "-m", "pipeline", *words], check=False).returncode
        if code not in expected:
            raise GatehouseError(
                f"gatehouse {words[0]} ended with exit code {code}, expected {expected[0]}",
                where="the demo",
                fix="what it said stands above; scripts/demo can be run again",
            )
        return code

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    def _chapter(self, title: str) -> None:
        self.console.print()
        self.console.print(Rule(title, align="left") if self.console.is_terminal else f"=== {title}")

    def _summary(self, place: Installation, first: str, total: float) -> None:
        self._chapter("Where the time went")
        for name, seconds in self.seconds.items():
            self.console.print(f"  {name:22} {seconds:7.1f} s")
        line = sum(seconds for name, seconds in self.seconds.items() if name in BY_NAME)
        heavy = sum(self.seconds[stage.name] for stage in STAGES if stage.heavy)
        self.console.print(
            f"  {'the whole demo':22} {total:7.1f} s; stages {line:.1f} s, of which "
            f"{(line - heavy) / line:.0%} is not ingest, training or evaluation"
        )
        self._chapter("Where to look")
        server = place.settings.environments["production"].server
        self.console.print(f"  MLflow            {place.settings.mlflow.uri}")
        self.console.print(f"  evidence page     {self.home / 'pages' / first / 'evidence-standalone.html'}")
        self.console.print(f"  passport          {self.home / 'pages' / 'passport' / 'passport.html'}")
        self.console.print(f"  production        {server}  (GET /version, POST /invocations)")
        self.console.print("  ledger            gatehouse ledger show; gatehouse ledger verify")
        self.console.print("  one prediction:")
        self.console.print(f"  {_curl(place, server)}", markup=False)
        (self.home / "demo.json").write_text(
            json.dumps({"seconds": self.seconds, "total": total, "heavy": heavy, "line": line}), encoding="utf-8"
        )


def demo(home: Path, sample: float) -> None:
    """Play the demo."""
    Demo(home.resolve(), sample).play()


def _production(place: Installation) -> tuple[Any, Any]:
    from pipeline.bootstrap.steps import package_folder

    wanted = place.environment("flights", "production").wanted
    assert wanted is not None
    return wanted, package_folder(place, wanted.package, wanted.uri)


def _curl(place: Installation, server: str) -> str:
    _, folder = _production(place)
    example = (folder / "input_example.json").read_text(encoding="utf-8")
    return f"curl -s {server}/invocations -H 'Content-Type: application/json' -d '{example}'"


def _replay(place: Installation, window: str) -> int:
    """Ask the production server about real flights of a window, as a client would over the day."""
    from pipeline.bootstrap.monitoring import source_columns
    from pipeline.domain.rows import rows_of

    wanted, folder = _production(place)
    names = {entry["name"] for entry in json.loads((folder / "signature.json").read_text())["inputs"]}
    columns = source_columns(place, wanted.run, window)
    total = len(next(iter(columns.values())))
    step = max(1, total // REPLAY_ROWS)
    info = json.loads((folder / "gatehouse.json").read_text())
    wished = {name: values[::step] for name, values in columns.items() if name in names | {info["time"]}}
    rows = rows_of(wished)
    server = place.server("production")
    with place.reporter.track("asking the production server", total=len(rows)) as tracker:
        for start in range(0, len(rows), 200):
            batch = rows[start : start + 200]
            server.invoke({"dataframe_records": batch})
            tracker.advance(len(batch))
    return len(rows)
