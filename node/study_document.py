"""The report of a study as a PDF, made when somebody asks for it: all analyses that count, as they count now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from node.report.canvas import GROUND, INK, MUTED, font, write
from node.report.overlays import pretty_unit, rounded
from node.report.pdf import report_pdf
from node.report.shown import ShownFinding, ShownMeasurement, StudyReport
from node.report.typeface import drawable
from plugins.contract import Flag, Patient, Study
from plugins.errors import Refused
from plugins.flag_codes import NOTHING_HERE
from store.finding_view import FindingView
from store.study_view import SaidOfSeries, StudyView

SIZE, CAPTION, GAP = 480, 44, 8
Draw = Callable[[int], bytes]
"""Gives the picture of a finding, by its row, as PNG; refuses where there is none."""


def study_document(
    view: StudyView, findings: Sequence[FindingView], draw: Draw, *, made_at: datetime, software: str
) -> bytes:
    """Return the report of a study as PDF, its findings in their order, two pictures side by side."""
    head = view.head
    said = [one for analysis in view.analyses if not analysis.is_superseded for one in analysis.said]
    report = StudyReport(
        study=Study(
            study_instance_uid=head.study_instance_uid,
            patient=Patient(patient_id=head.patient_id, sex=head.patient_sex or None),
            study_date=head.study_date,
            volumes=(),
        ),
        findings=tuple(map(_shown, findings)),
        patient_name=head.patient_name,
        description=head.study_description,
        refused=_flags(said, refused=True),
        flags=_flags(said, refused=False),
    )
    return report_pdf(report, list(_sheets(findings, draw)), made_at=made_at, software=software)


def _shown(finding: FindingView) -> ShownFinding:
    return ShownFinding(
        label=finding.label,
        plugin=finding.plugin,
        tracking_uid=finding.tracking_uid,
        series_instance_uid=finding.series_instance_uid,
        measurements=tuple(
            ShownMeasurement(name=m.name, value=m.value, unit=m.unit, method=m.method, meaning=m.meaning)
            for m in finding.measurements
        ),
        confidence=finding.confidence,
        automatic=finding.is_automatic,
    )


def _flags(said: Sequence[SaidOfSeries], *, refused: bool) -> tuple[Flag, ...]:
    once = dict.fromkeys(
        (one.code, one.sentence) for one in said if one.is_refused is refused and one.code != NOTHING_HERE
    )
    return tuple(Flag(code=code, sentence=sentence) for code, sentence in once)


def _sheets(findings: Sequence[FindingView], draw: Draw) -> Iterator[NDArray[np.uint8]]:
    """Yield pictures, `(R, C, 3)` RGB: two findings each, with their names and long axes."""
    drawn = []
    for finding in findings:
        try:
            drawn.append((finding, Image.open(BytesIO(draw(finding.finding_pk))).convert("RGB")))
        except Refused:
            continue  # its images or its SEG are gone; the numbers are told all the same
    for first in range(0, len(drawn), 2):
        sheet = Image.new("RGB", (2 * SIZE + GAP, SIZE + CAPTION), GROUND)
        pen = ImageDraw.Draw(sheet)
        for place, (finding, picture) in enumerate(drawn[first : first + 2]):
            x = place * (SIZE + GAP)
            sheet.paste(picture.resize((SIZE, SIZE)), (x, 0))
            label = drawable(finding.label)[:52]
            write(pen, (x + 6, SIZE + 13), label, 15, INK)
            pen.text((x + 6, SIZE + 32), _numbers(finding), font=font(12), fill=MUTED, anchor="lm")
        yield np.asarray(sheet)


def _numbers(finding: FindingView) -> str:
    names = ("long_axis", "volume", "suv_max", "hu_mean")
    found = [m for name in names if (m := finding.measurement(name)) is not None]
    return "   ".join(f"{m.meaning} {rounded(m.value)} {pretty_unit(m.unit)}".rstrip() for m in found[:3])[
        :70
    ]


__all__ = ["Draw", "study_document"]
