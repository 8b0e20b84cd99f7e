"""A folder of DICOM files to a Study: grouped, judged, decoded, with the regions that came along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from pydicom.dataset import Dataset

from plugins.contract import Drawn, Flag, Patient, Study, Volume
from plugins.errors import Refused
from store.dicom import nifti, rtstruct, segments
from store.dicom.files import File, read_file
from store.dicom.headers import Headers
from store.dicom.points import read_marks
from store.dicom.values import day, number, quiet, text
from store.dicom.volumes import ROLES, name_series, read_grid, read_volume
from store.dicom.withdrawn import withdrawn
from store.part10 import MANUFACTURER, OWN_MODALITIES

REGIONS = {"RTSTRUCT", "SEG"}
NOT_MEASURED_PIXELS = {"RTDOSE"}


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadStudy:
    """A study as it was read."""

    study: Study
    """What the analyses get."""
    headers: Mapping[str, Dataset]
    """Header of each image instance that is in a volume, without pixel data, by SOP Instance UID."""
    flags: tuple[Flag, ...] = ()
    """Doubts about files that belong to no volume."""


def read_study(paths: Iterable[Path], known: Iterable[Flag] = ()) -> ReadStudy:
    """Return the study that the files hold: every readable series as a volume, the regions and points drawn on them.

    A series or region that cannot be used is in `study.refused` with its code. Nadir's own results and plans are passed
    over. `known` are doubts that no file tells. Refuses as a whole (`no-images`, `mixed-patients`, `several-studies`).
    """
    with quiet():
        files, flags, refused = read_files(paths)
        files = _only_foreign(files)
        flags += require_one_study(files, refused)
        usable = _without_withdrawn(_without_conflicts(_without_copies(files), refused), refused)
        volumes, headers = _volumes(usable, refused)
        drawn = _regions(usable, volumes, refused)
        volumes = _without_bare_single_slices(volumes, drawn, refused)
        if not volumes and not refused:
            raise Refused("no-images", "there is no image that could be analysed")
        headers = {u: headers[u] for v in volumes for u in v.sop_instance_uids}
        marks, doubts = read_marks(usable, volumes)
        return ReadStudy(
            study=replace(_study(files, volumes, drawn, refused), marks=marks),
            headers=headers,
            flags=(*known, *flags, *doubts),
        )


def read_mask(path: Path, read: ReadStudy) -> tuple[Drawn, ...]:
    """Return the regions of one SEG, RTSTRUCT or NIfTI file on the volumes of a study.

    Refuses (`unknown-mask`, `mask-of-other-patient`, and what the readers of these formats refuse) when no region
    can be used; regions that can be used are returned even if others cannot.
    """
    with quiet():
        if nifti.is_nifti(path):
            return nifti.read_nifti(path, read.study.volumes)
        file = read_file(path)
        if file is None or file.modality not in REGIONS:
            raise Refused("unknown-mask", f"{path.name} is not a DICOM SEG or RTSTRUCT and not a NIfTI file")
        patient = text(file.header, "PatientID")
        if patient != read.study.patient.patient_id:
            raise Refused("mask-of-other-patient", f"{path.name} belongs to another patient than the images")
        refused: list[Flag] = []
        drawn = _read_regions(file, read.study.volumes, refused)
        if not drawn:
            first = (
                refused[0] if refused else Flag(code="empty-mask", sentence=f"{path.name} holds no region")
            )
            raise Refused(first.code, first.sentence)
        return drawn


def read_grids(paths: Iterable[Path]) -> tuple[Volume, ...]:
    """Return the readable image series of the files without their values, for what lies on them."""
    with quiet():
        files, _, refused = read_files(paths)
        usable = _without_withdrawn(_without_conflicts(_without_copies(files), refused), refused)
        return _volumes(usable, refused, read_grid)[0]


def read_regions(path: Path, volumes: Sequence[Volume]) -> tuple[tuple[Drawn, ...], tuple[Flag, ...]]:
    """Return the regions of a SEG or RTSTRUCT on the volumes, and the reason for each that cannot be used.

    Refuses `unknown-mask`, and what `read_file` refuses.
    """
    with quiet():
        file = read_file(path)
        if file is None or file.modality not in REGIONS:
            raise Refused("unknown-mask", f"{path.name} is not a DICOM SEG or RTSTRUCT")
        refused: list[Flag] = []
        drawn = _read_regions(file, volumes, refused)
        return drawn, tuple(refused)


def group_by_study(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Return the DICOM files of a folder by Study Instance UID, each group in path order.

    A file that begins like DICOM and cannot be read may belong to any study: it goes to each, so that reading any
    of them tells of it; alone, it is under the empty UID.
    """
    groups: dict[str, list[Path]] = {}
    broken: list[Path] = []
    headers = Headers()
    with quiet():
        for path in sorted(p for p in paths if p.is_file()):
            try:
                file = read_file(path, headers)
            except Refused:
                broken.append(path)
                continue
            if file is not None and file.sop_instance_uid:
                groups.setdefault(text(file.header, "StudyInstanceUID"), []).append(path)
    if broken and not groups:
        groups[""] = []
    for members in groups.values():
        members.extend(broken)
        members.sort()
    return groups


