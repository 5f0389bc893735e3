"""Gradient-boosted trees with LightGBM."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightgbm import LGBMClassifier


def model(cardinalities: tuple[int, ...], width: int, **parameters: float | str | bool) -> LGBMClassifier:
    """Trees over names (by their index, frequent ones first), bins and waves.

    Args:
        cardinalities: of the names, then of the bins; trees do not need them.
        width: how many other numbers there are; neither this.
        parameters: LightGBM's own.
    """
    from lightgbm import LGBMClassifier

    del cardinalities, width
    return LGBMClassifier(**parameters)
