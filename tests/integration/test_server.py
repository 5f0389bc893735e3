"""A real model server process: answers, exchanges under load, refuses, restarts, drains."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.adapters.signing import Signer, key_id, sign
from pipeline.domain.canonical import digest_tree
from pipeline.domain.features import Category, Features, Number
from pipeline.embedded.keys import ensure_signing_key
from pipeline.errors import GatehouseError, IntegrityViolated, UsageError
from pipeline.serving.follower import Wanted
from pipeline.serving.package import Model, _load_pyfunc, load
from pipeline.serving.payload import parse
from pipeline.serving.prediction_log import read as read_predictions
from pipeline.serving.signature import Signature
from pipeline.serving.store import rollback_locally

pytestmark = pytest.mark.integration

NAMES = ["carrier", "distance", "hour", "scheduled"]
ROWS: list[list[Any]] = [
    ["UA", 1400.0, 5.0, "2013-07-01T05:15:00"],
    ["B6", None, 23.0, "2013-07-01T23:59:00"],
    ["??", 200.0, 12.0, "2013-07-02T12:00:00"],
]
RECORDS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
SINGLE = {"dataframe_records": RECORDS[:1]}
SIGNATURE = {
    "inputs": [
        {"name": "carrier", "type": "string", "required": True},
        {"name": "distance", "type": "double", "required": True},
        {"name": "hour", "type": "double", "required": True},
    ],
    "outputs": [{"name": "probability", "type": "double"}],
}
# MLflow warns about its own type hints when it is imported.
MLFLOWS_OWN_WARNINGS = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")
EVER = (datetime(1970, 1, 1), datetime(2100, 1, 1))

SERVER = """
import json, shutil, sys
from pathlib import Path
from pipeline.domain.features import Category, Features, Number
from pipeline.errors import GatehouseError, Unreachable
from pipeline.serving.app import Limits
from pipeline.serving.follower import Wanted
from pipeline.serving.server import serve

world = Path(sys.argv[1])

def wanted():
    control = json.loads((world / "control.json").read_text())
    if control["down"]:
        raise Unreachable("the control plane is down")
    return Wanted(**control["wanted"]) if control["wanted"] else None

def fetch(wanted, folder):
    shutil.copytree(wanted.source, folder, dirs_exist_ok=True)

def signed(folder, package, signature):
    from pipeline.adapters.signing import verify
    return verify(folder, signature, sorted((world / "trusted").iterdir()), package)

try:
    serve("staging", "127.0.0.1", 0, world / "store", wanted, fetch,
          verify=signed if (world / "trusted").exists() else None, limits=Limits(body_bytes=1 << 20, rows=2_000),
          announce=lambda url: print(url, flush=True))
except GatehouseError as error:
    sys.exit(f"{error.family}: {error.what}")
