"""The evidence an approver decides on, as frozen data; its canonical JSON is what the ledger's digest is of.

Policy reads the dumped form by dotted path (``candidate.metrics.auc``, ``differences.auc.low``,
``latency.single_row_p95_ms``, ``data.checks_passed``). Verdict and approvals are not part of it: they come
later, and refer to it by digest. A number that could not be measured is None, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline.domain.canonical import digest_json

MetricName = Literal["auc", "average_precision", "brier", "log_loss", "calibration_error"]
METRICS: tuple[MetricName, ...] = ("auc", "average_precision", "brier", "log_loss", "calibration_error")
Point = tuple[float, float]
Scalar = bool | int | float | str | None


def _aware(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time needs its zone: 2026-11-23T20:15:00Z")
    return text


Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Instant = Annotated[str, AfterValidator(_aware)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _not_measured_is_none(cls, data: Any) -> Any:
        """NaN has no JSON: what was not measured is None, and is refused where a number must be."""
        if not isinstance(data, Mapping):
            return data
        return {key: None if _not_finite(value) else value for key, value in data.items()}


def _not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


# --- measurements -----------------------------------------------------------------------------------------


class Metrics(_Frozen):
    """Quality on rows of both classes. Brier, log loss (nats), calibration error: lower is better."""

    auc: float
    average_precision: float
    brier: float
    log_loss: float
    calibration_error: float


class Interval(_Frozen):
    """A value with the bounds of its bootstrap interval; no bounds where no resample could be measured."""

    value: float
    low: float | None
    high: float | None


Intervals = Mapping[MetricName, Interval]


class ReliabilityBin(_Frozen):
    """Rows with similar predictions: mean prediction, observed share, and its 95 % Wilson interval."""

    n: int
    predicted: float
    observed: float
    low: float
    high: float


class Curves(_Frozen):
    """What is drawn of one model: ROC as (false, true positive rate), PR as (recall, precision).

    `histogram` counts predictions in bins of equal width over [0, 1].
    """

    roc: tuple[Point, ...] = ()
    pr: tuple[Point, ...] = ()
    reliability: tuple[ReliabilityBin, ...] = ()
    histogram: tuple[int, ...] = ()


class SliceRow(_Frozen):
    """One value of one slice (None: where the column is null). `note` says why nothing was measured."""

    slice: str
    value: str | None
    n: int
    positives: int
    auc: float | None = None
    average_precision: float | None = None
    brier: float | None = None
    log_loss: float | None = None
    calibration_error: float | None = None
    champion_auc: float | None = None
    auc_difference: float | None = None
    note: str | None = None


class Reliance(_Frozen):
    """AUC lost on the hold-out when this column's values are shuffled: what the model relies on."""

    column: str
    auc_lost: float


class Latency(_Frozen):
    """Of the whole package, features included, on the machine that evaluated."""

    single_row_p50_ms: float
    single_row_p95_ms: float
    batch_rows_per_second: float
    batch_rows: int


class Parity(_Frozen):
    """Largest difference between the trained model and the exported graph."""

    rows: int
    max_abs_difference: float


# --- the models compared ----------------------------------------------------------------------------------


class Candidate(_Frozen):
    """The challenger, on the hold-out."""

    metrics: Metrics
    intervals: Intervals
    curves: Curves = Curves()


class Champion(_Frozen):
    """What serves now, on the same rows."""

    version: str
    run: str
    package: Digest
    weights: Digest | None = None
    package_bytes: int | None = None
    since: Instant | None = None
    metrics: Metrics
    intervals: Intervals
    curves: Curves = Curves()
    latency: Latency | None = None


# --- data -------------------------------------------------------------------------------------------------


class MonthRows(_Frozen):
    """Rows and positives of one month of one part (``train``, ``holdout``)."""

    part: str
    month: str
    rows: int
    positives: int


class Column(_Frozen):
    """One source column as the training part has it."""

    name: str
    type: str
    null_share: Share
    distinct: int | None = None


