"""Delivered or confirmed: a real Orthanc reports on its own association, DCMTK's archive knows queries only."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from confirming import rig
from dcmtk_tools import dcmtk
from orthanc_server import OrthancServer, orthanc
from outbox_rows import waiting_results
from ports import free_port

from node.deliveries import DeliverySettings
from store.tables import Job


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.confirmer.ANSWER_HERE_SECONDS", 1.0)


NODE_PORT = free_port()


@pytest.fixture(scope="module")
def server() -> Iterator[OrthancServer]:
    node = {"AET": "NADIR", "Host": "127.0.0.1", "Port": NODE_PORT, "AllowStorageCommitment": True}
    with orthanc(modalities={"node": node}) as running:
        yield running


def forget(server: OrthancServer, sop_instance_uid: str) -> None:
    """Delete an instance in Orthanc."""
    found = httpx.post(server.url + "/tools/lookup", content=sop_instance_uid, trust_env=False).json()
    for one in found:
        if one["Type"] == "Instance":
            httpx.delete(server.url + one["Path"], trust_env=False).raise_for_status()


@pytest.mark.parametrize("path", ["fast", "pynetdicom"])
def test_orthanc_commits_on_an_association_of_its_own_and_what_it_lost_is_sent_again(
    server: OrthancServer, tmp_path: Path, path: str
) -> None:
    destination = f"ORTHANC@127.0.0.1:{server.dicom_port}"
    with rig(tmp_path / "home", destination, port=NODE_PORT, path=path) as node:
        uids = waiting_results(
            node.small.database, node.small.objects, tmp_path, [destination], patient_id=path
        )
        node.deliver()
        assert node.states() == ["delivered"] * 3
        forget(server, uids[1])
        node.confirm()
        node.wait_for(["confirmed", "pending", "confirmed"])
        (job,) = node.small.rows(Job)
        assert job.state == "delivering"
        lost = node.rows()[1]
        assert (lost.last_error, lost.resends) == ("storage commitment failed with reason 0x0112", 1)
        assert ("commitment-failed", destination) in node.events()
        node.deliver()
        assert [row.attempt for row in node.rows()] == [1, 2, 1]
        node.confirm()
        node.wait_for(["confirmed"] * 3)
        assert {row.confirmed_by for row in node.rows()} == {"commitment"}
        assert all(row.confirmed_at and row.delivered_at for row in node.rows())
        assert node.small.rows(Job)[0].state == "done"


def test_orthanc_is_asked_by_query_when_it_does_not_know_how_to_report(tmp_path: Path) -> None:
    with orthanc() as stranger:
        destination = f"ORTHANC@127.0.0.1:{stranger.dicom_port}"
        settings = DeliverySettings(confirm_seconds=0, commitment="query")
        with rig(tmp_path / "home", destination, settings=settings) as node:
            waiting_results(node.small.database, node.small.objects, tmp_path, [destination])
            node.deliver()
            node.confirm()
            rows = node.rows()
        # This Orthanc does not know our AE title, so that it refuses C-FIND.
        assert {row.state for row in rows} == {"delivered"}
        assert all(row.confirm_error for row in rows)


def test_a_dicomweb_server_is_asked_by_qido_and_what_it_lost_is_sent_again(
    server: OrthancServer, tmp_path: Path
) -> None:
    with rig(tmp_path / "home", server.dicomweb) as node:
        uids = waiting_results(
            node.small.database, node.small.objects, tmp_path, [server.dicomweb], patient_id="web"
        )
        node.deliver()
        forget(server, uids[0])
        node.confirm()
        assert node.states() == ["delivered", "confirmed", "confirmed"]
        for _ in range(2):
            node.confirm(timedelta(hours=1))
        assert node.states() == ["pending", "confirmed", "confirmed"]
        node.deliver(timedelta(minutes=2))
        node.confirm()
        assert node.states() == ["confirmed"] * 3
        assert {row.confirmed_by for row in node.rows()} == {"query"}


def listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[str]:
    """Give the address of a DCMTK archive, which knows C-FIND and no storage commitment."""
    (tmp_path / "archive").mkdir()
    port, config = free_port(), tmp_path / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\nHostTable BEGIN\n"
        f"node = (NADIR, localhost, 11112)\nHostTable END\nVendorTable BEGIN\nVendorTable END\nAETable BEGIN\n"
        f"ARCHIVE {tmp_path / 'archive'} RW (200, 1024mb) ANY\nAETable END\n"
    )
    process = subprocess.Popen([dcmtk("dcmqrscp"), "-c", str(config)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not listens(port):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    try:
        yield f"ARCHIVE@127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(60)


def test_a_pacs_without_storage_commitment_is_asked_by_c_find(archive: str, tmp_path: Path) -> None:
    with rig(tmp_path / "home", archive) as node:
        waiting_results(node.small.database, node.small.objects, tmp_path, [archive])
        node.deliver()
        assert node.states() == ["delivered"] * 3
        node.confirm()
        assert [(row.state, row.confirmed_by) for row in node.rows()] == [("confirmed", "query")] * 3
