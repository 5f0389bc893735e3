"""Configuration: the installation's settings and one model's project. Frozen, strict, loaded explicitly.

A key nobody knows, a wrong type or a missing name is answered with the file, the key, what was expected and
the nearest valid name. Nothing is read from the environment here.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipeline.domain.canonical import digest_json
from pipeline.domain.policy import Policy
from pipeline.domain.thresholds import Thresholds
from pipeline.domain.window import Window
from pipeline.errors import UsageError

PROJECT_FILE = "project.toml"
_MAX_PROJECT_BYTES = 512 * 1024
_SUFFIXES = (".toml", ".py", ".sql", ".json", ".md")

Model = TypeVar("Model", bound=BaseModel)
Parameter = bool | int | float | str


def _window(text: object) -> str:
    try:
        return str(Window.parse(str(text)))
    except UsageError as error:
        raise ValueError(f"{error.what}; {error.fix}") from error


WindowText = Annotated[str, BeforeValidator(_window)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# --- the installation ------------------------------------------------------------------------------------


class LedgerSettings(_Strict):
    """Database of the ledger. `uri` for stages, `owner_uri` for migrations, `reader_uri` for servers."""

    uri: str
    owner_uri: str | None = None
    reader_uri: str | None = None


class MlflowSettings(_Strict):
    """The MLflow tracking server."""

    uri: str


class JenkinsSettings(_Strict):
    """The Jenkins controller whose decisions are believed. `token_file` holds ``user:api-token``."""

    url: str
    token_file: Path


class EnvironmentSettings(_Strict):
    """One environment: the address of its model server."""

    server: str


class Settings(_Strict):
    """One installation. `embedded` is the one-machine stack: only there are demo identities accepted."""

    home: Path
    ledger: LedgerSettings
    mlflow: MlflowSettings
    environments: Mapping[Literal["staging", "production"], EnvironmentSettings]
    sources: Mapping[str, str] = {}
    jenkins: JenkinsSettings | None = None
    embedded: bool = False


# --- one model --------------------------------------------------------------------------------------------


class SourceSettings(_Strict):
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


class WindowSettings(_Strict):
    """Months or days, both ends inclusive: ``2013-01..2013-06``."""

    train: WindowText
    holdout: WindowText


class ModelSettings(_Strict):
    """Names of functions in the project's module."""

    features: str = "features"
    factory: str = "model"
    schema_: Annotated[str, Field(alias="schema")] = "schema"


class TrainingSettings(_Strict):
    """Seed and the parameters handed to training and to the model factory."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    threads: Annotated[int, Field(ge=1)] = 2
    parameters: Mapping[str, Parameter] = {}


class SearchRange(_Strict):
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


class SearchSettings(_Strict):
    """An Optuna search over training parameters, on the validation part of the training window."""

    trials: Annotated[int, Field(ge=1, le=1000)]
    space: Annotated[Mapping[str, SearchRange], Field(min_length=1)]


class EvaluationSettings(_Strict):
    """Slices and the bootstrap."""

    slices: tuple[str, ...] = ()
    resamples: Annotated[int, Field(ge=50, le=10_000)] = 400


class MonitorSettings(_Strict):
    """What is watched, and from when on it counts as drift."""

    ignore: tuple[str, ...] = ()
    thresholds: Thresholds = Thresholds()


class ProjectSettings(_Strict):
    """``project.toml``."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]
    module: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
    framework: Literal["torch"] = "torch"
    risk_tier: Literal["low", "medium", "high"]
    approvers: Annotated[tuple[str, ...], Field(min_length=1)]
    max_null_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    source: SourceSettings
    window: WindowSettings
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    search: SearchSettings | None = None
    evaluation: EvaluationSettings = EvaluationSettings()
    policy: Policy
    monitor: MonitorSettings = MonitorSettings()

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
                fix=_nearest(name, names),
            )
        return found  # type: ignore[no-any-return]  # getattr of a module is Any


def load_settings(path: Path) -> Settings:
    """Read the installation's settings.

    Raises:
        UsageError: no such file, or something in it is wrong.
    """
    if not path.is_file():
        raise UsageError(
            "no installation found",
            where=str(path),
            fix="gatehouse up (starts the embedded stack), or name a settings file with GATEHOUSE_SETTINGS",
        )
    return _validate(Settings, _parse(path.read_text(encoding="utf-8"), str(path)), str(path))


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
    data = _parse(files[PROJECT_FILE], where)
    for key, value in (changes or {}).items():
        _set(data, key.split("."), value)
    settings = _validate(ProjectSettings, data, where)
    _check_references(settings, files, where)
    return Project(settings, files)


def _project_files(folder: Path) -> dict[str, str]:
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix in _SUFFIXES]
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
        raise UsageError(f"module '{module}' is not there", where=f"{where}: module", fix=_nearest(module, modules))
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
            fix=_nearest(source.query, queries),
        )
    train, holdout = Window.parse(settings.window.train), Window.parse(settings.window.holdout)
    if train.overlaps(holdout):
        raise UsageError(
            f"the hold-out {holdout} overlaps the training window {train}",
            where=f"{where}: window",
            fix="a model is never measured on rows it was trained on",
        )


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not TOML: {error}", where=where) from error


def _set(data: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
    data[keys[-1]] = value


def _validate(model: type[Model], data: Mapping[str, Any], where: str) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _explain(model, error, where) from error


def _explain(model: type[BaseModel], error: ValidationError, where: str) -> UsageError:
    problems = error.errors(include_url=False)
    # A misspelt key is two problems, one unknown and one missing; the unknown one says more.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        known = _fields(model, location[:-1])
        return UsageError(f"unknown key '{location[-1]}'", where=f"{where}: {key}", fix=_nearest(location[-1], known))
    expected = first["msg"][0].lower() + first["msg"][1:]
    given = "" if first["type"] == "missing" else f", got {first['input']!r:.80}"
    return UsageError(f"{expected}{given}", where=f"{where}: {key}", fix=f"{len(problems)} error(s) in all")


def _fields(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """Keys known at a place inside a model; looks through tuples of models and optional ones."""
    for part in location:
        if part.isdigit():
            continue
        field = next((f for name, f in model.model_fields.items() if (f.alias or name) == part), None)
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        if (found := _model_in(part)) is not None:
            return found
    return None


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    listed = ", ".join(sorted(known)) or "none"
    return f"did you mean '{close[0]}'? known: {listed}" if close else f"known: {listed}"


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
