"""Sends a month of flights to a model server, a thousand at a time: what a booking site would ask it."""

import json
import sys
import urllib.request

import pandas as pd

server, month = sys.argv[1:]
flights = pd.read_parquet("flights.parquet")
flights = flights[flights["scheduled"].dt.strftime("%Y-%m") == month]
wanted = ["carrier", "origin", "distance", "hour", "weekday"]
for first in range(0, len(flights), 1000):
    part = flights[wanted][first : first + 1000]
    body = json.dumps({"dataframe_split": {"columns": wanted, "data": part.to_numpy().tolist()}}).encode()
    request = urllib.request.Request(f"{server}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        predictions = json.load(answer)["predictions"]
print(f"{len(flights)} flights of {month} asked; the last one will be late with probability {predictions[-1]:.2f}")
