"""A report for people to an Encapsulated PDF, for archives whose viewers show no SR."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from highdicom.base import SOPClass
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from plugins import codes
from plugins.errors import Broken
from store.dicom.equipment import MANUFACTURER, RESEARCH_USE, contributing, equipment, inherit, one_line
from store.dicom.uids import derive_uid
from store.provenance import Provenance

KIND = "pdf"


def encode_pdf(
    document: bytes,
    sources: Iterable[Dataset],
    header: Dataset,
    provenance: Provenance,
    series_number: int,
    written_at: datetime,
    description: str = "",
) -> Dataset:
    """Return a PDF document as a DICOM object in the study of `header`; equal input gives equal bytes.

    `description` is what viewers list it by, the name of the analysis when it is empty.
    `sources` are the objects whose content it tells, the SEGs and SRs of the job. Raises Broken when `document` is no
    PDF. Source: PS3.3 A.45.1, C.24.
    """
    if not document.startswith(b"%PDF-"):
        raise Broken("the report that was to be encapsulated is no PDF document")
    key = provenance.job_key
    result: Dataset = SOPClass(
        study_instance_uid=str(header.StudyInstanceUID),
        series_instance_uid=derive_uid(key, KIND, "series"),
        series_number=series_number,
        sop_instance_uid=derive_uid(key, KIND, "instance"),
        sop_class_uid=EncapsulatedPDFStorage,
        instance_number=1,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=one_line(description or f"{MANUFACTURER} {provenance.plugin} report"),
        **equipment(provenance),
    )
    result.ContributingEquipmentSequence = [contributing(provenance)]
    result.ConversionType = "WSD"
    result.BurnedInAnnotation = "YES"
    result.AcquisitionDateTime = None
    result.DocumentTitle = one_line(
        f"{MANUFACTURER} {provenance.plugin}: measurements. {RESEARCH_USE}", longest=1024
    )
    result.ConceptNameCodeSequence = [CodedConcept.from_code(codes.IMAGING_MEASUREMENT_REPORT)]
    result.VerificationFlag = "UNVERIFIED"
    result.MIMETypeOfEncapsulatedDocument = "application/pdf"
    result.EncapsulatedDocumentLength = len(document)
    result.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    result.SourceInstanceSequence = [_reference(source) for source in sources]
    inherit(result, header, provenance, written_at)
    return result


def _reference(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    return item


__all__ = ["KIND", "encode_pdf"]
