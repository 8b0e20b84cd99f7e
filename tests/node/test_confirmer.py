"""Delivered or confirmed: what is asked of peers that answer when, where and how a test says, and what counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from confirming import rig
from outbox_rows import waiting_results
from patience import PATIENCE_SECONDS
from ports import free_port
from pydicom import Dataset
from pydicom.uid import CTImageStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from small_node import SmallNode

from node.deliveries import DeliverySettings
from node.find import FIND
from node.reporters import Reporters
from node.settings import Settings
from store.confirmation import Unconfirmed
from store.tables import Event, Job


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.confirmer.ANSWER_HERE_SECONDS", 1.0)


class Pacs:
    """A PACS that stores, and answers storage commitment when, where and how a test says."""

    def __init__(self, *, reports_at_once: bool = False, action_status: int = 0) -> None:
        self.asked: list[Dataset] = []
        self.reports_at_once = reports_at_once
        self.action_status = action_status
        ae = AE(ae_title="PACS")
        ae.add_supported_context(CTImageStorage)
        ae.add_supported_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_C_STORE, lambda _: 0), (evt.EVT_N_ACTION, self._on_action)]
        port = free_port()
        self._server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        self.address = f"PACS@127.0.0.1:{port}"

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        self.asked.append(event.action_information)
        if self.reports_at_once:
            threading.Thread(target=self._report_there, args=(event.assoc,), daemon=True).start()
        return self.action_status, None

    def _report_there(self, association: Association) -> None:
        time.sleep(0.3)
        association.send_n_event_report(
            self.information(), 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )

    def information(self, *lost: int, uid: str | None = None) -> Dataset:
        """Return the Event Information on the last request, the items with these numbers failed."""
        request, answer = self.asked[-1], Dataset()
        answer.TransactionUID = uid or request.TransactionUID
        kept, failed = [], []
        for number, item in enumerate(request.ReferencedSOPSequence):
            (failed if number in lost else kept).append(item)
        for item in failed:
            item.FailureReason = 0x0112
        answer.ReferencedSOPSequence = kept
        if failed:
            answer.FailedSOPSequence = failed
        return answer

    def report(self, port: int, information: Dataset, *, calling_ae: str = "PACS") -> int | None:
        """Report on an association of its own; returns the status of the answer, None when it was not let in."""
        ae = AE(ae_title=calling_ae)
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        association = ae.associate("127.0.0.1", port, ae_title="NADIR", ext_neg=[role])
        if not association.is_established:
            return None
        kind = 2 if "FailedSOPSequence" in information else 1
        answer, _ = association.send_n_event_report(
            information, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        association.release()
        return int(answer.Status)

    def stop(self) -> None:
        self._server.shutdown()


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    made = Pacs()
    yield made
    made.stop()


def test_one_request_asks_for_all_that_was_delivered_lately(pacs: Pacs, tmp_path: Path) -> None:
    with rig(tmp_path / "home", pacs.address) as node:
        uids = waiting_results(node.small.database, node.small.objects, tmp_path, [pacs.address])
        node.deliver()
        node.confirm()
        node.confirm(timedelta(hours=1))
        (request,) = pacs.asked
        assert [item.ReferencedSOPInstanceUID for item in request.ReferencedSOPSequence] == uids
        assert node.states() == ["delivered"] * 3


def test_a_report_may_come_on_the_association_of_the_request(tmp_path: Path) -> None:
    pacs = Pacs(reports_at_once=True)
    with rig(tmp_path / "home", pacs.address) as node:
        waiting_results(node.small.database, node.small.objects, tmp_path, [pacs.address])
        node.deliver()
        node.confirm()
        assert [(r.state, r.confirmed_by) for r in node.rows()] == [("confirmed", "commitment")] * 3
    pacs.stop()


@pytest.mark.parametrize("path", ["fast", "pynetdicom"])
def test_a_report_is_taken_from_the_destination_alone_and_an_unknown_one_is_told(
    pacs: Pacs, tmp_path: Path, path: str
) -> None:
    with rig(tmp_path / "home", pacs.address, path=path) as node:
        waiting_results(node.small.database, node.small.objects, tmp_path, [pacs.address])
        node.deliver()
        node.confirm()
        port = node.listener.port
        assert pacs.report(port, pacs.information(), calling_ae="STRANGER") is None
        assert pacs.report(port, pacs.information(uid="1.2.3.4")) == 0x0115
        wordless = Dataset()
        wordless.RetrieveAETitle = "PACS"
        assert pacs.report(port, wordless) == 0x0115
        assert node.states() == ["delivered"] * 3
        assert ("commitment-unknown", "PACS@127.0.0.1") in node.events()
        assert pacs.report(port, pacs.information(1)) == 0x0000
        assert pacs.report(port, pacs.information()) == 0x0000
        assert node.states() == ["confirmed", "pending", "confirmed"]


def test_a_destination_reports_on_what_it_was_asked_for_and_on_nothing_else(
    pacs: Pacs, tmp_path: Path
) -> None:
    other = Pacs()
    with rig(tmp_path / "home", pacs.address) as node:
        waiting_results(node.small.database, node.small.objects, tmp_path, [pacs.address])
        node.deliver()
        node.confirm()
        settings = node.settings.model_copy(update={"destinations": ("OTHER@127.0.0.1:104",)})
        node.listener._reception._reporters = Reporters(node.small.database, settings)
        assert pacs.report(node.listener.port, pacs.information(), calling_ae="OTHER") == 0x0124
        assert node.states() == ["delivered"] * 3
    other.stop()


def test_a_destination_that_is_found_later_may_report_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SmallNode.make(tmp_path / "home")
    hosts: dict[str, str] = {}

    def look_up(host: str, *_: object) -> list[tuple[object, ...]]:
        if host not in hosts:
            raise OSError("not known")
        return [(None, None, None, None, (hosts[host], 0))]

    monkeypatch.setattr("node.callers.socket.getaddrinfo", look_up)
    reporters = Reporters(small.database, Settings(destinations=("PACS@pacs:104",)))
    assert not reporters.callers.admits("PACS", "10.0.0.9")
    hosts["pacs"] = "10.0.0.9"
    reporters.tick(small.database.now())
    assert reporters.callers.admits("PACS", "10.0.0.9")
    hosts.clear()
    reporters.tick(small.database.now())
    assert reporters.callers.admits("PACS", "10.0.0.9")
    small.database.dispose()


def test_who_may_only_report_cannot_store(pacs: Pacs, tmp_path: Path) -> None:
    with rig(tmp_path / "home", pacs.address) as node:
        ae = AE(ae_title="PACS")
        ae.add_requested_context(CTImageStorage)
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        association = ae.associate("127.0.0.1", node.listener.port, ae_title="NADIR", ext_neg=[role])
        accepted = [str(c.abstract_syntax) for c in association.accepted_contexts]
        association.release()
    assert accepted == [StorageCommitmentPushModel]


def test_a_request_that_is_never_answered_is_made_again_after_a_day_and_is_no_error(
    pacs: Pacs, tmp_path: Path
) -> None:
    with rig(tmp_path / "home", pacs.address) as node:
        waiting_results(node.small.database, node.small.objects, tmp_path, [pacs.address])
        node.deliver()
        node.confirm()
        node.confirm(timedelta(hours=25))  # asked by query, which this PACS does not know
        node.confirm(timedelta(hours=1))
        assert len({request.TransactionUID for request in pacs.asked}) == 2
        assert node.states() == ["delivered"] * 3
        assert node.small.rows(Job)[0].state == "done"
        assert pacs.report(node.listener.port, pacs.information()) == 0x0000
        assert node.states() == ["confirmed"] * 3


class Curt(Pacs):
    """A PACS that takes the first request and is gone before it answers."""

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        status, _ = super()._on_action(event)
        if len(self.asked) == 1:
            event.assoc.abort()
        return status, None


@pytest.mark.parametrize("status", [0x0000, 0x0131])
def test_a_request_whose_response_was_lost_is_made_again_under_its_transaction_uid_and_its_report_counts(
    tmp_path: Path, status: int
) -> None:
    pacs = Curt(action_status=status)
    with rig(tmp_path / "home", pacs.address) as node:
        waiting_results(node.small.database, node.small.objects, tmp_path, [pacs.address], count=2)
        node.deliver()
        node.confirm()
        first = pacs.information()
        assert {row.confirm_error for row in node.rows()} == {
            "the storage commitment request was not answered"
        }
        later = tmp_path / "later"
        waiting_results(
            node.small.database, node.small.objects, later, [pacs.address], count=1, patient_id="b"
        )
        node.deliver(timedelta(hours=1))
        node.confirm()
        node.confirm()
        uids = [request.TransactionUID for request in pacs.asked]
        assert uids[1] == first.TransactionUID
        assert [len(request.ReferencedSOPSequence) for request in pacs.asked] == [2, 2, 1]
        assert len({*uids}) == 2
        assert pacs.report(node.listener.port, first) == 0x0000
        assert node.states() == ["confirmed", "confirmed", "delivered"]
        assert node.events() == []
    pacs.stop()


def test_a_repeated_report_on_what_was_sent_again_since_changes_nothing_and_is_told(
    pacs: Pacs, tmp_path: Path
) -> None:
    with rig(tmp_path / "home", pacs.address) as node:
        waiting_results(node.small.database, node.small.objects, tmp_path, [pacs.address], count=1)
        node.deliver()
        node.confirm()
        report = pacs.information(0)
        assert pacs.report(node.listener.port, report) == 0x0000
        node.deliver(timedelta(seconds=1))
        assert pacs.report(node.listener.port, report) == 0x0115
        assert [(row.state, row.attempt, row.resends) for row in node.rows()] == [("delivered", 2, 1)]
        told = [event.text for event in node.small.rows(Event) if event.kind == "commitment-unknown"]
    uid = report.TransactionUID
    assert told == [f"a storage commitment report on an unknown or past transaction: {uid}"]


@pytest.mark.parametrize("status", [0x0110, 0x0131, 0x0211])
def test_a_pacs_that_refuses_the_request_is_left_at_delivered(tmp_path: Path, status: int) -> None:
    pacs = Pacs(action_status=status)
    with rig(tmp_path / "home", pacs.address) as node:
        waiting_results(node.small.database, node.small.objects, tmp_path, [pacs.address])
        node.deliver()
        node.confirm()
        assert node.states() == ["delivered"] * 3
        assert all("query" in str(row.confirm_error) for row in node.rows())
    pacs.stop()


@contextmanager
def pacs_without_commitment(
    find: Callable[[evt.Event], Iterator[tuple[int, Dataset | None]]],
    *,
    action: Callable[[evt.Event], tuple[int, None]] | None = None,
) -> Iterator[str]:
    """Give the address of a PACS that stores, and answers queries as a test says; `action` answers N-ACTION."""
    ae = AE(ae_title="PACS")
    ae.add_supported_context(CTImageStorage)
    ae.add_supported_context(FIND)
    handlers = [(evt.EVT_C_STORE, lambda _: 0), (evt.EVT_C_FIND, find)]
    if action is not None:
        ae.add_supported_context(StorageCommitmentPushModel)
        handlers.append((evt.EVT_N_ACTION, action))
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield f"PACS@127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("bound", "value"), [("node.find.MAX_ROWS", 5), ("node.commitment.LONGEST_SECONDS", 1.0)]
)
def test_a_query_whose_answer_does_not_end_is_given_up_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: float
) -> None:
    monkeypatch.setattr(bound, value)
    over = threading.Event()

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        row = Dataset()
        row.SOPInstanceUID = "1.2.3"
        while event.assoc.is_established and not over.wait(0.05):
            yield 0xFF00, row

    with pacs_without_commitment(find) as address, rig(tmp_path / "home", address) as node:
        waiting_results(node.small.database, node.small.objects, tmp_path, [address])
        node.deliver()
        asking = threading.Thread(target=node.confirm, daemon=True)
        asking.start()
        asking.join(PATIENCE_SECONDS)
        is_over = not asking.is_alive()
        over.set()
        assert is_over
        why = "not confirmed, the query failed: a query is answered with more rows than can be waited for"
        assert [(row.state, row.confirm_error) for row in node.rows()] == [("delivered", why)] * 3


def test_a_destination_without_commitment_is_not_told_as_asked_by_it_nor_counts_that_as_a_miss(
    tmp_path: Path,
) -> None:
    told: list[tuple[str | None, bool]] = []

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        told.append((node.rows()[0].confirm_error, node.rows()[0].asked_at is None))
        yield 0x0000, None

    with pacs_without_commitment(find) as address, rig(tmp_path / "home", address) as node:
        waiting_results(node.small.database, node.small.objects, tmp_path, [address], count=1)
        node.deliver()
        node.confirm()
        why = f"no storage commitment: {address} accepts none of the SOP classes and transfer syntaxes"
        assert told == [(why, True)]
        node.confirm(timedelta(hours=1))
        assert (node.states(), node.rows()[0].confirm_attempt) == (["delivered"], 2)
        node.confirm(timedelta(hours=1))
        assert node.states() == ["pending"]


@pytest.mark.parametrize(("held", "state"), [(True, "confirmed"), (False, "pending")])
def test_a_destination_that_answers_no_request_is_queried_after_a_day_and_a_loss_counts_at_the_third_miss(
    tmp_path: Path, held: bool, state: str
) -> None:
    asked: list[str] = []

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked.append("query")
        if held:
            yield 0xFF00, event.identifier
        yield 0x0000, None

    def abort(event: evt.Event) -> tuple[int, None]:
        asked.append("commitment")
        event.assoc.abort()
        return 0, None

    with (
        pacs_without_commitment(find, action=abort) as address,
        rig(tmp_path / "home", address) as node,
    ):
        waiting_results(node.small.database, node.small.objects, tmp_path, [address], count=1)
        node.deliver()
        node.confirm()
        for _ in range(23):
            node.confirm(timedelta(hours=1))
        assert (set(asked), node.states()) == ({"commitment"}, ["delivered"])
        for _ in range(4):
            node.confirm(timedelta(hours=1))
        assert asked[asked.index("query") :] == ["query"] * (1 if held else 3)
        assert node.states() == [state]


def test_nothing_is_asked_where_it_is_switched_off(pacs: Pacs, tmp_path: Path) -> None:
    with rig(tmp_path / "home", pacs.address, settings=DeliverySettings(commitment="off")) as node:
        waiting_results(node.small.database, node.small.objects, tmp_path, [pacs.address])
        node.deliver()
        node.confirm()
        assert node.states() == ["delivered"] * 3
        assert (pacs.asked, {row.confirm_after for row in node.rows()}) == ([], {None})


def test_what_nobody_foresaw_of_an_answer_is_told_and_put_off_and_not_asked_in_every_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        yield 0x0000, None

    def broken(rows: Sequence[Unconfirmed]) -> frozenset[str]:
        asked.append(len(rows))
        raise ValueError("Doe^John is too long")

    with pacs_without_commitment(find) as address, rig(tmp_path / "home", address) as node:
        waiting_results(node.small.database, node.small.objects, tmp_path, [address], count=1)
        node.deliver()
        node.confirmer._query = broken
        node.confirm()
        node.confirm()
        (row,) = node.rows()
    assert (row.state, asked) == ("delivered", [1])
    assert str(row.confirm_error).startswith("not confirmed, a fault of our own: ValueError at ")
    assert "Doe" not in str(row.confirm_error)
    assert "confirm-broken" in caplog.text