def read_files(paths: Iterable[Path]) -> tuple[list[File], list[Flag], list[Flag]]:
    """Return the DICOM files among `paths`, flags for what is not DICOM, and refusals for what cannot be read."""
    files: list[File] = []
    refused: list[Flag] = []
    headers = Headers()
    others = 0
    for path in sorted(p for p in paths if p.is_file()):
        try:
            file = read_file(path, headers)
        except Refused as reason:
            refused.append(Flag(code=reason.code, sentence=reason.sentence))
            continue
        if file is None:
            others += 1
        elif file.sop_instance_uid:
            files.append(file)
    sentence = f"{others} files are not DICOM and were passed over"
    return files, [Flag(code="not-dicom", sentence=sentence)] if others else [], refused


def _only_foreign(files: Sequence[File]) -> list[File]:
    """Return the files without Nadir's own results, which come back by auto-routing."""
    return [
        f
        for f in files
        if not (text(f.header, "Manufacturer") == MANUFACTURER and f.modality in OWN_MODALITIES)
    ]


def require_one_study(files: Sequence[File], refused: Sequence[Flag]) -> list[Flag]:
    """Return doubts about the identity; refuse no files, several patients (`mixed-patients`), `several-studies`."""
    if not files and refused:
        raise Refused(refused[0].code, refused[0].sentence)
    if not files:
        raise Refused("no-images", "there is no DICOM file that could be analysed")
    patients = {(text(f.header, "PatientID"), text(f.header, "IssuerOfPatientID")) for f in files}
    if len({p for p, _ in patients}) > 1 or len({i for _, i in patients if i}) > 1:
        raise Refused(
            "mixed-patients", f"the files belong to {len(patients)} patients; analyse them one by one"
        )
    born = {text(f.header, "PatientBirthDate") for f in files} - {""}
    names = {text(f.header, "PatientName").upper().rstrip("^ ") for f in files} - {""}
    if len(names) > 1 and (len(born) > 1 or not next(iter(patients))[0]):
        raise Refused(
            "mixed-patients", "the files carry different names under one patient ID; correct them first"
        )
    studies = {text(f.header, "StudyInstanceUID") for f in files}
    if len(studies) > 1:
        raise Refused(
            "several-studies", f"the files belong to {len(studies)} studies; analyse them one by one"
        )
    flags = []
    if "" in {p for p, _ in patients}:
        sentence = (
            "the images have no PatientID; their results cannot be told from those of others without one"
        )
        flags.append(Flag(code="no-patient-id", sentence=sentence))
    if len(names) > 1:
        sentence = "the patient's name is written in several ways under one patient ID; compare them"
        flags.append(Flag(code="patient-name-differs", sentence=sentence))
    return flags


def _is_image(file: File) -> bool:
    """Tell images from reports, plans, doses and regions; a CT, PET or MR counts even when its pixels are lost."""
    if file.modality in REGIONS | NOT_MEASURED_PIXELS:
        return False
    return file.pixel_kind is not None or file.modality in ROLES


def _without_copies(files: Sequence[File]) -> list[File]:
    """Return the files with each (SOP Instance UID, content) once."""
    by_uid: dict[str, list[File]] = {}
    for file in files:
        by_uid.setdefault(file.sop_instance_uid, []).append(file)
    kept: list[File] = []
    for same in by_uid.values():
        kept.extend({f.sha256(): f for f in reversed(same)}.values() if len(same) > 1 else same)
    return sorted(kept, key=lambda f: f.path)


def _without_conflicts(files: Sequence[File], refused: list[Flag]) -> list[File]:
    """Return the files without the series in which one SOP Instance UID has several contents."""
    seen: dict[str, File] = {}
    bad: dict[str, File] = {}
    for file in files:
        other = seen.setdefault(file.sop_instance_uid, file)
        if other is not file:
            bad |= {file.series_instance_uid: file, other.series_instance_uid: other}
    for uid, file in bad.items():
        sentence = (
            f"{name_series(file.header)}: instances come twice with different content; send it again whole"
        )
        refused.append(Flag(code="conflicting-instances", sentence=sentence, series_instance_uid=uid))
    return [f for f in files if f.series_instance_uid not in bad]


def _without_withdrawn(files: Sequence[File], refused: list[Flag]) -> list[File]:
    """Return the files without the images and regions that count no longer; of reports, those who read them tell."""
    gone = withdrawn(files)
    kept: list[File] = []
    left_out: dict[tuple[str, str], list[File]] = {}
    for file in files:
        why = gone.get(file.sop_instance_uid)
        if why is None or not (_is_image(file) or file.modality in REGIONS):
            kept.append(file)
        else:
            left_out.setdefault((file.series_instance_uid, why), []).append(file)
    for (uid, why), members in left_out.items():
        what = f"{len(members)} objects count" if len(members) > 1 else "1 object counts"
        sentence = f"{name_series(members[0].header)}: {what} no longer: {why}"
        refused.append(Flag(code="withdrawn", sentence=sentence, series_instance_uid=uid))
    return kept


