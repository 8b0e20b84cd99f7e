"""A study that is corrected in Orthanc under the UIDs it had: the hook tells it, and the node fetches it once more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from orthanc_module import Ear, FakeOrthanc, load_hook
from orthanc_server import OrthancServer, orthanc
from patience import eventually
from pulling_home import Home, series, work_off
from pydicom import dcmread
from sqlmodel import col, select

from store.studies import settle
from store.tables import Instance, Patient, Study


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    made.close()


# --- with a stand-in -------------------------------------------------------------------------------------------

MORNING = [("20250110T080000", "file-1"), ("20250110T080001", "file-2")]


def told(monkeypatch: pytest.MonkeyPatch, fake: FakeOrthanc, *studies: str) -> list[bool]:
    """Return for each study that becomes stable whether a hook that was just started asks to fetch everything."""
    hook = load_hook(monkeypatch, None)
    bodies: list[dict[str, object]] = []

    def send(url: str, token: str, body: dict[str, object]) -> int:
        bodies.append(body)
        return 202

    teller = hook.Teller(fake, "http://x", "", send=send)
    teller.start()
    for number, study in enumerate(studies, start=1):
        teller.queue(study)
        assert eventually(lambda number=number: teller.status()["told"] == number)
    teller.stop()
    return [body.get("everything", False) is True for body in bodies]


def test_a_growing_study_is_never_fetched_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOrthanc({})
    fake.stored["1"] = MORNING[:1]
    assert told(monkeypatch, fake, "1", "1") == [False, False]
    fake.stored["1"] = MORNING
    assert told(monkeypatch, fake, "1") == [False]
    fake.stored["1"] = [*MORNING, ("20250110T090000", "result")]
    assert told(monkeypatch, fake, "1", "2") == [False, False]


def test_an_instance_that_was_stored_anew_is_told_once_also_after_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeOrthanc({})
    fake.stored["1"] = MORNING
    assert told(monkeypatch, fake, "1") == [False]
    fake.stored["1"] = [MORNING[0], ("20250210T080000", "file-2b")]
    assert told(monkeypatch, fake, "1", "1") == [True, False]


def test_two_patients_under_one_study_uid_take_no_turns_and_the_later_file_of_an_instance_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeOrthanc({})
    fake.stored["1-AAA"] = MORNING
    assert told(monkeypatch, fake, "1-AAA") == [False]
    fake.stored["1-BBB"] = [("20250110T090000", "file-3")]
    assert told(monkeypatch, fake, "1-BBB", "1-AAA", "1-BBB", "1-AAA") == [False] * 4
    fake.stored["1-BBB"] += [("20250110T100000", "file-1/corrected")]
    assert told(monkeypatch, fake, "1-BBB", "1-AAA", "1-BBB") == [True, False, False]


def test_without_a_memory_every_study_is_still_told_and_why_is_logged_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeOrthanc({})
    monkeypatch.setattr(fake, "RestApiPost", None)
    assert told(monkeypatch, fake, "1", "2") == [False, False]
    assert sum("corrected" in text for text in fake.logged) == 1


# --- inside a real Orthanc ------------------------------------------------------------------------------------


@pytest.fixture
def server(ear: Ear) -> Iterator[OrthancServer]:
    with orthanc(node_url=ear.url) as running:
        yield running


def heard(ear: Ear, home: Home, server: OrthancServer, *, fetches: int) -> None:
    """Wait until a study is told, hand it to the node, and see how many files that fetches."""
    assert eventually(lambda: len(ear.heard) == 1)
    (body,) = ear.heard
    home.request(body["study_instance_uid"], everything=body.get("everything", False))
    puller = home.puller(home.pacs(server.dicomweb))
    taken: list[Path] = []
    take = puller._take
    puller._take = lambda path, uid, pk: taken.append(path) or take(path, uid, pk)  # type: ignore[method-assign,func-returns-value]
    work_off(puller, home.wish(body["study_instance_uid"]).run_after)
    assert len(taken) == fetches
    ear.heard.clear()


def test_a_study_that_grows_in_a_real_orthanc_is_fetched_once(
    ear: Ear, home: Home, server: OrthancServer, tmp_path: Path
) -> None:
    paths = series(tmp_path, "GROWS", 3)
    for path in paths[:2]:
        server.upload(path)
    heard(ear, home, server, fetches=2)
    server.upload(paths[2])
    heard(ear, home, server, fetches=1)


def test_pixels_that_were_replaced_in_orthanc_are_fetched(
    ear: Ear, home: Home, server: OrthancServer, tmp_path: Path
) -> None:
    paths = series(tmp_path, "PIXELS", 2)
    for path in paths:
        server.upload(path)
    heard(ear, home, server, fetches=2)
    dataset = dcmread(paths[0])
    dataset.PixelData = bytes(len(dataset.PixelData) - 1) + b"\x01"
    dataset.save_as(paths[0])
    server.upload(paths[0])
    heard(ear, home, server, fetches=2)
    with home.database.reading() as session:
        assert sorted(session.exec(select(Instance.current))) == [False, True, True]


def test_a_patient_that_was_corrected_in_orthanc_is_corrected_in_the_node_also_after_a_restart(
    ear: Ear, home: Home, server: OrthancServer, tmp_path: Path
) -> None:
    paths = series(tmp_path, "WRONG", 2)
    for path in paths:
        server.upload(path)
    heard(ear, home, server, fetches=2)
    server.kill()
    server.start()
    heard(ear, home, server, fetches=0)
    (patient,) = server.get("/patients")
    change = {
        "Replace": {"PatientID": "RIGHT", "PatientName": "Right"},
        "Keep": ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"],
        "KeepSource": False,
        "Force": True,
    }
    url = f"{server.url}/patients/{patient}/modify"
    httpx.post(url, json=change, timeout=60, trust_env=False).raise_for_status()
    heard(ear, home, server, fetches=2)
    with home.database.transaction() as session:
        (study,) = session.exec(select(Study)).all()
        now = home.database.now()
        assert settle(session, int(study.id or 0), now=now, forced=True, objects=home.objects) is not None
        of_study = select(Patient.patient_id).join(Study, col(Study.patient_pk) == col(Patient.id))
        assert session.exec(of_study).all() == ["RIGHT"]
