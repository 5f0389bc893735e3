"""Ports: what the stages need of the outside world, cut by concept. Adapters implement them; bootstrap joins them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from pipeline.domain.events import Draft, Event

Columns = Mapping[str, NDArray[Any]]


class Tracker(Protocol):
    """One piece of long work that reports how far it is."""

    def advance(self, amount: float = 1.0) -> None:
        """Say that `amount` more units are done."""

    def say(self, text: str) -> None:
        """Replace the few words that stand beside the bar."""


class Reporter(Protocol):
    """How a stage talks to whoever watches: a bar on a terminal, plain lines in a log."""

    def note(self, text: str) -> None:
        """Print one line."""

    def track(self, what: str, total: float | None = None) -> AbstractContextManager[Tracker]:
        """Open a progress bar for work of `total` units (None: unknown)."""


class CheckpointStore(Protocol):
    """Where a training keeps the state it can go on from, outside the workspace."""

    def latest(self) -> bytes | None:
        """The newest intact checkpoint, or None."""

    def save(self, step: int, data: bytes) -> None:
        """Keep `data` as the checkpoint of `step`; a torn write is never returned by `latest`."""


class EventReader(Protocol):
    """Reads the ledger."""

    def events(
        self, *, run: str | None = None, model: str | None = None, environment: str | None = None
    ) -> list[Event]:
        """Events about a run, or about a model in an environment, oldest first."""

    def recent(self, kinds: Collection[str], since: str) -> list[Event]:
        """Events of some kinds from the UTC time `since` on (ISO 8601), oldest first."""


class LedgerTransaction(EventReader, Protocol):
    """A read-decide-append that nobody can come between."""

    def append(self, draft: Draft) -> Event:
        """Append one event after the head."""


class Ledger(EventReader, Protocol):
    """The append-only ledger."""

    def append(self, draft: Draft) -> Event:
        """Append one event."""

    def transaction(self) -> AbstractContextManager[LedgerTransaction]:
        """Hold the append lock while reading and appending."""


class Tracking(Protocol):
    """Experiment tracking: runs, their parameters, curves and files."""

    def ensure_run(
        self, experiment: str, run: str, *, name: str, tags: Mapping[str, str], parent: str | None = None
    ) -> str:
        """Id of the tracked run for (`run`, `name`), made if it is not there."""

    def log(
        self,
        run_id: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        """Log parameters, metrics of one step and tags."""

    def log_dataset(self, run_id: str, *, name: str, digest: str, source: str) -> None:
        """Record which data a run read."""

    def finish_run(self, run_id: str) -> None:
        """Mark a run as finished."""

    def upload(self, run_id: str, path: Path, folder: str = "") -> str:
        """Upload a file or folder to a run's artifacts; answers its URI."""


class Registry(Protocol):
    """Logged models and registered versions."""

    def log_model(self, experiment: str, run: str, *, run_id: str | None, name: str, folder: Path) -> str:
        """Upload a model's folder; answers its URI."""

    def attach(self, uri: str, file: Path) -> None:
        """Put a file beside a logged model's own."""

    def register(
        self,
        name: str,
        uri: str,
        run: str,
        *,
        run_id: str | None,
        package: str,
        about: str,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Version under which the model at `uri` stands registered; `tags` describe all its versions."""

    def set_alias(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Point the champion alias at a version."""

    def download(self, uri: str, folder: Path) -> Path:
        """Download an artifact file or folder below `folder`."""


class Predictor(Protocol):
    """A package, verified and loaded: what a server would answer."""

    @property
    def digest(self) -> str:
        """Package digest."""

    def predict(self, columns: Columns) -> NDArray[Any]:
        """Probabilities, float64 [n]."""


class ModelServer(Protocol):
    """One environment's model server, as a client sees it."""

    @property
    def url(self) -> str:
        """Its address."""

    def version(self) -> Mapping[str, Any]:
        """What it serves, as ``/version`` says."""

    def invoke(self, payload: Mapping[str, Any]) -> tuple[list[float], str]:
        """Predictions for one payload, and the digest of the package that answered."""


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment on a merge request.

    Attributes:
        id: the server's.
        author: its writer's user name.
        body: its text.
        version: how often it was changed, where a server wants to be told; else 0.
    """

    id: int
    author: str
    body: str
    version: int = 0


class Forge(Protocol):
    """One merge (or pull) request on the server that has the repository.

    Every method raises `UsageError` for what the server refuses and `Unreachable` where it does not answer.
    """

    longest: int

    def user(self) -> str:
        """Name of the user whose token this is."""

    def comments(self) -> list[Comment]:
        """Every comment, oldest first."""

    def create(self, body: str) -> None:
        """Write a comment."""

    def update(self, comment: Comment, body: str) -> None:
        """Replace a comment's text."""

    def delete(self, comment: Comment) -> None:
        """Remove a comment."""

    def attach(self, name: str, data: bytes) -> str | None:
        """Keep a picture; answers its address in a comment, None where the server takes none."""
