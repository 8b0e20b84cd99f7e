"""What a radiologist sees: SEG and reports of drawn regions in an unmodified OHIF, a real Orthanc behind it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from ohif_pages import require_viewer, running_ohif
from orthanc_server import orthanc, require_orthanc
from pydicom.dataset import Dataset
from small_results import NOW, PROVENANCE, Case, identify

from plugins import codes
from plugins.contract import Drawn, Finding, Flag, Volume
from plugins.measure.lesion import measure_lesion
from store.dicom.drawing import region
from store.dicom.response_sr import (
    ReportedLesion,
    ReportedResponse,
    ReportedVisit,
    SegmentOf,
    encode_response,
)
from store.dicom.seg import PALETTE
from store.dicom.series import read_study
from store.dicom.sr import encode_nothing_found
from store.response.history import Role, Status

LOOK = Path(__file__).parent / "ohif" / "look.mjs"


def _finding(drawn: Drawn, volume: Volume) -> Finding:
    return Finding(
        key=drawn.label,
        label=drawn.label,
        series_instance_uid=drawn.series_instance_uid,
        mask=drawn.mask,
        category=codes.MORPHOLOGICALLY_ABNORMAL,
        type=codes.NEOPLASM,
        automatic=False,
        measurements=measure_lesion(drawn.mask, volume),
    )


@pytest.fixture(scope="module")
def drawn_case(data: Path) -> Case:
    read = read_study(sorted((data / "ct_4dlung").rglob("*.dcm")))
    volume = read.study.volumes[0]
    wanted = [d for d in read.study.drawn if d.label in ("Tumor_c40", "LN_c40")]
    findings = tuple(identify(_finding(d, volume), i) for i, d in enumerate(wanted, start=1))
    return Case(volume=volume, headers=dict(read.headers), findings=findings)


def _response(case: Case, seg: Dataset) -> Dataset:
    """Return a report in which both lesions have the same Tracking UID and segment at two time points."""
    segment = SegmentOf(
        study_instance_uid=seg.StudyInstanceUID,
        sop_instance_uid=seg.SOPInstanceUID,
        seg_series_instance_uid=seg.SeriesInstanceUID,
        number=1,
        series_instance_uid=case.volume.series_instance_uid,
    )
    lesions = tuple(
        ReportedLesion(
            tracking_uid=identified.tracking_uid,
            tracking_identifier=identified.finding.label,
            role=Role.TARGET,
            status=Status.MEASURED,
            measurements=identified.finding.measurements,
            summed="long_axis",
            segment=replace(segment, number=identified.segment_number),
        )
        for identified in case.findings
    )
    visits = [ReportedVisit(date=date(2025, month, 1), lesions=lesions, sum=60.0) for month in (1, 3)]
    said = ReportedResponse(
        criteria="recist1.1", quantity="sum of diameters", unit=codes.MM, overall="SD", target="SD",
        non_target=None, best="SD", reasons=("60.0 mm is the nadir of 60.0 mm.",),
    )  # fmt: skip
    provenance = replace(PROVENANCE, plugin="response", job_key="f" * 64)
    return encode_response(visits, said, next(iter(case.headers.values())), provenance, 805, NOW)


@pytest.fixture(scope="module")
def seen(drawn_case: Case, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything that OHIF shows of the case, looked at once."""
    pages = require_viewer()
    require_orthanc()
    folder = tmp_path_factory.mktemp("ohif")
    seg = drawn_case.seg()
    other = replace(drawn_case, provenance=replace(PROVENANCE, plugin="other", job_key="e" * 64))
    doubt = Flag(code="uneven-slices", sentence="The slices are not quite even.")
    none = encode_nothing_found([drawn_case.volume], other.report(804, flags=[doubt]))
    planar = drawn_case.planar(seg)
    response = _response(drawn_case, seg)
    objects = {
        "seg": seg,
        "volumetric": drawn_case.volumetric(seg),
        "planar": planar,
        "nothing": none,
        "response": response,
    }
    for name, dataset in objects.items():
        dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    first = drawn_case.findings[0].finding
    words = [f"{first.measurement('long_axis').value:.2f} mm", f"{first.measurement('volume').value:.2f} ml"]
    want = {
        "seg": {"series": seg.SeriesDescription, "segments": 2},
        "reports": [
            {"series": planar.SeriesDescription, "words": words},
            {"series": none.SeriesDescription, "words": []},
            {"series": response.SeriesDescription, "words": []},
        ],
    }
    (folder / "want.json").write_text(json.dumps(want))
    files = [*sorted((data / "ct_4dlung" / "CT").glob("*.dcm")), *(folder / f"{n}.dcm" for n in objects)]
    with orthanc() as archive, running_ohif(pages, archive.url) as address:
        for file in files:
            httpx.post(f"{archive.url}/instances", content=file.read_bytes()).raise_for_status()
        done = subprocess.run(
            ["node", str(LOOK), address, str(seg.StudyInstanceUID), str(folder / "want.json"), str(folder)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            env={**os.environ, "CHROMIUM": shutil.which("chromium") or ""},
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads((folder / "seen.json").read_text()))


pytestmark = [pytest.mark.long, pytest.mark.timeout(700), pytest.mark.xdist_group("ohif")]


def test_the_segments_have_our_labels_voxels_places_and_colours(
    seen: dict[str, Any], drawn_case: Case
) -> None:
    assert len(seen["seg"]) == len(drawn_case.findings)
    for shown, identified in zip(seen["seg"], drawn_case.findings, strict=True):
        mask = identified.finding.mask
        centre = drawn_case.volume.to_mm(np.argwhere(mask.full()).mean(axis=0))
        assert shown["number"] == identified.segment_number
        assert shown["label"] == identified.finding.label
        assert shown["voxels"] == mask.count
        assert np.allclose(shown["centroid_mm"], centre, atol=0.01)
        assert np.allclose(shown["rgb"], PALETTE[identified.segment_number - 1], atol=2)


def test_the_planar_report_shows_axes_and_volume_in_the_overlay(
    seen: dict[str, Any], drawn_case: Case
) -> None:
    report = seen["reports"][0]
    first = drawn_case.findings[0].finding
    for name, unit in (("long_axis", "mm"), ("short_axis", "mm"), ("volume", "ml")):
        assert f"{first.measurement(name).value:.2f} {unit}" in report["text"]


def test_the_axes_are_drawn_where_they_were_measured(seen: dict[str, Any], drawn_case: Case) -> None:
    lines = {line["tracking_uid"]: line for line in seen["reports"][0]["lines"]}
    for identified in drawn_case.findings:
        finding = identified.finding
        line = lines[identified.tracking_uid]
        points = np.array(line["points_mm"])
        points = points[: len(region(finding, drawn_case.volume)[0])]
        ends = np.array(finding.measurement("long_axis").end_points_mm)
        short = np.array(finding.measurement("short_axis").end_points_mm)
        assert np.allclose(points[:2], ends, atol=0.01)
        assert np.allclose(points[-2:], short, atol=0.01)
        k = finding.measurement("long_axis").slice_index
        assert k is not None
        assert drawn_case.volume.sop_instance_uids[k] in line["image"]


def test_a_report_of_nothing_found_can_be_read(seen: dict[str, Any]) -> None:
    report = seen["reports"][1]
    assert all(shown["alive"] for shown in seen["reports"])
    assert report["lines"] == []
    assert "All algorithms succeeded; without findings" in report["text"]
    assert "For research use only" in report["text"]
    assert "uneven-slices: The slices are not quite even." in report["text"]


def test_a_report_on_response_can_be_read_and_draws_nothing(seen: dict[str, Any], drawn_case: Case) -> None:
    report = seen["reports"][2]
    assert report["alive"]
    assert report["lines"] == []
    assert "Response Evaluation Method: RECIST 1.1" in report["text"]
    assert "Current Response: Stable Disease" in report["text"]
    assert "60.0 mm is the nadir of 60.0 mm." in report["text"]
    for identified in drawn_case.findings:
        assert report["text"].count(f"{identified.finding.label} {identified.tracking_uid}") == 2


def test_the_pages_had_no_error_and_called_nobody_outside(seen: dict[str, Any]) -> None:
    assert seen["errors"] == []
    assert seen["outside"] == []
