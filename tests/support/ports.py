"""Ports for the servers of the tests."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
FIRST = 12_000


def _ports() -> Iterator[int]:
    """Yield this worker's ports, from a random one on: all below those that the kernel gives to others."""
    end = int(EPHEMERAL.read_text().split()[0]) if EPHEMERAL.exists() else 32_768
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = range(FIRST + worker, end, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    start = random.randrange(len(own))
    return cycle([*own[start:], *own[:start]])


_PORTS = _ports()


def free_port() -> int:
    """Return a port that is free on every address, and that no other call and no other worker returns."""
    for port in _PORTS:
        with socket.socket() as s:
            try:
                s.bind(("", port))
            except OSError:
                continue
        return port
    raise AssertionError("a cycle ends")
