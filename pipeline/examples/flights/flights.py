def features():
    from pipeline.domain.features import Category, Features, Number, Wave
    return Features(Category("carrier"), Category("origin"), Category("dest", min_count=20), Number("hour"), Number("temp"), Number("humid"), Number("wind_speed"), Number("precip"), Number("visib"), Number("pressure"), Wave("hour", 24, 2))
def model(cardinalities, width, **parameters):
    import torch
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.e = torch.nn.ModuleList(torch.nn.Embedding(c, 8) for c in cardinalities)
            self.m = torch.nn.Sequential(torch.nn.Linear(8*len(cardinalities)+width, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
        def forward(self, categories, numbers):
            x = torch.cat([e(categories[:, i]) for i, e in enumerate(self.e)] + [numbers], 1)
            return self.m(x).squeeze(1)
    return Net()
def schema():
    import pandera.pandas as pa
    return pa.DataFrameSchema({"carrier": pa.Column(str), "late": pa.Column(int, pa.Check.isin([0,1])), "temp": pa.Column(float, pa.Check.in_range(-40, 130), nullable=True), "pressure": pa.Column(float, nullable=True), "visib": pa.Column(float, nullable=True)})
