"""PyTorch training: what whoever starts, kills, resumes, exports or reproduces one notices."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.domain.comparison import auc
from pipeline.domain.transformer import Encoded
from pipeline.errors import UsageError
from pipeline.frameworks.torch import Calibrated, Fitted, export_native, export_onnx, fit, parity

PARAMETERS = {"epochs": 3, "batch": 64, "rate": 0.01, "hidden": 8}


class Small(nn.Module):
    """One embedding, one hidden layer with dropout, two members."""

    def __init__(self, cardinalities, width, hidden=8):
        super().__init__()
        self.table = nn.Embedding(cardinalities[0], 2)
        self.hidden = nn.Linear(2 + width, hidden)
        self.out = nn.Linear(hidden, 2)

    def forward(self, categories, numbers):
        row = torch.cat([self.table(categories[:, 0]), numbers], dim=1)
        members = self.out(nn.functional.dropout(torch.relu(self.hidden(row)), 0.2, self.training))
        return members if self.training else members.mean(dim=1)


class Store:
    """A checkpoint store in memory."""

    def __init__(self):
        self.steps, self.data = [], None

    def latest(self):
        return self.data

    def save(self, step, data):
        self.steps.append(step)
        self.data = data


def rows(n=1200, seed=0):
    random = np.random.default_rng(seed)
    categories = random.integers(0, 4, (n, 1))
    numbers = random.normal(size=(n, 3)).astype(np.float32)
    logit = numbers[:, 0] * 1.5 + np.array([-1.0, 0.0, 1.0, 0.5])[categories[:, 0]] - 0.5
    y = (random.random(n) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    return Encoded(categories, numbers), y


def train(parameters=PARAMETERS, *, store=None, on_epoch=lambda _: None, seed=1, data=None, **named):
    encoded, y = data or rows()
    named = {"order": np.arange(len(y)), "threads": 1, **named}
    return fit(encoded, y, Small, parameters, seed=seed, checkpoints=store or Store(), on_epoch=on_epoch, **named)


@pytest.fixture(scope="module")
def fitted():
    return train()


def test_it_learns_and_predicts_probabilities(fitted):
    encoded, y = rows(seed=5)
    p = fitted.predict(encoded)
    assert p.dtype == np.float64 and p.shape == (1200,) and ((p > 0) & (p < 1)).all()
    assert auc(y, p) > 0.75
    assert abs(p.mean() - y.mean()) < 0.06


def test_each_epoch_is_reported_with_its_losses(fitted):
    seen = []
    again = train(on_epoch=seen.append)
    assert [epoch.epoch for epoch in seen] == [1, 2, 3] and seen == list(again.history)
    assert seen[-1].train_loss < seen[0].train_loss and seen[-1].valid_auc > 0.7 and seen[0].seconds > 0


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(fitted):
    assert train().weights_digest == fitted.weights_digest
    assert train(seed=2).weights_digest != fitted.weights_digest
    assert fitted.weights_digest.startswith("sha256:")


def test_two_threads_also_give_the_same_weights_twice():
    assert train(threads=2).weights_digest == train(threads=2).weights_digest


def test_the_callers_random_state_and_settings_come_back():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train()
    assert torch.equal(torch.rand(1), expected) and not torch.are_deterministic_algorithms_enabled()


class Killed(Exception):
    """Stands for a process that ends in the middle."""


@pytest.mark.parametrize(("refit", "at"), [(False, 1), (False, 3), (True, 1), (True, 3), (True, 4)])
def test_a_training_stopped_anywhere_resumes_to_the_very_same_weights(refit, at):
    parameters = {**PARAMETERS, "refit": refit, "patience": 9}
    whole = train(parameters)
    store = Store()

    def stop(epoch):
        if epoch.epoch == at:
            raise Killed

    with pytest.raises(Killed):
        train(parameters, store=store, on_epoch=stop)
    seen = []
    resumed = train(parameters, store=store, on_epoch=seen.append)
    assert resumed.weights_digest == whole.weights_digest
    assert store.steps == list(range(1, len(whole.history) + 1))  # nothing was trained twice
    assert [e.epoch for e in seen] == [e.epoch for e in whole.history]  # and nothing is missing from the curve
    assert without_time(seen) == without_time(whole.history)


DAYS = np.datetime64("2013-01-01", "us") + np.arange(1200) * np.timedelta64(1, "h")


def test_a_training_with_day_effects_resumes_to_the_very_same_weights():
    parameters = {**PARAMETERS, "day_effect": 5.0}
    whole, store = train(parameters, order=DAYS), Store()

    def stop(epoch):
        if epoch.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        train(parameters, order=DAYS, store=store, on_epoch=stop)
    assert train(parameters, order=DAYS, store=store).weights_digest == whole.weights_digest
    assert whole.weights_digest != train(order=DAYS).weights_digest


def test_day_effects_take_up_luck_and_are_not_part_of_the_model(fitted):
    result = train({**PARAMETERS, "day_effect": 5.0}, order=DAYS)
    assert set(result.module.state_dict()) == set(fitted.module.state_dict())


def without_time(history):
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in history]


CHILD = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {root!r})
    from tests.unit.test_torch_training import FileStore, train
    def end(epoch):
        if epoch.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    train(store=FileStore(Path({path!r})), on_epoch=end)
"""


