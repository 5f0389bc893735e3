"""Ledger appends beside plain inserts, verifying a million events, and how long gate, promotion and rollback take.

Run from a checkout that is set up: .venv/bin/python scripts/bench/gate.py [--events 1000000] [--json]
Starts a stack of its own in a temporary folder. The peer of an append is INSERT and commit of the same row into a bare
table of the same Postgres, over one open connection and over a new connection each time, as the ledger does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras

from pipeline.adapters.console import ConsoleReporter
from pipeline.adapters.ledger import Ledger
from pipeline.bootstrap import embedded
from pipeline.bootstrap.installation import Installation, utc_now
from pipeline.domain.events import GENESIS, Draft, Row, link, verify
from pipeline.embedded import warehouse

APPENDS = 300
BODY = {"model": "flights", "version": "3", "package": "sha256:" + "a" * 64, "uri": "models:/m-1", "reason": "x" * 80}
COLUMNS = "seq, at, kind, actor, run, model, environment, body, previous, hash"
PROJECT = Path(__file__).parents[2] / "pipeline" / "examples" / "flights" / "project.toml"
SMALL = {"epochs": 2, "members": 1, "hidden": 16, "refit": "false"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / ".gatehouse"
        place = embedded.up(home)
        try:
            result = {**_appends(place), **_gate(place, home), **_verification(place, options.events)}
        finally:
            embedded.down(home)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(f"{name:52}{value:12,.2f}" if isinstance(value, float) else f"{name:52}{value:12,}")


# --- the ledger -------------------------------------------------------------------------------------------


def _connect(place: Installation) -> Any:
    port = place.settings.ledger.uri.split(":")[2].split("/")[0]
    passfile = str(place.settings.home / "pgpass")
    return psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="gatehouse", passfile=passfile)


def _appends(place: Installation) -> dict[str, float]:
    """Milliseconds of one append, and of the plain inserts, medians."""
    with _connect(place) as connection, connection.cursor() as cursor:
        cursor.execute(f"create table plain as select {COLUMNS} from gatehouse.event with no data")
    values = ("2026-11-24T00:00:00.000000Z", "model.trained", "x", "bench", "bench", None, json.dumps(BODY), "p", "h")
    insert = f"insert into plain ({COLUMNS}) values ({', '.join(['%s'] * 10)})"

    def plain(connection: Any, seq: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute(insert, (seq, *values))
        connection.commit()

    def anew(seq: int) -> None:
        connection = _connect(place)
        plain(connection, seq)
        connection.close()

    ledger = Ledger(place.settings.ledger.uri, utc_now)
    draft = Draft("model.trained", "bench", BODY, "bench", "bench")
    connection = _connect(place)
    kept = _median(lambda seq: plain(connection, seq))
    connection.close()
    new, append = _median(anew), _median(lambda _: ledger.append(draft))
    return {
        "append to the ledger, ms": append,
        "plain INSERT and commit, a new connection, ms": new,
        "plain INSERT and commit, an open connection, ms": kept,
        "append / plain insert, both with a new connection": append / new,
    }


def _median(action: Callable[[int], object]) -> float:
    times = []
    for seq in range(APPENDS):
        began = time.perf_counter()
        action(seq)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def _verification(place: Installation, events: int) -> dict[str, float]:
    """Fill the ledger with a valid chain, behind its own back, and verify it through the real reader."""
    with _connect(place) as connection, connection.cursor() as cursor:
        cursor.execute("set session_replication_role = replica")
        cursor.execute("truncate gatehouse.event")
        insert = f"insert into gatehouse.event ({COLUMNS}) values %s"
        psycopg2.extras.execute_values(cursor, insert, _chain(events), page_size=2000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    count = sum(1 for _ in verify(place.reader.rows()))
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    read = sum(1 for _ in place.reader.rows())
    return {
        "events verified": count,
        "verification, s": seconds,
        "verified events/s": count / seconds,
        "verifying / only reading them": seconds / (time.perf_counter() - began) if read else 0.0,
        "memory that verification added, MB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def _chain(events: int) -> Iterator[Row]:
    previous = GENESIS
    draft = Draft("model.trained", "bench", BODY, "bench", "bench")
    for seq in range(1, events + 1):
        row = link(draft, seq=seq, at="2026-11-24T00:00:00.000000Z", previous=previous)
        previous = row.hash
        yield row


# --- the gate ---------------------------------------------------------------------------------------------


def _gate(place: Installation, home: Path) -> dict[str, float]:
    """Two small models through the gate; seconds of the commands, and from decided to served."""
    warehouse.load(place.settings.sources["warehouse"], "2013-01", "2013-07", ConsoleReporter(), sample=0.1)
    promote, deploy = [], []
    for seed in (1, 2):
        run = f"bench-{seed}"
        sets = [f"training.parameters.{key}={value}" for key, value in SMALL.items()]
        sets += [f"training.seed={seed}", "evaluation.resamples=50", "policy.slice=[]", "policy.not_worse=[]"]
        words = [word for text in sets for word in ("--set", text)]
        _command(home, "run", "--run", run, "--project", str(PROJECT), "--until", "verify staging", *words)
        show = _command(home, "gate", "show", "--run", run)
        _command(home, "gate", "approve", "--run", run, "--reason", "bench", "--demo-identity", "grace")
        promote.append(_command(home, "promote", "--env", "production", "--run", run))
        deploy.append(_command(home, "deploy", "--env", "production", "--run", run))
        _command(home, "verify", "--env", "production", "--run", run)
    whole, served = _rollback(place, home)
    return {
        "gate show, the whole command, s": show,
        "the gate's decision itself, ms": _decision(place, "bench-2"),
        "promote, the whole command, s": statistics.mean(promote),
        "deploy, the whole command, s": statistics.mean(deploy),
        "rollback, the whole command, s": whole,
        "rollback, decided to served, s (goal: under 2)": served,
    }


def _decision(place: Installation, run: str) -> float:
    from pipeline.bootstrap.gatekeeping import evidence_of, requirement
    from pipeline.domain.gate import stands

    state = place.state(run)
    project = place.project(state)
    required, evidence = requirement(place, state, project), evidence_of(place, state)

    def decide(_: int) -> None:
        now = place.clock()
        stands(state, (), policy=project.settings.policy, requirement=required, evidence=evidence, now=now)

    return _median(decide)


def _rollback(place: Installation, home: Path) -> tuple[float, float]:
    """Seconds of the command; and from the ledger's row to the first answer of /version with the other package."""
    server = place.server("production")
    before = server.version()["package"]
    began = time.perf_counter()
    words = [sys.executable, "-m", "pipeline", "rollback", "--env", "production", "--reason", "bench"]
    process = subprocess.Popen(words, cwd=home, env=_env(home), stderr=subprocess.DEVNULL)
    while server.version()["package"] == before:
        time.sleep(0.005)
    served = utc_now()
    process.wait()
    whole = time.perf_counter() - began
    events = place.reader.events(model="flights", environment="production")
    decided = next(event for event in reversed(events) if event.kind == "model.rolled_back")
    return whole, (served - _time(decided.at)).total_seconds()


def _time(text: str) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(text)


def _command(home: Path, *words: str) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "pipeline", *words]
    subprocess.run(command, check=True, cwd=home, env=_env(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def _env(home: Path) -> dict[str, str]:
    return {**os.environ, "GATEHOUSE_SETTINGS": str(home / "settings.toml")}


if __name__ == "__main__":
    main()
