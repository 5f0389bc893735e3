"""Policy as data: rules on evidence, judged purely. Missing evidence refuses; an empty policy refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from pipeline.domain.canonical import digest_json

LOWER_IS_BETTER = frozenset({"brier", "log_loss", "calibration_error"})
REVIEWERS_BY_TIER: Mapping[str, int] = {"low": 1, "medium": 2, "high": 3}

Metric = Literal["auc", "average_precision", "brier", "log_loss", "calibration_error"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Bounded(_Strict):
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> _Bounded:
        if self.min is None and self.max is None:
            raise ValueError("a rule needs `min`, `max` or both")
        return self

    def holds(self, value: float) -> bool:
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def threshold(self) -> str:
        parts = [f"≥ {self.min:g}"] if self.min is not None else []
        return " and ".join(parts + ([f"≤ {self.max:g}"] if self.max is not None else []))


class MetricRule(_Bounded):
    """A floor or ceiling on a metric of the challenger over the whole hold-out."""

    metric: Metric


class SliceRule(_Bounded):
    """A floor or ceiling on a metric in every value of a slice with at least `min_rows` rows."""

    slice: str
    metric: Metric
    min_rows: Annotated[int, Field(gt=0)] = 500


class NotWorseRule(_Strict):
    """Not worse than the champion by more than `by`, at the evidence's confidence level.

    The bound of the interval on the difference that speaks against the challenger must lie within `by`.
    """

    metric: Metric
    by: Annotated[float, Field(ge=0)]


class LimitRule(_Bounded):
    """A floor or ceiling on any number in the evidence, by dotted path (``latency.single_row_p95_ms``)."""

    value: str


class DriftRule(_Strict):
    """A ceiling on the population stability index of the hold-out against the training window, feature by feature.

    `features` are those that it is about; none named: every watched one.
    """

    max_psi: Annotated[float, Field(gt=0)]
    features: tuple[str, ...] = ()


def _moment(value: object) -> str:
    """TOML's own dates and times, or ISO 8601 text; a time without an offset is UTC."""
    text = value.isoformat() if isinstance(value, date) else str(value)
    datetime.fromisoformat(text)
    return text


Moment = Annotated[str, BeforeValidator(_moment)]
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Freeze(_Strict):
    """A time in which nothing goes to production: from `starts` to `ends` (a day counts whole), or certain weekdays."""

    reason: str
    starts: Moment | None = None
    ends: Moment | None = None
    weekdays: tuple[Literal[_WEEKDAYS], ...] = ()  # type: ignore[valid-type]  # the names stand above once
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"no time zone is called '{name}'") from error
        return name

    @model_validator(mode="after")
    def _is_a_window(self) -> Freeze:
        between = self.starts is not None and self.ends is not None
        if between == bool(self.weekdays) or (self.starts is None) != (self.ends is None):
            raise ValueError("a freeze needs either `starts` and `ends`, or `weekdays`")
        if between and self._at(self.starts, time.min) > self._at(self.ends, time.max):
            raise ValueError("a freeze starts before it ends")
        return self

    def covers(self, now: datetime) -> bool:
        """Whether an aware time lies in it."""
        if self.weekdays:
            return _WEEKDAYS[now.astimezone(ZoneInfo(self.timezone)).weekday()] in self.weekdays
        return self._at(self.starts, time.min) <= now <= self._at(self.ends, time.max)

    def __str__(self) -> str:
        return ", ".join(self.weekdays) or f"{self.starts} to {self.ends}"

    def _at(self, moment: str | None, whole_day: time) -> datetime:
        assert moment is not None
        day = len(moment) == len("2026-12-24")
        found = datetime.combine(date.fromisoformat(moment), whole_day) if day else datetime.fromisoformat(moment)
        return found if found.tzinfo else found.replace(tzinfo=ZoneInfo(self.timezone))


