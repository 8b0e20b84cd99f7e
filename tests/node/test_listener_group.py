from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from alive import is_alive
from dicom_series import make_series
from node_process import NodeProcess
from patience import eventually
from small_node import instances_in

from node import listener_group
from node.listener_group import ListenerGroup
from node.scu import echo, send_files
from node.serve import Node
from node.settings import Settings
from plugins.errors import Refused, Unavailable


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[NodeProcess]:
    flags = ("--role", "listener", "--listener-processes", "2", "--accept-any", "--dicom-host", "127.0.0.1")
    process = NodeProcess(tmp_path / "home", *flags, "--reserve-bytes", "0")
    process.start()
    yield process
    process.kill()


def children(pid: int) -> set[int]:
    texts = (task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/children"))
    return {int(child) for text in texts for child in text.split()}


def pid_of(process: NodeProcess) -> int:
    assert process._process is not None
    return process._process.pid


def test_two_processes_on_one_port_take_all_that_come_and_end_with_their_parent(
    pair: NodeProcess, tmp_path: Path
) -> None:
    paths = make_series(tmp_path / "in", np.arange(24 * 64.0).reshape(24, 8, 8))

    def send(path: Path) -> int | None:
        (sent,) = send_files([path], ae_title="NADIR", host="127.0.0.1", port=pair.dicom_port)
        return sent.status

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(send, paths)) == {0x0000}
    both = children(pid_of(pair))
    assert len(both) == 2
    assert len(instances_in(pair.home)) == 24
    assert pair.stop() == 0
    assert not any(map(is_alive, both))


def test_a_listener_process_that_dies_is_replaced_and_told(pair: NodeProcess) -> None:
    before = children(pid_of(pair))
    killed = min(before)
    os.kill(killed, signal.SIGKILL)

    assert eventually(lambda: len(children(pid_of(pair)) - before) == 1)
    assert eventually(lambda: any("action=listener-died" in x and f"pid={killed}" in x for x in pair.log))
    (new,) = children(pid_of(pair)) - before
    assert eventually(lambda: _listens(new, pair.dicom_port))
    for _ in range(10):
        echo(ae_title="NADIR", host="127.0.0.1", port=pair.dicom_port)


def test_a_listener_process_that_cannot_be_replaced_now_is_replaced_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = {"plain_dicom": True, "dicom_host": "127.0.0.1", "dicom_port": 0, "http_port": 0}
    node = Node(Settings(home=tmp_path / "home", listener_processes=2, **free), ["listener"])  # type: ignore[arg-type]
    caplog.set_level(logging.INFO)
    strangers = children(os.getpid())  # as a browser that other tests share
    node.start()
    try:
        before = children(os.getpid())
        tried: list[object] = []

        def none_left(*command: object, **_: object) -> None:
            tried.append(command)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "Popen", none_left)
            killed = max(before - strangers)
            os.kill(killed, signal.SIGKILL)
            assert eventually(lambda: len(tried) > 1)
        assert eventually(lambda: len(children(os.getpid()) - before) == 1)
        assert eventually(lambda: "rounds-work loop=listeners" in caplog.text)
        assert node.vitals.dead() == []
    finally:
        node.stop()
    assert caplog.text.count(f"action=listener-died pid={killed}") == 1
    assert "is not replaced: Too many open files; raise LimitNOFILE or ulimit -n" in caplog.text


def test_listener_processes_end_when_their_parent_is_killed(pair: NodeProcess) -> None:
    both = children(pid_of(pair))
    os.kill(pid_of(pair), signal.SIGKILL)

    assert eventually(lambda: not any(map(is_alive, both)))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", pair.dicom_port))


def test_a_port_that_is_taken_is_told_in_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(
            home=tmp_path,
            dicom_host="127.0.0.1",
            dicom_port=taken.getsockname()[1],
            listener_processes=2,
        )
        with pytest.raises(Unavailable, match="choose another port"):
            ListenerGroup(settings).start()


def test_associations_are_shared_out_and_each_process_needs_one(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, listener_processes=3, max_associations=8)

    shares = list(listener_group._shares(settings, 11112))

    assert [share.max_associations for share in shares] == [3, 3, 2]
    assert {(share.dicom_port, share.listener_processes) for share in shares} == {(11112, 1)}
    with pytest.raises(Refused, match="max_associations"):
        ListenerGroup(settings.model_copy(update={"max_associations": 2}))


def test_where_connections_cannot_be_dealt_out_the_setting_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(Refused, match="no-shared-port"):
        ListenerGroup(Settings(home=tmp_path, listener_processes=2))


def _listens(pid: int, port: int) -> bool:
    """Return True when a process holds a socket that listens on the port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{w[9]}]" for w in lines if int(w[1].split(":")[1], 16) == port and w[3] == "0A"}
    return any(_target(link) in inodes for link in Path(f"/proc/{pid}/fd").iterdir())


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:  # closed between the listing and the reading
        return ""
