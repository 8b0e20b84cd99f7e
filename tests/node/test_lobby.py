"""Who goes straight through the lobby, and who has to wait there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from raw_peer import CT, EXPLICIT_LITTLE, associate_rq

from node.lobby import Lobby

REQUEST = associate_rq("NADIR", "SCANNER", [(CT, EXPLICIT_LITTLE)])


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as door,
        socket.create_connection(door.getsockname()) as peer,
    ):
        connection, _ = door.accept()
        with connection:
            yield peer, connection


@pytest.mark.parametrize(
    ("said", "goes_through"),
    [
        (REQUEST, True),
        (REQUEST + b"more", True),
        (REQUEST[:-1], False),
        (REQUEST[:5], False),
        (b"\x04" + REQUEST[1:], False),
        (b"GET / HTTP/1.1\r\n\r\n", False),
        (b"", False),
    ],
)
def test_only_whoever_brings_a_whole_request_along_does_not_wait(
    pair: tuple[socket.socket, socket.socket], said: bytes, goes_through: bool
) -> None:
    peer, connection = pair
    peer.sendall(said)
    admitted: list[Any] = []
    lobby = Lobby(
        silent_seconds=1.0,
        admit=lambda connection, address: admitted.append(connection),
        close=lambda connection: None,
        told=lambda reason, address: None,
    )
    lobby.enter(connection, ("127.0.0.1", 1), 1)  # nobody watches yet
    lobby.stop()
    assert admitted == ([connection] if goes_through else [])
    if goes_through:
        assert connection.recv(len(REQUEST)) == REQUEST


def test_where_tls_is_spoken_everybody_waits_for_the_handshake(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    peer, connection = pair
    peer.sendall(REQUEST)
    admitted: list[Any] = []
    lobby = Lobby(
        silent_seconds=1.0,
        admit=lambda connection, address: admitted.append(connection),
        close=lambda connection: None,
        told=lambda reason, address: None,
        new_context=lambda: pytest.fail("the handshake is not for the thread that accepts"),
    )
    lobby.enter(connection, ("127.0.0.1", 1), 1)
    lobby.stop()
    assert admitted == []
