"""How far two distributions are apart, and how far chance alone puts two samples of one of them. Pure."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.reference import Floats, NumberProfile


def psi(reference: NDArray[Any], current: NDArray[Any]) -> float:
    """Population stability index of two histograms, Σ (p − q) · ln(p / q), in nats; 0 and more.

    Siddiqi, Credit Risk Scorecards (2006); it is Jeffreys' divergence. Smoothing: each side gets one more row,
    spread like both samples together, so that no share is zero and equal shares still give exactly 0.

    Args:
        reference, current: rows per bin, [b] each, neither empty.
    """
    n, m = reference.sum(), current.sum()
    pooled = (reference / n + current / m) / 2
    used = pooled > 0
    p = ((reference + pooled) / (n + 1))[used]
    q = ((current + pooled) / (m + 1))[used]
    return float(((q - p) * np.log(q / p)).sum())


def js_distance(reference: NDArray[Any], current: NDArray[Any]) -> float:
    """Jensen–Shannon distance of two histograms, base 2, in [0, 1] (Lin 1991; Endres & Schindelin 2003)."""
    p, q = reference / reference.sum(), current / current.sum()
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(p > 0, p * np.log2(p / middle), 0.0) + np.where(q > 0, q * np.log2(q / middle), 0.0)
    return math.sqrt(min(1.0, max(0.0, float(bits.sum()) / 2)))


def ks_statistic(reference: NumberProfile, current: Floats) -> float:
    """Two-sample Kolmogorov–Smirnov statistic, the largest gap between the distribution functions.

    Exact if the reference has at most `POINTS` distinct values, otherwise too small by 1/`POINTS` at most (the
    reference is known at its points, on both sides of a jump, and rises by no more than that in between).

    Args:
        reference: a profile with values.
        current: finite values [m], in any order, m > 0.
    """
    ordered = np.sort(current)
    points, rows = np.array(reference.points), reference.rows - reference.nulls
    below = np.searchsorted(ordered, points, side="left") / len(ordered) - np.array(reference.below) / rows
    upto = np.searchsorted(ordered, points, side="right") / len(ordered) - np.array(reference.upto) / rows
    return float(max(np.abs(below).max(), np.abs(upto).max()))


def chance_psi(bins: int, n: int, m: int, chance: float) -> float:
    """PSI that two samples of one distribution exceed with probability `chance`.

    PSI / (1/n + 1/m) is χ² with bins − 1 degrees of freedom (Yurdakul & Naranjo 2020); its quantile after
    Wilson & Hilferty 1931. For small differences PSI is 8 ln 2 times the squared Jensen–Shannon distance.
    """
    freedom = max(1, bins - 1)
    z = NormalDist().inv_cdf(1 - chance)
    return freedom * (1 - 2 / (9 * freedom) + z * math.sqrt(2 / (9 * freedom))) ** 3 * (1 / n + 1 / m)


def chance_ks(n: int, m: int, chance: float) -> float:
    """KS statistic that two samples of one distribution exceed with probability `chance` (Smirnov 1939)."""
    return math.sqrt(-math.log(chance / 2) / 2 * (1 / n + 1 / m))
