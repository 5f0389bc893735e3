#!/usr/bin/env python
"""Requests per second and latency of a model server, beside a bare ASGI app around onnxruntime as the limit.

Both serve the same ONNX graph from one process under the same uvicorn; the bare app takes encoded numbers and
leaves out everything else (types, features, limits, log, identity). One row per request, closed loop, loopback
only. Without ``--package`` a network of the flights model's size is made up.

    scripts/bench/serving.py [--package FOLDER] [--seconds 3] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import psutil
import uvloop
from onnx import TensorProto, helper, numpy_helper

from pipeline.domain.canonical import digest_tree
from pipeline.domain.features import Category, Features, Number, Wave
from pipeline.serving.follower import Wanted
from pipeline.serving.package import load
from pipeline.serving.payload import parse

CONCURRENCIES = (1, 8, 64)
CATEGORIES = (16, 3, 100, 24, 12)
NUMBERS = 20
WARM_SECONDS = 0.5


# --- servers --------------------------------------------------------------------------------------------------


def serve_gatehouse(package: Path, store: Path) -> None:
    """The model server as it is, following a constant."""
    from pipeline.serving.server import serve

    def fetch(wanted: Wanted, folder: Path) -> None:
        shutil.copytree(wanted.source, folder, dirs_exist_ok=True)

    wanted = Wanted("1", digest_tree(package), "bench", str(package), 1)
    serve(
        "bench",
        "127.0.0.1",
        0,
        store,
        lambda: wanted,
        fetch,
        announce=lambda url: print(url.rsplit(":", 1)[1], flush=True),
    )


def serve_bare(package: Path) -> None:
    """JSON in, onnxruntime, JSON out."""
    import socket

    import uvicorn

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession((package / "model.onnx").read_bytes(), options)
    kinds = {"categories": np.int64, "numbers": np.float32}

    async def app(_scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        body = json.loads((await receive())["body"])
        feeds = {name: np.array(values, dtype=kinds[name]) for name, values in body.items()}
        (output,) = session.run(["probability"], feeds)
        content = json.dumps({"predictions": output.tolist()}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        log_level="error",
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listening])


class Target(NamedTuple):
    """A running server."""

    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """What it used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def running(*arguments: str) -> Iterator[Target]:
    """A server's process; gives its port and its CPU meter."""
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Target(int(process.stdout.readline()), psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)


# --- load -----------------------------------------------------------------------------------------------------


class Client(asyncio.Protocol):
    """One connection that sends the next request when the answer is there."""

    def __init__(self, request: bytes, until: float, times: list[float]) -> None:
        self._request, self._until, self._times = request, until, times
        self._got = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:  # uvloop's transports are no asyncio.Transport
        """Send the first request."""
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take a whole answer's time; send the next request."""
        self._got += data
        head, gap, body = self._got.partition(b"\r\n\r\n")
        if not gap or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]):
            return
        now = time.perf_counter()
        if not head.startswith(b"HTTP/1.1 200"):
            self._end(RuntimeError(self._got.decode()))
            return
        self._times.append(now - self._began)
        self._got = b""
        if now < self._until:
            self._send()
        else:
            self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Say so if it was not our doing."""
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed the connection"))

    def _end(self, error: Exception | None) -> None:
        if error:
            self.done.set_exception(error)
        else:
            self.done.set_result(None)
        self._transport.close()


async def load_for(port: int, body: bytes, concurrency: int, seconds: float) -> list[float]:
    """Latencies in seconds of every request that `concurrency` connections made in `seconds`."""
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    request = head.encode() + b"\r\n\r\n" + body
    until, times = time.perf_counter() + seconds, list[float]()
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: Client(request, until, times), "127.0.0.1", port))[1]
        for _ in range(concurrency)
    ]
    await asyncio.wait_for(asyncio.gather(*(client.done for client in made)), seconds + 30)
    return times


def wait_ready(port: int, body: bytes) -> None:
    """Send requests until one is answered with 200."""
    deadline = time.monotonic() + 30
    while True:
        try:
            uvloop.run(load_for(port, body, 1, WARM_SECONDS))
        except (RuntimeError, OSError):
            if time.monotonic() > deadline:
                raise
        else:
            return


@dataclass(frozen=True, slots=True)
class Result:
    """One server at one concurrency: latencies in milliseconds, the server's CPU per request in microseconds."""

    server: str
    concurrency: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def measure(server: str, target: Target, body: bytes, concurrency: int, seconds: float) -> Result:
    """Load one server for `seconds`."""
    began, used = time.perf_counter(), target.cpu_seconds()
    times = uvloop.run(load_for(target.port, body, concurrency, seconds))
    per_second = len(times) / (time.perf_counter() - began)
    cpu = (target.cpu_seconds() - used) / len(times)
    ranks = statistics.quantiles(times, n=100)
    return Result(server, concurrency, per_second, ranks[49] * 1e3, ranks[98] * 1e3, cpu * 1e6)


