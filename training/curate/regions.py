"""A folder of DICOM with images and RTSTRUCT or SEG to a data set: each region that was drawn is a case.

Regions are put on the images by `store.dicom`: by the instances that they name, else by the series, else by frame of
reference and position; all segments of a SEG and all regions of an RTSTRUCT. CT is in HU, PET in SUVbw with the CT of
the same frame of reference beside it, MR as it is. What cannot be used is told with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plugins.contract import Drawn, Mask, Study, Volume
from plugins.errors import Refused
from plugins.series_order import preferred
from store.dicom.series import ReadStudy, read_regions, read_study
from store.dicom.values import number, quiet, text
from training.curate.curation import Curation, Gathering, LeftOut
from training.curate.hold import hold
from training.curate.region_index import OTHER, Index, RegionFile, Series, look
from training.curate.wanted import ROLES, Wanted

Tell = Callable[[str], None]


def curate_regions(
    source: Path, folder: Path, kind: str, wanted: Wanted, name: str, tell: Tell = lambda what: None
) -> Curation:
    """Return what became of the `RTSTRUCT` or `SEG` objects of a folder, after the data set was written.

    `tell` hears what is under way. Refuses `no-such-path`, what `hold` refuses and `no-regions` (no object of the
    kind); raises Unavailable when the data set cannot be written.
    """
    with hold(folder):
        index = look(source, kind, lambda what: tell(f"looking at {what}"))
        if not index.regions:
            reasons = [one.sentence for one in index.left_out if one.code != OTHER]
            said = f" that can be used: {reasons[0]}" if reasons else ""
            raise Refused("no-regions", f"there is no {kind} in {source}{said}")
        gathering = Gathering(folder=folder, wanted=wanted, left_out=list(index.left_out))
        making = _Making(source=source, gathering=gathering)
        used: set[str] = set()
        for files, series in making.studies(index):
            tell(f"reading {', '.join(one.called for one in series)}")
            making.take_study(files, series)
            used |= {one.series_instance_uid for one in series}
        for uid, one in index.series.items():
            if uid not in used:
                sentence = f"{one.called}: no {kind} that can be used is drawn on it"
                gathering.left_out.append(LeftOut(code="not-drawn-on", sentence=sentence, where=uid))
        return gathering.finish(name)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Making:
    """What all cases of a data set are made with."""

    source: Path
    gathering: Gathering

    def studies(self, index: Index) -> list[tuple[list[RegionFile], list[Series]]]:
        """Return the objects by study, with the series that have to be read for them."""
        groups: dict[str, tuple[list[RegionFile], dict[str, Series]]] = {}
        for file in index.regions:
            try:
                series = _drawn_on(file, index)
            except Refused as reason:
                self.gathering.leave(reason, self._where(file))
                continue
            own, read = groups.setdefault(series[0].study_instance_uid, ([], {}))
            own.append(file)
            read.update({one.series_instance_uid: one for one in series})
        if self.gathering.wanted.modality == "PT":
            for _, read in groups.values():
                read.update({one.series_instance_uid: one for one in _cts_with(read, index)})
        return [(own, list(read.values())) for own, read in groups.values()]

    def take_study(self, files: list[RegionFile], series: list[Series]) -> None:
        """Make a case of each wanted region of the objects of a study."""
        try:
            read = read_study(path for one in series for path in one.paths)
        except Refused as reason:
            for file in files:
                self.gathering.leave(reason, self._where(file))
            return
        for flag in read.study.refused:
            where = flag.series_instance_uid or read.study.study_instance_uid
            self.gathering.left_out.append(LeftOut(code=flag.code, sentence=flag.sentence, where=where))
        for file in files:
            try:
                self._take_file(file, read)
            except Refused as reason:
                self.gathering.leave(reason, self._where(file))

    def _take_file(self, file: RegionFile, read: ReadStudy) -> None:
        patient = read.study.patient.patient_id
        if file.patient_id != patient:
            raise Refused("mask-of-other-patient", "it belongs to another patient than its images")
        if not patient:
            raise Refused("no-patient-id", "it has no PatientID, without which patients cannot be kept apart")
        found, refused = read_regions(file.path, read.study.volumes)
        for flag in refused:
            self.gathering.leave(Refused(flag.code, flag.sentence), self._where(file))
        for drawn in found:
            try:
                self._take(drawn, read, file)
            except Refused as reason:
                self.gathering.leave(reason, self._where(file), drawn.label)

    def _take(self, drawn: Drawn, read: ReadStudy, file: RegionFile) -> None:
        wanted = self.gathering.wanted
        wanted.require(drawn)
        volume = _image(drawn, read.study, wanted.modality)
        ct = _ct_beside(volume, drawn.mask, read.study)
        self.gathering.take(
            volume,
            drawn.mask,
            patient_id=read.study.patient.patient_id,
            region=drawn.label,
            made_of=f"{file.sop_instance_uid}/{drawn.number}",
            where=self._where(file),
            tags=_tags(drawn, volume, read),
            doubts=(*drawn.flags, *volume.flags),
            beside={"ct": ct} if ct else {},
        )

    def _where(self, file: RegionFile) -> str:
        return str(file.path.relative_to(self.source))


def _drawn_on(file: RegionFile, index: Index) -> tuple[Series, ...]:
    """Return the series that have to be read for an object. Refuses `own-result` and `no-image`."""
    if file.is_own:
        raise Refused("own-result", "Nadir drew it itself; nothing is learned from it")
    series = index.drawn_on(file)
    if not series:
        raise Refused("no-image", "the images it was drawn on are not here; put them into the folder as well")
    return series


def _cts_with(read: Mapping[str, Series], index: Index) -> Iterator[Series]:
    """Yield the CT series of the study and the frames of reference of some series."""
    known = {(one.study_instance_uid, one.frame_of_reference_uid) for one in read.values()}
    for one in index.series.values():
        if one.modality == "CT" and (one.study_instance_uid, one.frame_of_reference_uid) in known:
            yield one


def _image(drawn: Drawn, study: Study, modality: str) -> Volume:
    """Return the image that a region lies on. Refuses `other-modality`, and why its values mean nothing."""
    volume = study.volume(drawn.series_instance_uid)
    if volume.modality != modality:
        raise Refused("other-modality", f"it was drawn on {volume.modality}, and {modality} was asked for")
    if volume.role != ROLES[modality]:
        told = [
            *(f for f in study.refused if f.series_instance_uid == volume.series_instance_uid),
            *volume.flags,
        ]
        said = f": {told[0].sentence}" if told else ""
        raise Refused("no-real-values", f"the values of its images are neither HU nor SUV{said}")
    return volume


def _ct_beside(volume: Volume, mask: Mask, study: Study) -> Volume | None:
    """Return the CT in the frame of reference of a PET that shows all of a region best; None for other images."""
    frame = volume.frame_of_reference_uid
    if volume.modality != "PT" or frame is None:
        return None
    ends = [(s.start, s.stop - 1) for s in mask.box]
    corners_mm = volume.to_mm(np.array(np.meshgrid(*ends), dtype=np.float64).reshape(3, -1).T)
    held = []
    for ct in study.by_role("ct"):
        index = ct.to_index(corners_mm)
        is_in = (index > -0.5).all() and (index < np.asarray(ct.array.shape) - 0.5).all()
        if ct.frame_of_reference_uid == frame and is_in:
            held.append(ct)
    return next(iter(preferred(held)), None)


def _tags(drawn: Drawn, volume: Volume, read: ReadStudy) -> dict[str, float | str]:
    """Return what is known of a region beyond its image."""
    header = read.headers[volume.sop_instance_uids[0]]
    with quiet():
        scanner = f"{text(header, 'Manufacturer')} {text(header, 'ManufacturerModelName')}".strip()
        thickness_mm = number(header, "SliceThickness")
    known = {
        "region": drawn.label,
        "region_type": drawn.interpreted_type or (drawn.type_code.meaning if drawn.type_code else None),
        "origin": drawn.source,
        "scanner": scanner,
        "slice_thickness_mm": thickness_mm,
        "tracking_uid": drawn.tracking_uid,
    }
    return {key: value for key, value in known.items() if value}


__all__ = ["curate_regions"]
