"""The table of frameworks, estimators and their graphs, models in a process of their own, and locked versions."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import typing
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pipeline.bootstrap import training
from pipeline.bootstrap.scaffold import scaffold
from pipeline.config import load_project
from pipeline.config.project import ProjectSettings
from pipeline.domain import lock
from pipeline.domain.comparison import auc
from pipeline.domain.transformer import Encoded
from pipeline.errors import GatehouseError, PolicyRefused, UsageError
from pipeline.frameworks import estimators, registry
from pipeline.isolation import MODEL, Isolated
from tests.unit.test_torch_training import Store, rows

ROOT = str(Path(__file__).parents[2])


# MLflow's advice on type hints, given wherever it is imported first
pytestmark = pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")


def needs(module, extra):
    return pytest.mark.skipif(find_spec(module) is None, reason=f"needs pip install 'gatehouse[{extra}]'")


def train(name, model, parameters=None, *, data=None, seed=1):
    encoded, y = data or rows()
    return registry.load(name).fit(
        encoded,
        y,
        model,
        parameters or {},
        seed=seed,
        order=np.arange(len(y)),
        checkpoints=Store(),
        on_epoch=lambda _: None,
        threads=2,
    )


def parity(name, fitted, encoded, folder):
    for part in ("package", "native"):
        (folder / part).mkdir()
    framework = registry.load(name)
    framework.export(fitted, folder / "package", folder / "native")
    return framework.parity(fitted, folder / "package", encoded)


def trees(cardinalities, width, **parameters):
    import lightgbm

    return lightgbm.LGBMClassifier(n_estimators=40, **parameters)


def histogram(cardinalities, width, **parameters):
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=40, **parameters)


def pipe(cardinalities, width):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression())


def forest(cardinalities, width):
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(20)


FITTED = [
    pytest.param("lightgbm", trees, marks=needs("lightgbm", "lightgbm")),
    pytest.param("sklearn", histogram, marks=needs("skl2onnx", "sklearn")),
    pytest.param("sklearn", pipe, marks=needs("skl2onnx", "sklearn")),
    pytest.param("sklearn", forest, marks=needs("skl2onnx", "sklearn")),
]


# --- the table ------------------------------------------------------------------------------------------------


def test_the_table_and_the_projects_key_name_the_same_frameworks():
    named = typing.get_args(typing.get_type_hints(ProjectSettings)["framework"])
    assert list(named) == list(registry.FRAMEWORKS)


@pytest.mark.parametrize(
    ("name", "module"), [("keras", "tensorflow"), ("sklearn", "skl2onnx"), ("lightgbm", "lightgbm")]
)
def test_a_missing_library_is_answered_with_the_one_command_that_installs_it(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=module) as refused:
        registry.load(name)
    assert refused.value.fix == f"pip install 'gatehouse[{name}]'"


@pytest.mark.parametrize("name", list(registry.FRAMEWORKS))
def test_a_new_project_in_each_framework_is_a_project_whose_module_runs(name, tmp_path):
    scaffold(tmp_path, "mine", name)
    project = load_project(tmp_path / "mine")
    assert project.settings.framework == name
    assert callable(project.function("model"))
    assert ("torch" in project.files["mine.py"]) == (name == "torch")


def test_an_unknown_framework_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match="caffe"):
        scaffold(tmp_path, "mine", "caffe")
    assert not list(tmp_path.iterdir())


# --- estimators -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "model"), FITTED)
def test_it_learns_and_the_graph_answers_the_same(name, model, tmp_path):
    fitted = train(name, model)
    encoded, y = rows(seed=9)
    assert auc(y, fitted.predict(encoded)) > 0.75
    assert parity(name, fitted, encoded, tmp_path) <= 1e-5
    assert [epoch.valid_auc is None for epoch in fitted.history] == [False, True]


def test_a_threshold_rounded_down_splits_float32_numbers_as_before():
    numbers = (np.float32(0.7).view(np.int32) + np.arange(9, dtype=np.int32)).view(np.float32)
    numbers = np.concatenate([-numbers, [np.float32(0)], numbers])
    between = (numbers[:-1].astype(np.float64) + numbers[1:].astype(np.float64)) / 2
    for threshold in (*between, *numbers.astype(np.float64)):
        rounded = estimators.down([threshold])[0]
        assert rounded == np.float32(rounded)
        assert ((numbers <= threshold) == (numbers <= rounded)).all()


@pytest.mark.parametrize(("name", "model"), FITTED[:2])
def test_splits_between_neighbouring_floats_stay_where_they_are(name, model, tmp_path):
    random = np.random.default_rng(0)
    steps = random.integers(0, 8, (4000, 3))
    grid = (np.float32(0.7).view(np.int32) + np.arange(8, dtype=np.int32)).view(np.float32)
    encoded = Encoded(np.zeros((4000, 1), np.int64), grid[steps])
    y = ((steps.sum(axis=1) % 4 < 2) ^ (random.random(4000) < 0.1)).astype(np.int64)
    fitted = train(name, model, data=(encoded, y))
    assert fitted.predict(encoded).std() > 0.02
    assert parity(name, fitted, encoded, tmp_path) <= 1e-5


@pytest.mark.parametrize(("name", "model"), [FITTED[0], FITTED[1]])
def test_a_fresh_process_makes_the_same_weights(name, model):
    code = f"""
        import sys
        sys.path.insert(0, {ROOT!r})
        from tests.unit import test_frameworks as here
        print(here.train({name!r}, here.{model.__name__}).weights_digest)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == train(name, model).weights_digest, done.stderr
    assert train(name, model, data=rows(seed=4)).weights_digest != done.stdout.strip()