"""


TRANSFORMER = Features(Category("carrier"), Number("distance"), Number("hour")).fit(
    {
        "carrier": np.array(["UA", "B6", "UA"], dtype=object),
        "distance": np.array([200.0, 1000.0, 2400.0]),
        "hour": np.array([5.0, 12.0, 23.0]),
    }
)


def graph(bias: float) -> bytes:
    """``sigmoid(0.3 * carrier code + numbers @ weights + bias)``."""
    weights = np.array([[0.4], [0.6]], dtype=np.float32)
    nodes = [
        helper.make_node("Cast", ["categories"], ["codes"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["codes", "of_codes"], ["a"]),
        helper.make_node("MatMul", ["numbers", "of_numbers"], ["b"]),
        helper.make_node("Sum", ["a", "b", "bias"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["probability"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.array([[0.3]], dtype=np.float32), "of_codes"),
        onnx.numpy_helper.from_array(weights, "of_numbers"),
        onnx.numpy_helper.from_array(np.array([bias], dtype=np.float32), "bias"),
        onnx.numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
    ]
    inputs = [
        helper.make_tensor_value_info("categories", TensorProto.INT64, ["N", 1]),
        helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["N", 2]),
    ]
    outputs = [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])]
    made = helper.make_graph(nodes, "small", inputs, outputs, constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def make_package(folder: Path, bias: float, **replaced: bytes) -> str:
    """Write a whole package; answers its digest."""
    folder.mkdir(parents=True)
    example = {"dataframe_split": {"columns": NAMES, "data": ROWS[:1]}}
    info = {"format": 1, "model": "flights", "framework": "torch", "target": "late", "time": "scheduled"}
    files = {
        "model.onnx": graph(bias),
        "transformer.json": json.dumps(TRANSFORMER.to_json()).encode(),
        "signature.json": json.dumps(SIGNATURE).encode(),
        "input_example.json": json.dumps(example).encode(),
        "gatehouse.json": json.dumps(info).encode(),
        **{name.replace("_", ".", 1) if name == "model_onnx" else name: data for name, data in replaced.items()},
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return digest_tree(folder)


class World:
    """A control plane and a registry on disk, and the server's process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.serial = 0
        self.control: dict[str, Any] = {"down": False, "wanted": None}
        self.process: subprocess.Popen[str] | None = None
        self.address = ("", 0)
        self._write()
        (folder / "serve.py").write_text(SERVER)

    def package(self, version: str, bias: float) -> Wanted:
        folder = self.folder / f"registry {version}"
        return Wanted(version, make_package(folder, bias), f"flights-{version}", str(folder), 0)

    def want(self, wanted: Wanted) -> None:
        self.serial += 1
        self.control["wanted"] = {**asdict(wanted), "serial": self.serial}
        self._write()

    def take_down_control_plane(self) -> None:
        self.control["down"] = True
        self._write()

    def _write(self) -> None:
        making = self.folder / "control.new"
        making.write_text(json.dumps(self.control))
        making.rename(self.folder / "control.json")

    def start(self) -> None:
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(self.folder / "serve.py"), str(self.folder)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        parts = urlsplit(self.process.stdout.readline().strip())
        assert parts.hostname, (self.folder / "server.log").read_text()
        self.address = (parts.hostname, parts.port or 0)

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(40)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address, timeout=30)

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Answer:
        connection = self.connect()
        try:
            return ask(connection, method, path, body, kind)
        finally:
            connection.close()

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask ``/version`` again and again until it says what is expected."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            _, _, said = self.ask("GET", "/version")
            if holds(said):
                return dict(said)
        raise AssertionError(f"still {said}; {(self.folder / 'server.log').read_text()}")

    def serves(self, wanted: Wanted) -> dict[str, Any]:
        return self.until(lambda said: said["package"] == wanted.digest)


Answer = tuple[int, dict[str, str], Any]


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, kind: str = "application/json"
) -> Answer:
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, content, {"Content-Type": kind})
    response = connection.getresponse()
    text = response.read()
    return (
        response.status,
        {name.lower(): value for name, value in response.getheaders()},
        json.loads(text.strip() or "null"),
    )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    if made.process is not None:
        made.end(signal.SIGKILL)


def direct(wanted: Wanted, rows: list[list[Any]] = ROWS) -> list[float]:
    """What the package predicts without a server."""
    model = load(Path(wanted.source), wanted.digest)
    body = json.dumps({"dataframe_split": {"columns": NAMES, "data": rows}}).encode()
    return [float(value) for value in model.predict(parse(body, "", model.signature))]


# --- answering ------------------------------------------------------------------------------------------------


def test_every_payload_form_answers_what_the_package_predicts(world: World) -> None:
    one = world.package("1", -1.0)
    world.want(one)
    world.start()
    world.serves(one)
    csv = "\n".join([",".join(NAMES), *(",".join("" if v is None else str(v) for v in row) for row in ROWS)])
    columns = {name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}
    forms = [
        ({"dataframe_split": {"columns": NAMES, "data": ROWS}}, "application/json"),
        ({"dataframe_records": RECORDS}, "application/json"),
        ({"inputs": columns}, "application/json"),
        ({"instances": RECORDS}, "application/json"),
        (csv.encode(), "text/csv"),
    ]

    for body, kind in forms:
        status, headers, said = world.ask("POST", "/invocations", body, kind)

        assert (status, said) == (200, {"predictions": direct(one)})
        assert headers["x-gatehouse-digest"] == one.digest
        assert headers["x-gatehouse-version"] == "1"


def test_a_large_request_answers_what_the_package_predicts(world: World) -> None:
    one = world.package("1", -1.0)
    world.want(one)
    world.start()
    world.serves(one)
    rows = ROWS * 600

    status, _, said = world.ask("POST", "/invocations", {"dataframe_split": {"columns": NAMES, "data": rows}})

    assert (status, said) == (200, {"predictions": direct(one, rows)})


