"""The MLflow server: runs, artifacts, logged models, registered models and aliases.

Tags and aliases written here are a projection of the ledger for people to look at, never a proof of anything.
Every create is idempotent by a tag that names the Gatehouse run, so that a stage killed between MLflow and the
ledger finds its own work when it is run again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
import stamina

from pipeline.errors import GatehouseError, IntegrityViolated, Unreachable, UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_TAG = "gatehouse.run"
STAGE_TAG = "gatehouse.stage"
PACKAGE_TAG = "gatehouse.package"
CHAMPION = "champion"
SYSTEM_METRICS_SECONDS = 2
HEALTH_SECONDS = 6.0


class MlflowStore:
    """MLflow at `uri`, as the account in the file `credentials` (``user:password``), or as nobody in particular.

    `workspace` is the one to work in, on a server that has workspaces.

    Raises:
        Unreachable: from every method, when the server did not answer for some seconds.
    """

    def __init__(self, uri: str, credentials: Path | None = None, workspace: str | None = None) -> None:
        self.uri = uri.rstrip("/")
        self._workspace = workspace
        self._credentials = credentials
        self._client: MlflowClient | None = None

    def client(self) -> MlflowClient:
        """MLflow's own client, imported on first use: the import takes longer than most stages' work."""
        self._sign_in()
        if self._client is None:
            self.check_health()
            # MLflow's defaults retry for minutes; an unreachable server must be said within seconds.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
            os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
            os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
            import mlflow

            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            self._client = mlflow.MlflowClient(self.uri, self.uri)
        return self._client

    def _sign_in(self) -> None:
        """Say who we are and where. MLflow looks at these variables anew for each request."""
        os.environ.pop("MLFLOW_WORKSPACE", None)
        if self._workspace is not None:
            os.environ["MLFLOW_WORKSPACE"] = self._workspace
        if self._credentials is None:
            return
        try:
            user, colon, password = self._credentials.read_text(encoding="utf-8").strip().partition(":")
        except OSError as error:
            where = f"settings: mlflow ({self._credentials})"
            raise UsageError(f"MLflow's credentials cannot be read: {error.strerror}", where=where) from error
        if not colon:
            raise UsageError("MLflow's credentials are no user:password", where=str(self._credentials))
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = user, password

    def _not_allowed(self, about: str) -> UsageError:
        return UsageError(
            f"MLflow does not let this account do that: {about}",
            where=f"{self.uri} ({self._credentials or 'without credentials'})",
            fix="see infra/mlflow/README.md for which account may do what, and who made what it wants to change",
        )

    def check_health(self) -> None:
        """Ask whether the server is healthy, for some seconds."""
        try:
            for attempt in stamina.retry_context(
                on=requests.RequestException, timeout=HEALTH_SECONDS, attempts=None, wait_max=2.0
            ):
                with attempt:
                    requests.get(f"{self.uri}/health", timeout=3).raise_for_status()
        except requests.RequestException as error:
            raise _unreachable(self.uri, error) from error

    @contextmanager
    def talking(self, about: str) -> Iterator[MlflowClient]:
        """MLflow's client, its errors said in our words; `about` names what is asked for."""
        client = self.client()
        from mlflow.exceptions import MlflowException

        try:
            yield client
        except (requests.RequestException, OSError) as error:
            raise _unreachable(self.uri, error) from error
        except MlflowException as error:
            if "API request" in str(error) and "failed with exception" in str(error):
                raise _unreachable(self.uri, error) from error
            if any(f"failed with error code {code}" in str(error) for code in (401, 403)):
                raise self._not_allowed(about) from error
            raise GatehouseError(f"MLflow refuses: {error.message}", where=f"{self.uri}: {about}") from error

    # --- runs ---------------------------------------------------------------------------------------------

    def ensure_run(
        self, experiment: str, run: str, *, name: str, tags: Mapping[str, str], parent: str | None = None
    ) -> str:
        """Id of the MLflow run for (`run`, `name`), made if it is not there."""
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        with self.talking(name) as client:
            place = self.ensure_experiment(experiment)
            found = client.search_runs(
                [place], f"tags.`{RUN_TAG}` = '{run}' and tags.`{STAGE_TAG}` = '{name}'", max_results=1
            )
            if found:
                return str(found[0].info.run_id)
            parents = {MLFLOW_PARENT_RUN_ID: parent} if parent else {}
            all_tags = {RUN_TAG: run, STAGE_TAG: name, **tags, **parents}
            return str(client.create_run(place, tags=all_tags, run_name=name).info.run_id)

    def ensure_experiment(self, name: str) -> str:
        """Id of an experiment, made if it is not there (two may try at once)."""
        from mlflow.exceptions import MlflowException

        with self.talking(name) as client:
            for _ in range(2):
                if (found := client.get_experiment_by_name(name)) is not None:
                    return str(found.experiment_id)
                try:
                    return str(client.create_experiment(name))
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
        raise GatehouseError(f"experiment {name} is deleted", where=self.uri, fix="restore it in MLflow")

    def get_run(self, run_id: str) -> Run:
        """One MLflow run."""
        with self.talking(run_id) as client:
            return client.get_run(run_id)

    def log(
        self,
        run_id: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
        of: str | None = None,
    ) -> None:
        """Log parameters, metrics of one step and tags in one request; `of` is the model that metrics are of."""
        from mlflow.entities import Metric, Param, RunTag

        now = time.time_ns() // 1_000_000
        model = of.removeprefix("models:/") if of else None
        with self.talking(run_id) as client:
            client.log_batch(
                run_id,
                metrics=[
                    Metric(key, float(value), now, step, model_id=model) for key, value in (metrics or {}).items()
                ],
                params=[Param(key, str(value)) for key, value in (parameters or {}).items()],
                tags=[RunTag(key, str(value)) for key, value in (tags or {}).items()],
            )

    def log_dataset(self, run_id: str, *, name: str, digest: str, source: str) -> None:
        """Record which data a run read, so that MLflow shows it under the run's datasets."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entry = DatasetInput(
            Dataset(name, digest.removeprefix("sha256:")[:36], "gatehouse", source),
            [InputTag("mlflow.data.context", name)],
        )
        with self.talking(name) as client:
            client.log_inputs(run_id, datasets=[entry])

    @contextmanager
    def system_metrics(self, run_id: str) -> Iterator[None]:
        """Log processor, memory, disk and network of this machine to the run while the block runs."""
        self.client()
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
        monitor = SystemMetricsMonitor(run_id, sampling_interval=SYSTEM_METRICS_SECONDS, resume_logging=True)
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()
            # The sample it was at when it was stopped: a short training would have none at all.
            monitor.publish_metrics(monitor.aggregate_metrics())
            monitor.mlflow_logger.flush()

    def finish_run(self, run_id: str) -> None:
        """Mark a run as finished."""
        with self.talking(run_id) as client:
            client.set_terminated(run_id, "FINISHED")

    # --- artifacts ----------------------------------------------------------------------------------------

    def upload(self, run_id: str, path: Path, folder: str = "") -> str:
        """Upload a file or folder to a run's artifacts; answers its URI."""
        with self.talking(path.name) as client:
            if path.is_dir():
                client.log_artifacts(run_id, str(path), folder or None)
            else:
                client.log_artifact(run_id, str(path), folder or None)
        name = "" if path.is_dir() else path.name
        return f"runs:/{run_id}/" + "/".join(part for part in (folder, name) if part)

    def download(self, uri: str, folder: Path) -> Path:
        """Download an artifact file or folder below `folder`.

        Raises:
            IntegrityViolated: it is not there any more.
        """
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        self.client()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            located = self._located(uri)
            return Path(download_artifacts(artifact_uri=located, dst_path=str(folder), tracking_uri=self.uri))
        except (MlflowException, requests.RequestException, OSError) as error:
            self.check_health()
            if any(f"{code} Client Error" in str(error) for code in (401, 403)):
                raise self._not_allowed(uri) from error
            raise IntegrityViolated(
                "an artifact that the ledger refers to is gone from MLflow",
                where=uri,
                fix="restore it from the backup; nothing was promoted",
            ) from error

    def _located(self, uri: str) -> str:
        """MLflow resolves ``models:/m-…`` but no path below it."""
        if not uri.startswith("models:/"):
            return uri
        model, _, rest = uri.removeprefix("models:/").partition("/")
        place: str = self.client().get_logged_model(model).artifact_location
        return f"{place}/{rest}" if rest else place

    def artifact_names(self, run_id: str, folder: str) -> list[str]:
        """Names of the files in a folder of a run's artifacts."""
        with self.talking(folder) as client:
            return [str(entry.path) for entry in client.list_artifacts(run_id, folder)]

    # --- models -------------------------------------------------------------------------------------------

    def log_model(self, experiment: str, run: str, *, run_id: str | None, name: str, folder: Path) -> str:
        """Upload a model's folder as a logged model of the experiment; answers ``models:/m-…``.

        A model of the same run and name that was finished before is taken as it is.
        """
        from mlflow.entities import LoggedModelOutput

        with self.talking(name) as client:
            place = self.ensure_experiment(experiment)
            ready = client.search_logged_models(
                [place], f"tags.`{RUN_TAG}` = '{run}' AND name = '{name}'", max_results=5
            )
            for model in ready:
                if str(model.status) == "READY":
                    return f"models:/{model.model_id}"
            model = client.create_logged_model(place, name=name, source_run_id=run_id, tags={RUN_TAG: run})
            client.log_model_artifacts(model.model_id, str(folder))
            client.finalize_logged_model(model.model_id, "READY")
            if run_id is not None:
                client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
            return f"models:/{model.model_id}"

    def attach(self, uri: str, file: Path) -> None:
        """Put a file beside a logged model's own, replacing one of that name."""
        with self.talking(uri) as client:
            client.log_model_artifact(uri.removeprefix("models:/"), str(file))

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
        """Version number under which the logged model at `uri` stands registered, made if it is not there.

        `about` describes the version, `tags` the registered model, when that is made.
        """
        from mlflow.exceptions import MlflowException

        with self.talking(name) as client:
            try:
                client.create_registered_model(name, tags=dict(tags or {}), description=_described(name, tags or {}))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            for version in client.search_model_versions(f"name = '{name}'"):
                if version.tags.get(RUN_TAG) == run and version.tags.get(PACKAGE_TAG) == package:
                    return str(version.version)
            made = client.create_model_version(
                name,
                source=uri,
                run_id=run_id,
                tags={RUN_TAG: run, PACKAGE_TAG: package},
                description=about,
                await_creation_for=0,
                model_id=uri.removeprefix("models:/"),
            )
            return str(made.version)

    def set_alias(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Point the champion alias at a version: the projection, written after the ledger."""
        with self.talking(name) as client:
            client.set_registered_model_alias(name, CHAMPION, version)
            for key, value in tags.items():
                client.set_model_version_tag(name, version, key, value)


def _described(name: str, tags: Mapping[str, str]) -> str:
    environment = tags.get("gatehouse.environment")
    what = f"What was promoted to {environment}" if environment else "Every challenger that was measured"
    champion = f" The alias `{CHAMPION}` shows what the ledger wants there." if environment else ""
    return f"{what}, by Gatehouse.{champion} Decided by Gatehouse's ledger, never by what is written to {name} here."


def _unreachable(uri: str, error: Exception) -> Unreachable:
    return Unreachable(
        f"MLflow does not answer: {type(error).__name__}",
        where=uri,
        fix="see whether it runs (gatehouse status), then run the same command again",
    )
