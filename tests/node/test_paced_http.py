"""Servers that answer slowly: one that trickles is cut off, a slow line that is steady is waited for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from node.multipart import BLOCK_BYTES
from node.pacs import DicomWeb, Reached

JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: 1000000\r\n\r\n"
PARTS_HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: multipart/related; boundary="b0"\r\nConnection: close\r\n\r\n'


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Answer every connection by `answer`, once its request has begun; gives the root."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def attend(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.recv(1 << 16)
                answer(connection)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=attend, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/rs"
        listening.shutdown(socket.SHUT_RDWR)


def trickling(head: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(300):
            time.sleep(0.05)
            connection.sendall(b" ")

    return answer


@pytest.mark.parametrize("head", [JSON_HEAD, b"HTTP/1.1 200 "])
def test_a_server_that_trickles_its_answer_is_cut_off_and_that_is_said(
    head: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.paced_http.BEHIND_SECONDS", 0.5)
    (tmp_path / "a.dcm").write_bytes(b"x" * 1000)
    with server(trickling(head)) as root, closing(DicomWeb(root)) as peer:
        began = time.monotonic()
        with pytest.raises(Reached, match=f"^{root} sends its answer slower than 1024 bytes a second$"):
            peer.study_instances("1.2")
        with pytest.raises(Reached, match="slower than 1024 bytes a second"):
            peer.store([tmp_path / "a.dcm"])
        assert time.monotonic() - began < 10


def test_a_retrieve_that_trickles_gives_the_parts_before_and_leaves_no_torn_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.paced_http.BEHIND_SECONDS", 0.5)
    head = PARTS_HEAD + b"--b0\r\n\r\nwhole\r\n--b0\r\n\r\ntorn" + bytes(BLOCK_BYTES)
    paths = iter([tmp_path / "one", tmp_path / "two"])
    with server(trickling(head)) as root, closing(DicomWeb(root)) as peer:
        coming = peer.retrieve_series("1.2", "1.3", lambda: next(paths))
        assert next(coming).name == "one"
        with pytest.raises(Reached, match="slower than 1024 bytes a second"):
            next(coming)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert (tmp_path / "one").read_bytes() == b"whole"


def test_a_steady_slow_line_is_waited_for_and_what_we_do_with_its_parts_costs_it_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.paced_http.BEHIND_SECONDS", 0.2)
    monkeypatch.setattr("node.pace.CREDIT_SECONDS", 0.1)

    def answer(connection: socket.socket) -> None:
        connection.sendall(PARTS_HEAD)
        for number in range(10):  # 4 kB/s, and more than the account of time could ever hold
            time.sleep(0.1)
            connection.sendall(b"--b0\r\n\r\n" + bytes([number]) * 400 + b"\r\n")
        connection.sendall(b"--b0--\r\n")

    paths = (tmp_path / f"part{number}" for number in range(10))
    came = []
    with server(answer) as root, closing(DicomWeb(root)) as peer:
        for path in peer.retrieve_series("1.2", "1.3", lambda: next(paths)):
            came.append(path.read_bytes())
            time.sleep(1.0 if len(came) == 3 else 0.0)
    assert came == [bytes([number]) * 400 for number in range(10)]
