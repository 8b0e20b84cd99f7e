from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from pytest import MonkeyPatch
from small_node import SmallNode
from sqlalchemy import event as sql_event
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel, delete

from node.intake import Intake
from plugins.errors import Refused, Unavailable
from store.instances import Arrived, Recorded
from store.objects import ObjectStore
from store.tables import Event, Instance, Series, Study

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallNode]:
    node = SmallNode.make(tmp_path / "node")
    yield node
    node.database.dispose()


@pytest.fixture
def intake(small: SmallNode) -> Intake:
    return Intake(small.database, small.objects, clock=lambda: NOW)


def incoming_copy(small: SmallNode, path: Path) -> Path:
    temporary = small.objects.temporary()
    shutil.copyfile(path, temporary)
    return temporary


def one(folder: Path, **keywords: object) -> Path:
    return make_series(folder, np.ones((1, 8, 8)), **keywords)[0]  # type: ignore[arg-type]


def test_a_file_is_kept_recorded_and_its_temporary_is_gone(
    small: SmallNode, intake: Intake, tmp_path: Path
) -> None:
    path = one(tmp_path / "in")
    temporary = incoming_copy(small, path)

    recorded = intake.take(temporary, source="folder")

    (row,) = small.rows(Instance)
    assert (recorded.outcome, recorded.instance_pk) == ("new", row.id)
    assert (row.source, row.received_at) == ("folder", NOW)
    assert not temporary.exists()
    assert small.check_whole() == 1
    assert dcmread(small.objects.path(row.sha256)) == dcmread(path)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_the_same_dataset_from_two_file_headers_is_one_object(
    small: SmallNode, intake: Intake, tmp_path: Path, syntax: str
) -> None:
    path = one(tmp_path / "in", transfer_syntax=syntax)
    other = tmp_path / "other.dcm"
    ds = dcmread(path)
    ds.preamble = b"MZ" + bytes(126)
    ds.file_meta.ImplementationVersionName = "OTHER"
    ds.file_meta.SourceApplicationEntityTitle = "SCANNER"
    ds.save_as(other)

    outcomes = [intake.take(incoming_copy(small, p), source="x").outcome for p in (path, other, path)]

    assert outcomes == ["new", "identical", "identical"]
    assert small.check_whole() == 1
    assert small.objects.path(small.rows(Instance)[0].sha256).read_bytes()[:128] == bytes(128)


def test_a_file_that_is_no_dicom_is_refused_and_kept_aside_with_its_reason(
    small: SmallNode, intake: Intake
) -> None:
    temporary = small.objects.temporary()
    temporary.write_bytes(b"hello" * 100)

    with pytest.raises(Refused) as caught:
        intake.take(temporary, source="x")

    (event,) = small.rows(Event)
    assert (event.kind, event.text) == ("quarantine", f"{caught.value.code} from x")
    (aside,) = (small.home / "store" / "quarantine").glob("*.dcm")
    assert aside.read_bytes() == b"hello" * 100
    assert aside.stem.startswith(event.subject)
    assert small.incoming() == []


def test_a_uid_that_belongs_to_another_study_is_refused_and_kept_aside(
    small: SmallNode, intake: Intake, tmp_path: Path
) -> None:
    path = one(tmp_path / "in")
    intake.take(incoming_copy(small, path), source="x")
    ds = dcmread(path)
    ds.StudyInstanceUID = "1.2.3.4"
    ds.PatientID = "SOMEONE ELSE"
    ds.save_as(path)

    with pytest.raises(Refused, match="uid-collision"):
        intake.take(incoming_copy(small, path), source="x")

    assert small.check_whole() == 1
    assert len(small.rows(Study)) == 1
    assert [row.kind for row in small.rows(Event)] == ["quarantine"]
    assert len(list(small.objects.names())) == 1