class Check(_Frozen):
    """One validation check; `count` rows broke it."""

    part: str
    column: str | None = None
    rule: str
    passed: bool
    count: int = 0


class Data(_Frozen):
    """What the run's data is like, and whether it passed its checks."""

    checks_passed: bool
    checks: tuple[Check, ...] = ()
    months: tuple[MonthRows, ...] = ()
    columns: tuple[Column, ...] = ()


class FeatureDrift(_Frozen):
    """One feature against the reference. KS is for numbers only, `unseen` for categories only."""

    feature: str
    psi: float | None = None
    ks: float | None = None
    js: float | None = None
    null_reference: Share | None = None
    null_current: Share | None = None
    unseen: Share | None = None
    drifted: bool = False
    note: str | None = None


class Drift(_Frozen):
    """Drift of `current` against `reference` (windows). `psi_limit` is where it counts as drift."""

    reference: str
    current: str
    psi_limit: float | None = None
    features: tuple[FeatureDrift, ...] = ()


# --- how it came about ------------------------------------------------------------------------------------


class Subject(_Frozen):
    """Digests of what would be approved. The sixth, of the evidence, is this document's own."""

    package: Digest
    weights: Digest
    data: Digest
    code: Digest
    policy: Digest


class Windows(_Frozen):
    """Months or dates, both ends inclusive."""

    train: str
    holdout: str


class Rows(_Frozen):
    """Rows of each part, and positives of the hold-out."""

    train: int
    holdout: int
    holdout_positives: int


Part = Literal["data", "code", "parameter", "policy", "library", "hardware"]


class Change(_Frozen):
    """Something that differs from the champion's; None: not there."""

    part: Part = "parameter"
    name: str
    before: Scalar
    after: Scalar


class Training(_Frozen):
    """How the weights came about."""

    framework: str
    seed: int
    epochs: int
    best_epoch: int | None = None
    seconds: float
    libraries: Mapping[str, str] = {}


class Lineage(_Frozen):
    """One thing this model descends from: what it is, its identity (window, commit, run), its digest."""

    what: str
    identity: str
    digest: Digest | None = None


_MEASURED = {
    *("target", "windows", "rows", "subject", "candidate", "differences", "confidence", "resamples", "slices"),
    *("relies_on", "package_bytes", "parity", "data", "drift", "parameters"),
}


class Evidence(_Frozen):
    """Everything measured on one run, for one environment."""

    format: Literal[1] = 1
    run: str
    project: str
    model: str
    environment: str
    created: Instant
    requester: str | None = None
    author: str | None = None
    target: str
    windows: Windows
    rows: Rows
    subject: Subject
    candidate: Candidate
    champion: Champion | None = None
    differences: Intervals | None = None
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    resamples: int
    slices: tuple[SliceRow, ...] = ()
    relies_on: tuple[Reliance, ...] = ()
    latency: Latency
    package_bytes: int
    parity: Parity
    data: Data
    drift: Drift | None = None
    parameters: Mapping[str, Scalar] = {}
    changes: tuple[Change, ...] = ()
    diff: tuple[str, ...] = ()
    training: Training
    lineage: tuple[Lineage, ...] = ()

    @model_validator(mode="after")
    def _compared_or_first(self) -> Evidence:
        if (self.champion is None) != (self.differences is None):
            raise ValueError("a champion and the differences to it come together")
        return self

    def to_json(self) -> dict[str, Any]:
        """The evidence as JSON values: what is stored, digested, judged and rendered."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """Digest of the canonical JSON: what verdict, approvals and ledger refer to."""
        return digest_json(self.to_json())

    @property
    def results(self) -> str:
        """Digest of what was measured, without when, where, by whom and how fast.

        Runs of the same data, code, parameters, seed and policy against the same champion have the same.
        """
        champion = self.champion and {"package": self.champion.package, "metrics": self.champion.metrics.model_dump()}
        return digest_json({**self.model_dump(mode="json", include=_MEASURED), "champion": champion})
