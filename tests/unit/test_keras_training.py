"""Keras training: what whoever starts, kills, resumes, exports or reproduces one notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pipeline.domain.comparison import auc
from pipeline.errors import UsageError
from pipeline.frameworks import registry
from tests.unit.test_torch_training import FileStore, Store, rows

# Looked for and not imported: the registry sets TensorFlow's environment first.
pytestmark = [
    pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs pip install 'gatehouse[keras]'"),
    pytest.mark.filterwarnings("ignore"),  # TensorFlow's own, at import
]
PARAMETERS = {"epochs": 3, "batch": 64, "rate": 0.01, "refit": True, "hidden": 8}
ROOT = str(Path(__file__).parents[2])


def small(cardinalities, width, *, hidden=8, odd=False):
    """One embedding, one hidden layer with dropout."""
    import keras
    import tensorflow as tf

    class Odd(keras.layers.Layer):
        def call(self, x):
            return tf.raw_ops.Betainc(a=tf.abs(x) + 1, b=tf.abs(x) + 1, x=tf.sigmoid(x))

    categories = keras.Input((len(cardinalities),), dtype="int64")
    numbers = keras.Input((width,))
    named = keras.layers.Embedding(cardinalities[0], 2)(categories[:, 0])
    state = keras.layers.Dense(hidden, activation="relu")(keras.layers.Concatenate()([named, numbers]))
    state = keras.layers.Dropout(0.2)(keras.layers.BatchNormalization()(state))
    return keras.Model([categories, numbers], keras.layers.Dense(1)(Odd()(state) if odd else state))


def train(parameters=PARAMETERS, *, store=None, on_epoch=lambda _: None, seed=1, model=small):
    encoded, y = rows()
    return registry.load("keras").fit(
        encoded,
        y,
        model,
        parameters,
        seed=seed,
        order=np.arange(len(y)),
        checkpoints=store or Store(),
        on_epoch=on_epoch,
        threads=2,
    )


def exported(fitted, folder):
    for name in ("package", "native"):
        (folder / name).mkdir()
    registry.load("keras").export(fitted, folder / "package", folder / "native")
    return folder / "package" / "model.onnx"


@pytest.fixture(scope="module")
def fitted():
    return train()


def child(code, *words, **env):
    code = f"import sys\nsys.path.insert(0, {ROOT!r})\n" + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", code, *words], check=False, capture_output=True, text=True, env={**os.environ, **env}
    )


def test_it_learns_and_says_what_it_saw(fitted):
    encoded, y = rows(seed=9)
    assert auc(y, fitted.predict(encoded)) > 0.7
    searched = [epoch for epoch in fitted.history if epoch.valid_auc is not None]
    assert len(searched) == 3
    assert len(fitted.history) == 3 + fitted.best_epoch  # the refit on all rows


def test_the_graph_answers_as_keras_does(fitted, tmp_path):
    path = exported(fitted, tmp_path)
    encoded, _ = rows(500, seed=3)
    assert registry.load("keras").parity(fitted, path.parent, encoded) <= 1e-5
    one = encoded.rows(slice(0, 1))
    assert registry.load("keras").parity(fitted, path.parent, one) <= 1e-5


FRESH = """
    import hashlib
    from pathlib import Path
    from tests.unit.test_keras_training import exported, train
    fitted = train()
    print(fitted.weights_digest, hashlib.sha256(exported(fitted, Path(sys.argv[1])).read_bytes()).hexdigest())
"""


def test_two_fresh_processes_make_the_same_weights_and_the_same_graph(fitted, tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(2) as both:
        one, other = both.map(lambda folder: child(FRESH, str(folder)), folders)
    assert one.stdout.split()[0] == fitted.weights_digest, one.stderr
    assert one.stdout == other.stdout


def test_a_process_killed_in_the_middle_resumes_to_the_very_same_weights(fitted, tmp_path):
    path = tmp_path / "checkpoint"
    done = child(
        """
        import os, signal
        from pathlib import Path
        from tests.unit.test_keras_training import FileStore, train
        def end(epoch):
            if epoch.epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        train(store=FileStore(Path(sys.argv[1])), on_epoch=end)
        """,
        str(path),
        HOME=str(tmp_path),
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / ".keras").exists()  # nothing is left in the home directory
    seen = []
    assert train(store=FileStore(path), on_epoch=seen.append).weights_digest == fitted.weights_digest
    assert [epoch.epoch for epoch in seen] == [epoch.epoch for epoch in fitted.history]


def test_the_checkpoint_of_another_training_is_not_taken_up(fitted):
    store = Store()
    train({**PARAMETERS, "epochs": 1, "refit": False}, store=store)
    assert train(store=store).weights_digest == fitted.weights_digest
    store.data = b"no archive of numpy's"
    assert train(store=store).weights_digest == fitted.weights_digest


def test_another_seed_makes_other_weights(fitted):
    assert train(seed=2).weights_digest != fitted.weights_digest


def test_an_operator_that_onnx_does_not_know_is_named_with_the_way_out(tmp_path):
    fitted = train({**PARAMETERS, "epochs": 1, "refit": False}, model=partial(small, odd=True))
    with pytest.raises(UsageError, match="Betainc") as refused:
        exported(fitted, tmp_path)
    assert "pyfunc" in refused.value.fix


@pytest.mark.parametrize(
    ("parameters", "model", "words"),
    [
        ({"epochs": 0}, small, "out of its range"),
        ({"epochs": 2.5}, small, "must be int"),
        ({"unheard_of": 1}, small, "unheard_of"),
        ({"epochs": 1}, lambda cardinalities, width: None, "keras.Model"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_words(parameters, model, words):
    with pytest.raises(UsageError, match=words):
        train(parameters, model=model)