class FileStore:
    """The newest checkpoint in one file."""

    def __init__(self, path):
        self.path = path

    def latest(self):
        return self.path.read_bytes() if self.path.exists() else None

    def save(self, step, data):
        self.path.write_bytes(data)


def test_a_process_killed_in_the_middle_resumes_to_the_very_same_weights(tmp_path, fitted):
    path = tmp_path / "checkpoint"
    root = str(Path(__file__).parents[2])
    code = textwrap.dedent(CHILD.format(root=root, path=str(path)))
    ended = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ended.returncode == -signal.SIGKILL
    assert train(store=FileStore(path)).weights_digest == fitted.weights_digest


@pytest.mark.parametrize("change", [{"rate": 0.02}, {"hidden": 4}])
def test_the_checkpoint_of_another_training_is_not_taken_up(change):
    store = Store()
    train(store=store)
    other = {**PARAMETERS, **change}
    assert train(other, store=store).weights_digest == train(other).weights_digest


def test_a_finished_training_run_again_trains_nothing(fitted):
    store = Store()
    train(store=store)
    assert train(store=store).weights_digest == fitted.weights_digest
    assert store.steps == [1, 2, 3]


def test_a_checkpoint_holds_no_pickled_code():
    store = Store()
    train(store=store)
    assert b"__main__" not in store.data and b"Small" not in store.data


def test_it_stops_early_and_keeps_the_best_weights():
    encoded, y = rows(300)
    noise = np.random.default_rng(0).permutation(y)
    result = train({**PARAMETERS, "epochs": 40, "patience": 2, "rate": 0.05}, data=(encoded, noise))
    losses = [epoch.valid_loss for epoch in result.history]
    assert len(losses) < 40 and len(losses) == result.best_epoch + 2
    assert losses[result.best_epoch - 1] == min(losses)


def test_a_refit_uses_every_row_and_has_no_validation():
    result = train({**PARAMETERS, "refit": True})
    refit = [epoch for epoch in result.history if epoch.valid_loss is None]
    assert len(refit) == result.best_epoch
    assert result.weights_digest != train().weights_digest


def test_the_validation_part_is_the_newest_rows_in_time():
    encoded, y = rows()
    time = np.arange(len(y))
    spoiled = y.copy()
    spoiled[-150:] = 1 - spoiled[-150:]  # the newest eighth turned round
    shuffled = np.random.default_rng(9).permutation(len(y))
    seen = []
    train(data=(encoded.rows(shuffled), spoiled[shuffled]), order=time[shuffled], on_epoch=seen.append)
    assert seen[-1].valid_auc < 0.35


def test_without_an_order_validation_is_drawn_from_all_rows():
    seen = []
    train(order=None, on_epoch=seen.append)
    assert seen[-1].valid_auc > 0.7


