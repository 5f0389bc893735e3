"""Runs gatehouse commands and kills them with SIGKILL at a chosen outside call. Nothing in the product knows of it.

A warm parent imports everything once and forks a child for each command: a fresh process costs three seconds, a fork a
few tenths. In the child, every request to MLflow, every insert into the ledger and every commit of one is an outside
call; it is counted, and the child dies before the chosen one is made, or after it was made and before anybody learns of
it. As a program it reads one JSON object a line: {"argv", "settings", "log", "kill": [number, "before" | "after"] | null},
and answers {"code", "calls"}; a code of -9 is a kill.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path


class Killer:
    """The warm parent, as the tests drive it."""

    def __init__(self, home: Path) -> None:
        self.settings = home / "settings.toml"
        self.log = home / "killer.log"
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=home
        )

    def run(self, *argv: str, kill: tuple[int, str] | None = None) -> tuple[int, int]:
        """Exit code (-9: killed) and the number of outside calls that were begun."""
        order = {"argv": argv, "settings": str(self.settings), "log": str(self.log), "kill": kill}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["code"], answer["calls"]

    def said(self) -> str:
        """What the last command wrote."""
        return self.log.read_text()

    def close(self) -> None:
        """End the parent."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


class Calls:
    """Counts outside calls in memory that outlives the child."""

    def __init__(self, memory: mmap.mmap, kill: list | None) -> None:
        self.memory = memory
        self.number, self.moment = kill or (0, "")
        self.inserted = False

    def around(self, call, *arguments, **more):
        """Make one outside call, unless it is the one to die at."""
        count = struct.unpack("q", self.memory[:8])[0] + 1
        self.memory[:8] = struct.pack("q", count)
        if (count, "before") == (self.number, self.moment):
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*arguments, **more)
        if (count, "after") == (self.number, self.moment):
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def watch(calls: Calls, mlflow: str) -> None:
    """Put the counting around requests to MLflow and writes to the ledger."""
    import requests
    from sqlalchemy.engine.default import DefaultDialect

    send, execute, commit = requests.Session.send, DefaultDialect.do_execute, DefaultDialect.do_commit

    def watched_send(self, request, **more):
        if not request.url.startswith(mlflow) or request.url.endswith("/health"):
            return send(self, request, **more)
        return calls.around(send, self, request, **more)

    def watched_execute(self, cursor, statement, parameters, context=None):
        if "INSERT INTO gatehouse.event" not in statement:
            return execute(self, cursor, statement, parameters, context)
        calls.inserted = True
        return calls.around(execute, self, cursor, statement, parameters, context)

    def watched_commit(self, connection):
        if not calls.inserted:
            return commit(self, connection)
        calls.inserted = False
        return calls.around(commit, self, connection)

    requests.Session.send = watched_send
    DefaultDialect.do_execute = watched_execute
    DefaultDialect.do_commit = watched_commit


def child(order: dict, memory: mmap.mmap) -> None:
    """Become the command."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["GATEHOUSE_SETTINGS"] = order["settings"]
    sys.argv = ["gatehouse", *order["argv"]]
    from pipeline.__main__ import main
    from pipeline.config import load_settings

    watch(Calls(memory, order["kill"]), load_settings(Path(order["settings"])).mlflow.uri)
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def serve() -> None:
    """Fork a child for each line."""
    from tests.warm import warm_up

    warm_up()
    memory = mmap.mmap(-1, 8)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        memory[:8] = struct.pack("q", 0)
        pid = os.fork()
        if pid == 0:
            child(json.loads(line), memory)
        _, status = os.waitpid(pid, 0)
        calls = struct.unpack("q", memory[:8])[0]
        answers.write(json.dumps({"code": os.waitstatus_to_exitcode(status), "calls": calls}) + "\n")
        answers.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    serve()
