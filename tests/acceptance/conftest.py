"""The demo runs in a network of its own that has nothing but this machine: whatever looks further is counted by the kernel."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def _alone():
    """Leave the machine's network for an empty one; whether that is allowed here."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as interface:
        fcntl.ioctl(interface, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    return True


class Outside:
    """What processes of this network have tried beyond it."""

    def attempts(self):
        """Packets that found no route (IPv4, IPv6), and datagrams to a name server that is not there."""
        rows = [line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines()]
        found = {}
        for names, values in zip(rows[::2], rows[1::2], strict=True):
            found |= {f"{names[0]}{name}": int(value) for name, value in zip(names[1:], values[1:], strict=True)}
        six = dict(line.split() for line in Path("/proc/self/net/snmp6").read_text().splitlines())
        return found["Ip:OutNoRoutes"] + int(six["Ip6OutNoRoutes"]) + found["Udp:NoPorts"]


@pytest.fixture(scope="session", autouse=True)
def outside():
    """A network without an outside, or None where this user may not make one."""
    return Outside() if _alone() else None


@pytest.fixture
def watched(outside):
    if outside is None:
        pytest.skip(
            f"user {os.geteuid()} may not make a network namespace: run as root to see what the demo connects to"
        )
    return outside