def test_bad_requests_are_answered_in_json_and_harm_nothing(world: World) -> None:
    one = world.package("1", -1.0)
    world.want(one)
    world.start()
    world.serves(one)
    too_many = {"dataframe_records": RECORDS * 700}
    bad = [
        ("POST", "/invocations", b"{", "application/json", 400, "BAD_REQUEST"),
        ("POST", "/invocations", {"inputs": {}}, "application/json", 400, "BAD_REQUEST"),
        ("POST", "/invocations", {"dataframe_records": [{"carrier": 5}]}, "application/json", 400, "BAD_REQUEST"),
        ("POST", "/invocations", b"a", "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "/invocations", b" " * ((1 << 20) + 1), "application/json", 413, "BODY_TOO_LARGE"),
        ("POST", "/invocations", too_many, "application/json", 413, "TOO_MANY_ROWS"),
        ("GET", "/invocations", None, "application/json", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/nothing", None, "application/json", 404, "ENDPOINT_NOT_FOUND"),
    ]

    for method, path, body, kind, status, code in bad:
        got, headers, said = world.ask(method, path, body, kind)
        assert (got, said["error_code"]) == (status, code)
        assert sorted(said) == ["error_code", "message"]
        assert headers["x-gatehouse-digest"] == one.digest
    assert world.ask("POST", "/invocations", SINGLE)[0] == 200
    assert "Traceback" not in (world.folder / "server.log").read_text()


def test_before_anything_is_wanted_it_is_alive_but_not_ready(world: World) -> None:
    world.start()

    assert world.ask("GET", "/ping")[0] == 503
    assert world.ask("POST", "/invocations", SINGLE)[0] == 503
    assert world.until(lambda said: said["control_plane"] == "reachable")["state"] == "empty"

    one = world.package("1", -1.0)
    world.want(one)
    said = world.serves(one)
    assert world.ask("GET", "/ping")[0] == 200
    assert world.ask("GET", "/health")[0] == 200
    assert (said["environment"], said["model"], said["version"], said["run"]) == (
        "staging", "flights", "1", "flights-1",
    )  # fmt: skip


# --- exchanging -----------------------------------------------------------------------------------------------


def test_an_exchange_under_load_fails_no_request_and_mixes_no_answer(world: World) -> None:
    one, two = world.package("1", -1.0), world.package("2", 1.0)
    expected = {one.digest: direct(one)[:1], two.digest: direct(two)[:1]}
    world.want(one)
    world.start()
    world.serves(one)
    stop, seen, wrong = threading.Event(), [0] * 4, []

    def client(number: int) -> None:
        connection = world.connect()
        try:
            while not stop.is_set():
                status, headers, said = ask(connection, "POST", "/invocations", SINGLE)
                if status != 200 or said != {"predictions": expected[headers["x-gatehouse-digest"]]}:
                    wrong.append((status, headers, said))
                seen[number] += 1
        except (OSError, http.client.HTTPException, LookupError, ValueError) as error:
            wrong.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(seen))]
    for thread in threads:
        thread.start()
    try:
        for turn in range(5):
            before = list(seen)
            wanted = one if turn % 2 else two
            world.want(wanted)
            world.serves(wanted)
            assert world.ask("POST", "/invocations", SINGLE)[1]["x-gatehouse-digest"] == wanted.digest
            while not wrong and any(now < then + 20 for now, then in zip(seen, before, strict=True)):
                world.ask("GET", "/ping")
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert wrong == []
    assert min(seen) >= 100


def test_a_tampered_package_is_refused_and_the_old_one_goes_on(world: World) -> None:
    one, two = world.package("1", -1.0), world.package("2", 1.0)
    (Path(two.source) / "model.onnx").write_bytes(graph(99.0))
    world.want(one)
    world.start()
    world.serves(one)

    world.want(two)

    said = world.until(lambda said: said["failed"] is not None)
    assert said["failed"]["digest"] == two.digest
    assert said["package"] == one.digest
    assert world.ask("POST", "/invocations", SINGLE)[2] == {"predictions": direct(one)[:1]}


