"""Who made a result, and what a result takes over from the images it was made from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Final

import highdicom
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage

from plugins import codes
from store.dicom.character_sets import KEYWORD, TEXT_VRS, UTF8, is_defined
from store.dicom.uids import derive_uid
from store.dicom.values import texts
from store.provenance import Provenance

MANUFACTURER: Final = "Nadir"
RESEARCH_USE: Final = "For research use only"
EQUIPMENT: Final = (
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "InstitutionName",
    "InstitutionAddress",
    "StationName",
    "InstitutionalDepartmentName",
)
LOSSY: Final = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def one_line(text: str, longest: int = 64) -> str:
    """Return text as a value of VR LO or SH: no backslash, no control characters, at most `longest` characters."""
    clean = "".join(c if c.isprintable() else " " for c in text.replace("\\", "/")).strip()
    return clean if len(clean) <= longest else clean[: longest - 3].rstrip() + "..."


def stand_in(header: Dataset) -> Dataset:
    """Return a plain CT header that carries only what highdicom's constructors need of a source image.

    Real headers lack required attributes or hold values that the constructors refuse; what the result has of the
    patient and the study is taken over verbatim afterwards, by `inherit`.
    """
    source = Dataset()
    source.SOPClassUID = CTImageStorage
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(source, keyword, header[keyword].value)
    for keyword in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
    ):
        setattr(source, keyword, "")
    source.StudyDate = source.StudyTime = None
    source.Modality = header.get("Modality", "OT")
    for keyword in (*EQUIPMENT, *LOSSY):
        if header.get(keyword):
            source[keyword] = header[keyword]
    return source


def inherit(
    result: Dataset,
    header: Dataset,
    provenance: Provenance,
    written_at: datetime,
    *,
    other_texts_are_ascii: bool = True,
) -> None:
    """Give a result the patient and study of its source, verbatim, and its dates from the clock that was passed.

    Content and series date and time are the start of the analysis, instance creation is `written_at`; both in the
    source's TimezoneOffsetFromUTC where it has one, else in the zone of `written_at`. The character set is the
    source's; if that is no defined term or absent and cannot hold what is copied, or cannot hold our own texts, those
    in `result` and others yet to come, the result is written in UTF-8.
    """
    patient_and_study = Dataset()
    patient_and_study.update(header)
    # set as an item: as an attribute it would change the element that the header shares
    patient_and_study["SOPClassUID"] = DataElement("SOPClassUID", "UI", CTImageStorage)
    result.copy_patient_and_study_information(patient_and_study)
    for keyword in ("StudyDate", "StudyTime", "PatientBirthDate"):
        if keyword not in header:
            setattr(result, keyword, None)
    zone, offset = _zone(header)
    if offset is not None:
        result.TimezoneOffsetFromUTC = offset
    started = _started(provenance, written_at).astimezone(zone or written_at.tzinfo)
    written = written_at.astimezone(zone or written_at.tzinfo)
    result.SeriesDate = result.ContentDate = started.strftime("%Y%m%d")
    result.SeriesTime = result.ContentTime = started.strftime("%H%M%S")
    for item in result.get("ContributingEquipmentSequence", []):
        if "ContributionDateTime" in item:
            item.ContributionDateTime = written.strftime("%Y%m%d%H%M%S")
    result.InstanceCreationDate, result.InstanceCreationTime = (
        written.strftime("%Y%m%d"),
        written.strftime("%H%M%S"),
    )
    _character_set(result, header, other_texts_are_ascii)


def _zone(header: Dataset) -> tuple[timezone | None, str | None]:
    offset = str(header.get("TimezoneOffsetFromUTC") or "").strip()
    if len(offset) != 5 or offset[0] not in "+-" or not offset[1:].isdigit() or int(offset[1:3]) > 14:
        return None, None
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)), offset


def _started(provenance: Provenance, written_at: datetime) -> datetime:
    try:
        started = datetime.fromisoformat(provenance.started_at)
    except ValueError:
        return written_at
    return started if started.tzinfo else started.replace(tzinfo=UTC)


def _character_set(result: Dataset, header: Dataset, others_are_ascii: bool) -> None:
    given = texts(header, KEYWORD)
    if KEYWORD in result:
        del result.SpecificCharacterSet
    is_held = others_are_ascii and _ascii(result, but=header if any(given) else Dataset())
    if not is_defined(given) or not is_held:
        result.SpecificCharacterSet = UTF8
    elif any(given):
        result.SpecificCharacterSet = header.SpecificCharacterSet


def _ascii(result: Dataset, but: Dataset) -> bool:
    """Return whether every text is plain ASCII, so that any character set holds it, but those that `but` has too."""
    for element in result.iterall():
        if element.VR in TEXT_VRS and element.keyword not in but:
            values = element.value if element.VM > 1 else [element.value]
            if any(not str(value).isascii() for value in values):
                return False
    return True


def device_uid(provenance: Provenance) -> str:
    """Return the UID of the device that a plugin with this model and these settings is.

    Another model, another setting or another version is another device (IHE AIR).
    """
    return derive_uid(
        "device",
        provenance.plugin,
        provenance.plugin_version,
        provenance.model_sha256,
        provenance.config_sha256,
        provenance.software_version,
    )


def equipment(provenance: Provenance) -> dict[str, object]:
    """Return the General Equipment and coding scheme attributes, as keywords of highdicom's constructors."""
    private = CodingSchemeIdentificationItem(
        codes.PRIVATE_SCHEME, name="Nadir private codes", responsible_organization=MANUFACTURER
    )
    return {
        "coding_schemes": [private],
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": one_line(provenance.plugin),
        "device_serial_number": device_uid(provenance)[-16:],
        "software_versions": one_line(provenance.software_version),
    }


def parameters(provenance: Provenance) -> dict[str, str]:
    """Return what tells the algorithm beside its name and version: hashes of its model, if any, and of its settings."""
    model = {"model": provenance.model_sha256} if provenance.model_sha256 else {}
    return {**model, "settings": provenance.config_sha256}


def contributing(provenance: Provenance) -> highdicom.ContributingEquipment:
    """Return the item of ContributingEquipmentSequence that names the algorithm (IHE AIR 6.5.3)."""
    model = f"Model {provenance.model_sha256}, settings" if provenance.model_sha256 else "Settings"
    item = highdicom.ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.PROCESSING_EQUIPMENT,
        manufacturer_model_name=one_line(f"{provenance.plugin} / {provenance.model_name}"),
        software_versions=(
            one_line(f"nadir {provenance.software_version}"),
            one_line(f"{provenance.plugin} {provenance.plugin_version}"),
            one_line(f"{provenance.model_name} {provenance.model_version}"),
        ),
        contribution_description=f"{RESEARCH_USE}. {model} {provenance.config_sha256}.",
    )
    item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.PROCESSING_ALGORITHM)]
    item.DeviceUID = device_uid(provenance)
    return item


def algorithm_family(provenance: Provenance) -> Code:
    """Return the coded family of the algorithm (CID 7162): learned, or a fixed procedure."""
    return (
        codes.ARTIFICIAL_INTELLIGENCE
        if provenance.model_kind == "learned"
        else codes.MORPHOLOGICAL_OPERATIONS
    )