def _volumes(
    files: Sequence[File], refused: list[Flag], read: Callable[[Sequence[File]], Volume] = read_volume
) -> tuple[tuple[Volume, ...], dict[str, Dataset]]:
    """Return the volumes in order of series number, and the headers of their instances."""
    groups: dict[str, list[File]] = {}
    for file in files:
        if _is_image(file):
            groups.setdefault(file.series_instance_uid, []).append(file)
    volumes: list[Volume] = []
    headers: dict[str, Dataset] = {}
    for uid, members in groups.items():
        try:
            volumes.append(_without_conversions(read(members), refused))
        except Refused as reason:
            sentence = f"{name_series(members[0].header)}: {reason.sentence}"
            refused.append(Flag(code=reason.code, sentence=sentence, series_instance_uid=uid))
            continue
        headers |= {f.sop_instance_uid: f.header for f in members}
    volumes.sort(key=lambda v: (v.series_number is None, v.series_number or 0, v.series_instance_uid))
    return tuple(volumes), headers


def _without_conversions(volume: Volume, refused: list[Flag]) -> Volume:
    """Return a volume after the reasons why a PET could not become SUV went to what was refused."""
    if volume.role != "pet_activity":
        return volume
    kept = tuple(f for f in volume.flags if not f.code.startswith("suv-"))
    refused.extend(f for f in volume.flags if f not in kept)
    return replace(volume, flags=kept)


def _regions(files: Sequence[File], volumes: tuple[Volume, ...], refused: list[Flag]) -> tuple[Drawn, ...]:
    drawn: list[Drawn] = []
    for file in files:
        if file.modality in REGIONS:
            drawn.extend(_read_regions(file, volumes, refused))
    return tuple(drawn)


def _read_regions(file: File, volumes: Sequence[Volume], refused: list[Flag]) -> tuple[Drawn, ...]:
    """Return the regions of a SEG or RTSTRUCT; what cannot be used goes to `refused`."""
    reader = rtstruct.read_rtstruct if file.modality == "RTSTRUCT" else segments.read_segments
    try:
        drawn, rejected = reader(file, volumes)
    except Refused as reason:
        sentence = f"{name_series(file.header)}: {reason.sentence}"
        refused.append(
            Flag(code=reason.code, sentence=sentence, series_instance_uid=file.series_instance_uid)
        )
        return ()
    named = name_series(file.header)
    refused.extend(
        replace(f, sentence=f"{named}: {f.sentence}", series_instance_uid=file.series_instance_uid)
        for f in rejected
    )
    return drawn


def _without_bare_single_slices(
    volumes: tuple[Volume, ...], drawn: Sequence[Drawn], refused: list[Flag]
) -> tuple[Volume, ...]:
    """Return the volumes without those of one slice on which nobody drew: no analysis can find anything in them."""
    used = {d.series_instance_uid for d in drawn}
    kept = []
    for volume in volumes:
        if volume.geometry.spatial_shape[0] > 1 or volume.series_instance_uid in used:
            kept.append(volume)
            continue
        sentence = (
            f"series {volume.series_number} ({volume.modality}): it is one image, which is not analysed"
        )
        refused.append(
            Flag(code="single-slice", sentence=sentence, series_instance_uid=volume.series_instance_uid)
        )
    return tuple(kept)


def _study(
    files: Sequence[File], volumes: tuple[Volume, ...], drawn: tuple[Drawn, ...], refused: Sequence[Flag]
) -> Study:
    header = next((f.header for f in files if _is_image(f)), files[0].header)
    when = day(text(header, "StudyDate"))
    return Study(
        study_instance_uid=text(header, "StudyInstanceUID"),
        patient=_patient(header, when),
        study_date=when,
        volumes=volumes,
        drawn=drawn,
        refused=tuple(refused),
    )


def _patient(header: Dataset, when: date | None) -> Patient:
    weight, height = number(header, "PatientWeight") or None, number(header, "PatientSize") or None
    if height is not None and height > 3:
        height /= 100
    if weight is not None and weight > 1000:
        weight /= 1000
    return Patient(
        patient_id=text(header, "PatientID"),
        sex=text(header, "PatientSex") or None,
        age_years=_age(header, when),
        weight_kg=weight,
        height_m=height,
    )


def _age(header: Dataset, when: date | None) -> float | None:
    """Return PatientAge in years, else the age by birth date."""
    words = text(header, "PatientAge").upper()
    years = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
    if len(words) >= 2 and words[:-1].isdigit() and words[-1] in years:
        return int(words[:-1]) * years[words[-1]]
    born = day(text(header, "PatientBirthDate"))
    return None if born is None or when is None else (when - born).days / 365.25
