"""Axes that a person measured again in another viewer: they win, and their ends are where they were drawn."""

from __future__ import annotations

from datetime import date
from io import BytesIO

import pytest
from course_rows import Clock, lesion, patient_pk, visit
from ledger import at
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from sqlmodel import Session
from sr_items import coded, content, item

from plugins import codes
from store import instances
from store.course import course
from store.database import Database
from store.objects import ObjectStore
from store.part10 import Header

JANUARY, ONE, OWN = date(2026, 1, 10), "2.25.1", "2.25.99"
CT, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.34"
LONG, SHORT = Code("G-A185", "SRT", "Long Axis"), Code("G-A186", "SRT", "Short Axis")


@pytest.fixture
def database(sqlite: Database) -> Database:
    return sqlite


def axis(name: Code, mm: float, line: list[float], image: str) -> Dataset:
    """Return a number as viewers export it: inferred from a line on an image."""
    source = item(ValueType="IMAGE", ReferencedSOPSequence=[item(ReferencedSOPInstanceUID=image)])
    figure = item(ValueType="SCOORD", GraphicType="POLYLINE", GraphicData=line, ContentSequence=[source])
    value = item(NumericValue=mm, MeasurementUnitsCodeSequence=[coded(Code("mm", "UCUM", "millimeter"))])
    return content(name, ValueType="NUM", MeasuredValueSequence=[value], ContentSequence=[figure])


def report(uid: str, image: str, column: float = 11.0) -> Dataset:
    """Return a report of a person: 24 mm along a row of an image with pixels of 2 mm, 10 mm across."""
    row = [column - 6, 11.0, column + 6, 11.0]
    group = content(
        codes.MEASUREMENT_GROUP,
        ContentSequence=[
            content(codes.TRACKING_UNIQUE_IDENTIFIER, ValueType="UIDREF", UID=uid),
            axis(LONG, 24.0, row, image),
            axis(SHORT, 10.0, [column, 8.5, column, 13.5], image),
        ],
    )
    who = content(Code("121008", "DCM", "Person Observer Name"), PersonName="Grey^Meredith")
    return item(SOPClassUID=SR, Modality="SR", ContentSequence=[who, group])


def bring(session: Session, objects: ObjectStore, dataset: Dataset, number: int) -> None:
    """Take in an object of the study 1.2.1."""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.1", f"1.2.1.5{number}"
    dataset.SOPInstanceUID = f"1.2.1.5{number}.1"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    one = Header(
        sop_instance_uid=dataset.SOPInstanceUID,
        sop_class_uid=dataset.SOPClassUID,
        study_instance_uid="1.2.1",
        series_instance_uid=dataset.SeriesInstanceUID,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        patient_id="P1",
        modality=dataset.Modality,
        frame_of_reference_uid="1.2.9" if dataset.SOPClassUID == CT else "",
    )
    instances.record(
        session, one, objects.put(buffer.getvalue()), source="PACS@127.0.0.1", now=at(100 + number)
    )


def image() -> Dataset:
    """Return an image whose pixel at row 10, column 10 has its centre at (1, 2, 3) mm."""
    return item(
        SOPClassUID=CT,
        Modality="CT",
        ImagePositionPatient=[-19.0, -18.0, 3.0],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[2.0, 2.0],
    )


@pytest.mark.parametrize(
    ("uid", "column", "wins"), [(ONE, 10.5, True), (OWN, 10.5, True), (OWN, 16.0, False)]
)
def test_an_axis_that_a_person_drew_on_an_image_is_the_one_that_counts_and_lies_where_it_was_drawn(
    database: Database, objects: ObjectStore, uid: str, column: float, wins: bool
) -> None:
    with database.transaction() as session:
        clock = Clock()
        found = [lesion(ONE, 20, series_instance_uid="1.2.1.51", centroid_mm=(1.0, 3.0, 3.0))]
        visit(session, clock, JANUARY, found)
        bring(session, objects, image(), 1)
        bring(session, objects, report(uid, "1.2.1.51.1", column), 2)
        known = course(session, patient_pk(session), objects)
    (seen,) = known.history().visits[0].seen
    assert (seen.lesion, seen.long_axis_tenths) == (ONE, 240 if wins else 200)
    if wins:
        one = next(s for s in known.sightings if s.counts)
        assert (one.automatic, one.series_instance_uid, one.frame_of_reference_uid) == (
            False,
            "1.2.1.51",
            "1.2.9",
        )
        assert one.measurements["long_axis"].end_points_mm == ((-11.0, 3.0, 3.0), (13.0, 3.0, 3.0))
        assert one.measurements["short_axis"].end_points_mm == ((1.0, -2.0, 3.0), (1.0, 8.0, 3.0))
        assert one.measurements["long_axis"].sop_instance_uid == "1.2.1.51.1"
        assert one.site == "Lung"
