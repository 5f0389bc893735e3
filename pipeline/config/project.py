"""One model's project: ``project.toml`` and the files beside it, as the ledger keeps them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.reading import Strict, nearest, parse, validate
from pipeline.domain.canonical import digest_json
from pipeline.domain.policy import Policy
from pipeline.domain.thresholds import Thresholds
from pipeline.domain.window import Window
from pipeline.errors import UsageError

PROJECT_FILE = "project.toml"
VALIDATION = "validation"
_MAX_PROJECT_BYTES = 512 * 1024
_SUFFIXES = (".toml", ".py", ".sql", ".json", ".md")
LOCK_FILES = ("requirements.lock", "requirements.txt")

Parameter = bool | int | float | str


def _window(text: object) -> str:
    try:
        return str(Window.parse(str(text)))
    except UsageError as error:
        raise ValueError(f"{error.what}; {error.fix}") from error


WindowText = Annotated[str, BeforeValidator(_window)]


class SourceSettings(Strict):
    """Where rows come from.

    A Postgres query (`connection` is a name in the installation's settings), a Parquet file or folder, or a
    CSV file.
    """

    kind: Literal["postgres", "parquet", "csv"]
    connection: str | None = None
    query: str | None = None
    path: str | None = None
    time: str
    key: Annotated[tuple[str, ...], Field(min_length=1)]
    target: str


class WindowSettings(Strict):
    """Months or days, both ends inclusive: ``2013-01..2013-06``."""

    train: WindowText
    holdout: WindowText


class ModelSettings(Strict):
    """Names of functions in the project's module."""

    features: str = "features"
    factory: str = "model"
    schema_: Annotated[str, Field(alias="schema")] = "schema"


class TrainingSettings(Strict):
    """Seed and the parameters handed to training and to the model factory."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    threads: Annotated[int, Field(ge=1)] = 2
    parameters: Mapping[str, Parameter] = {}


class SearchRange(Strict):
    """One dimension of the search: an interval (`low`..`high`) or `choices`."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    integer: bool = False
    choices: tuple[Parameter, ...] = ()

    @model_validator(mode="after")
    def _is_a_range(self) -> SearchRange:
        interval = self.low is not None and self.high is not None and self.low < self.high
        if interval == bool(self.choices):
            raise ValueError("a range needs either `low` < `high`, or `choices`")
        return self


class SearchSettings(Strict):
    """An Optuna search over training parameters, on the validation part of the training window."""

    trials: Annotated[int, Field(ge=1, le=1000)]
    space: Annotated[Mapping[str, SearchRange], Field(min_length=1)]


class EvaluationSettings(Strict):
    """Slices and the bootstrap."""

    slices: tuple[str, ...] = ()
    resamples: Annotated[int, Field(ge=50, le=10_000)] = 400


class MonitorSettings(Strict):
    """What is watched, from when on it counts as drift, and how long a request for a new model rules out the next."""

    ignore: tuple[str, ...] = ()
    thresholds: Thresholds = Thresholds()
    retrain_after_days: Annotated[float, Field(ge=0)] = 7


class ProjectSettings(Strict):
    """``project.toml``.

    `approvers` are people, or groups of the installation as ``@name``; `reviews` says of which group how many of the
    approvals must come, whatever the risk tier asks for in all.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]
    module: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
    framework: Literal["torch", "keras", "sklearn", "lightgbm", "pyfunc"] = "torch"
    risk_tier: Literal["low", "medium", "high"]
    approvers: Annotated[tuple[str, ...], Field(min_length=1)]
    reviews: Mapping[str, Annotated[int, Field(ge=1)]] = {}
    max_null_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    source: SourceSettings
    window: WindowSettings
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    search: SearchSettings | None = None
    evaluation: EvaluationSettings = EvaluationSettings()
    policy: Policy
    monitor: MonitorSettings = MonitorSettings()

    @model_validator(mode="after")
    def _is_validated_independently(self) -> ProjectSettings:
        if self.risk_tier == "high" and VALIDATION not in self.reviews:
            raise ValueError(f"risk tier 'high' needs `reviews = {{ {VALIDATION} = 1 }}`: independent validation")
        return self

    @property
    def gate(self) -> dict[str, Any]:
        """Everything in the project that decides what passes the gate and who lets it pass, as JSON."""
        return self.model_dump(mode="json", include={"policy", "risk_tier", "approvers", "reviews"})

    @property
    def policy_digest(self) -> str:
        """Digest of the gate's part of the project."""
        return digest_json(self.gate)

    @property
    def unwatched(self) -> tuple[str, ...]:
        """Columns in which a difference is no drift: those that the project names, and the key."""
        return (*self.monitor.ignore, *self.source.key)


class Project:
    """A project as it was recorded: its settings and its files, by name.

    The files travel in the ledger, so that any stage on any agent, and an auditor years later, works from the
    very text that the run was opened with.
    """

    def __init__(self, settings: ProjectSettings, files: Mapping[str, str]) -> None:
        self.settings = settings
        self.files = dict(files)
        self._module: ModuleType | None = None

    @property
    def digest(self) -> str:
        """Digest of all its files."""
        return digest_json(self.files)

    @property
    def query(self) -> str | None:
        """The source's SQL: the text itself, or that of the file it names."""
        query = self.settings.source.query
        return self.files.get(query, query) if query else None

    def function(self, name: str) -> Callable[..., Any]:
        """A function of the project's module; the module is run once per process.

        Raises:
            UsageError: the module cannot be run, or has no such function.
        """
        if self._module is None:
            self._module = _load_module(self.settings.module, self.files)
        found = getattr(self._module, name, None)
        if not callable(found):
            names = [key for key, value in vars(self._module).items() if callable(value)]
            raise UsageError(
                f"the module has no function '{name}'",
                where=f"{self.settings.module}.py",
                fix=nearest(name, names),
            )
        return found  # type: ignore[no-any-return]  # getattr of a module is Any


def load_project(path: Path, changes: Mapping[str, Any] | None = None) -> Project:
    """Read a project from its folder, or from its ``project.toml``.

    Args:
        path: the file or its folder.
        changes: values that replace those of the file for one run, by dotted key.

    Raises:
        UsageError: no such file, or something in it is wrong.
    """
    path = path / PROJECT_FILE if path.is_dir() else path
    if not path.is_file():
        raise UsageError(
            "no project found", where=str(path), fix="gatehouse init NAME makes one from the flights example"
        )
    files = _project_files(path.parent)
    files[PROJECT_FILE] = path.read_text(encoding="utf-8")
    return project_from_files(files, changes, where=str(path))


def project_from_files(
    files: Mapping[str, str], changes: Mapping[str, Any] | None = None, *, where: str = PROJECT_FILE
) -> Project:
    """Build a project from its files' texts (as the ledger keeps them)."""
    data = parse(files[PROJECT_FILE], where)
    for key, value in (changes or {}).items():
        _set(data, key.split("."), value)
    if isinstance(data.get("policy"), str):
        data["policy"] = _policy_file(data["policy"], files, where)
    settings = validate(ProjectSettings, data, where)
    _check_references(settings, files, where)
    return Project(settings, files)


def _policy_file(name: str, files: Mapping[str, str], where: str) -> dict[str, Any]:
    if name not in files:
        tables = [known for known in files if known.endswith(".toml") and known != PROJECT_FILE]
        raise UsageError(f"policy file '{name}' is not there", where=f"{where}: policy", fix=nearest(name, tables))
    return parse(files[name], name)


def load_policy(path: Path) -> Policy:
    """Read a policy by itself: that of a ``project.toml``, or a file that holds nothing else.

    Raises:
        UsageError: no such file, or something in it is wrong.
    """
    if path.is_dir() or path.name == PROJECT_FILE:
        return load_project(path).settings.policy
    if not path.is_file():
        raise UsageError("no policy found", where=str(path), fix="name a project.toml or a file with a policy's rules")
    return validate(Policy, parse(path.read_text(encoding="utf-8"), str(path)), str(path))


def _project_files(folder: Path) -> dict[str, str]:
    paths = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and (path.suffix in _SUFFIXES or path.name in LOCK_FILES)
    ]
    if sum(path.stat().st_size for path in paths) > _MAX_PROJECT_BYTES:
        raise UsageError(
            f"the project's files are larger than {_MAX_PROJECT_BYTES // 1024} kB",
            where=str(folder),
            fix="keep data out of the project's folder",
        )
    return {path.name: path.read_text(encoding="utf-8") for path in paths if path.name != "__init__.py"}


