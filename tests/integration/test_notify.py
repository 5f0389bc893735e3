"""Notifications over real HTTP: a channel that fails, hangs or is away never fails a stage, and is told later."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytestmark = pytest.mark.integration

SECRET = "a-secret-token"


class Receiver:
    """A webhook that can be told how to behave."""

    def __init__(self):
        self.answer, self.hang, self.got = 200, 0.0, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(outer.hang)
                if outer.answer == 200:
                    outer.got.append(json.loads(body))
                self.send_response(outer.answer)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def address(self):
        return f"json://user:{SECRET}@127.0.0.1:{self.server.server_port}/hook"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def told(stack, tmp_path):
    """Settings of the stack with a channel to an address."""

    def write(address, *, mode=0o600, events=""):
        channel = tmp_path / "ops"
        channel.write_text(f"# the operators\n{address}\n")
        channel.chmod(mode)
        file = tmp_path / "settings.toml"
        text = (stack.home / "settings.toml").read_text()
        file.write_text(f'{text}\n[notifications.channels]\nops = "{channel}"\n{events}')
        return file

    return write


def break_half(stack, run, settings, incident):
    """Half a broken glass: an event that people are told about, and that leads to nothing."""
    words = ("--incident", incident, "--reason", "a test", "--demo-identity", "otto")
    return stack.gatehouse("gate", "break-glass", "--run", run, *words, settings=settings)


def outcomes(stack, kind):
    return [row["body"] for row in stack.json("ledger", "show") if row["kind"] == f"notification.{kind}"]


def quiet(stack, told, receiver):
    """Everything that earlier tests left to be told is told, so that a test sees its own message alone."""
    for _ in range(20):
        stack.gatehouse("reconcile", settings=told(receiver.address), expected=(0, 5))
        before = len(receiver.got)
        stack.gatehouse("reconcile", settings=told(receiver.address), expected=(0, 5))
        if len(receiver.got) == before:
            break
    receiver.got.clear()


def test_people_are_told_once_and_the_secret_of_the_address_is_told_to_nobody(stack, staged, receiver, told):
    quiet(stack, told, receiver)
    done = break_half(stack, staged, told(receiver.address), "INC-1")
    (message,) = receiver.got
    assert message["title"].startswith("!!! GLASS BROKEN")
    assert "INC-1" in message["message"]
    assert "ledger anchor " in message["message"]
    stack.gatehouse("reconcile", settings=told(receiver.address), expected=(0, 5))
    assert len(receiver.got) == 1
    shown = done.stdout + done.stderr + stack.gatehouse("ledger", "show", "--json").stdout
    assert SECRET not in shown


@pytest.mark.parametrize("trouble", ["answers 500", "is away", "hangs"])
def test_a_channel_in_trouble_fails_nothing_is_recorded_and_told_nothing_twice(stack, staged, receiver, told, trouble):
    quiet(stack, told, receiver)
    receiver.answer, receiver.hang = (500 if trouble == "answers 500" else 200), (7.0 if trouble == "hangs" else 0.0)
    address = f"json://user:{SECRET}@127.0.0.1:9/" if trouble == "is away" else receiver.address
    before = len(outcomes(stack, "failed"))
    done = break_half(stack, staged, told(address), f"INC {trouble}")
    assert "channel ops was not told" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert len(outcomes(stack, "failed")) == before + 1


def test_a_channels_file_that_others_may_read_is_said_and_not_used(stack, staged, receiver, told):
    done = break_half(stack, staged, told(receiver.address, mode=0o644), "INC-9")
    assert "others may read" in done.stderr
    assert receiver.got == []
