"""Storage commitment as scanners ask for it: a real Orthanc does, and is answered from rows and re-hashed bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from dicom_series import make_series
from orthanc_server import orthanc
from ports import free_port
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from small_node import SmallNode

from node.committer import Answerer, Committer
from node.listener import Listener
from node.scu import send_files
from store.tables import Commitment


class Rig:
    """A node that holds three images, and answers `requestor`."""

    def __init__(self, folder: Path, requestor: str, *, port: int = 0, path: str = "fast") -> None:
        self.small = SmallNode.make(folder / "home")
        self.files = make_series(folder / "study", np.zeros((3, 8, 8)))
        self.uids = [str(dcmread(f).SOPInstanceUID) for f in self.files]
        committer = Committer(self.small.database, self.small.objects, [requestor])
        self.listener = Listener(
            self.small.database, self.small.objects, host="127.0.0.1", port=port, accept_any=True,
            receive_path=path, committers=committer,
        )  # fmt: skip
        self.listener.start()
        self.answerer = Answerer(
            self.small.database, self.small.objects, {requestor: None}, calling_ae="NADIR"
        )
        sent = send_files(self.files, ae_title="NADIR", host="127.0.0.1", port=self.listener.port)
        assert [one.status for one in sent] == [0, 0, 0]

    def answer(self, after: timedelta = timedelta(0)) -> None:
        while self.answerer.tick(self.small.database.now() + after):
            pass

    def rows(self) -> list[Commitment]:
        return list(self.small.rows(Commitment))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(requestor: str, **more: Any) -> Rig:
        made.append(Rig(tmp_path, requestor, **more))
        return made[-1]

    yield make
    for one in made:
        one.listener.stop()
        one.small.database.dispose()


class Scanner:
    """Asks, and takes answers on a port of its own."""

    def __init__(self) -> None:
        self.told: list[tuple[int, Dataset]] = []
        self.heard = threading.Event()
        self.status = 0x0000
        port = free_port()
        self.address = f"CT1@127.0.0.1:{port}"
        ae = AE(ae_title="CT1")
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._on_report)]
        self._server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        self.told.append((event.event_type, event.event_information))
        self.heard.set()
        return self.status, None

    def ask(self, port: int, references: list[tuple[str, str]], *, calling_ae: str = "CT1") -> int | None:
        """Ask to commit to (SOP class, SOP instance); returns the status, None when it is not offered."""
        ae = AE(ae_title=calling_ae)
        ae.add_requested_context(StorageCommitmentPushModel)
        ae.add_requested_context("1.2.840.10008.1.1")
        association = ae.associate("127.0.0.1", port, ae_title="NADIR")
        if not any(c.abstract_syntax == StorageCommitmentPushModel for c in association.accepted_contexts):
            association.release()
            return None
        request = Dataset()
        request.TransactionUID = "1.2.3.4"
        request.ReferencedSOPSequence = []
        for sop_class, sop_instance in references:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
            request.ReferencedSOPSequence.append(item)
        answer, _ = association.send_n_action(
            request, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        association.release()
        return int(answer.Status)

    def stop(self) -> None:
        self._server.shutdown()


@pytest.fixture
def scanner() -> Iterator[Scanner]:
    made = Scanner()
    yield made
    made.stop()


@pytest.mark.parametrize("path", ["fast", "pynetdicom"])
def test_a_scanner_learns_what_is_kept_and_what_is_not(
    scanner: Scanner, rig: Callable[..., Rig], path: str
) -> None:
    node = rig(scanner.address, path=path)
    damaged = next(
        o
        for o in node.small.objects.names()
        if node.uids[1].encode() in node.small.objects.path(o).read_bytes()
    )
    file = node.small.objects.path(damaged)
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    asked = [
        *((CTImageStorage, uid) for uid in node.uids),
        (CTImageStorage, "1.2.3"),
        (MRImageStorage, node.uids[0]),
    ]
    assert scanner.ask(node.listener.port, asked) == 0x0000
    assert scanner.ask(node.listener.port, asked) == 0x0000
    node.answer()
    ((kind, told),) = scanner.told
    assert (kind, told.TransactionUID) == (2, "1.2.3.4")
    assert [i.ReferencedSOPInstanceUID for i in told.ReferencedSOPSequence] == [node.uids[0], node.uids[2]]
    failed = {
        (i.ReferencedSOPInstanceUID, i.ReferencedSOPClassUID): i.FailureReason for i in told.FailedSOPSequence
    }
    assert failed == {
        (node.uids[1], CTImageStorage): 0x0110,
        ("1.2.3", CTImageStorage): 0x0112,
        (node.uids[0], MRImageStorage): 0x0119,
    }
    assert [(row.state, row.attempt) for row in node.rows()] == [("answered", 0)]


def test_a_scanner_that_cannot_be_reached_is_told_later_and_for_a_day(
    scanner: Scanner, rig: Callable[..., Rig]
) -> None:
    node = rig(scanner.address)
    scanner.status = 0x0110
    assert scanner.ask(node.listener.port, [(CTImageStorage, node.uids[0])]) == 0x0000
    node.answer()
    assert [(row.state, row.attempt) for row in node.rows()] == [("waiting", 1)]
    scanner.status = 0x0000
    node.answer(timedelta(minutes=1))
    assert [(row.state, row.attempt) for row in node.rows()] == [("answered", 1)]
    assert [kind for kind, _ in scanner.told] == [1, 1]


def test_who_is_no_commitment_caller_any_more_is_not_called(
    scanner: Scanner, rig: Callable[..., Rig]
) -> None:
    node = rig(scanner.address)
    assert scanner.ask(node.listener.port, [(CTImageStorage, node.uids[0])]) == 0x0000
    node.answerer = Answerer(node.small.database, node.small.objects, {}, calling_ae="NADIR")
    node.answer()
    (row,) = node.rows()
    assert (row.state, row.attempt, scanner.told) == ("waiting", 1, [])
    assert f"{scanner.address} is none of the commitment_callers any more" in str(row.last_error)


def test_a_request_that_comes_again_after_its_answer_is_answered_again(
    scanner: Scanner, rig: Callable[..., Rig]
) -> None:
    node = rig(scanner.address)
    asked = [(CTImageStorage, uid) for uid in node.uids]
    for again in (asked, asked[::-1]):
        assert scanner.ask(node.listener.port, again) == 0x0000
        assert [(row.state, row.answered_at) for row in node.rows()] == [("waiting", None)]
        node.answer()
    assert [row.state for row in node.rows()] == ["answered"]
    assert [(kind, told.TransactionUID) for kind, told in scanner.told] == [(1, "1.2.3.4")] * 2


def test_a_transaction_uid_that_names_another_request_already_is_refused_and_told(
    scanner: Scanner, rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    node = rig(scanner.address)
    assert scanner.ask(node.listener.port, [(CTImageStorage, node.uids[0])]) == 0x0000
    assert scanner.ask(node.listener.port, [(CTImageStorage, node.uids[1])]) == 0x0131
    assert "action=commitment-refused source=CT1@127.0.0.1 transaction=1.2.3.4" in caplog.messages
    node.answer()
    ((_, told),) = scanner.told
    assert [item.ReferencedSOPInstanceUID for item in told.ReferencedSOPSequence] == [node.uids[0]]


def test_only_listed_callers_are_offered_it(scanner: Scanner, rig: Callable[..., Rig]) -> None:
    node = rig(scanner.address)
    assert scanner.ask(node.listener.port, [(CTImageStorage, "1.2.3")], calling_ae="CT2") is None
    assert node.rows() == []


def test_a_request_for_nothing_is_refused(scanner: Scanner, rig: Callable[..., Rig]) -> None:
    node = rig(scanner.address)
    assert scanner.ask(node.listener.port, []) == 0x0115
    assert node.rows() == []


def test_orthanc_asks_and_is_answered(rig: Callable[..., Rig]) -> None:
    port = free_port()
    modality = {"AET": "NADIR", "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
    with orthanc(modalities={"node": modality}) as pacs:
        node = rig(f"ORTHANC@127.0.0.1:{pacs.dicom_port}", port=port)
        asked = [[CTImageStorage, node.uids[0]], [CTImageStorage, "1.2.3"]]
        done = httpx.post(
            f"{pacs.url}/modalities/node/storage-commitment", json={"DicomInstances": asked}, trust_env=False
        ).raise_for_status()
        node.answer()
        deadline = time.monotonic() + 60
        while (report := pacs.get(f"/storage-commitment/{done.json()['ID']}"))["Status"] == "Pending":
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert report["Status"] == "Failure"
    assert [one["SOPInstanceUID"] for one in report["Success"]] == [node.uids[0]]
    assert [(one["SOPInstanceUID"], one["FailureReason"]) for one in report["Failures"]] == [
        ("1.2.3", 0x0112)
    ]
