"""One installation: its settings, and the adapters that they name, each made on first use."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import stamina

from pipeline.adapters.cache import Cache
from pipeline.adapters.console import ConsoleReporter
from pipeline.adapters.ledger import Ledger
from pipeline.config import Project, Settings, project_from_files
from pipeline.domain.state import EnvironmentState, RunState, fold_environment, fold_run
from pipeline.errors import UsageError
from pipeline.graph import ENVIRONMENTS

if TYPE_CHECKING:
    from pipeline.adapters.mlflow_store import MlflowStore
    from pipeline.adapters.model_server import HttpModelServer


Account = Literal["line", "approval", "promotion"]


def utc_now() -> datetime:
    """The time; the only place where the clock is read."""
    return datetime.now(UTC)


def operating_user() -> str:
    """The operating system's name for who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid-{os.getuid()}"


class Installation:
    """Everything that commands need of the outside world.

    Attributes:
        account: with whose credentials it writes: the line's, those of decisions, or production's.
    """

    def __init__(self, settings: Settings, clock: Callable[[], datetime] = utc_now, account: Account = "line") -> None:
        self.settings = settings
        self.clock = clock
        self.account = account
        self.reporter = ConsoleReporter()
        stamina.instrumentation.set_on_retry_hooks([self._say_retry])

    def _say_retry(self, details: stamina.instrumentation.RetryDetails) -> None:
        if details.retry_num == 1:
            self.reporter.note("no answer yet; trying for some seconds more")

    def acting_as(self, account: Account) -> Installation:
        """This installation with another account's credentials."""
        return self if account == self.account else Installation(self.settings, self.clock, account)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, as this account may use it."""
        known = self.settings.ledger
        own = {"line": known.uri, "approval": known.approval_uri, "promotion": known.promotion_uri}
        return Ledger(own[self.account] or known.uri, self.clock)

    @cached_property
    def reader(self) -> Ledger:
        """The ledger, for reading only."""
        return Ledger(self.settings.ledger.reader_uri or self.settings.ledger.uri, self.clock)

    @cached_property
    def mlflow(self) -> MlflowStore:
        """The MLflow server."""
        from pipeline.adapters.mlflow_store import MlflowStore

        known = self.settings.mlflow
        return MlflowStore(known.uri, self._mlflow_credentials, known.workspace)

    @property
    def _mlflow_credentials(self) -> Path | None:
        known = self.settings.mlflow
        return (known.promotion_credentials if self.account == "promotion" else None) or known.credentials

    @cached_property
    def cache(self) -> Cache:
        """Verified copies on this machine."""
        return Cache(self.settings.home / "cache")

    def artifact(self, digest: str, uri: str) -> Path:
        """A file or folder of MLflow's, by the digest that the ledger has of it: a verified copy on this machine.

        Raises:
            IntegrityViolated: what MLflow has is something else.
        """
        return self.cache.get(digest, lambda folder: self.mlflow.download(uri, folder), uri)

    @property
    def actor(self) -> str:
        """Who runs this process, as the operating system says. Never an approver's identity."""
        return operating_user()

    def server(self, environment: str) -> HttpModelServer:
        """The model server of an environment.

        Raises:
            UsageError: no such environment.
        """
        from pipeline.adapters.model_server import HttpModelServer

        known = {str(name): entry for name, entry in self.settings.environments.items()}
        found = known.get(environment)
        if found is None:
            raise UsageError(f"no environment '{environment}'", where="--env", fix=f"one of: {', '.join(ENVIRONMENTS)}")
        return HttpModelServer(found.server)

    def state(self, run: str) -> RunState:
        """The run, folded from the ledger.

        Raises:
            UsageError: nobody opened a run of this name.
        """
        state = fold_run(run, self.ledger.events(run=run))
        if state.opened is None:
            raise UsageError(
                f"no run '{run}' in the ledger", where="--run", fix="gatehouse ingest --project … --run … opens one"
            )
        return state

    def project(self, state: RunState) -> Project:
        """The project as the run was opened with, from the ledger, never from the workspace."""
        assert state.opened is not None
        return project_from_files(state.opened["files"], state.changes, where=f"run {state.run}")

    def environment(self, model: str, environment: str) -> EnvironmentState:
        """An environment of a model, folded from the ledger."""
        return fold_environment(self.ledger.events(model=model, environment=environment))

    def model_in(self, environment: str, named: str | None) -> str:
        """The model meant: the named one, or the only one that the environment has.

        Raises:
            UsageError: none is there, or several are and none was named.
        """
        events = self.reader.events(environment=environment)
        known = sorted({event.model for event in events if event.model and event.kind == "model.promoted"})
        if named and (named in known or not known):
            return named
        if len(known) != 1 or named:
            raise UsageError(
                f"{environment} has {'no model' if not known else 'these models: ' + ', '.join(known)}",
                where="--model",
                fix="promote one first" if not known else "name one of them with --model",
            )
        return known[0]
