"""From when on it is drift. Apart from the mathematics, so that reading a configuration does not import numpy."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Thresholds(BaseModel):
    """From when on something counts as drift; ``[monitor.thresholds]`` of a project.

    Args:
        psi: population stability index; 0.1 and 0.25, or 0.2, are the customary limits (Siddiqi 2006).
        ks: Kolmogorov–Smirnov statistic of a numeric feature, the largest gap between the distributions.
        js: Jensen–Shannon distance, base 2 (0.1 is the default of NannyML and of Evidently).
        null_share: absolute change of the share of nulls.
        unseen: share of rows with a category that the reference does not have.
        moderate: the part of a limit from which on a feature is called moderate; moderate does not alarm.
        chance: probability of exceeding, by chance alone, the effect that chance is allowed.
        min_rows: fewer values than this are not judged; a window with fewer rows is refused.
        features: number of drifted features that make a window drifted.
        target_rate: absolute change of the share of positive labels, in any month.
        prediction_mean: absolute change of the mean prediction, in any month.
        auc_drop: loss of AUC against the model's hold-out, in any month.
        calibration_rise: rise of the calibration error against the model's hold-out, in any month.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    psi: Annotated[float, Field(gt=0)] = 0.2
    ks: Annotated[float, Field(gt=0, le=1)] = 0.1
    js: Annotated[float, Field(gt=0, le=1)] = 0.1
    null_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    unseen: Annotated[float, Field(gt=0, le=1)] = 0.05
    moderate: Annotated[float, Field(gt=0, le=1)] = 0.5
    chance: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    min_rows: Annotated[int, Field(ge=1)] = 200
    features: Annotated[int, Field(ge=1)] = 1
    target_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    prediction_mean: Annotated[float, Field(gt=0, le=1)] = 0.1
    auc_drop: Annotated[float, Field(gt=0, le=1)] = 0.03
    calibration_rise: Annotated[float, Field(gt=0, le=1)] = 0.05