@needs("skl2onnx", "sklearn")
def test_an_estimator_without_a_form_in_onnx_is_named_with_the_way_out():
    from sklearn.semi_supervised import LabelSpreading

    with pytest.raises(UsageError, match="LabelSpreading") as refused:
        train("sklearn", lambda cardinalities, width: LabelSpreading(), data=rows(300))
    assert "pyfunc" in refused.value.fix


@pytest.mark.parametrize(
    ("name", "model", "parameters", "words"),
    [
        pytest.param("lightgbm", pipe, {}, "LGBMClassifier, not Pipeline", marks=needs("lightgbm", "lightgbm")),
        pytest.param("sklearn", lambda c, w: object(), {}, "fit and predict_proba", marks=needs("skl2onnx", "sklearn")),
        pytest.param("sklearn", histogram, {"unheard_of": 1}, "unheard_of", marks=needs("skl2onnx", "sklearn")),
        pytest.param(
            "sklearn", histogram, {"learning_rate": -1.0}, "learning_rate", marks=needs("skl2onnx", "sklearn")
        ),
        ("pyfunc", lambda c, w: object(), {}, "PythonModel"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_words(name, model, parameters, words):
    with pytest.raises(UsageError, match=words):
        train(name, model, parameters)


# --- a process of its own -------------------------------------------------------------------------------------


def moody(cardinalities, width):
    """A model that does what the first number of the first row says."""
    import os
    import time

    import numpy as np
    from mlflow.pyfunc import PythonModel

    class Moody(PythonModel):
        def fit(self, frame, y):
            self.prior = y.mean()

        def predict(self, context, model_input, params=None):
            mood = float(model_input["number_0"].iloc[0]) if len(model_input) else 0.0
            if mood == 1000:
                time.sleep(600)
            if mood == 1001:
                os._exit(7)
            if mood == 1002:
                return np.array([1.0])
            if mood == 1003:
                return np.full(len(model_input), float("GATEHOUSE_SECRET" in os.environ))
            if mood == 1004:
                raise ValueError("a bad mood")
            print("a model may print what it likes")
            return np.full(len(model_input), self.prior)

    return Moody()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pyfunc")
    for part in ("package", "native"):
        (folder / part).mkdir()
    registry.load("pyfunc").export(train("pyfunc", moody), folder / "package", folder / "native")
    model = folder / "package" / MODEL
    return {path.relative_to(model).as_posix(): path.read_bytes() for path in model.rglob("*") if path.is_file()}


def feeling(mood):
    return Encoded(np.zeros((3, 1), np.int64), np.full((3, 2), mood, np.float32))


def test_an_isolated_model_answers_and_sees_no_secret_of_ours(files, monkeypatch):
    monkeypatch.setenv("GATEHOUSE_SECRET", "s3cret")
    isolated = Isolated(files)
    assert isolated.predict(feeling(0)).shape == (3,)
    assert (isolated.predict(feeling(1003)) == 0).all()
    isolated.close()


def test_an_isolated_model_that_hangs_or_dies_is_killed_and_asked_again(files):
    isolated = Isolated(files)
    isolated.predict(feeling(0))
    for mood, words in ((1001, "it ended"), (1004, "a bad mood"), (1002, "1 numbers for 3 rows")):
        with pytest.raises(GatehouseError, match=words):
            isolated.predict(feeling(mood))
    isolated.predict(feeling(0))
    isolated._answer = 0.3
    child = isolated._held["child"]
    with pytest.raises(GatehouseError, match="in time"):
        isolated.predict(feeling(1000))
    assert child.returncode is not None
    isolated.close()
    assert not isolated._home.exists()


def test_a_package_with_a_pickle_is_loaded_only_where_that_is_allowed():
    from pipeline.serving.contents import Package
    from pipeline.serving.package import Model

    said = {"gatehouse.json": {"isolated": True}, "signature.json": {"inputs": [], "outputs": []}}
    said |= {"transformer.json": {"format": 1, "categories": [], "numbers": [], "waves": [], "bins": []}}
    texts = {name: json.dumps(value).encode() for name, value in (said | {"input_example.json": {}}).items()}
    with pytest.raises(PolicyRefused, match="pickle") as refused:
        Model(Package(texts | {f"{MODEL}/MLmodel": b"never read"}, "sha256:0"))
    assert "production = true" in refused.value.fix


# --- locked versions ------------------------------------------------------------------------------------------

LOCK = """
# made by hand
numpy==2.3.0
Torch == 2.13.0 ; python_version >= "3.8"
pandas>=2  # no pin
old==1.0 ; python_version < "3"
scikit_learn[x]==1.9.1 \\
    --hash=sha256:00
--index-url https://example.org/simple
"""


def test_pins_are_read_and_what_differs_is_named():
    pins = lock.pins(LOCK)
    assert pins == {"numpy": "2.3.0", "torch": "2.13.0", "scikit-learn": "1.9.1"}
    installed = {"numpy": "2.4.6", "torch": "2.13.0+cpu"}
    assert lock.differences(pins, installed.get) == [
        "numpy 2.4.6 is installed, 2.3.0 is locked",
        "scikit-learn is not installed, 1.9.1 is locked",
    ]


def test_a_line_that_is_no_requirement_is_refused_with_its_number():
    with pytest.raises(UsageError, match="numpy = 2"):
        lock.pins("pandas==3.1.1\nnumpy = 2\n")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements.lock"])
def test_training_refuses_an_environment_that_differs_from_the_projects_lock(name, tmp_path):
    scaffold(tmp_path, "mine")
    (tmp_path / "mine" / name).write_text("numpy==1.0.0\n")
    project = load_project(tmp_path / "mine")
    assert project.files[name] == "numpy==1.0.0\n"
    with pytest.raises(UsageError, match=r"numpy \S+ is installed, 1.0.0 is locked") as refused:
        training.require_lock(project)
    assert f"pip install -r {name}" in refused.value.fix
    (tmp_path / "mine" / name).write_text(f"numpy=={np.__version__}\n")
    training.require_lock(load_project(tmp_path / "mine"))