class Policy(_Strict):
    """What must hold before anybody is asked to approve, and who is asked."""

    metric: tuple[MetricRule, ...] = ()
    slice: tuple[SliceRule, ...] = ()
    not_worse: tuple[NotWorseRule, ...] = ()
    limit: tuple[LimitRule, ...] = ()
    drift: tuple[DriftRule, ...] = ()
    freeze: tuple[Freeze, ...] = ()
    max_evidence_age_hours: Annotated[float, Field(gt=0)] = 168.0
    approval_valid_hours: Annotated[float, Field(gt=0)] = 72.0

    @property
    def digest(self) -> str:
        """Digest of the policy: part of what is approved."""
        return digest_json(self.model_dump(mode="json"))


class Ruling(_Strict):
    """One rule's outcome."""

    rule: str
    value: float | None
    threshold: str
    passed: bool
    reason: str


class Verdict(_Strict):
    """Every rule with its value and threshold, and whether all of them passed."""

    passed: bool
    policy_digest: str
    rules: tuple[Ruling, ...]

    @property
    def refusals(self) -> tuple[Ruling, ...]:
        """The rules that refused."""
        return tuple(rule for rule in self.rules if not rule.passed)


def judge(policy: Policy, evidence: Mapping[str, Any], now: datetime) -> Verdict:
    """Judge evidence (the canonical JSON of the evidence page) by a policy.

    Args:
        policy: the rules.
        evidence: as `pipeline.domain.evidence.Evidence` dumps it.
        now: the time of judgement, aware.
    """
    rulings = (
        *(_bounded(f"{rule.metric}", _metric(evidence, rule.metric), rule) for rule in policy.metric),
        *(ruling for rule in policy.slice for ruling in _slice(rule, evidence)),
        *(_not_worse(rule, evidence) for rule in policy.not_worse),
        *(_bounded(rule.value, _lookup(evidence, rule.value), rule) for rule in policy.limit),
        *(_drift(rule, evidence) for rule in policy.drift),
        *(_freeze(freeze, now) for freeze in policy.freeze),
        _data_checks(evidence),
        _age(policy, evidence, now),
    )
    if not (policy.metric or policy.slice or policy.not_worse or policy.limit):
        empty = Ruling(
            rule="policy", value=None, threshold="at least one rule", passed=False, reason="the policy is empty"
        )
        rulings = (empty, *rulings)
    return Verdict(passed=all(ruling.passed for ruling in rulings), policy_digest=policy.digest, rules=rulings)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _lookup(evidence: Mapping[str, Any], path: str) -> float | None:
    node: Any = evidence
    for part in path.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return _number(node)


def _metric(evidence: Mapping[str, Any], metric: str) -> float | None:
    return _lookup(evidence, f"candidate.metrics.{metric}")


def _bounded(name: str, value: float | None, rule: _Bounded) -> Ruling:
    passed = value is not None and rule.holds(value)
    if value is None:
        reason = "not in the evidence"
    else:
        reason = "within bounds" if passed else f"{value:.4g} is not {rule.threshold()}"
    return Ruling(rule=name, value=value, threshold=rule.threshold(), passed=passed, reason=reason)


def _slice(rule: SliceRule, evidence: Mapping[str, Any]) -> Iterator[Ruling]:
    rows = [row for row in _rows(evidence, "slices") if row.get("slice") == rule.slice]
    large = [row for row in rows if row.get("n", 0) >= rule.min_rows]
    name = f"{rule.metric} in each {rule.slice} (≥ {rule.min_rows} rows)"
    if not large:
        reason = "no value of this slice has enough rows" if rows else "this slice is not in the evidence"
        yield Ruling(rule=name, value=None, threshold=rule.threshold(), passed=False, reason=reason)
        return
    lower = rule.min is not None
    known = [row for row in large if _number(row.get(rule.metric)) is not None]
    for row in large:
        if row not in known:
            label = f"{rule.metric} where {rule.slice} is {row.get('value')}"
            yield _bounded(label, None, rule)
    if known:
        worst = (min if lower else max)(known, key=lambda row: float(row[rule.metric]))
        label = f"{name}: worst is {worst.get('value')}"
        yield _bounded(label, float(worst[rule.metric]), rule)


