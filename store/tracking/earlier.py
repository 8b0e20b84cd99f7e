"""What an analysis found at another time, read back from its SEGs; images are read only when somebody asks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from plugins import codes
from plugins.contract import Flag, Mask, Volume
from plugins.errors import Refused
from store.dicom.equipment import MANUFACTURER, one_line
from store.dicom.files import File
from store.dicom.segments import read_segments
from store.dicom.series import read_files
from store.dicom.values import code, integer, items, quiet, text
from store.dicom.volumes import read_volume
from store.tracking.past import EarlierResults, Named, Past


@dataclass(frozen=True, kw_only=True)
class Region:
    """One segment of an earlier SEG, as its header tells it."""

    number: int
    """Segment number."""
    label: str
    """Segment label."""
    tracking_uid: str
    """Tracking UID, as it is now."""
    tracking_identifier: str
    """Tracking ID."""
    written_uid: str = ""
    """Tracking UID, as it is written."""
    category: Code | None
    """Segmented property category."""
    type: Code | None
    """Segmented property type."""
    site: Code | None
    """Anatomic region."""
    laterality: Code | None
    """Side of the anatomic region."""

    @property
    def is_lesion(self) -> bool:
        """Return True when it is followed by its place, as lesions are, and not by its name."""
        return is_lesion(self.category, self.type)


def is_lesion(category: Code | None, type_: Code | None) -> bool:
    """Return True for what is morphologically abnormal, and for lymph nodes."""
    return category == codes.MORPHOLOGICALLY_ABNORMAL or type_ == codes.LYMPH_NODE


@dataclass(frozen=True, kw_only=True, eq=False)
class EarlierSeries:
    """The newest SEG of an analysis on one image series of one study."""

    study_instance_uid: str
    """The study."""
    study_date: str
    """Its date, ISO 8601."""
    series_instance_uid: str
    """The image series."""
    modality: str
    """Its modality; empty when its images are not here."""
    description: str
    """Its Series Description."""
    regions: tuple[Region, ...]
    """What was found on it."""
    segmentation: File = field(repr=False)
    """The SEG."""
    files: tuple[str, ...] = field(repr=False)
    """Files of the images."""

    @property
    def lesions(self) -> tuple[Region, ...]:
        """Return those that are followed by their place."""
        return tuple(r for r in self.regions if r.is_lesion)

    @cached_property
    def volume(self) -> Volume:
        """Return the images. Refuses (`earlier-images-missing`, and what the reader refuses)."""
        with quiet():
            files, _, refused = read_files(map(Path, self.files))
            if not files:
                why = refused[0].sentence if refused else "they are not here"
                raise Refused(
                    "earlier-images-missing", f"the images of {self.study_date} cannot be read: {why}"
                )
            return read_volume(files)

    def masks(self, volume: Volume) -> dict[int, Mask]:
        """Return the mask of each segment by its number, on `volume`, which is the series. Refuses a SEG beside it."""
        with quiet():
            drawn, _ = read_segments(self.segmentation, [volume])
        return {d.number: d.mask for d in drawn}


def read_earlier(
    results: EarlierResults, plugin: str, past: Past
) -> tuple[tuple[EarlierSeries, ...], tuple[Flag, ...]]:
    """Return what one analysis found in a study, by series, and a flag for each SEG that cannot be read.

    What people relinked in the study has the identity that they gave it. What has a stranger's is left out.
    """
    with quiet():
        files, _, refused = read_files(map(Path, results.segmentations))
    flags = [
        Flag(
            code="earlier-not-read",
            sentence=f"A result of {results.study_date} cannot be read: {f.sentence}",
            plugin=plugin,
        )
        for f in refused
    ]
    newest: dict[str, File] = {}
    for file in sorted((f for f in files if _is_of(f, plugin)), key=_made_at):
        for series in items(file.header, "ReferencedSeriesSequence")[:1]:
            newest[text(series, "SeriesInstanceUID")] = file
    images = {one.series_instance_uid: one.files for one in results.images}
    called = {one.tracking_uid: one for one in reversed(past.names)}
    now = {
        one.tracking_uid: called.get(one.other_uid, Named(tracking_uid=one.other_uid, tracking_identifier=""))
        for one in past.relinked
        if one.study_instance_uid == results.study_instance_uid
    }
    strangers = set(past.strangers) - set(called)
    read = tuple(
        _series(results, uid, file, images.get(uid, ()), now, strangers)
        for uid, file in sorted(newest.items())
    )
    return read, tuple(flags)


def _is_of(file: File, plugin: str) -> bool:
    header = file.header
    return (
        file.modality == "SEG"
        and text(header, "Manufacturer") == MANUFACTURER
        and text(header, "ManufacturerModelName") == one_line(plugin)
    )


def _made_at(file: File) -> tuple[str, str, str]:
    header = file.header
    return (text(header, "InstanceCreationDate"), text(header, "InstanceCreationTime"), file.sop_instance_uid)


def _series(
    results: EarlierResults,
    uid: str,
    file: File,
    images: Sequence[str],
    now: Mapping[str, Named],
    strangers: Collection[str],
) -> EarlierSeries:
    with quiet():
        first = next(iter(read_files(map(Path, images[:1]))[0]), None)
    regions = [_region(segment) for segment in items(file.header, "SegmentSequence")]
    regions = [_relinked(region, now.get(region.tracking_uid)) for region in regions]
    return EarlierSeries(
        study_instance_uid=results.study_instance_uid,
        study_date=results.study_date,
        series_instance_uid=uid,
        modality=first.modality if first else "",
        description=text(first.header, "SeriesDescription") if first else "",
        regions=tuple(r for r in regions if r.tracking_uid and r.tracking_uid not in strangers),
        segmentation=file,
        files=tuple(images),
    )


def _relinked(region: Region, name: Named | None) -> Region:
    if name is None:
        return region
    identifier = name.tracking_identifier or region.tracking_identifier
    return replace(region, tracking_uid=name.tracking_uid, tracking_identifier=identifier)


def _region(segment: Dataset) -> Region:
    sides = [code(one, "AnatomicRegionModifierSequence") for one in items(segment, "AnatomicRegionSequence")]
    return Region(
        number=integer(segment, "SegmentNumber") or 0,
        label=text(segment, "SegmentLabel"),
        tracking_uid=text(segment, "TrackingUID"),
        written_uid=text(segment, "TrackingUID"),
        tracking_identifier=text(segment, "TrackingID"),
        category=code(segment, "SegmentedPropertyCategoryCodeSequence"),
        type=code(segment, "SegmentedPropertyTypeCodeSequence"),
        site=code(segment, "AnatomicRegionSequence"),
        laterality=sides[0] if sides else None,
    )


__all__ = ["EarlierSeries", "Region", "is_lesion", "read_earlier"]
