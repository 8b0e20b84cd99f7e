"""Several listener processes on one port, for machines whose network is faster than one Python process.

The system deals the connections out (SO_REUSEPORT). A loop of the node replaces a child that dies; all of them end with
their parent, also when that is killed, because then their standard input ends. As a program, this file is one of the
children.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime

from node import logs
from node.address import not_listening
from node.fault import shortage
from node.settings import Settings
from plugins.errors import Refused, Unavailable

READY = b"ready\n"
LOOK_SECONDS = 1.0
STOP_SECONDS = 30.0

log = logging.getLogger(__name__)


class ListenerGroup:
    """The listener processes of a node.

    Refuses `no-shared-port` where the system cannot deal connections out, and `bad-settings` when there are more
    processes than associations.
    """

    def __init__(self, settings: Settings) -> None:
        if not (sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT")):
            sentence = (
                "this system cannot deal connections out to several processes; set listener_processes to 1"
            )
            raise Refused("no-shared-port", sentence)
        if settings.listener_processes > settings.max_associations:
            raise Refused("bad-settings", "listener_processes: each needs one of max_associations at least")
        self._settings = settings
        self.port = settings.dicom_port
        self._held: socket.socket | None = None
        self._children: list[tuple[Settings, subprocess.Popen[bytes]]] = []
        self._turn = threading.Lock()

    def start(self) -> None:
        """Start them; returns when all answer. Raises Unavailable when the port is taken or one does not start."""
        if self._settings.plain_dicom:
            self._held = _hold(self._settings.dicom_host, self._settings.dicom_port)
            self.port = self._held.getsockname()[1]
        for share in _shares(self._settings, self.port):
            self._children.append((share, _start(share)))
        for _, child in self._children:
            _await(child)

    def drain(self) -> None:
        """Let each finish what it receives, and end."""
        with self._turn:
            for _, child in self._children:
                child.terminate()
            for _, child in self._children:
                _end(child)
            self._children.clear()
        if self._held is not None:
            self._held.close()

    def tick(self, now: datetime) -> bool:
        """Replace those that died; returns False, as there is no more to do at once.

        Raises Unavailable when none can be started: who died stays in its place, and the next look tries again.
        """
        with self._turn:
            for place, (_, child) in enumerate(self._children):
                if child.poll() is not None:
                    self._replace(place)
        return False

    def _replace(self, place: int) -> None:
        share, child = self._children[place]
        if child.stdout is not None and not child.stdout.closed:  # the first look at it
            log.error(logs.line("listener-died", pid=child.pid, status=child.returncode))
            _end(child)
        try:
            self._children[place] = (share, _start(share))
        except OSError as error:
            why = shortage(error) or error.strerror
            raise Unavailable(f"a listener process that died is not replaced: {why}") from error


def _shares(settings: Settings, port: int) -> Iterator[Settings]:
    """Give the settings of each process: together they take as many associations as one would."""
    count = settings.listener_processes
    each, over = divmod(settings.max_associations, count)
    per_address = -(-settings.max_associations_per_address // count)
    for number in range(count):
        yield settings.model_copy(
            update={
                "dicom_port": port,
                "max_associations": each + (number < over),
                "max_associations_per_address": per_address,
                "listener_processes": 1,
            }
        )


def _hold(host: str, port: int) -> socket.socket:
    """Return a socket that keeps the port for this group; it does not listen. Raises Unavailable when it is taken."""
    try:
        with socket.create_server((host, port), family=_family(host)) as free:
            port = free.getsockname()[1]
        held = socket.socket(_family(host))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as error:
        raise not_listening("", host, port, error) from error
    return held


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _start(share: Settings) -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C is for the parent, which drains its children.
    child = subprocess.Popen(
        [sys.executable, "-m", "node.listener_group"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps(share.model_dump(mode="json")).encode() + b"\n")
    child.stdin.flush()
    return child


def _await(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    if child.stdout.readline() != READY:
        raise Unavailable("a listener process did not start; the log says why")


def _end(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            stream.close()


def _read_settings() -> Settings:
    # Not `sys.stdin`: a thread that waits in it holds its lock when the process ends.
    text = b""
    while not text.endswith(b"\n"):
        text += os.read(0, 1 << 16)
    return Settings(**json.loads(text))


def main() -> None:
    """Run one listener process until SIGTERM, SIGHUP or the end of standard input, then drain it."""
    from node.process import End, keep_one_heap, settle_down
    from node.serve import Node

    keep_one_heap()
    end = End(signal.SIGTERM, signal.SIGHUP)
    settings = _read_settings()
    logs.configure(settings.log_level, form=settings.log_form)
    node = Node(settings, ("listener",), shares_port=True)
    node.start()
    settle_down()
    os.write(1, READY)

    def await_end() -> None:
        os.read(0, 1)
        end.tell()

    threading.Thread(target=await_end, name="parent", daemon=True).start()
    end.wait()
    node.stop()


if __name__ == "__main__":
    main()
