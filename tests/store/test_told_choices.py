"""What people say by the objects that they send, kept as choices with author and time."""

from __future__ import annotations

from datetime import date, datetime
from io import BytesIO

import pytest
from course_rows import Clock, Linked, lesion, patient_pk, visit
from ledger import at
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from sqlmodel import Session, select
from sr_items import coded, content, item

from plugins import codes
from store import instances
from store.choices import choose, undo
from store.chosen import chosen
from store.course import course
from store.database import Database
from store.dicom.response_codes import ROLES
from store.objects import ObjectStore
from store.part10 import Header
from store.response.history import Role
from store.tables import Study
from store.told_choices import sent_to, take_choices
from store.tracking.link import Kind

JANUARY, MARCH = date(2026, 1, 10), date(2026, 3, 10)
ONE, NEW = "2.25.1", "2.25.3"
SEG, SR = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34"


@pytest.fixture
def database(sqlite: Database) -> Database:
    return sqlite


def followed(session: Session) -> tuple[int, str]:
    """Write a lesion of 20 mm, and at the second visit one of 30 mm that the tracking calls new; return the second."""
    clock = Clock()
    first = visit(session, clock, JANUARY, [lesion(ONE, 20)])
    links = [
        Linked(kind=Kind.GONE, uid=ONE, earlier=[ONE], study=first, is_drawn=False),
        Linked(kind=Kind.NEW, uid=NEW, study=first),
    ]
    second = visit(session, clock, MARCH, [lesion(NEW, 30, segment_number=4)], links)
    return patient_pk(session), second


def bring(session: Session, objects: ObjectStore, study: str, dataset: Dataset, number: int = 1) -> int:
    """Take in an object of somebody else's and return the row of its study."""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.7{number}"
    dataset.SOPInstanceUID = f"{study}.7{number}.1"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    one = Header(
        sop_instance_uid=dataset.SOPInstanceUID,
        sop_class_uid=dataset.SOPClassUID,
        study_instance_uid=study,
        series_instance_uid=dataset.SeriesInstanceUID,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        patient_id="P1",
        modality=dataset.Modality,
    )
    instances.record(session, one, objects.put(buffer.getvalue()), source="PACS@127.0.0.1", now=at(1))
    return int(session.exec(select(Study).where(Study.study_instance_uid == study)).one().id or 0)


def take(session: Session, objects: ObjectStore, study: int, now: datetime) -> int:
    return take_choices(session, objects, sent_to(session, objects, study), study, now)


def segmentation(uid: str, kind: str = "MANUAL") -> Dataset:
    """Return the header of a SEG by a person, of one segment with this Tracking UID."""
    segment = item(SegmentNumber=1, SegmentAlgorithmType=kind, TrackingUID=uid, TrackingID="Lesion")
    return item(
        SOPClassUID=SEG, Modality="SEG", ContentCreatorName="Grey^Meredith", SegmentSequence=[segment]
    )


def report(uid: str, *said: Dataset, person: str | None = "Grey^Meredith") -> Dataset:
    """Return a report of one group with this Tracking UID."""
    group = content(
        codes.MEASUREMENT_GROUP,
        ContentSequence=[content(codes.TRACKING_UNIQUE_IDENTIFIER, ValueType="UIDREF", UID=uid), *said],
    )
    who = (
        [] if person is None else [content(Code("121008", "DCM", "Person Observer Name"), PersonName=person)]
    )
    return item(SOPClassUID=SR, Modality="SR", ContentSequence=[*who, group])


def test_what_another_node_drew_where_a_person_pointed_is_no_drawing_by_a_person(
    database: Database, objects: ObjectStore
) -> None:
    with database.transaction() as session:
        _, second = followed(session)
        theirs = segmentation(ONE, "SEMIAUTOMATIC")
        theirs.Manufacturer, theirs.ManufacturerModelName = "Nadir", "marked_lesion"
        study = bring(session, objects, second, theirs)
        drawn = lesion(ONE, 28, automatic=False, confidence=None)
        visit(session, Clock(seconds=50, studies=20), MARCH, [drawn], study=second, plugin="contours")
        assert take(session, objects, study, at(900)) == 0


