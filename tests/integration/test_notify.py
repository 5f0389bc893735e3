"""Notifications over real HTTP: a channel that fails, hangs or is away never fails a stage, and is told later."""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.adapters import notifier
from pipeline.domain.notices import Message
from pipeline.errors import Unreachable, UsageError

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


# --- the adapter alone --------------------------------------------------------------------------------------


@pytest.fixture
def dripping():
    """A server that never comes to the end of its answer."""
    over = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not over.wait(0.1):
                connection.sendall(b"x")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"json://127.0.0.1:{listening.getsockname()[1]}/"
    over.set()
    thread.join()
    listening.close()


def test_a_server_that_answers_a_byte_at_a_time_is_not_waited_for(dripping):
    began = time.monotonic()
    with pytest.raises(Unreachable, match="did not answer"):
        notifier.send("ops", 1, dripping, Message("t", "x"), seconds=1.0)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("option", ["optional=yes", "redirect=yes", "retry=5&wait=2"])
def test_no_option_of_an_address_makes_a_refusal_pass_for_a_delivery(receiver, option):
    receiver.answer = 302 if option.startswith("redirect") else 500
    with pytest.raises(Unreachable, match=r"answered HTTP|did not answer") as raised:
        notifier.send("ops", 1, f"{receiver.address}?{option}", Message("t", "x"), seconds=2.0)
    assert SECRET not in str(raised.value) + raised.value.where


@pytest.fixture
def log(monkeypatch):
    """Everything that reaches the log, were it at debug level. (caplog also hears loggers that nobody listens to.)"""
    text, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(text)
    monkeypatch.setattr(root, "level", logging.DEBUG)
    monkeypatch.setattr(root, "handlers", [handler])
    logging.getLogger("urllib3.connectionpool").manager._clear_cache()
    return text


def test_neither_a_log_nor_an_error_holds_an_address(receiver, log, tmp_path):
    logging.getLogger("urllib3").debug("heard")
    notifier.send("ops", 1, f"{receiver.address}/{SECRET}", Message("t", "x"))
    with pytest.raises(UsageError, match="knows no such address"):
        notifier.send("ops", 1, f"nonsense://{SECRET}", Message("t", "x"))
    latin = tmp_path / "latin"
    latin.write_bytes(f"json://user:{SECRET}\xe4@127.0.0.1/".encode("latin-1"))
    latin.chmod(0o600)
    with pytest.raises(UsageError, match="not UTF-8"):
        notifier.addresses(latin)
    assert "heard" in log.getvalue()
    assert SECRET not in log.getvalue()


def test_messages_name_no_picture_or_page_on_the_internet(receiver):
    address = f"mmost://127.0.0.1:{receiver.server.server_port}/3ccdd113474722377935511fc85d3dd4"
    notifier.send("ops", 1, address, Message("t", "x"))
    assert "http" not in json.dumps(receiver.got)


def test_an_address_that_took_a_message_does_not_get_it_again_because_another_failed(stack, staged, receiver, told):
    quiet(stack, told, receiver)
    settings = told(f"{receiver.address}\njson://user:{SECRET}@127.0.0.1:9/")
    break_half(stack, staged, settings, "INC half")
    assert len(receiver.got) == 1
    assert outcomes(stack, "failed")[-1]["reached"] == [1]
