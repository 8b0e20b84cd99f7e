from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from pytest import MonkeyPatch
from small_node import SmallNode
from sqlalchemy.exc import OperationalError

from node.intake import Intake
from plugins.errors import Refused, Unavailable
from store.tables import Event, Instance, Study

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
