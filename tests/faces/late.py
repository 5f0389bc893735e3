"""The walkthrough's project, small: made-up flights, two epochs, a policy that any model passes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

LATE = Path(__file__).parents[2] / "pipeline" / "examples" / "walkthrough" / "late"
SMALL = {"epochs = 8": "epochs = 2", "min = 0.60": "min = 0.2", "resamples = 100": "resamples = 50"}


def write_flights(folder, rows=2_000):
    """``flights.parquet``, as the project's source reads it: January to July, later in the day is later."""
    random = np.random.default_rng(7)
    times = pd.Timestamp("2013-01-01") + pd.to_timedelta(np.sort(random.uniform(0, 24 * 211, rows)), unit="h")
    hour = times.hour.to_numpy(np.int64)
    pd.DataFrame(
        {
            "row": np.arange(rows),
            "scheduled": times.floor("us"),
            "carrier": random.choice(["AA", "B6", "UA"], rows),
            "origin": random.choice(["EWR", "JFK", "LGA"], rows),
            "distance": random.integers(100, 2500, rows),
            "hour": hour,
            "weekday": times.day_of_week.to_numpy(np.int64) + 1,
            "late": (random.random(rows) < 1 / (1 + np.exp((14 - hour) / 3))).astype(np.int64),
        }
    ).to_parquet(folder / "flights.parquet", index=False)


def write_project(folder):
    """The project's two files, in a folder that may be there already."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(LATE / "late.py", folder / "late.py")
    text = (LATE / "project.toml").read_text(encoding="utf-8")
    for was, now in SMALL.items():
        assert was in text
        text = text.replace(was, now)
    (folder / "project.toml").write_text(text, encoding="utf-8")
    return folder