def middle(results: list[Result]) -> Result:
    """The round with the median throughput."""
    return sorted(results, key=lambda result: result.per_second)[len(results) // 2]


# --- a package of the flights model's size ------------------------------------------------------------------------


def made_up_rows(rows: int) -> dict[str, Any]:
    """Columns of random categories and numbers, some of them null."""
    random = np.random.default_rng(7)
    columns: dict[str, Any] = {
        f"c{i}": np.array([f"v{j}" for j in random.integers(0, size, rows)], dtype=object)
        for i, size in enumerate(CATEGORIES)
    }
    for i in range(NUMBERS):
        columns[f"n{i}"] = np.where(random.random(rows) < 0.1, np.nan, random.normal(size=rows))
    columns["hour"] = random.integers(0, 24, rows).astype(float)
    return columns


def graph(cardinalities: tuple[int, ...], width: int) -> bytes:
    """Embeddings of 8, two hidden layers of 128 and 64, random weights."""
    random = np.random.default_rng(7)
    nodes, constants, parts = [], [], ["numbers"]

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weights(name: str, *shape: int) -> str:
        return constant(name, random.normal(0, 0.1, shape).astype(np.float32))

    for i, size in enumerate(cardinalities):
        nodes.append(helper.make_node("Gather", ["categories", constant(f"i{i}", np.int64(i))], [f"code{i}"], axis=1))
        nodes.append(helper.make_node("Gather", [weights(f"table{i}", size, 8), f"code{i}"], [f"part{i}"]))
        parts.append(f"part{i}")
    nodes.append(helper.make_node("Concat", parts, ["x0"], axis=1))
    sizes = [width + 8 * len(cardinalities), 128, 64, 1]
    for i, (before, after) in enumerate(pairwise(sizes)):
        nodes.append(helper.make_node("Gemm", [f"x{i}", weights(f"w{i}", before, after)], [f"y{i}"]))
        nodes.append(helper.make_node("Sigmoid" if after == 1 else "Relu", [f"y{i}"], [f"x{i + 1}"]))
    nodes.append(helper.make_node("Squeeze", [f"x{len(sizes) - 1}", constant("axis", np.array([1]))], ["probability"]))
    inputs = [
        helper.make_tensor_value_info("categories", TensorProto.INT64, ["N", len(cardinalities)]),
        helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["N", width]),
    ]
    outputs = [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])]
    made = helper.make_graph(nodes, "bench", inputs, outputs, constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def make_package(folder: Path) -> None:
    """Write the made-up package."""
    columns = made_up_rows(10_000)
    features = [Category(name) if name[0] == "c" else Number(name) for name in columns if name != "hour"]
    fitted = Features(*features, Wave("hour", 24, harmonics=2)).fit(columns)
    inputs = [{"name": name, "type": kind, "required": True} for name, kind in fitted.inputs.items()]
    row = [columns[name][0] for name in fitted.inputs]
    example = [None if value != value else value for value in row]  # noqa: PLR0124 - NaN
    folder.mkdir()
    (folder / "model.onnx").write_bytes(graph(fitted.cardinalities, fitted.width))
    parts = {
        "transformer.json": fitted.to_json(),
        "signature.json": {"inputs": inputs, "outputs": [{"name": "probability", "type": "double"}]},
        "input_example.json": {"dataframe_split": {"columns": list(fitted.inputs), "data": [example]}},
        "gatehouse.json": {"format": 1, "model": "bench"},
    }
    for name, value in parts.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")


def bodies(package: Path) -> Mapping[str, bytes]:
    """The same one row for both servers: as a client's JSON, and as the bare app's encoded numbers."""
    model = load(package, digest_tree(package))
    split = json.loads((package / "input_example.json").read_bytes())["dataframe_split"]
    record = {"dataframe_records": [dict(zip(split["columns"], split["data"][0], strict=True))]}
    columns = parse(json.dumps(record).encode(), "application/json", model.signature)
    encoded = model.encode(columns)
    bare = {name: np.asarray(getattr(encoded, name)).tolist() for name in model.feeds}
    return {"gatehouse": json.dumps(record).encode(), "bare": json.dumps(bare).encode()}


# --- the run --------------------------------------------------------------------------------------------------


def run(package: Path, scratch: Path, seconds: float, rounds: int) -> list[Result]:
    """Measure both servers in turn, so that both see the same noise."""
    body = bodies(package)
    results: dict[tuple[str, int], list[Result]] = {}
    with (
        running("--as", "gatehouse", "--package", str(package), "--store", str(scratch / "store")) as ours,
        running("--as", "bare", "--package", str(package)) as bare,
    ):
        targets = {"gatehouse": ours, "bare": bare}
        for server, target in targets.items():
            wait_ready(target.port, body[server])
        for _ in range(rounds):
            for concurrency in CONCURRENCIES:
                for server, target in targets.items():
                    result = measure(server, target, body[server], concurrency, seconds)
                    results.setdefault((server, concurrency), []).append(result)
    return [middle(each) for each in results.values()]


def show(results: list[Result]) -> None:
    """A table, with the ratio to the limit."""
    by = {(result.server, result.concurrency): result for result in results}
    head = f"{'concurrency':>11}  {'server':10}{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}"
    print(f"{head}{'CPU us':>8}{'of limit':>10}")
    for concurrency in CONCURRENCIES:
        limit = by["bare", concurrency].per_second
        for server in ("gatehouse", "bare"):
            each = by[server, concurrency]
            print(
                f"{concurrency:>11}  {server:10}{each.per_second:>11,.0f}{each.p50_ms:>9.3f}{each.p99_ms:>9.3f}"
                f"{each.cpu_us:>8.0f}{each.per_second / limit:>10.0%}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--package", type=Path, help="a model package's folder; default: one made up")
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement")
    parser.add_argument("--rounds", type=int, default=3, help="the median round counts")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--as", dest="role", choices=["gatehouse", "bare"], help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "gatehouse":
        serve_gatehouse(options.package, options.store)
    elif options.role == "bare":
        serve_bare(options.package)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            package = options.package or Path(scratch) / "package"
            if options.package is None:
                make_package(package)
            results = run(package, Path(scratch), options.seconds, options.rounds)
        if options.json:
            print(json.dumps({"cores": os.cpu_count(), "results": [asdict(result) for result in results]}))
        else:
            show(results)


if __name__ == "__main__":
    main()
