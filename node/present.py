"""What people look at beside SEG and SR: pages in a folder, and what is sent to viewers that show neither of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from node.deliveries import MORE_KINDS
from node.report.folder import write_report
from node.report.overlays import key_slice, largest, montage, overlay
from node.report.pdf import report_pdf
from node.report.shown import ShownFinding, StudyReport
from plugins.contract import Flag
from store.analysed import Told
from store.dicom import capture, pdf
from store.dicom.capture import Picture, encode_capture
from store.dicom.pdf import encode_pdf
from store.dicom.seg import Identified
from store.dicom.series import ReadStudy
from store.provenance import Provenance

MOST_PICTURES = 24
MARGIN = 0.12
NOT_TOLD: Mapping[str, Mapping[str, str]] = {}


def study_report(
    read: ReadStudy,
    identified: Mapping[str, Sequence[Identified]],
    told: Iterable[Told],
    files: Sequence[Path] = (),
    provenance: Mapping[str, Mapping[str, str]] = NOT_TOLD,
) -> StudyReport:
    """Return what a report shows of a study: the findings of each plugin, and each thing told once.

    `provenance` says of each analysis, by its name, what made its numbers: version, hashes.
    """
    once = list(dict.fromkeys(told))
    header = next(iter(read.headers.values()), Dataset())
    return StudyReport(
        study=read.study,
        findings=tuple(
            ShownFinding.of(i.finding, plugin=plugin, tracking_uid=i.tracking_uid)
            for plugin, found in identified.items()
            for i in found
        ),
        patient_name=str(header.get("PatientName", "")),
        description=str(header.get("StudyDescription", "")),
        refused=_flags(once, refused=True),
        flags=_flags(once, refused=False),
        files=tuple(files),
        provenance=provenance,
    )


def write_pages(report: StudyReport, folder: Path, made_at: datetime) -> tuple[str, ...]:
    """Return the files written into `folder`: pictures, a CSV and a page."""
    return tuple(str(path) for path in write_report(folder, [report], made_at=made_at))


def without_picture(findings: int) -> tuple[Flag, ...]:
    """Return the doubt that some of so many findings have no picture of their own (`findings-without-picture`)."""
    said = _limit(findings)
    if not said:
        return ()
    sentence = f"key images and PDF: {said}; SEG and reports hold all"
    return (Flag(code="findings-without-picture", sentence=sentence),)


def _limit(findings: int) -> str:
    if findings <= MOST_PICTURES:
        return ""
    return f"{MOST_PICTURES} of {findings} findings have pictures of their own, the largest by volume"


def encode_fallbacks(
    kinds: Iterable[str],
    report: StudyReport,
    read: ReadStudy,
    provenance: Provenance,
    number: Callable[[str], int],
    sources: Sequence[Dataset],
) -> Iterator[tuple[str, Dataset]]:
    """Yield (kind, object) for the kinds that are wanted: key images, and a PDF about `sources`.

    An overview comes first where there are lesions, or nothing was found; then at most `MOST_PICTURES` findings, the
    largest in their order. `number` gives the series number of a kind.
    """
    wanted = set(kinds)
    if not wanted.intersection(MORE_KINDS):
        return
    header = next(iter(read.headers.values()))
    made_at = datetime.fromisoformat(provenance.started_at)
    pictures = list(_pictures(report, read.headers))
    if capture.KIND in wanted:
        series = number(capture.KIND)
        for place, picture in enumerate(pictures, start=1):
            framed = replace(picture, pixels=_with_margins(picture.pixels))
            yield capture.KIND, encode_capture(framed, place, header, provenance, series, made_at)
    if pdf.KIND in wanted:
        software = f"Nadir {provenance.software_version}, {provenance.plugin} {provenance.plugin_version}"
        drawn, note = [p.pixels for p in pictures], _limit(len(report.findings))
        document = report_pdf(report, drawn, made_at=made_at, software=software, note=note)
        yield pdf.KIND, encode_pdf(document, sources, header, provenance, number(pdf.KIND), made_at)


def _with_margins(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture with room above and below: viewers write their own words into the corners."""
    rows = round(MARGIN * pixels.shape[0])
    bands = np.broadcast_to(pixels[0, 0], (rows, *pixels.shape[1:]))
    return np.concatenate([bands, pixels, bands])


def _pictures(report: StudyReport, headers: Mapping[str, Dataset]) -> Iterator[Picture]:
    has_lesions = any(f.measurement("long_axis") for f in report.findings)
    overview = (
        montage(report, note=_limit(len(report.findings))) if has_lesions or not report.findings else None
    )
    if overview is not None:
        yield Picture(pixels=np.asarray(overview.convert("RGB")), title="Overview")
    for finding in largest(report.findings, report, MOST_PICTURES):
        image, volume = overlay(finding, report), report.volume_of(finding)
        if image is None or volume is None or finding.mask is None:
            continue
        uid = volume.sop_instance_uids[key_slice(finding, finding.mask, volume)]
        yield Picture(pixels=np.asarray(image.convert("RGB")), title=finding.label, source=headers.get(uid))


def _flags(told: Iterable[Told], *, refused: bool) -> tuple[Flag, ...]:
    return tuple(
        Flag(code=t.code, sentence=t.sentence, series_instance_uid=t.series_instance_uid)
        for t in told
        if t.refused is refused
    )


__all__ = ["encode_fallbacks", "study_report", "without_picture", "write_pages"]
