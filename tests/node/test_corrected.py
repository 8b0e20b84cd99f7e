"""What a source corrects of a study that is here: whose it is, when it was made, what the patient is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import make_series
from pydicom import dcmread
from pydicom.uid import generate_uid
from small_node import SmallNode
from sqlmodel import Session

from node.intake import Intake
from node.settle import Settler
from store.part10 import Header, scan_header
from store.tables import Event, Patient, Series, Study


class Source:
    """Sends a study of five slices to a node, again and again, and lets it settle."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sent = folder, 0
        self.node = SmallNode.make(folder / "node")
        self.images = make_series(folder / "in", np.arange(5 * 64.0).reshape(5, 8, 8), patient_id="P1")

    def send(self, which: slice = slice(None), **changes: Any) -> None:
        for image in self.images[which]:
            dataset = dcmread(image)
            for name, value in changes.items():
                setattr(dataset, name, value)
            self.sent += 1
            dataset.save_as(self.folder / f"{self.sent}.dcm")
            temporary = self.node.objects.temporary()
            temporary.write_bytes((self.folder / f"{self.sent}.dcm").read_bytes())
            Intake(self.node.database, self.node.objects).take(temporary, source="CT1@127.0.0.1")

    def settle(self) -> None:
        now = self.node.database.now() + timedelta(seconds=1)
        Settler(self.node.database, (), quiet_seconds=0, objects=self.node.objects).tick(now)

    def study(self) -> Study:
        (study,) = self.node.rows(Study)
        return study

    def patient(self) -> Patient:
        return next(one for one in self.node.rows(Patient) if one.id == self.study().patient_pk)

    def events(self) -> list[tuple[str, str]]:
        return [(one.kind, one.text) for one in self.node.rows(Event) if one.kind != "conflict"]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    made = Source(tmp_path)
    yield made
    made.node.database.dispose()


def test_objects_of_another_patient_in_a_study_leave_it_with_its_own_and_are_told_once(
    source: Source,
) -> None:
    source.send()
    source.settle()
    source.send(slice(0, 3), PatientID="P2")
    source.send(slice(0, 1), PatientID="P2", SeriesInstanceUID=generate_uid(), SOPInstanceUID=generate_uid())
    assert source.patient().patient_id == "P1"
    source.settle()
    assert (source.patient().patient_id, source.study().revision) == ("P1", 2)
    assert source.events() == [
        ("patient-conflict", "An instance of another patient came from CT1@127.0.0.1.")
    ]


def test_a_study_that_came_whole_for_another_patient_is_his_once_it_settles(source: Source) -> None:
    source.send()
    source.settle()
    source.send(PatientID="P2")
    assert source.patient().patient_id == "P1"
    source.settle()
    assert source.patient().patient_id == "P2"
    assert source.events()[-1] == (
        "corrected",
        "What its objects say of it now counts: PatientID.",
    )


def test_a_corrected_study_date_counts_once_the_study_settles(source: Source) -> None:
    source.send(StudyTime="081500")
    source.settle()
    source.send(StudyDate="20250601", StudyTime="", StudyDescription="Thorax", Modality="CT")
    source.settle()
    study = source.study()
    assert (study.study_date, study.study_time) == (date(2025, 6, 1), "081500")
    assert study.study_description == "Thorax"
    assert source.events() == [
        ("corrected", "What its objects say of it now counts: StudyDate, StudyDescription.")
    ]


def test_one_object_without_a_date_leaves_no_study_without_one_and_the_earliest_date_counts(
    source: Source,
) -> None:
    source.send(slice(0, 1), StudyDate="", SeriesNumber=None)
    assert source.study().study_date is None
    source.send(slice(1, 3), StudyDate="20250302")
    source.send(slice(3, 5), StudyDate="20250301")
    source.settle()
    assert source.study().study_date == date(2025, 3, 1)
    assert source.node.rows(Series)[0].series_number == 1


def test_the_date_of_images_counts_before_that_of_a_report_and_of_a_stranger(source: Source) -> None:
    basic_text_sr = "1.2.840.10008.5.1.4.1.1.88.11"
    source.send(
        slice(0, 1), StudyDate="20240101", SOPClassUID=basic_text_sr, SeriesInstanceUID=generate_uid(),
        SOPInstanceUID=generate_uid(),
    )  # fmt: skip
    source.send(slice(0, 1), StudyDate="20230101", PatientID="P2", SOPInstanceUID=generate_uid())
    source.send()
    source.settle()
    assert source.study().study_date == date(2025, 1, 1)


def test_others_may_write_while_the_files_of_a_study_are_read_and_a_sound_one_has_one_read_of_each_series(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, others_wait, reads = source.node.database, [False], list[bool]()
    transaction = database.transaction

    @contextmanager
    def watched() -> Iterator[Session]:
        with transaction() as session:
            others_wait[0] = True
            yield session
        others_wait[0] = False

    def read(path: Path) -> Header:
        reads.append(others_wait[0])
        return scan_header(path)

    source.send()
    monkeypatch.setattr(database, "transaction", watched)
    monkeypatch.setattr("store.corrected.scan_header", read)
    source.settle()
    assert reads == [False]
    monkeypatch.undo()
    source.send(
        slice(0, 1), PatientName="TEST^ONE", SeriesInstanceUID="1.2.826.0.1", SOPInstanceUID="1.2.826.0.2"
    )
    monkeypatch.setattr(database, "transaction", watched)
    monkeypatch.setattr("store.corrected.scan_header", read)
    reads.clear()
    source.settle()
    assert (source.study().revision, reads) == (2, [False] * 6)


def test_a_patient_who_got_a_name_has_it_and_an_empty_one_takes_none_away(source: Source) -> None:
    source.send(PatientName="Unknown^Male", PatientSex="O", PatientBirthDate="19600101")
    source.settle()
    source.send(slice(0, 2), PatientName="Muster^Max", PatientSex="M", PatientBirthDate="19500505")
    source.settle()
    assert source.patient().patient_name == "Unknown^Male"  # three objects still say so
    source.send(PatientName="Muster^Max", PatientSex="M", PatientBirthDate="19500505")
    source.settle()
    patient = source.patient()
    assert (patient.patient_name, patient.patient_sex) == ("Muster^Max", "M")
    assert patient.patient_birth_date == date(1950, 5, 5)
    assert source.events()[-1] == (
        "corrected",
        "What its objects say of it now counts: PatientName, PatientSex, PatientBirthDate.",
    )
    source.send(PatientName="", PatientSex="", PatientBirthDate="")
    source.settle()
    assert source.patient() == patient