def test_a_drawing_under_a_known_tracking_uid_relinks_what_was_drawn_at_its_place(
    database: Database, objects: ObjectStore
) -> None:
    with database.transaction() as session:
        pk, second = followed(session)
        study = bring(session, objects, second, segmentation(ONE))
        drawn = lesion(ONE, 28, automatic=False, confidence=None)
        visit(session, Clock(seconds=50, studies=20), MARCH, [drawn], study=second, plugin="contours")
        assert take(session, objects, study, at(900)) == 2
        assert take(session, objects, study, at(901)) == 0
        found = course(session, pk)
        made = chosen(session, pk).decisions
        assert [(d.author, d.kind, d.tracking_uid, d.value, d.source) for d in made] == [
            ("Grey Meredith", "drawn", ONE, "SEG", f"{second}.71.1"),
            ("Grey Meredith", "relink", NEW, ONE, f"{second}.71.1"),
        ]
        assert {d.at for d in made} == {at(900)}
        rows = [{one.lesion: one.long_axis_tenths for one in v.seen} for v in found.history().visits]
        assert rows == [{ONE: 200}, {ONE: 280}]
        undo(session, pk, made[1].number, author="Dr. Who", now=at(902))
        assert take(session, objects, study, at(903)) == 0


def test_a_drawing_by_an_algorithm_or_of_an_unknown_lesion_says_nothing(
    database: Database, objects: ObjectStore
) -> None:
    with database.transaction() as session:
        pk, second = followed(session)
        visit(
            session, Clock(seconds=90, studies=30), JANUARY, [lesion("2.25.66")], patient={"patient_id": "Q"}
        )
        for number, (uid, kind) in enumerate([(ONE, "AUTOMATIC"), ("2.25.66", "MANUAL"), ("", "MANUAL")]):
            study = bring(session, objects, second, segmentation(uid, kind), number)
            assert take(session, objects, study, at(900)) == 0
        assert chosen(session, pk).decisions == ()


def length(mm: float) -> Dataset:
    value = item(NumericValue=str(mm), MeasurementUnitsCodeSequence=[coded(codes.MM)])
    return content(codes.LONG_AXIS, ValueType="NUM", MeasuredValueSequence=[value])


def test_what_a_person_measured_counts_and_the_newest_of_it(database: Database, objects: ObjectStore) -> None:
    with database.transaction() as session:
        pk, second = followed(session)
        for number, (mm, when) in enumerate([(33.0, "20260312"), (31.0, "20260311")]):
            one = report(NEW, length(mm))
            one.ContentDate, one.ContentTime = when, "080000"
            study = bring(session, objects, second, one, number)
        bring(session, objects, second, report(ONE, length(12.0), person=None), 7)
        assert take(session, objects, study, at(900)) == 2
        found = course(session, pk, objects)
    (row,) = [s for s in found.history().visits[1].seen if s.lesion == NEW]
    assert (row.role, row.long_axis_tenths, row.site) == (Role.NEW, 330, "Lung")
    assert {one.role_by for one in found.sightings if one.lesion == NEW} == {"drawn by a person"}
    told = next(one for one in found.sightings if one.lesion == NEW and one.counts)
    assert [(d.kind, d.value, d.author) for d in told.decisions] == [("drawn", "SR", "Grey Meredith")]


def test_a_report_by_a_person_says_role_and_identity(database: Database, objects: ObjectStore) -> None:
    with database.transaction() as session:
        pk, second = followed(session)
        ours = segmentation(NEW, "AUTOMATIC")
        bring(session, objects, second, ours, number=3)
        role = content(codes.FINDING, ConceptCodeSequence=[coded(ROLES["non-target"])])
        segment = item(
            ReferencedSOPClassUID=SEG,
            ReferencedSOPInstanceUID=ours.SOPInstanceUID,
            ReferencedSegmentNumber=1,
        )
        refers = content(codes.REFERENCED_SEGMENT, ValueType="IMAGE", ReferencedSOPSequence=[segment])
        study = bring(session, objects, second, report(ONE, role, refers, person=None))
        assert take(session, objects, study, at(900)) == 0  # nobody says it
        bring(session, objects, second, report(ONE, role, refers), number=2)
        assert take(session, objects, study, at(900)) == 2
        found = course(session, pk)
        assert [{s.lesion: (s.role, s.long_axis_tenths) for s in v.seen} for v in found.history().visits] == [
            {ONE: (Role.NON_TARGET, 200)},
            {ONE: (Role.NON_TARGET, 300)},
        ]
        # What somebody says later counts, and the same report does not say it again.
        choose(session, pk, "role", ONE, "target", author="Dr. Who", now=at(901))
        assert take(session, objects, study, at(902)) == 0
        assert {one.role for one in course(session, pk).sightings} == {Role.TARGET}
