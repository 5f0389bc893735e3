"""Kubeflow Pipelines: the stage graph compiled to a v2 pipeline, each stage a lightweight Python component.

Such a component runs as a pod on a cluster and as a process under ``kfp.local``: the same file is tested and deployed.
Annotations are real types here, because Kubeflow reads the pipeline's.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.config.kubeflow import KubeflowSettings
from pipeline.errors import UsageError
from pipeline.faces import kubeflow_components as components
from pipeline.faces.generated import seal
from pipeline.graph import STAGES, Stage, slug

SETTINGS_FOLDER = "/etc/gatehouse"
FIRST_RETRY = "10s"

Account = Literal["line", "approval", "promotion"]


class Outputs(NamedTuple):
    """What the pipeline answers: the run id, and the digest of what was registered."""

    run: str
    registered: str


def text(model: str, settings: KubeflowSettings, account_of: Callable[[Stage], Account]) -> str:
    """The pipeline and its platform spec as YAML, sealed.

    Args:
        model: the project's name.
        settings: image, resources, secrets, volumes, retries.
        account_of: with whose credentials a stage acts.

    Raises:
        UsageError: Kubeflow's SDK is not installed.
    """
    try:
        from kfp import compiler, dsl, kubernetes  # noqa: F401  # a package of its own
    except ImportError as error:
        raise UsageError(
            "Kubeflow's SDK is not installed",
            where="gatehouse export kubeflow",
            fix="pip install 'gatehouse[kubeflow]'",
        ) from error

    def line(run: str = "", project: str = settings.project, train: str = "", holdout: str = "") -> Outputs:
        named = _component(components.name_run, "name the run", settings)(
            run=run, job=dsl.PIPELINE_JOB_NAME_PLACEHOLDER
        )
        named.set_caching_options(enable_caching=False).set_display_name("name the run").set_retry(settings.retries)
        opening = {"project": project, "train": train, "holdout": holdout}
        tasks: dict[str, Any] = {}
        for stage in STAGES:
            tasks[stage.name] = _task(stage, tasks, named.outputs["run"], opening, settings)
            _place(tasks[stage.name], stage, settings, account_of(stage))
        return Outputs(named.outputs["run"], tasks["register"].outputs["digest"])

    pipeline = dsl.pipeline(name=f"gatehouse-{model}", description=f"{model}: from data to production, by Gatehouse")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline(line), str(path))
        return seal(path.read_text(encoding="utf-8"))


def _component(function: Callable[..., Any], name: str, settings: KubeflowSettings) -> Any:
    """One of the functions as a component; nothing is installed when it runs."""
    from kfp import dsl

    made = dsl.component(
        function, base_image=settings.image, install_kfp_package=False, additional_funcs=[components.gatehouse]
    )
    made.component_spec.name = slug(name)
    return made


def cached(stage: Stage) -> bool:
    """Whether a cache may answer for a stage: for data and models, which later stages hold to the ledger."""
    return stage.environment is None


def _task(stage: Stage, tasks: dict[str, Any], run: Any, opening: dict[str, Any], settings: KubeflowSettings) -> Any:
    """The task of one stage: behind the stages it reads, and where they left a digest, held to it."""
    command: dict[str, Any] = {"command": list(stage.command), "run": run}
    read = stage.reads[0] if stage.reads else None
    proof = {"reads": read, "digest": tasks[read].outputs["digest"]} if read and "digest" in tasks[read].outputs else {}
    function: Callable[..., Any]
    inputs: dict[str, Any]
    if read is None:
        function, inputs = components.first_stage, {"stage": stage.name, **opening}
    elif cached(stage):
        function, inputs = components.model_stage, {"stage": stage.name, **proof}
    elif stage.gate:
        function, inputs = components.gate_stage, {"seconds": settings.gate_seconds}
    else:
        function, inputs = (components.registered_stage if proof else components.environment_stage), proof
    task = _component(function, stage.name, settings)(**command, **inputs)
    return task.after(*(tasks[name] for name in stage.reads))


def _place(task: Any, stage: Stage, settings: KubeflowSettings, account: Account) -> None:
    """Where and how a stage's task runs. Stages are exactly-once, so each may be tried again."""
    from kfp import kubernetes

    needs = settings.resources.of(stage)
    task.set_display_name(stage.name)
    task.set_caching_options(enable_caching=cached(stage))
    task.set_retry(settings.retries, backoff_duration=FIRST_RETRY, backoff_factor=2.0)
    task.set_cpu_request(needs.cpu).set_cpu_limit(needs.cpu)
    task.set_memory_request(needs.memory).set_memory_limit(needs.memory)
    task.set_env_variable("GATEHOUSE_SETTINGS", f"{SETTINGS_FOLDER}/settings.toml")
    kubernetes.use_secret_as_volume(task, settings.settings.of(account), SETTINGS_FOLDER)
    for secret in settings.secrets:
        if secret.concerns(stage):
            kubernetes.use_secret_as_volume(task, secret.name, secret.path)
    for volume in settings.volumes:
        if volume.concerns(stage):
            kubernetes.mount_pvc(task, volume.name, volume.path)
