"""Delivery: to a real Orthanc by C-STORE and STOW-RS, every outcome, outages, leases, and faults of ours."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from empty_database import empty_database
from orthanc_server import OrthancServer, orthanc
from outbox_rows import deliveries, job_state, waiting_results
from patience import eventually
from pydicom import dcmread
from sqlmodel import select
from storage_peer import calling, peer, work_off

from node.loop import Loop
from node.pacs import DicomWeb
from node.sender import Outcome, Sender, outcome
from node.transport import Answer, Parcel, stow
from plugins.errors import Refused, Unavailable
from store.database import Database
from store.objects import ObjectStore
from store.tables import Result


@pytest.fixture(scope="module")
def server() -> Iterator[OrthancServer]:
    with orthanc() as running:
        yield running


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = empty_database(tmp_path)
    yield made
    made.dispose()


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "store")


@pytest.mark.parametrize("how", ["dimse", "stow"])
def test_results_reach_a_real_orthanc_once_also_when_they_are_sent_twice(
    server: OrthancServer, database: Database, objects: ObjectStore, tmp_path: Path, how: str
) -> None:
    destination = server.dicomweb if how == "stow" else f"ORTHANC@127.0.0.1:{server.dicom_port}"
    uids = waiting_results(database, objects, tmp_path, [destination], patient_id=how)
    sender = Sender(database, objects, destination)
    work_off(sender, database.now())
    sender.close()
    rows = deliveries(database)
    assert [(r.state, r.last_status, r.attempt) for r in rows] == [("delivered", "0x0000", 1)] * 3
    assert job_state(database) == "done"
    with database.reading() as session:
        results = list(session.exec(select(Result)))
    with closing(DicomWeb(server.dicomweb)) as pacs:
        send = stow(pacs) if how == "stow" else calling(destination)
        for result in results:
            again = send(Parcel(path=objects.path(result.sha256), sop_instance_uid=result.sop_instance_uid))
            assert again.status == 0
        held = pacs.study_instances(study_of(objects, results[0]))
    assert sorted(i.sop_instance_uid for i in held) == sorted(uids)


def study_of(objects: ObjectStore, result: Result) -> str:
    return str(dcmread(objects.path(result.sha256), stop_before_pixels=True).StudyInstanceUID)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0x0000, Outcome.DELIVERED), (0xB000, Outcome.DELIVERED), (0xB006, Outcome.DELIVERED),
        (0xB007, Outcome.DELIVERED), (0x0001, Outcome.DELIVERED), (0x0111, Outcome.DELIVERED),
        (None, Outcome.RETRY), (0xA700, Outcome.RETRY), (0xA701, Outcome.RETRY), (0xA7FF, Outcome.RETRY),
        (0x0110, Outcome.RETRY), (0xFE00, Outcome.RETRY), (0x1234, Outcome.RETRY),
        (0xA900, Outcome.REFUSED), (0xA9FF, Outcome.REFUSED), (0xC000, Outcome.REFUSED), (0xC211, Outcome.REFUSED),
        (0xCFFF, Outcome.REFUSED), (0x0112, Outcome.REFUSED), (0x0117, Outcome.REFUSED), (0x0122, Outcome.REFUSED),
        (0x0124, Outcome.REFUSED),
    ],
)  # fmt: skip
def test_the_outcome_of_every_status_is_that_of_the_conformance_statement(
    status: int | None, expected: Outcome
) -> None:
    assert outcome(status) is expected


def test_why_a_destination_could_not_be_reached_stands_in_the_log_and_what_a_peer_says_does_not(
    database: Database, objects: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "node.sender")
    answers = [Answer(status=0xA700, text="No room for DOE^JANE"), Answer(status=0, text="")]

    def transport(_: Parcel) -> Answer:
        if len(answers) == 2 and not caplog.records:
            raise Unavailable("PACS@h:104 cannot be reached: Connection refused")
        return answers.pop(0)

    waiting_results(database, objects, tmp_path, ["PACS@h:104"], count=1)
    sender, now = Sender(database, objects, "PACS@h:104", transport=transport), database.now()
    for minutes in range(0, 60, 20):
        work_off(sender, now + timedelta(minutes=minutes))
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in told] == ["WARNING", "WARNING", "INFO"]
    unreached = 'status=unreachable outcome=retry text="PACS@h:104 cannot be reached: Connection refused"'
    assert told[0][1].endswith(unreached)
    assert told[1][1].endswith("attempt=2 status=0xA700 outcome=retry")
    assert told[2][1].endswith("attempt=3 status=0x0000 outcome=delivered")


def test_after_an_outage_of_twelve_hours_everything_is_delivered_once_and_in_order(
    database: Database, objects: ObjectStore, tmp_path: Path
) -> None:
    clock = datetime(2025, 3, 1, 18, 0, tzinfo=UTC)
    back = clock + timedelta(hours=12)
    now = clock
    took: list[str] = []

    def transport(parcel: Parcel) -> Answer:
        if now < back:
            raise Unavailable("down")
        took.append(parcel.sop_instance_uid)
        return Answer(status=0)

    uids = []
    for patient in range(2):
        made = waiting_results(
            database, objects, tmp_path, ["P@h:104"], count=5, patient_id=f"{patient}", now=clock
        )
        uids.append(made)
    sender = Sender(database, objects, "P@h:104", transport=transport)
    while len(took) < 10:
        assert now < back + timedelta(minutes=20)
        work_off(sender, now)
        now += timedelta(minutes=5)
    assert len(set(took)) == 10
    for of_one_study in uids:
        assert [uid for uid in took if uid in of_one_study] == of_one_study
    assert all(r.state == "delivered" and r.attempt <= 80 for r in deliveries(database))


@pytest.mark.parametrize(("bad", "status"), [(20, 0xA700), (8, None), (2, 0x0110)])
def test_what_a_destination_never_takes_keeps_its_own_pauses_and_holds_up_no_other_study(
    database: Database, objects: ObjectStore, tmp_path: Path, bad: int, status: int | None
) -> None:
    now = began = datetime(2025, 3, 1, 8, 0, tzinfo=UTC)
    tries: Counter[str] = Counter()
    came: dict[str, datetime] = {}
    waited: list[timedelta] = []

    def transport(parcel: Parcel) -> Answer:
        tries[parcel.sop_instance_uid] += 1
        if parcel.sop_instance_uid in refused:
            return Answer(status=status)
        waited.append(now - came[parcel.sop_instance_uid])
        return Answer(status=0)

    def made(patient: str) -> list[str]:
        return waiting_results(database, objects, tmp_path, ["P@h:104"], count=1, patient_id=patient, now=now)

    refused = {uid for number in range(bad) for uid in made(f"bad{number}")}
    sender = Sender(database, objects, "P@h:104", transport=transport)
    while now < began + timedelta(hours=1):
        if (now - began).total_seconds() % 240 == 60:
            came.update(dict.fromkeys(made(f"{now:%H%M}"), now))
        work_off(sender, now)
        now += timedelta(seconds=2)
    assert len(waited) == 15
    assert max(waited) <= timedelta(seconds=62)
    assert {tries[uid] for uid in refused} <= set(range(5, 11))


def test_what_a_destination_without_resources_did_not_take_goes_at_once_when_it_takes_again(
    database: Database, objects: ObjectStore, tmp_path: Path
) -> None:
    now = clock = datetime(2025, 3, 1, 18, 0, tzinfo=UTC)
    back = clock + timedelta(hours=3)
    took: list[datetime] = []

    def transport(_: Parcel) -> Answer:
        if clock < now < back:
            return Answer(status=0xA700)
        took.append(now)
        return Answer(status=0)

    for patient in range(6):
        waiting_results(database, objects, tmp_path, ["P@h:104"], count=1, patient_id=f"{patient}", now=clock)
    sender = Sender(database, objects, "P@h:104", transport=transport)
    sender.tick(now)
    while now < back + timedelta(minutes=20):
        now += timedelta(seconds=15)
        work_off(sender, now)
    assert len(took) == 6
    assert took[1] >= back
    assert took[-1] - took[1] <= timedelta(seconds=15)


@pytest.mark.parametrize("ahead", [timedelta(minutes=30), timedelta(days=1), timedelta(days=400)])
def test_a_destination_that_rests_by_a_clock_that_ran_ahead_is_served_once_the_clock_is_right(
    database: Database, objects: ObjectStore, tmp_path: Path, ahead: timedelta
) -> None:
    clock = datetime(2025, 3, 1, 18, 0, tzinfo=UTC)
    is_back = False
    took: list[datetime] = []

    def transport(_: Parcel) -> Answer:
        if not is_back:
            raise Unavailable("down")
        took.append(now)
        return Answer(status=0)

    waiting_results(database, objects, tmp_path, ["P@h:104"], count=3, now=clock)
    sender = Sender(database, objects, "P@h:104", transport=transport, is_there=lambda: is_back)
    now = clock + ahead
    work_off(sender, now)
    is_back, now = True, clock + timedelta(minutes=5)
    for _ in range(
        2
    ):  # the second time what was tried before: it is asked between whether the destination is back
        work_off(sender, now)
    assert took == [now] * 3


def test_a_result_whose_bytes_are_gone_is_told_and_parked(
    database: Database, objects: ObjectStore, tmp_path: Path
) -> None:
    with peer(lambda _: 0) as destination:
        waiting_results(database, objects, tmp_path, [destination], count=1)
        with database.reading() as session:
            objects.path(session.exec(select(Result.sha256)).one()).unlink()
        sender, now = Sender(database, objects, destination), database.now()
        for _ in range(5):
            work_off(sender, now)
            now += timedelta(minutes=20)
    (row,) = deliveries(database)
    assert (row.state, row.attempt) == ("parked", 3)


@pytest.mark.parametrize(
    ("answer", "state", "status"),
    [
        (lambda uid: httpx.Response(200), "delivered", "0x0000"),
        (lambda uid: said(200, stored=uid), "delivered", "0x0000"),
        (lambda uid: said(202, stored=uid, warning=0xB006), "delivered", "0xB006"),
        (lambda uid: said(409, failed=uid, reason=0xA700), "pending", "0xA700"),
        (lambda uid: said(202, failed=uid, reason=0x0110), "pending", "0x0110"),
        (lambda uid: said(409, failed=uid, reason=0xC000), "pending", "0xC000"),
        (lambda uid: said(200, stored="1.2.3"), "pending", "no status"),
        (lambda uid: httpx.Response(503), "pending", "no status"),
        (lambda uid: httpx.Response(413), "pending", "no status"),
        (lambda uid: httpx.Response(202), "pending", "no status"),
        (lambda uid: httpx.Response(204), "delivered", "0x0000"),
        (lambda uid: httpx.Response(200, json=[]), "delivered", "0x0000"),
        (lambda uid: httpx.Response(200, headers={"Content-Type": "text/plain"}), "delivered", "0x0000"),
        (lambda uid: said(409, reason=0xC000), "pending", "0xC000"),
        (lambda uid: said(202, reason=0xA700), "pending", "0xA700"),
        (lambda uid: said(409, other=0x0110), "pending", "0x0110"),
        (lambda uid: said(409, stored=uid, other=0x0110), "delivered", "0x0000"),
        (lambda uid: said(200, stored="1.2.3", other=0xC000), "pending", "0xC000"),
        (lambda uid: said(200, failed=uid), "pending", "no status"),
        (lambda uid: said(202), "pending", "no status"),
        (lambda uid: httpx.Response(200, json={"error": "quota exceeded"}), "pending", "no status"),
        (lambda uid: httpx.Response(200, html="<html>log in</html>"), "pending", "no status"),
    ],
)
def test_stow_answers_are_outcomes_like_those_of_c_store(
    database: Database,
    objects: ObjectStore,
    tmp_path: Path,
    answer: Callable[[str], httpx.Response],
    state: str,
    status: str,
) -> None:
    url = "http://pacs/dicom-web"
    (uid,) = waiting_results(database, objects, tmp_path, [url], count=1)
    client = httpx.Client(transport=httpx.MockTransport(lambda _: answer(uid)))
    work_off(Sender(database, objects, url, transport=stow(DicomWeb(url, client=client))), database.now())
    (row,) = deliveries(database)
    assert (row.state, row.last_status) == (state, status)


@pytest.mark.parametrize(
    "body", [{"HttpError": "Conflict", "HttpStatus": 409}, {}, {"00081198": {"Value": [{}]}}]
)
def test_a_stow_request_refused_without_a_word_on_the_instance_is_parked_at_the_third_time(
    database: Database, objects: ObjectStore, tmp_path: Path, body: dict[str, Any]
) -> None:
    url = "http://pacs/dicom-web"
    waiting_results(database, objects, tmp_path, [url], count=1)
    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(409, json=body)))
    sender = Sender(database, objects, url, transport=stow(DicomWeb(url, client=client)))
    for minutes in range(0, 100, 20):
        work_off(sender, database.now() + timedelta(minutes=minutes))
    (row,) = deliveries(database)
    assert (row.state, row.attempt, row.last_error) == (
        "parked", 3, "http://pacs/dicom-web refused the request (HTTP 409)",
    )  # fmt: skip
    assert job_state(database) != "done"


def said(
    http: int,
    *,
    stored: str | None = None,
    failed: str | None = None,
    reason: int = 0,
    warning: int | None = None,
    other: int = 0,
) -> httpx.Response:
    body: dict[str, Any] = {}
    if stored:
        body["00081199"] = {"Value": [{"00081155": {"Value": [stored]}}]}
        if warning:
            body["00081199"]["Value"][0]["00081196"] = {"Value": [warning]}
    if failed or reason:
        named = {"00081155": {"Value": [failed]}} if failed else {}
        body["00081198"] = {"Value": [{**named, "00081197": {"Value": [reason]}}]}
    if other:
        body["0008119A"] = {"Value": [{"00081197": {"Value": [other]}}]}
    return httpx.Response(http, content=json.dumps(body), headers={"Content-Type": "application/dicom+json"})


def test_a_long_transfer_keeps_its_lease(
    database: Database, objects: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.sender.LEASE_SECONDS", 1.5)
    waiting_results(database, objects, tmp_path, ["P@h:104"], count=1)
    seen: list[int] = []

    def slow(parcel: Parcel) -> Answer:
        seen.append(1)
        time.sleep(3.0)
        return Answer(status=0)

    senders = [Sender(database, objects, "P@h:104", transport=slow) for _ in range(2)]
    loops = [Loop(f"{n}", s.tick, database.now, 0.05) for n, s in enumerate(senders)]
    for loop in loops:
        loop.start()
    assert eventually(lambda: deliveries(database)[0].state == "delivered")
    assert all(loop.stop(10) for loop in loops)
    assert len(seen) == 1


def test_an_object_that_cannot_be_sent_for_a_fault_of_ours_waits_like_the_others(
    database: Database, objects: ObjectStore, tmp_path: Path
) -> None:
    waiting_results(database, objects, tmp_path, ["P@h:104"], count=1)

    def fail(parcel: Parcel) -> Answer:
        raise AttributeError("no such thing")

    assert Sender(database, objects, "P@h:104", transport=fail).tick(database.now())
    (row,) = deliveries(database)
    assert (row.state, row.attempt, row.last_status) == ("pending", 1, "no status")
    assert "AttributeError" in str(row.last_error)


def test_a_destination_that_is_none_is_refused_when_the_sender_is_made(
    database: Database, objects: ObjectStore
) -> None:
    with pytest.raises((Refused, ValueError)):
        Sender(database, objects, "nonsense")
