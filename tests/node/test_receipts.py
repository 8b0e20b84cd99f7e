"""What the audit trail hears of what comes and goes: a message a study, whatever number of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_schema import judge, told
from outbox_rows import waiting_results
from small_node import SmallNode
from sqlmodel import select

from node.audit import Audit
from node.audit_events import Patients
from node.desk import Peer
from node.receipts import Receipts
from node.sender import Sender
from node.transport import Answer, Parcel
from plugins.errors import Unavailable
from store.audit_tables import AuditRecord
from store.tables import Study

pytestmark = pytest.mark.sec
PEER = Peer("CT1", "10.0.0.7", 1)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallNode]:
    made = SmallNode.make(tmp_path / "home")
    yield made
    made.database.dispose()


@pytest.fixture
def trail(small: SmallNode) -> Audit:
    made = Audit(small.database, source="NADIR", patients=Patients(key=b"k"))
    made.start()
    return made


def said(small: SmallNode, trail: Audit) -> list[str]:
    trail.stop()
    return [record.message for record in small.rows(AuditRecord)]


@pytest.mark.parametrize(
    ("status", "outcome", "why"), [(0x0000, "0", None), (0xA900, "8", "2 parked: 0xA900")]
)
def test_results_of_a_job_are_told_as_begun_once_and_as_ended_once(
    small: SmallNode, trail: Audit, tmp_path: Path, status: int, outcome: str, why: str | None
) -> None:
    waiting_results(small.database, small.objects, tmp_path, ["P@h:104"], count=2, patient_id="CANARY")

    def send(parcel: Parcel) -> Answer:
        return Answer(status=status)

    sender = Sender(small.database, small.objects, "P@h:104", transport=send, audit=trail)
    now = small.database.now()
    for attempt in range(30):
        sender.tick(now.replace(year=now.year + attempt))
    begun, ended = said(small, trail)
    assert told(begun) == ("Begin Transferring DICOM Instances", "", "0")
    assert told(ended) == ("DICOM Instances Transferred", "", outcome)
    assert judge(ended)[0].findtext("EventOutcomeDescription") == why
    assert ('NumberOfInstances="2"' in ended) is (status == 0)
    assert "CANARY" not in begun + ended


def test_an_association_tells_each_study_once_and_what_was_refused_once(
    small: SmallNode, trail: Audit, tmp_path: Path
) -> None:
    for number in ("one", "two"):
        folder = tmp_path / number
        folder.mkdir()
        waiting_results(small.database, small.objects, folder, ["P@h:104"], count=1, patient_id=number)
    with small.database.reading() as session:
        studies = [pk for pk in session.exec(select(Study.id)) if pk is not None]
    receipts = Receipts(trail, "NADIR")
    other = Peer("CT1", "10.0.0.7", 2)
    for pk in studies * 5:
        receipts.stored(PEER, pk, "1.2.840.10008.5.1.4.1.1.2")
    receipts.refused(PEER, "not-dicom")
    receipts.refused(other, "uid-mismatch")
    for peer in (PEER, other, Peer("CT1", "10.0.0.7", 3)):
        brought = receipts.left(peer)
        if brought is not None:
            with small.database.reading() as session:
                brought.tell(session)()
    messages = said(small, trail)
    assert [told(message)[2] for message in messages] == ["4", *["0"] * (len(studies) - 1), "4"]
    assert [message.count('NumberOfInstances="5"') for message in messages] == [*[1] * len(studies), 0]
    assert "1 not-dicom" in messages[0] and "1 uid-mismatch" in messages[-1]


def test_what_could_not_be_told_while_the_database_was_away_is_told_the_next_time_and_once(
    small: SmallNode, trail: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting_results(small.database, small.objects, tmp_path, ["P@h:104"], count=1, patient_id="P1")
    receipts = Receipts(trail, "NADIR")
    receipts.stored(PEER, 1, "1.2.840.10008.5.1.4.1.1.2")
    with monkeypatch.context() as away, small.database.reading() as session:
        away.setattr(session, "exec", lambda statement: (_ for _ in ()).throw(Unavailable("no answer")))
        with pytest.raises(Unavailable):
            receipts.tell(session, PEER)
    receipts.stored(PEER, 1, "1.2.840.10008.5.1.4.1.1.2")
    for _ in range(2):
        with small.database.reading() as session:
            receipts.tell(session, PEER)
    (message,) = said(small, trail)
    assert told(message) == ("DICOM Instances Transferred", "", "0")
    assert 'NumberOfInstances="2"' in message


def test_without_a_trail_nothing_is_counted() -> None:
    receipts = Receipts()
    receipts.stored(PEER, 1)
    receipts.refused(PEER, "x")
    receipts.queried("PACS", "", "P1")
    receipts.turned_away("address", "CT1", "10.0.0.7")
    assert receipts.left(PEER) is None
