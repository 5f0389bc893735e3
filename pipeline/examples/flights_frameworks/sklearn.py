"""Gradient-boosted trees with scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier


def model(
    cardinalities: tuple[int, ...], width: int, **parameters: float | str | bool
) -> HistGradientBoostingClassifier:
    """Trees over names (by their index, frequent ones first), bins and waves; a Pipeline would do as well.

    Args:
        cardinalities: of the names, then of the bins; trees do not need them.
        width: how many other numbers there are; neither this.
        parameters: HistGradientBoostingClassifier's own.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    del cardinalities, width
    return HistGradientBoostingClassifier(**parameters)
