"""Was a model made anew with the same weights, and if not, what was different? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.domain.changes import between
from pipeline.domain.evidence import Change
from pipeline.errors import IntegrityViolated

# Of the environment itself: nobody who trains imports them.
_TOOLS = ("gatehouse", "pip", "setuptools", "wheel")


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A model's digests as recorded and as made anew, and what differed on the way.

    Attributes:
        weights, package: (recorded, made anew).
        differences: of hardware, Python, libraries and Gatehouse's code; None: the run did not record its environment.
    """

    weights: tuple[str, str]
    package: tuple[str, str]
    differences: tuple[Change, ...] | None

    @property
    def same(self) -> bool:
        """Whether the weights are the same, bit by bit."""
        return self.weights[0] == self.weights[1]

    @property
    def explanation(self) -> str:
        """What was different, in a sentence for people."""
        if self.differences is None:
            return "the run did not record what it ran in: nothing can be said of the difference"
        if not self.differences:
            return (
                "data, code, parameters, seed, libraries and hardware are those recorded: the training is not "
                "deterministic, or these weights were not made by this run"
            )
        named = [
            f"{change.part} {change.name}: {change.before} then, {change.after} now" for change in self.differences
        ]
        more = f", and {len(named) - 6} more" if len(named) > 6 else ""
        return "; ".join(named[:6]) + more

    def demand(self) -> None:
        """Raise unless the weights came out the same.

        Raises:
            IntegrityViolated: they did not; says what was different.
        """
        if not self.same:
            recorded, made = self.weights
            raise IntegrityViolated(
                f"the weights came out different: {made}, recorded {recorded}", where="reproduce", fix=self.explanation
            )

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON."""
        listed = None if self.differences is None else [change.model_dump(mode="json") for change in self.differences]
        names = ("recorded", "made anew")
        return {
            "same": self.same,
            "weights": dict(zip(names, self.weights, strict=True)),
            "package": dict(zip(names, self.package, strict=True)),
            "differences": listed,
        }


def requirements(environment: Mapping[str, Any]) -> tuple[str, ...]:
    """The recorded distributions as pinned requirements, without the environment's own tools."""
    return tuple(f"{name}=={version}" for name, version in sorted(packages(environment).items()))


def packages(environment: Mapping[str, Any]) -> Mapping[str, str]:
    """Version by name, without the environment's own tools and without what marks a build (``+cpu``).

    A local version label is no part of what an index knows (PEP 440).
    """
    found = environment["packages"]
    return {name: version.partition("+")[0] for name, version in found.items() if name not in _TOOLS}


def differences(recorded: Mapping[str, Any] | None, now: Mapping[str, Any]) -> tuple[Change, ...] | None:
    """What of the recorded environment is different now; None if none was recorded."""
    if recorded is None:
        return None
    found: Sequence[tuple[Change, ...]] = (
        between("code", {"Gatehouse": recorded["gatehouse"]}, {"Gatehouse": now["gatehouse"]}),
        between("library", {"python": recorded["python"]}, {"python": now["python"]}),
        between("library", recorded["packages"], now["packages"]),
        between("hardware", recorded["hardware"], now["hardware"]),
    )
    return tuple(change for part in found for change in part if change.name not in _TOOLS)