def _not_worse(rule: NotWorseRule, evidence: Mapping[str, Any]) -> Ruling:
    name, threshold = f"{rule.metric} against the champion", f"not worse by more than {rule.by:g}"
    if "champion" in evidence and evidence["champion"] is None:
        return Ruling(rule=name, value=None, threshold=threshold, passed=True, reason="no champion serves yet")
    sign = -1.0 if rule.metric in LOWER_IS_BETTER else 1.0
    bound = _lookup(evidence, f"differences.{rule.metric}.{'high' if sign < 0 else 'low'}")
    if bound is None:
        return Ruling(rule=name, value=None, threshold=threshold, passed=False, reason="not in the evidence")
    passed = sign * bound >= -rule.by
    reason = f"the unfavourable end of the interval is {bound:+.4g}"
    return Ruling(rule=name, value=bound, threshold=threshold, passed=passed, reason=reason)


def _drift(rule: DriftRule, evidence: Mapping[str, Any]) -> Ruling:
    drift = evidence.get("drift")
    rows = _rows(drift, "features") if isinstance(drift, Mapping) else ()
    known = {str(row.get("feature")): psi for row in rows if (psi := _number(row.get("psi"))) is not None}
    about = {name: known.get(name) for name in rule.features} or dict(known)
    threshold = f"≤ {rule.max_psi:g}"
    lacking = sorted(name for name, psi in about.items() if psi is None)
    if lacking or not about:
        reason = f"not in the evidence: {', '.join(lacking)}" if lacking else "no drift in the evidence"
        return Ruling(rule="drift (PSI)", value=None, threshold=threshold, passed=False, reason=reason)
    worst, psi = max(((name, psi) for name, psi in about.items() if psi is not None), key=lambda pair: pair[1])
    passed = psi <= rule.max_psi
    reason = "within bounds" if passed else f"{psi:.4g} is not {threshold}"
    return Ruling(rule=f"drift (PSI): worst is {worst}", value=psi, threshold=threshold, passed=passed, reason=reason)


def _freeze(freeze: Freeze, now: datetime) -> Ruling:
    frozen = freeze.covers(now)
    reason = freeze.reason if frozen else "not now"
    return Ruling(rule="freeze", value=None, threshold=f"not {freeze}", passed=not frozen, reason=reason)


def _rows(evidence: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    rows = evidence.get(key)
    return rows if isinstance(rows, list | tuple) else ()


def _data_checks(evidence: Mapping[str, Any]) -> Ruling:
    data = evidence.get("data")
    passed = data.get("checks_passed") if isinstance(data, Mapping) else None
    reason = {True: "every check passed", False: "checks failed"}.get(bool(passed), "")
    if passed is None:
        reason = "not in the evidence"
    return Ruling(rule="data checks", value=None, threshold="all passed", passed=passed is True, reason=reason)


def _age(policy: Policy, evidence: Mapping[str, Any], now: datetime) -> Ruling:
    threshold = f"≤ {policy.max_evidence_age_hours:g} h"
    created = evidence.get("created")
    if not isinstance(created, str):
        return Ruling(rule="age of evidence", value=None, threshold=threshold, passed=False, reason="no creation time")
    age = now - datetime.fromisoformat(created)
    hours = age / timedelta(hours=1)
    passed = timedelta(0) <= age <= timedelta(hours=policy.max_evidence_age_hours)
    return Ruling(
        rule="age of evidence",
        value=round(hours, 3),
        threshold=threshold,
        passed=passed,
        reason="recent" if passed else "measured too long ago, or in the future",
    )
