"""A storage commitment report on the association that asked for it is judged as one on an association of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from outbox_rows import waiting_results
from ports import free_port
from pydicom import Dataset
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from small_node import SmallNode
from sqlmodel import col, select, update

from node.confirmer import Confirmer
from node.deliveries import DeliverySettings
from node.sender import Sender
from plugins.errors import Unavailable
from store.tables import Delivery, Event

SETTINGS = DeliverySettings(confirm_seconds=0)


class Pacs:
    """A PACS that answers a request with success, and reports on the same association under `transaction_uid`."""

    def __init__(self) -> None:
        self.transaction_uid = ""
        self.reason: object = 0x0112
        self.statuses: list[int] = []
        ae = AE(ae_title="PACS")
        ae.add_supported_context(CTImageStorage)
        ae.add_supported_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_C_STORE, lambda _: 0), (evt.EVT_N_ACTION, self._on_action)]
        port = free_port()
        self._server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        self.address = f"PACS@127.0.0.1:{port}"

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        report, request = Dataset(), event.action_information
        report.TransactionUID = self.transaction_uid or request.TransactionUID
        report.FailedSOPSequence = list(request.ReferencedSOPSequence)
        for item in report.FailedSOPSequence:
            item.FailureReason = self.reason
        threading.Thread(target=self._report, args=(event.assoc, report), daemon=True).start()
        return 0x0000, None

    def _report(self, association: Association, report: Dataset) -> None:
        time.sleep(0.3)
        answer, _ = association.send_n_event_report(
            report, 2, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.statuses.append(int(answer.Status))

    def stop(self) -> None:
        self._server.shutdown()


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    made = Pacs()
    yield made
    made.stop()


class Rig:
    """A node that has delivered three results to a PACS."""

    def __init__(self, folder: Path, pacs: Pacs) -> None:
        self.small, self.pacs = SmallNode.make(folder / "home"), pacs
        waiting_results(self.small.database, self.small.objects, folder, [pacs.address])
        sender = Sender(self.small.database, self.small.objects, pacs.address, settings=SETTINGS)
        while sender.tick(self.small.database.now()):
            pass
        sender.close()

    def ask(self) -> int:
        """Ask for storage commitment, and return the status that the report was answered with."""
        confirmer = Confirmer.of(self.small.database, self.pacs.address, SETTINGS, calling_ae="NADIR")
        confirmer.tick(self.small.database.now())
        deadline = time.monotonic() + 10
        while not self.pacs.statuses:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self.pacs.statuses.pop()

    def events(self) -> list[tuple[str, str, str]]:
        return [(e.kind, e.subject, e.text) for e in self.small.rows(Event)]


@pytest.fixture
def rig(tmp_path: Path, pacs: Pacs) -> Iterator[Rig]:
    made = Rig(tmp_path, pacs)
    yield made
    made.small.database.dispose()


def test_a_report_on_a_known_transaction_is_taken(rig: Rig) -> None:
    assert rig.ask() == 0x0000
    text = "3 results were delivered and are not kept; they are sent again"
    assert rig.events() == [("commitment-failed", rig.pacs.address, text)]
    assert {row.state for row in rig.small.rows(Delivery)} == {"pending"}


def test_a_report_on_an_unknown_transaction_is_told(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.pacs.transaction_uid = "1.2.3.4"
    assert rig.ask() == 0x0115
    text = "a storage commitment report on an unknown or past transaction: 1.2.3.4"
    assert rig.events() == [("commitment-unknown", rig.pacs.address, text)]
    assert f"action=commitment-unknown source={rig.pacs.address} transaction=1.2.3.4" in caplog.messages
    assert {row.state for row in rig.small.rows(Delivery)} == {"delivered"}


def test_a_report_on_what_another_destination_was_asked_for_is_refused_and_told(rig: Rig) -> None:
    with rig.small.database.transaction() as session:
        other = session.exec(select(Delivery).limit(1)).one()
        values = {"destination": "OTHER@10.0.0.1:104", "transaction_uid": "1.2.3.4"}
        session.execute(update(Delivery).where(col(Delivery.id) == other.id).values(**values))
    rig.pacs.transaction_uid = "1.2.3.4"
    assert rig.ask() == 0x0124
    text = "a storage commitment report on what OTHER@10.0.0.1:104 was asked for"
    assert rig.events() == [("rejected", rig.pacs.address, text)]


def test_a_report_that_cannot_be_kept_is_answered_so_that_it_comes_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object) -> None:
        raise Unavailable("the database is away")

    monkeypatch.setattr("store.confirmation.known", away)
    assert rig.ask() == 0xA700
    assert any("action=report-not-kept" in message for message in caplog.messages)


def test_a_report_that_cannot_be_read_is_told(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.pacs.reason = [0x0110, 0x0112]
    assert rig.ask() == 0x0110
    assert f"action=report-not-read source={rig.pacs.address} error=TypeError" in caplog.messages
