"""Who the node says it is, in every association: the implementation that its files name too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom import AE, evt
from pynetdicom.association import Association, ServiceUser
from raw_peer import IMPLICIT_LITTLE, VERIFICATION
from small_node import SmallNode
from started_listeners import starting

from node.scu import Timeouts, associate, release

OURS = ("2.25.179027739462798264392331652416545824982", "NADIR")


def named(user: ServiceUser) -> tuple[str, str]:
    return str(user.implementation_class_uid), str(user.implementation_version_name)


def call(port: int) -> Association:
    return associate([(VERIFICATION, IMPLICIT_LITTLE)], "NADIR", "127.0.0.1", port, "CT", Timeouts())


@contextmanager
def peer_that_is_called(told: list[tuple[str, str]]) -> Iterator[int]:
    ae = AE("NADIR")
    ae.add_supported_context(VERIFICATION)
    handlers = [(evt.EVT_REQUESTED, lambda event: told.append(named(event.assoc.requestor)))]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


@pytest.mark.parametrize("receive_path", ["fast", "pynetdicom"])
def test_who_calls_the_node_is_told_which_implementation_answers(tmp_path: Path, receive_path: str) -> None:
    small = SmallNode.make(tmp_path / "node")
    with starting(small, receive_path) as start:
        association = call(start().port)
        assert named(association.acceptor) == OURS
        release(association)
    small.database.dispose()


def test_whom_the_node_calls_is_told_which_implementation_asks() -> None:
    told: list[tuple[str, str]] = []
    with peer_that_is_called(told) as port:
        release(call(port))
    assert told == [OURS]
