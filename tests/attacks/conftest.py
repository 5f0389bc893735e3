"""A secured stack (MLflow with accounts, Postgres with roles), a champion in production and challengers before the gate."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import asdict

import psycopg2
import pytest
from mlflow import MlflowClient

from pipeline.adapters.ledger import Ledger
from pipeline.bootstrap.installation import utc_now
from pipeline.domain.events import Draft
from tests.integration.conftest import SAMPLE, Stack

TRAINING = ("run.opened", "data.ingested", "data.validated", "model.trained", "model.evaluated", "model.registered")
STAGING = ("model.promoted", "rollout.requested", "model.deployed", "model.verified")


class Castle(Stack):
    """The stack, and what attackers of different standing can do to it."""

    def ledger(self, account):
        return Ledger(getattr(self.place().settings.ledger, account), utc_now)

    def copy(self, run, name, **changed):
        """Another run like `run`: the same facts, bytes and evidence under another id. `changed` replaces bodies' parts."""
        with self.ledger("uri").transaction() as transaction:
            for event in transaction.events(run=run):
                if event.kind in TRAINING or (event.kind in STAGING and event.environment == "staging"):
                    body = {**event.body, **changed.get(event.kind.replace(".", "_"), {})}
                    draft = Draft(event.kind, event.actor, body, name, event.model, event.environment)
                    transaction.append(draft)
        return name

    def events(self, run, kind):
        return [asdict(event) for event in self.place().reader.events(run=run) if event.kind == kind]

    def production(self):
        """What is wanted in production, and what serves there."""
        wanted = self.place().environment("flights", "production").wanted
        return wanted.package, self.place().server("production").version()["package"]

    def promote(self, run, expected):
        return self.gatehouse("promote", "--env", "production", "--run", run, expected=expected)

    def mlflow(self, account):
        user, _, password = (self.home / f"mlflow-{account}").read_text().strip().partition(":")
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = user, password
        uri = self.place().settings.mlflow.uri
        return MlflowClient(uri, uri)

    @contextmanager
    def superuser(self):
        """A superuser of Postgres with every trigger and policy off, committed at the end."""
        uri = self.place().settings.ledger.uri
        port = uri.split(":")[2].split("/")[0]
        connection = psycopg2.connect(
            host="127.0.0.1", port=port, user="postgres", dbname="gatehouse", passfile=str(self.home / "pgpass")
        )
        with connection, connection.cursor() as cursor:
            cursor.execute("set session_replication_role = replica")
            yield cursor
        connection.close()

    def settings(self, name, **replaced):
        """A copy of the settings with some text replaced."""
        text = (self.home / "settings.toml").read_text()
        for old, new in replaced.values():
            assert old in text
            text = text.replace(old, new)
        file = self.home / name
        file.write_text(text)
        return file


@pytest.fixture(scope="session")
def castle(tmp_path_factory):
    from pipeline.adapters.console import ConsoleReporter
    from pipeline.bootstrap import embedded
    from pipeline.embedded import warehouse

    home = tmp_path_factory.mktemp("castle") / ".gatehouse"
    place = embedded.up(home, secured=True)
    warehouse.load(place.settings.sources["warehouse"], "2013-01", "2013-07", ConsoleReporter(), sample=SAMPLE)
    castle = Castle(home)
    castle.until("verify staging", "first", "--set", "training.seed=1")
    castle.approve("first")
    for stage in ("promote", "deploy", "verify"):
        castle.gatehouse(stage, "--env", "production", "--run", "first")
    castle.until("verify staging", "second", "--set", "training.seed=2")
    yield castle
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        os.environ.pop(name, None)
    embedded.down(home)


@pytest.fixture
def unharmed(castle):
    """Production wants and serves after the attack what it did before, and the ledger holds."""
    before = castle.production()
    yield castle
    assert castle.production() == before
    assert json.loads(castle.gatehouse("ledger", "verify", "--json").stdout)["verified"]