def _check_references(settings: ProjectSettings, files: Mapping[str, str], where: str) -> None:
    module = f"{settings.module}.py"
    if module not in files:
        modules = [name for name in files if name.endswith(".py")]
        raise UsageError(f"module '{module}' is not there", where=f"{where}: module", fix=nearest(module, modules))
    source = settings.source
    wanted = ("connection", "query") if source.kind == "postgres" else ("path",)
    for key in wanted:
        if not getattr(source, key):
            raise UsageError(f"a {source.kind} source needs `{key}`", where=f"{where}: source.{key}")
    if source.query and source.query.endswith(".sql") and source.query not in files:
        queries = [name for name in files if name.endswith(".sql")]
        raise UsageError(
            f"query file '{source.query}' is not there",
            where=f"{where}: source.query",
            fix=nearest(source.query, queries),
        )
    train, holdout = Window.parse(settings.window.train), Window.parse(settings.window.holdout)
    if train.overlaps(holdout):
        raise UsageError(
            f"the hold-out {holdout} overlaps the training window {train}",
            where=f"{where}: window",
            fix="a model is never measured on rows it was trained on",
        )


def _set(data: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
    data[keys[-1]] = value


def _load_module(name: str, files: Mapping[str, str]) -> ModuleType:
    spec = importlib.util.spec_from_loader(f"gatehouse_project_{name}", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    try:
        exec(compile(files[f"{name}.py"], f"{name}.py", "exec"), vars(module))
    except Exception as error:
        # Anything can go wrong in somebody else's module; which line is what they need.
        line = getattr(error, "lineno", None) or _line_in(error, f"{name}.py")
        raise UsageError(
            f"the project's module fails: {type(error).__name__}: {error}", where=f"{name}.py line {line}"
        ) from error
    return module


def _line_in(error: BaseException, filename: str) -> int | None:
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == filename:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