class Signers:
    """Keys that sign, and those whose public half the server holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "trusted").mkdir()

    def make(self, name: str, *, trusted: bool = True) -> Signer:
        private, public = ensure_signing_key(self.folder / name)
        if trusted:
            shutil.copy(public, self.folder / "trusted" / f"{name}.pem")
        return Signer(str(private))

    def signed(self, wanted: Wanted, signer: Signer) -> Wanted:
        scratch = self.folder / f"scratch {len(list(self.folder.iterdir()))}"
        scratch.mkdir()
        return replace(wanted, signature=sign(Path(wanted.source), signer, scratch))


def test_only_what_a_trusted_key_signed_is_loaded_also_from_the_servers_own_disk(world: World) -> None:
    signers = Signers(world.folder)
    old, attacker = signers.make("old"), signers.make("attacker", trusted=False)
    one, two = world.package("1", -1.0), world.package("2", 1.0)
    good = signers.signed(one, old)
    world.want(good)
    world.start()
    assert world.serves(one)["signed_by"] == key_id(old)
    for bad in (two, signers.signed(two, attacker), replace(two, signature=good.signature)):
        world.want(bad)
        said = world.until(lambda said: (said["failed"] or {}).get("digest") == two.digest)
        assert "sign" in said["failed"]["reason"]
        assert said["package"] == one.digest
        assert world.ask("POST", "/invocations", SINGLE)[2] == {"predictions": direct(one)[:1]}

    world.want(good)
    world.until(lambda said: said["failed"] is None)
    world.take_down_control_plane()
    world.end(signal.SIGTERM)
    world.start()
    said = world.serves(one)
    assert (said["control_plane"] != "reachable", said["signed_by"]) == (True, key_id(old))

    world.end(signal.SIGTERM)
    (world.folder / "trusted" / "old.pem").unlink()
    new = signers.make("new")
    world.start()
    said = world.until(lambda said: said["damage"])
    assert (said["package"], said["signed_by"], "signature" in said["damage"]) == (None, None, True)
    world.control["down"] = False
    world.want(signers.signed(one, new))
    assert world.serves(one)["signed_by"] == key_id(new)


def test_a_restart_needs_no_control_plane_and_going_back_neither(world: World) -> None:
    one, two = world.package("1", -1.0), world.package("2", 1.0)
    world.want(one)
    world.start()
    world.serves(one)
    world.want(two)
    world.serves(two)
    world.take_down_control_plane()
    world.end(signal.SIGTERM)

    world.start()
    assert world.ask("POST", "/invocations", SINGLE)[2] == {"predictions": direct(two)[:1]}
    said = world.until(lambda said: said["control_plane"].startswith("unreachable since 2"))
    assert (said["package"], said["previous"]) == (two.digest, one.digest)

    rollback_locally(world.folder / "store", "answers nonsense", "operator")
    assert world.serves(one)["override"]["reason"] == "answers nonsense"
    assert world.ask("POST", "/invocations", SINGLE)[2] == {"predictions": direct(one)[:1]}


# --- ending ---------------------------------------------------------------------------------------------------


def test_kill_9_and_restart_serves_the_same(world: World) -> None:
    one = world.package("1", -1.0)
    world.want(one)
    world.start()
    world.serves(one)
    before = world.ask("POST", "/invocations", SINGLE)
    world.until(lambda said: said["predictions"]["written"] == 1)
    world.end(signal.SIGKILL)
    world.take_down_control_plane()

    world.start()

    assert world.ask("POST", "/invocations", SINGLE)[2] == before[2]
    assert read_predictions(world.folder / "store" / "predictions", *EVER).num_rows >= 1


def test_sigterm_finishes_the_request_in_flight_and_writes_the_log(world: World) -> None:
    one = world.package("1", -1.0)
    world.want(one)
    world.start()
    world.serves(one)
    body = json.dumps(SINGLE).encode()
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    with ExitStack() as stack:
        flying = stack.enter_context(socket.create_connection(world.address, timeout=30))
        flying.sendall(head.encode())
        assert flying.recv(1000).startswith(b"HTTP/1.1 100")
        assert world.process is not None

        world.process.send_signal(signal.SIGTERM)
        while accepts(world.address):
            pass
        flying.sendall(body)

        answer = b"".join(iter(lambda: flying.recv(10_000), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1]) == {"predictions": direct(one)[:1]}
    assert world.end(0) == 0
    table = read_predictions(world.folder / "store" / "predictions", *EVER)
    assert table["_package"].to_pylist() == [one.digest]
    assert table["_event_time"].to_pylist() == [datetime(2013, 7, 1, 5, 15)]


def accepts(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def test_a_second_server_on_the_same_store_is_refused(world: World) -> None:
    world.start()

    second = subprocess.run(
        [sys.executable, str(world.folder / "serve.py"), str(world.folder)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert second.stderr == "bad input: another model server uses this store\n"


# --- packages -------------------------------------------------------------------------------------------------


def test_a_package_is_refused_before_anything_of_it_is_parsed(tmp_path: Path) -> None:
    digest = make_package(tmp_path / "package", -1.0)
    (tmp_path / "package" / "gatehouse.json").write_text("{ not json")

    with pytest.raises(IntegrityViolated):
        load(tmp_path / "package", digest)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("transformer.json", b"{}", "transformer format"),
        ("signature.json", b'{"inputs": [{"name": "x"}]}', "name and type"),
        ("model_onnx", b"not a model", "cannot be loaded"),
        ("model_onnx", graph(float("nan")), "not finite"),
        ("input_example.json", b'{"dataframe_records": [{"carrier": "UA"}]}', "its own input example"),
    ],
)
def test_a_package_that_cannot_answer_its_example_is_refused(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    digest = make_package(tmp_path / "package", -1.0, **{name: data})

    with pytest.raises(GatehouseError, match=says):
        load(tmp_path / "package", digest)


def test_an_incomplete_package_is_refused_by_name(tmp_path: Path) -> None:
    make_package(tmp_path / "package", -1.0)
    (tmp_path / "package" / "signature.json").unlink()

    with pytest.raises(UsageError, match=r"lacks signature\.json"):
        load(tmp_path / "package", digest_tree(tmp_path / "package"))


def test_tensors_outside_the_package_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(np.array([1.0], dtype=np.float32).tobytes())
    model = onnx.load_from_string(graph(0.0))
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "bias")
    onnx.external_data_helper.set_external_data(bias, os.fspath(tmp_path / "secret"))
    bias.ClearField("raw_data")
    bias.data_location = TensorProto.EXTERNAL
    digest = make_package(tmp_path / "package", 0.0, model_onnx=model.SerializeToString())

    with pytest.raises(IntegrityViolated, match="another file"):
        load(tmp_path / "package", digest)


@MLFLOWS_OWN_WARNINGS
def test_mlflow_loads_the_package_and_predicts_the_same(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    import pandas as pd
    from mlflow.models import Model as MlflowModel

    wanted = Wanted("1", make_package(tmp_path / "model" / "package", -1.0), "", str(tmp_path / "model" / "package"), 1)
    flavour = MlflowModel()
    flavour.add_flavor("python_function", loader_module="pipeline.serving.package", data="package")
    flavour.save(str(tmp_path / "model" / "MLmodel"))

    predicted = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(pd.DataFrame(RECORDS))

    assert predicted.tolist() == direct(wanted)
    assert _load_pyfunc(wanted.source).predict(pd.DataFrame(RECORDS)).tolist() == direct(wanted)


@MLFLOWS_OWN_WARNINGS
def test_payloads_are_read_as_mlflow_reads_them() -> None:
    from mlflow.models.utils import _enforce_schema
    from mlflow.pyfunc.scoring_server import infer_and_parse_data
    from mlflow.types import ColSpec, Schema

    schema = Schema([ColSpec(entry["type"], entry["name"]) for entry in SIGNATURE["inputs"]])
    signature = Signature.from_json(SIGNATURE)
    columns = {name: [row[i] for row in ROWS[::2]] for i, name in enumerate(NAMES)}
    for payload in (
        {"dataframe_split": {"columns": NAMES, "data": ROWS}},
        {"dataframe_records": RECORDS},
        {"inputs": columns},
        {"instances": RECORDS[::2]},
    ):
        frame = _enforce_schema(infer_and_parse_data(json.loads(json.dumps(payload)), schema), schema)
        ours = parse(json.dumps(payload).encode(), "", signature)
        np.testing.assert_array_equal(ours["distance"], frame["distance"].to_numpy())
        assert ours["carrier"].tolist() == frame["carrier"].tolist()


def test_a_model_answers_from_several_threads_at_once(tmp_path: Path) -> None:
    model = load(tmp_path / "package", make_package(tmp_path / "package", -1.0))
    body = json.dumps({"dataframe_records": RECORDS * 200}).encode()
    columns = parse(body, "", model.signature)
    expected = model.predict(columns)
    same: list[bool] = []

    def work(model: Model) -> None:
        same.append(all(np.array_equal(model.predict(columns), expected) for _ in range(50)))

    threads = [threading.Thread(target=work, args=(model,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert same == [True] * 4
