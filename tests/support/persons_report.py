"""Reports of people who measured lesions in other viewers, and the image that they measured on."""

from __future__ import annotations

from io import BytesIO

from ledger import at
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from sqlmodel import Session
from sr_items import coded, content, item

from plugins import codes
from store import instances
from store.objects import ObjectStore
from store.part10 import Header

ONE, IMAGE = "2.25.1", "1.2.1.51.1"
CT, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.34"
LONG, SHORT = Code("G-A185", "SRT", "Long Axis"), Code("G-A186", "SRT", "Short Axis")


def axis(name: Code, value: float, line: list[float], image: str, unit: str = "mm") -> Dataset:
    """Return a number as viewers export it: inferred from a line on an image."""
    source = item(ValueType="IMAGE", ReferencedSOPSequence=[item(ReferencedSOPInstanceUID=image)])
    figure = item(ValueType="SCOORD", GraphicType="POLYLINE", GraphicData=line, ContentSequence=[source])
    measured = item(NumericValue=value, MeasurementUnitsCodeSequence=[coded(Code(unit, "UCUM", unit))])
    return content(name, ValueType="NUM", MeasuredValueSequence=[measured], ContentSequence=[figure])


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
    return of_a_person(group)


def given(*numbers: Dataset, uid: str = ONE) -> Dataset:
    """Return a group of a lesion with these numbers."""
    name = content(codes.TRACKING_UNIQUE_IDENTIFIER, ValueType="UIDREF", UID=uid)
    return content(codes.MEASUREMENT_GROUP, ContentSequence=[name, *numbers])


def of_a_person(*groups: Dataset) -> Dataset:
    """Return a report of these groups that a person observed."""
    who = content(Code("121008", "DCM", "Person Observer Name"), PersonName="Grey^Meredith")
    return item(SOPClassUID=SR, Modality="SR", ContentSequence=[who, *groups])


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
