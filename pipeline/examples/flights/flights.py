"""Flights from New York: will this one arrive more than 15 minutes late?

The three functions that a project consists of, named in ``project.toml``: what is read (`schema`), how it is
encoded (`features`) and what learns from it (`model`). Heavy libraries are imported inside them, because each stage
is a process of its own and needs only some of them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from pipeline.domain.features import Bins, Category, Features, Wave

if TYPE_CHECKING:
    import pandera.pandas as pa
    from torch import Tensor, nn

SCHEDULE = ("distance", "minute_of_day", "block_minutes")
CONGESTION = (
    "flights_day", "origin_day", "origin_hour", "route_day", "carrier_day", "carrier_hour", "dest_day", "dest_hour",
    "hour_before", "hour_ahead", "origin_so_far",
)  # fmt: skip
AIRCRAFT = ("leg", "legs", "minutes_since_leg", "minutes_to_leg")
WEATHER = (
    "temp", "dewp", "humid", "wind_speed", "wind_gust", "wind_east", "wind_north", "precip", "pressure", "visib",
    "region_precip", "rain_before", "rain_ahead", "visib_before", "visib_ahead", "dewp_day",
)  # fmt: skip
NAMES = (
    Category("carrier"),
    Category("tailnum", min_count=20),
    Category("origin"),
    Category("dest", min_count=5),
    Category("hour"),
    Category("weekday"),
)


def features() -> Features:
    """Names to embed, numbers by quantile bins (trees do well here because they bin), the day and week as circles."""
    bins = (Bins(column) for column in (*SCHEDULE, *CONGESTION, *AIRCRAFT, *WEATHER))
    return Features(*NAMES, *bins, Wave("weekday", 7, 2), Wave("minute_of_day", 1440, 3))


def model(
    cardinalities: tuple[int, ...],
    width: int,
    *,
    hidden: int = 64,
    layers: int = 2,
    members: int = 4,
    dropout: float = 0.3,
    name_dropout: float = 0.1,
) -> nn.Module:
    """Embeddings, thermometer-coded bins and waves into a few small networks whose logits are averaged.

    Args:
        cardinalities: of the names, then of the bins.
        width: how many other numbers there are.
        hidden: units per layer and member.
        layers: hidden layers.
        members: how many networks; they share the embeddings.
        dropout: share of hidden units dropped in training.
        name_dropout: share of embedding values dropped in training.
    """
    import torch
    from torch import nn

    functional = nn.functional

    class Thermometer(nn.Module):
        """Bin b of B as B - 1 numbers: +½ for each edge at or below it, -½ above; ordered and free of units."""

        column: Tensor
        level: Tensor

        def __init__(self, sizes: tuple[int, ...]) -> None:
            super().__init__()
            bits = [(column, float(level)) for column, size in enumerate(sizes) for level in range(1, size)]
            self.register_buffer("column", torch.tensor([column for column, _ in bits]), persistent=False)
            self.register_buffer("level", torch.tensor([level for _, level in bits]), persistent=False)
            self.width = len(bits)

        def forward(self, bins: Tensor) -> Tensor:
            return (bins.float().index_select(1, self.column) >= self.level).float() - 0.5

    class Members(nn.Module):
        """A linear layer for each member: [members, N, inputs] → [members, N, outputs]."""

        def __init__(self, inputs: int, outputs: int, gain: float, bias: float = 0.0) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(members, inputs, outputs) * gain * inputs**-0.5)
            self.bias = nn.Parameter(torch.full((members, 1, outputs), bias))

        def forward(self, rows: Tensor) -> Tensor:
            return torch.baddbmm(self.bias, rows, self.weight)

    class FlightNetwork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            names = cardinalities[: len(NAMES)]
            sizes = [min(16, max(2, round(1.6 * n**0.4))) for n in names]
            self.tables = nn.ModuleList(
                nn.Embedding(n, size, _weight=torch.randn(n, size) * 0.1) for n, size in zip(names, sizes, strict=True)
            )
            self.thermometer = Thermometer(cardinalities[len(NAMES) :])
            inputs = sum(sizes) + self.thermometer.width + width
            shapes = pairwise([inputs] + [hidden] * layers)
            gains = [1.0] + [2**0.5] * (layers - 1)
            self.layers = nn.ModuleList(Members(*shape, gain) for shape, gain in zip(shapes, gains, strict=True))
            self.out = Members(hidden, 1, gain=0.5, bias=-1.1)  # about one flight in four is late
            self.direct = nn.Parameter(torch.zeros(inputs))

        def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
            """Logits [N]; in training those of each member, [N, members]."""
            named = torch.cat([table(categories[:, i]) for i, table in enumerate(self.tables)], dim=1)
            named = functional.dropout(named, name_dropout, self.training)
            row = torch.cat([named, self.thermometer(categories[:, len(NAMES) :]), numbers], dim=1)
            state = row.unsqueeze(0).expand(members, -1, -1)
            for layer in self.layers:
                state = functional.dropout(functional.silu(layer(state)), dropout, self.training)
            logits: Tensor = self.out(state).squeeze(2).T + (row @ self.direct).unsqueeze(1)
            return logits if self.training else logits.mean(dim=1)

    return FlightNetwork()


def schema() -> pa.DataFrameSchema:
    """What a snapshot must look like: types, ranges and names; nulls only where a station is silent."""
    import pandera.pandas as pa

    def number(low: float, high: float, *, nullable: bool = False, nulls: float = 0.2) -> pa.Column:
        metadata = {"max_null_share": nulls}
        return pa.Column(float, pa.Check.in_range(low, high), nullable=nullable, coerce=True, metadata=metadata)

    def weather(low: float, high: float) -> pa.Column:
        return number(low, high, nullable=True)

    counts = {name: number(1, 2000) for name in CONGESTION}
    return pa.DataFrameSchema(
        {
            "flight_id": number(1e12, 9e15),
            "scheduled": pa.Column("datetime64[us]", coerce=True),
            "carrier": pa.Column(str, pa.Check.str_matches(r"^[A-Z0-9]{2}$")),
            "flight": number(1, 9999),
            "tailnum": pa.Column(str, pa.Check.str_matches(r"^[A-Z0-9]{3,6}$"), nullable=True),
            "origin": pa.Column(str, pa.Check.isin(["EWR", "JFK", "LGA"])),
            "dest": pa.Column(str, pa.Check.str_matches(r"^[A-Z]{3}$")),
            "hour_band": pa.Column(str, pa.Check.isin(["morning", "midday", "evening"])),
            "distance": number(10, 6000),
            "hour": number(0, 23),
            "weekday": number(1, 7),
            "minute_of_day": number(0, 1439),
            "block_minutes": number(0, 1439),
            **counts,
            "leg": number(1, 20),
            "legs": number(1, 20),
            "minutes_since_leg": number(0, 1439, nullable=True, nulls=0.9),
            "minutes_to_leg": number(0, 1439, nullable=True, nulls=0.9),
            "temp": weather(-40, 120),
            "dewp": weather(-60, 100),
            "humid": weather(0, 100),
            "wind_speed": weather(0, 200),
            "wind_gust": number(0, 250, nullable=True, nulls=0.97),
            "wind_east": weather(-200, 200),
            "wind_north": weather(-200, 200),
            "precip": weather(0, 10),
            "pressure": weather(900, 1100),
            "visib": weather(0, 10),
            "region_precip": weather(0, 10),
            "rain_before": weather(0, 70),
            "rain_ahead": weather(0, 70),
            "visib_before": weather(0, 10),
            "visib_ahead": weather(0, 10),
            "dewp_day": weather(-60, 100),
            "late": pa.Column(float, pa.Check.isin([0, 1]), coerce=True),
        },
        unique=["flight_id"],
        strict=True,
    )
