"""A warm parent for gatehouse commands: it imports what they import once, and each command is a forked process of its own.

A fresh process spends two seconds on imports, a fork some hundredths; what starts cold is tested where shells, Jenkins,
DVC, Kubeflow and the demo start it. As a program it listens on a Unix socket; a connection is one command.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

MODULES = (
    *("mlflow", "mlflow.artifacts", "mlflow.models", "mlflow.types", "onnxruntime", "sqlalchemy", "psycopg2", "torch"),
    *("torch._inductor", "torch.onnx._internal.exporter._core", "onnxscript", "matplotlib.figure", "pandera.pandas"),
    *("pipeline.cli", "pipeline.bootstrap.steps", "pipeline.bootstrap.decisions", "pipeline.adapters.mlflow_store"),
    *("pipeline.serving.package", "pipeline.adapters.snapshot", "pipeline.bootstrap.training", "model_signing"),
    *("pipeline.bootstrap.evaluation", "pipeline.reports.evidence", "pipeline.bootstrap.audit"),
)


class Warm:
    """The parent, as tests drive it; it ends with them."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="warm-")
        self.address = str(Path(self.folder.name) / "socket")
        words = [sys.executable, __file__, self.address]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process.stdout.read(1)

    def run(self, *argv: str, env: dict[str, str], cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
        """A command to its end, as ``subprocess.run`` gives it."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, socket.socket(socket.AF_UNIX) as line:
            line.settimeout(timeout)
            line.connect(self.address)
            order = json.dumps({"argv": argv, "env": env, "cwd": str(cwd)}).encode()
            socket.send_fds(line, [len(order).to_bytes(8)], [out.fileno(), err.fileno()])
            line.sendall(order)
            code = int(line.makefile().read())
            said = [(stream.seek(0), stream.read().decode())[1] for stream in (out, err)]
        return subprocess.CompletedProcess(argv, code, *said)

    def close(self) -> None:
        """End the parent."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)
        self.folder.cleanup()


def warm_up() -> None:
    """Import what the commands import; start nothing."""
    for name in MODULES:
        importlib.import_module(name)


def command(argv: list[str]) -> None:
    """Become ``gatehouse`` with these words, and end as it ends."""
    from pipeline.__main__ import main

    sys.argv = ["gatehouse", *argv]
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def keep(line: socket.socket) -> None:
    """Read one order, let a child carry it out, and answer its exit code."""
    from pipeline import QUIET

    size, streams, _, _ = socket.recv_fds(line, 8, 2)
    with line.makefile("rb") as stream:
        order = json.loads(stream.read(int.from_bytes(size)))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        for number, stream in enumerate(streams, start=1):
            os.dup2(stream, number)
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["env"] | QUIET)
        command(order["argv"])
    _, status = os.waitpid(pid, 0)
    line.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def serve(address: str) -> None:
    """Fork a keeper for each connection, until whoever started this is gone."""
    warm_up()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        os.write(1, b".")
        while listening in select.select([0, listening], [], [])[0]:
            line, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                keep(line)
            line.close()


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # not the folder of this file, whose names are others
    serve(sys.argv[1])
