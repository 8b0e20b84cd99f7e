"""What a source corrects of a study that is here: whose it is, when it was made, what the patient is called."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import make_series
from pydicom import dcmread
from pydicom.uid import generate_uid
from small_node import SmallNode

from node.intake import Intake
from node.settle import Settler
from store.tables import Event, Patient, Study


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
        "What its objects say of it now counts: the patient.",
    )
