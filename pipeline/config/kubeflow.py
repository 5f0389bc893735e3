"""How the line runs on a Kubeflow cluster: ``kubeflow.toml`` beside the project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.config.reading import Strict, nearest, parse, validate
from pipeline.errors import UsageError
from pipeline.graph import BY_NAME, Stage

KUBEFLOW_FILE = "kubeflow.toml"


def _stage(name: str) -> str:
    if name not in BY_NAME:
        raise ValueError(f"no stage '{name}'; {nearest(name, tuple(BY_NAME))}")
    return name


StageName = Annotated[str, AfterValidator(_stage)]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
MountPath = Annotated[str, Field(pattern=r"^/[^:\s]+$")]


class Resources(Strict):
    """What one task asks for and is held to, as Kubernetes quantities: cores (``500m``, ``2``), bytes (``4Gi``)."""

    cpu: Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?|[0-9]+m)$")]
    memory: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?([KMGTP]i?)?$")]


class ResourceSettings(Strict):
    """Resources of stages that work on data, of all others, and of single ones."""

    heavy: Resources = Resources(cpu="2", memory="4Gi")
    light: Resources = Resources(cpu="500m", memory="1Gi")
    stages: Mapping[StageName, Resources] = {}

    def of(self, stage: Stage) -> Resources:
        """What `stage` gets."""
        return self.stages.get(stage.name) or (self.heavy if stage.heavy else self.light)


class SettingsSecrets(Strict):
    """Kubernetes secrets with the installation's ``settings.toml``, by account, as Jenkins' credentials are.

    `approval` (the gate) and `promotion` (production) fall back to `line`; Postgres refuses what that may not write.
    """

    line: ObjectName
    approval: ObjectName | None = None
    promotion: ObjectName | None = None

    def of(self, account: Literal["line", "approval", "promotion"]) -> str:
        """The secret for an account."""
        return getattr(self, account) or self.line


class Mount(Strict):
    """A secret, or a claim of a volume, in the tasks of some stages; in all of them when none is named."""

    name: ObjectName
    path: MountPath
    stages: tuple[StageName, ...] = ()

    def concerns(self, stage: Stage) -> bool:
        """Whether `stage` has it."""
        return not self.stages or stage.name in self.stages


class KubeflowSettings(Strict):
    """``kubeflow.toml``.

    `image` has ``gatehouse[kubeflow]`` installed; `project` is the project's folder in it, or in a volume.
    """

    image: Annotated[str, Field(pattern=r"^\S+$")]
    project: MountPath
    settings: SettingsSecrets
    resources: ResourceSettings = ResourceSettings()
    secrets: tuple[Mount, ...] = ()
    volumes: tuple[Mount, ...] = ()
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    gate_seconds: Annotated[int, Field(ge=1)] = 86_400


def load_kubeflow(path: Path) -> KubeflowSettings:
    """Read how the line runs on a cluster.

    Raises:
        UsageError: no such file, or something in it is wrong.
    """
    if not path.is_file():
        raise UsageError(
            "nothing says how the line runs on Kubeflow",
            where=str(path),
            fix="write at least: image = '…', project = '/project', settings = { line = 'NAME-OF-A-SECRET' }",
        )
    return validate(KubeflowSettings, parse(path.read_text(encoding="utf-8"), str(path)), str(path))
