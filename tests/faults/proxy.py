"""A wire that can be cut: a TCP proxy on the loopback address that drops everything from a chosen connection on."""

from __future__ import annotations

import contextlib
import select
import socket
import threading


class Wire:
    """From a port of its own to `target`; cut at the `cut_at`-th connection, in the middle of what it carries."""

    def __init__(self, target: int, cut_at: int) -> None:
        self.target, self.cut_at, self.count = target, cut_at, 0
        self.cut = False
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listening.accept()
                self.count += 1
                if self.count >= self.cut_at:
                    self.cut = True
                threading.Thread(target=self._carry, args=(client, self.count), daemon=True).start()

    def _carry(self, client: socket.socket, number: int) -> None:
        with client, contextlib.suppress(OSError):
            if number > self.cut_at:
                return
            with socket.create_connection(("127.0.0.1", self.target)) as server:
                while True:
                    ready, _, _ = select.select([client, server], [], [], 0.05)
                    if self.cut and number != self.cut_at:
                        return
                    for source in ready:
                        data = source.recv(65536)
                        if not data:
                            return
                        (server if source is client else client).sendall(data)
                        if number == self.cut_at and source is client:
                            return  # what was asked has arrived; its answer never comes back

    def close(self) -> None:
        """Stop listening."""
        self.listening.close()
