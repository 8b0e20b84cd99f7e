"""Peers that are no destinations are called by TLS where the settings say so, and never in plain instead."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import pytest
from certificates import HOST, Certificates
from patience import eventually
from ports import free_port
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel
from small_node import SmallNode

from node.prior_sources import open_source
from node.serve import Node
from node.settings import Settings
from node.tls_renewed import calling_to
from plugins.errors import Unavailable
from store import commitment
from store.commitment import Referenced

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


@contextmanager
def scanner(tls: ssl.SSLContext) -> Iterator[tuple[str, list[Dataset]]]:
    """Give the address of a scanner that speaks TLS only, and what is reported to it."""
    told: list[Dataset] = []

    def take(event: evt.Event) -> tuple[int, None]:
        told.append(event.event_information)
        return 0x0000, None

    ae, port = AE(ae_title="CT1"), free_port()
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_N_EVENT_REPORT, take)]
    running = ae.start_server((HOST, port), block=False, evt_handlers=handlers, ssl_context=tls)
    try:
        yield f"CT1@{HOST}:{port}", told
    finally:
        running.shutdown()


@pytest.mark.parametrize("is_destination", [True, False])
def test_a_scanner_that_speaks_tls_only_gets_its_storage_commitment_report(
    certificates: Certificates, tmp_path: Path, is_destination: bool
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificates.peer)
    tls.load_verify_locations(certificates.ours.ca)
    tls.verify_mode = ssl.CERT_REQUIRED
    with scanner(tls) as (address, told):
        settings = Settings(
            **certificates.settings(),  # type: ignore[arg-type]
            home=tmp_path,
            destinations=[address] if is_destination else [],  # type: ignore[arg-type]
            commitment_callers=[address],  # type: ignore[arg-type]
            delivery={address: {"tls": True}},  # type: ignore[dict-item]
        )
        node = Node(settings, ["sender"])
        asked = Referenced(sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid="1.2.3")
        with node.database.transaction() as session:
            assert commitment.ask(session, "1.2.3.4", address, [asked], node.database.now())
        node.start()
        try:
            assert eventually(lambda: bool(told))
        finally:
            node.stop()
    assert [one.TransactionUID for one in told] == ["1.2.3.4"]
    assert [one.ReferencedSOPInstanceUID for one in told[0].FailedSOPSequence] == ["1.2.3"]
