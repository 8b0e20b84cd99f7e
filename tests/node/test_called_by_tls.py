"""Peers that are no destinations are called by TLS where the settings say so, and never in plain instead."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from datetime import date
from pathlib import Path

import pytest
from certificates import HOST, Certificates
from small_node import SmallNode

from node.prior_sources import open_source
from node.settings import Settings
from node.tls_renewed import calling_to
from plugins.errors import Unavailable

pytestmark = pytest.mark.sec
TLS_HANDSHAKE = 0x16


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("setting", ["priors_from", "worklist"])
def test_an_archive_that_is_no_destination_is_asked_by_tls(
    certificates: Certificates, tmp_path: Path, setting: str
) -> None:
    first: list[bytes] = []
    with socket.create_server((HOST, 0)) as server:
        address = f"ARC@{HOST}:{server.getsockname()[1]}"

        def take() -> None:
            with suppress(OSError), server.accept()[0] as connection:
                first.append(connection.recv(1))

        taking = threading.Thread(target=take)
        taking.start()
        named = (
            {"priors_from": [address]} if setting == "priors_from" else {"worklist": {"sources": [address]}}
        )
        settings = Settings(**certificates.settings(), **named, delivery={address: {"tls": True}})  # type: ignore[arg-type]
        (asked,) = settings.input_sources
        small = SmallNode.make(tmp_path)
        source = open_source(asked, settings, small.objects, tls=calling_to(settings, asked))
        with pytest.raises(Unavailable):
            list(source.patient_studies("P1", date(2024, 1, 1), date(2026, 1, 1)))
        taking.join(10)
    small.database.dispose()
    assert [one[0] for one in first] == [TLS_HANDSHAKE]