def test_calibration_mends_a_network_that_is_too_sure():
    class TooSure(Small):
        def forward(self, categories, numbers):
            members = super().forward(categories, numbers)
            return members if self.training else members * 6 + 2

    encoded, y = rows()
    result = fit(
        encoded, y, TooSure, PARAMETERS, seed=1, order=None, checkpoints=Store(), on_epoch=lambda _: None, threads=1
    )
    assert float(result.module.slope) < 0.8
    assert abs(result.predict(encoded).mean() - y.mean()) < 0.05


def test_the_onnx_graph_agrees_with_torch_on_any_number_of_rows(fitted, tmp_path, capfd):
    path = tmp_path / "model.onnx"
    export_onnx(fitted, path)
    encoded, _ = rows(5000, seed=3)
    assert parity(fitted, path, encoded) < 1e-5
    assert parity(fitted, path, encoded.rows(slice(0, 1))) < 1e-5
    assert capfd.readouterr() == ("", "")


def test_the_onnx_graph_has_the_named_inputs_and_output(fitted, tmp_path):
    import onnxruntime

    export_onnx(fitted, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()] == [
        ("categories", "tensor(int64)", [1]),
        ("numbers", "tensor(float)", [3]),
    ]
    assert [(o.name, o.type, len(o.shape)) for o in session.get_outputs()] == [("probability", "tensor(float)", 1)]


def test_the_onnx_file_is_the_same_each_time_and_names_no_path_of_this_machine(fitted, tmp_path):
    export_onnx(fitted, tmp_path / "a.onnx")
    export_onnx(fitted, tmp_path / "b.onnx")
    data = (tmp_path / "a.onnx").read_bytes()
    assert data == (tmp_path / "b.onnx").read_bytes()
    assert b".py" not in data and str(Path(__file__).parents[2]).encode() not in data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_saved_weights_load_without_pickle_and_predict_the_same(fitted, tmp_path):
    export_native(fitted, tmp_path / "model.pt2")
    state = dict(torch.export.load(tmp_path / "model.pt2").state_dict)
    module = Calibrated(Small((4,), 3))
    module.load_state_dict(state)
    again = Fitted(module, fitted.shape, fitted.best_epoch, ())
    encoded, _ = rows()
    assert again.weights_digest == fitted.weights_digest
    assert np.array_equal(again.predict(encoded), fitted.predict(encoded))


def test_no_rows_give_no_predictions(fitted):
    encoded, _ = rows()
    assert fitted.predict(encoded.rows(slice(0, 0))).shape == (0,)


BAD_TARGETS = {
    "one class": np.zeros(1200),
    "not finite": np.r_[np.nan, np.ones(599), np.zeros(600)],
    "0 or 1": np.r_[2.0, np.ones(599), np.zeros(600)],
    "labels for": np.ones(3),
    "one class only in the validation part": np.r_[np.arange(600) % 2, np.zeros(600)],
}


@pytest.mark.parametrize("words", BAD_TARGETS)
def test_a_target_that_cannot_be_learned_is_refused(words):
    with pytest.raises(UsageError, match=words) as refused:
        train(data=(rows()[0], BAD_TARGETS[words]))
    assert refused.value.where == "target"


def test_encoded_numbers_that_are_not_finite_are_refused():
    encoded, y = rows()
    encoded.numbers[7, 1] = np.inf
    with pytest.raises(UsageError, match="not finite"):
        train(data=(encoded, y))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 2.5}, "epochs"),
        ({"rate": "fast"}, "rate"),
        ({"refit": 1}, "refit"),
        ({"batch": True}, "batch"),
        ({"validation_every": 1}, "validation_every"),
        ({"warmup": 1.0}, "warmup"),
        ({"day_effect": -1.0}, "day_effect"),
        ({"hiden": 8}, "training.parameters"),
    ],
)
def test_an_impossible_parameter_is_refused_with_its_name(change, where):
    with pytest.raises(UsageError) as refused:
        train({**PARAMETERS, **change})
    assert where in refused.value.where


def test_a_training_that_diverges_says_so():
    with pytest.raises(UsageError, match="diverged"):
        train({**PARAMETERS, "rate": 1e30})