def test_what_the_command_announced_must_be_in_the_dataset(
    small: SmallNode, intake: Intake, tmp_path: Path
) -> None:
    path = one(tmp_path / "in")
    ds = dcmread(path)

    for expected in ((ds.SOPClassUID, "1.2.3"), ("1.2.3", ds.SOPInstanceUID)):
        with pytest.raises(Refused, match="uid-mismatch"):
            intake.take(incoming_copy(small, path), source="x", expected=expected)
    intake.take(incoming_copy(small, path), source="x", expected=(ds.SOPClassUID, ds.SOPInstanceUID))

    assert small.check_whole() == 1


def test_when_the_database_does_not_answer_nothing_is_acknowledged_and_a_resend_is_taken(
    small: SmallNode, intake: Intake, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    path = one(tmp_path / "in")

    def locked(*args: object, **keywords: object) -> None:
        raise OperationalError("INSERT", {}, Exception("database is locked"))

    with monkeypatch.context() as patch:
        patch.setattr("node.intake.record_all", locked)
        with pytest.raises(Unavailable):
            intake.take(incoming_copy(small, path), source="x")
    assert small.rows(Instance) == []
    assert small.incoming() == []

    assert intake.take(incoming_copy(small, path), source="x").outcome == "new"
    assert small.check_whole() == 1


def test_a_missing_temporary_is_told_and_not_recorded(small: SmallNode, intake: Intake) -> None:
    with pytest.raises((Refused, Unavailable)):
        intake.take(small.objects.temporary(), source="x")
    assert small.rows(Instance) == []


class Company:
    """Several files that are taken at one time: the first commit stands still until the others have gathered."""

    def __init__(self, intake: Intake, monkeypatch: MonkeyPatch) -> None:
        self._intake = intake
        self._gate, self._begun = threading.Event(), threading.Event()
        self.groups: list[int] = []
        self.answers: dict[str, str] = {}
        real = intake._transact

        def transact(group: Sequence[Arrived]) -> Sequence[Recorded]:
            self.groups.append(len(group))
            self._begun.set()
            assert self._gate.wait(60)
            return real(group)

        monkeypatch.setattr(intake, "_transact", transact)

    def take(self, temporaries: dict[str, Path]) -> dict[str, str]:
        """Return the outcome or the code of each, by name; the first one is alone in its group."""
        threads = [threading.Thread(target=self._take, args=item) for item in temporaries.items()]
        threads[0].start()
        assert self._begun.wait(60)
        for thread in threads[1:]:
            thread.start()
        while self._intake._commit._waiting.qsize() < len(threads) - 1:
            time.sleep(0.001)
        self._gate.set()
        for thread in threads:
            thread.join(60)
        return self.answers

    def _take(self, name: str, temporary: Path) -> None:
        try:
            self.answers[name] = self._intake.take(temporary, source="x").outcome
        except (Refused, Unavailable) as error:
            self.answers[name] = error.code if isinstance(error, Refused) else "unavailable"


def test_who_comes_at_one_time_shares_a_commit_and_a_refusal_is_only_its_own(
    small: SmallNode, intake: Intake, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    paths = make_series(tmp_path / "in", np.arange(5.0 * 64).reshape(5, 8, 8))
    stolen = dcmread(paths[0])
    stolen.StudyInstanceUID = "1.2.3.4"
    stolen.save_as(tmp_path / "stolen.dcm")
    intake.take(incoming_copy(small, paths[0]), source="x")
    names = {f"image {number}": path for number, path in enumerate(paths[1:])} | {
        "stolen": tmp_path / "stolen.dcm"
    }

    company = Company(intake, monkeypatch)
    answers = company.take({name: incoming_copy(small, path) for name, path in names.items()})

    assert answers == {**dict.fromkeys(names, "new"), "stolen": "uid-collision"}
    assert company.groups == [1, 4, 1, 1, 1, 1]
    assert small.check_whole() == 5
    assert len(small.rows(Study)) == 1
    assert [row.kind for row in small.rows(Event)] == ["quarantine"]


def test_a_commit_that_fails_fails_all_that_share_it_and_nothing_of_it_is_remembered(
    small: SmallNode, intake: Intake, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    paths = make_series(tmp_path / "in", np.arange(4.0 * 64).reshape(4, 8, 8))
    names = {str(path): path for path in paths}
    engine = small.database._engine

    def fail(connection: object) -> None:
        raise OperationalError("COMMIT", {}, Exception("disk I/O error"))

    with monkeypatch.context() as patch:
        company = Company(intake, patch)
        sql_event.listen(engine, "commit", fail)
        answers = company.take({name: incoming_copy(small, path) for name, path in names.items()})
        sql_event.remove(engine, "commit", fail)
    assert set(answers.values()) == {"unavailable"}
    assert company.groups == [1, 3]
    assert small.rows(Study) == []
    assert small.incoming() == []

    outcomes = {intake.take(incoming_copy(small, path), source="x").outcome for path in paths}
    assert outcomes == {"new"}
    assert small.check_whole() == 4


def test_two_intakes_on_one_database_know_the_same_study(small: SmallNode, tmp_path: Path) -> None:
    intakes = [Intake(small.database, small.objects, clock=lambda: NOW) for _ in range(2)]
    paths = make_series(tmp_path / "in", np.arange(6.0 * 64).reshape(6, 8, 8))

    for number, path in enumerate([*paths, *paths]):
        outcome = intakes[number % 2].take(incoming_copy(small, path), source="x").outcome
        assert outcome == ("new" if number < 6 else "identical")

    assert len(small.rows(Study)) == len(small.rows(Series)) == 1
    assert small.check_whole() == 6


@pytest.mark.parametrize("gone", [(Instance, Series), (Instance, Series, Study)])
def test_rows_that_somebody_deleted_are_made_again(
    small: SmallNode, intake: Intake, tmp_path: Path, gone: tuple[type[SQLModel], ...]
) -> None:
    first, second = make_series(tmp_path / "in", np.arange(2.0 * 64).reshape(2, 8, 8))
    intake.take(incoming_copy(small, first), source="x")
    with small.database.transaction() as session:
        for table in gone:
            session.exec(delete(table))

    assert intake.take(incoming_copy(small, second), source="x").outcome == "new"
    assert len(small.rows(Study)) == len(small.rows(Series)) == 1


def test_one_image_twice_at_one_time_is_one_row(
    small: SmallNode, intake: Intake, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    first, second = make_series(tmp_path / "in", np.arange(2.0 * 64).reshape(2, 8, 8))
    names = {"first": first, "a": second, "b": second}

    answers = Company(intake, monkeypatch).take(
        {name: incoming_copy(small, path) for name, path in names.items()}
    )

    assert sorted(answers.values()) == ["identical", "new", "new"]
    assert small.check_whole() == 2
    assert small.rows(Event) == []


def test_what_is_refused_although_it_is_held_stays_where_it_is(
    small: SmallNode, intake: Intake, tmp_path: Path
) -> None:
    path = one(tmp_path / "in")
    intake.take(incoming_copy(small, path), source="x")

    with pytest.raises(Refused, match="prior-not-asked"):
        intake.take(incoming_copy(small, path), source="PACS", coming="fetched")

    assert small.check_whole() == 1
    assert list((small.home / "store" / "quarantine").iterdir()) == []
    assert [row.kind for row in small.rows(Event)] == ["refused"]


def test_a_full_quarantine_loses_its_oldest_and_tells(tmp_path: Path) -> None:
    node = SmallNode.make(tmp_path / "node")
    objects = ObjectStore(node.home / "store", quarantine_bytes=8192)
    intake = Intake(node.database, objects, clock=lambda: NOW)
    for number in range(4):
        temporary = objects.temporary()
        temporary.write_bytes(b"no dicom %d" % number)
        with pytest.raises(Refused, match="not-part10"):
            intake.take(temporary, source="x")

    assert len(list((node.home / "store" / "quarantine").glob("*.dcm"))) <= 2
    assert {row.kind for row in node.rows(Event)} == {"quarantine", "quarantine-full"}
    node.database.dispose()
