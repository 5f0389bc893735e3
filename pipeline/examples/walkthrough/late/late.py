"""Three functions: what a good row is, how it is encoded, what learns from it."""

from pipeline.domain.features import Category, Features, Number


def schema():
    import pandera.pandas as pa

    def number(low, high):
        return pa.Column(float, pa.Check.in_range(low, high), coerce=True)

    return pa.DataFrameSchema(
        {
            "row": number(0, 1e9),
            "scheduled": pa.Column("datetime64[us]", coerce=True),
            "carrier": pa.Column(str, pa.Check.str_matches(r"^[A-Z0-9]{2}$")),
            "origin": pa.Column(str, pa.Check.isin(["EWR", "JFK", "LGA"])),
            "distance": number(10, 6000),
            "hour": number(0, 23),
            "weekday": number(1, 7),
            "late": pa.Column(float, pa.Check.isin([0, 1]), coerce=True),
        },
        unique=["row"],
        strict=True,
    )


def features():
    return Features(Category("carrier"), Category("origin"), Number("distance"), Number("hour"), Number("weekday"))


def model(cardinalities, width, hidden=16):
    import torch
    from torch import nn

    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.tables = nn.ModuleList(nn.Embedding(n, 4) for n in cardinalities)
            self.layers = nn.Sequential(
                nn.Linear(4 * len(cardinalities) + width, hidden), nn.ReLU(), nn.Linear(hidden, 1)
            )

        def forward(self, categories, numbers):
            named = [table(categories[:, i]) for i, table in enumerate(self.tables)]
            return self.layers(torch.cat([*named, numbers], dim=1)).squeeze(1)

    return Late()
