"""What lies in a folder of DICOM: image series, objects with regions, and on which series these were drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset

from plugins.errors import Refused
from store.dicom.files import File, read_file
from store.dicom.headers import Headers
from store.dicom.series import REGIONS
from store.dicom.values import items, quiet, text, texts
from store.part10 import MANUFACTURER
from store.walk import files_under
from training.curate.curation import LeftOut

MAX_DEPTH = 8
OTHER = "other-files"
NAMES = ("ReferencedSOPInstanceUID", "SeriesInstanceUID")
FRAMES = ("FrameOfReferenceUID", "ReferencedFrameOfReferenceUID")


@dataclass(kw_only=True)
class Series:
    """One image series."""

    series_instance_uid: str
    """Series Instance UID."""
    study_instance_uid: str
    """Study Instance UID."""
    modality: str
    """Modality."""
    frame_of_reference_uid: str
    """Frame of Reference UID, empty when it has none."""
    called: str
    """Number and description, for people."""
    paths: list[Path] = field(default_factory=list)
    """Its files."""


@dataclass(frozen=True, kw_only=True)
class RegionFile:
    """One SEG or RTSTRUCT."""

    path: Path
    """The file."""
    sop_instance_uid: str
    """SOP Instance UID."""
    sha256: str
    """Hash of its data set."""
    patient_id: str
    """PatientID."""
    is_own: bool
    """Whether Nadir wrote it."""
    named: frozenset[str]
    """UIDs of series and instances that it refers to."""
    frames: frozenset[str]
    """Frames of reference that it lies in."""


@dataclass(kw_only=True)
class Index:
    """What lies in a folder."""

    series: dict[str, Series] = field(default_factory=dict)
    """Image series by Series Instance UID."""
    series_of: dict[str, str] = field(default_factory=dict)
    """Series Instance UID of each image, by its SOP Instance UID."""
    regions: list[RegionFile] = field(default_factory=list)
    """Objects with regions, each once."""
    left_out: list[LeftOut] = field(default_factory=list)
    """Files that cannot be used."""

    def drawn_on(self, file: RegionFile) -> tuple[Series, ...]:
        """Return the series that an object was drawn on: those it names, else those of its frame of reference.

        All of them are of one study: that of which most images are named.
        """
        hits = Counter(uid for name in file.named if (uid := self.series_of.get(name, name)) in self.series)
        chosen = [self.series[uid] for uid, _ in sorted(hits.items(), key=lambda hit: (-hit[1], hit[0]))]
        if not chosen:
            chosen = [one for one in self.series.values() if one.frame_of_reference_uid in file.frames]
        return tuple(one for one in chosen if one.study_instance_uid == chosen[0].study_instance_uid)


def look(folder: Path, kind: str, tell: Callable[[str], None] = lambda what: None) -> Index:
    """Return the images and the objects of a kind (`SEG`, `RTSTRUCT`) in a folder and the folders in it.

    `tell` is called with each file. Refuses `no-such-path`.
    """
    if not folder.is_dir():
        raise Refused("no-such-path", f"there is no folder {folder}")
    index, headers, others = Index(), Headers(), 0
    regions: dict[str, list[RegionFile]] = {}
    files, closed = files_under(folder)
    index.left_out += [LeftOut(code=c.code, sentence=c.sentence, where=str(folder)) for c in closed]
    with quiet():
        for path in files:
            tell(path.name)
            try:
                file = read_file(path, headers)
            except Refused as reason:
                where = str(path.relative_to(folder))
                index.left_out.append(LeftOut(code=reason.code, sentence=reason.sentence, where=where))
                continue
            if file is not None and file.sop_instance_uid and file.modality == kind:
                regions.setdefault(file.sop_instance_uid, []).append(_region_file(file))
            elif file is not None and file.pixel_kind is not None and file.modality not in REGIONS:
                _keep_image(file, index)
            else:
                others += 1
    for same in regions.values():
        _keep_regions(same, index, folder)
    if others:
        sentence = f"{others} files are neither DICOM images nor {kind} and were passed over"
        index.left_out.append(LeftOut(code=OTHER, sentence=sentence, where=str(folder)))
    return index


def _keep_image(file: File, index: Index) -> None:
    header, uid = file.header, file.series_instance_uid
    number, description = text(header, "SeriesNumber"), text(header, "SeriesDescription")
    series = index.series.setdefault(
        uid,
        Series(
            series_instance_uid=uid,
            study_instance_uid=text(header, "StudyInstanceUID"),
            modality=file.modality,
            frame_of_reference_uid=text(header, "FrameOfReferenceUID"),
            called=f"series {number or uid} ({', '.join(filter(None, (file.modality, description)))})",
        ),
    )
    series.paths.append(file.path)
    index.series_of[file.sop_instance_uid] = uid


def _keep_regions(same: Sequence[RegionFile], index: Index, folder: Path) -> None:
    """Keep the object of one SOP Instance UID, once; when it has several contents, none of them."""
    kept: Sequence[RegionFile] = same[:1]
    code, sentence = "same-object", f"it is the same object as {same[0].path.name}"
    if len({one.sha256 for one in same}) > 1:
        kept, code = (), "conflicting-instances"
        sentence = f"{len(same)} objects with different content have its SOP Instance UID; keep the right one"
    index.regions.extend(kept)
    for one in same[len(kept) :]:
        where = str(one.path.relative_to(folder))
        index.left_out.append(LeftOut(code=code, sentence=sentence, where=where))


def _region_file(file: File) -> RegionFile:
    header = file.header
    return RegionFile(
        path=file.path,
        sop_instance_uid=file.sop_instance_uid,
        sha256=file.sha256(),
        patient_id=text(header, "PatientID"),
        is_own=text(header, "Manufacturer") == MANUFACTURER,
        named=frozenset(_uids(header, NAMES)),
        frames=frozenset(_uids(header, FRAMES)) - {""},
    )


def _uids(dataset: Dataset, keywords: Sequence[str], depth: int = 0) -> Iterator[str]:
    """Yield the values of some UIDs at any depth, without touching what is not a sequence."""
    for keyword in keywords:
        yield from texts(dataset, keyword)
    if depth < MAX_DEPTH:
        for tag in list(dataset.keys()):
            if dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ":
                for item in items(dataset, keyword_for_tag(tag)):
                    yield from _uids(item, keywords, depth + 1)


__all__ = ["OTHER", "Index", "RegionFile", "Series", "look"]
