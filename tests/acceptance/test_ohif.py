"""What a radiologist sees: a study that went through Orthanc and the node, in OHIF at the node's /viewer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from node_process import NodeProcess
from ohif_pages import require_viewer
from orthanc_server import OrthancServer, orthanc, require_orthanc
from ports import free_port
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from skimage.color import lab2rgb
from small_results import NOW, PROVENANCE, Case, identify

from node.web import links
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
from store.dicom.series import ReadStudy, read_study
from store.dicom.sr import encode_nothing_found
from store.response.history import Role, Status

LOOK = Path(__file__).parent / "ohif" / "look.mjs"
SEG, SEGMENTS_SR, PLANAR_SR = (
    f"Nadir contours {words}"
    for words in ("segmentation (CT)", "measurements (segments)", "measurements (key images)")
)
SHOWN = (("long_axis", "mm"), ("short_axis", "mm"), ("volume", "ml"))
KEY_IMAGES, DOCUMENT = "Nadir contours key images", "Nadir contours report"
SPOILT = {
    "blanked frame": {"voxels"},
    "swapped labels": {"label"},
    "swapped colours": {"colour", "painted"},
    "shifted by a slice": {"voxels"},
}
"""What is done to a segmentation, and in what it has to be seen."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(900), pytest.mark.xdist_group("ohif")]


@dataclass(frozen=True)
class Whole:
    """A study that went through the whole, and where it is now."""

    read: ReadStudy
    """What was sent."""
    rows: list[dict[str, Any]]
    """What the node measured."""
    seg: Dataset
    """What it wrote, as the PACS gives it back."""
    pacs: OrthancServer
    node: NodeProcess

    @property
    def volume(self) -> Volume:
        """Return the CT."""
        return self.read.study.volumes[0]

    @property
    def drawn(self) -> dict[str, Drawn]:
        """Return the regions that somebody drew, by label."""
        return {d.label: d for d in self.read.study.drawn}

    def row_of_segment(self, number: int) -> dict[str, Any]:
        """Return a row of the finding that is this segment."""
        return next(r for r in self.rows if r["segment_number"] == number)

    def row(self, label: str, name: str) -> dict[str, Any]:
        """Return a measurement."""
        (found,) = (r for r in self.rows if (r["label"], r["name"]) == (label, name))
        return found


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """Send a study into Orthanc; the hook, the node and the PACS do the rest, and what they made is kept running."""
    require_viewer()
    require_orthanc()
    files = sorted((data / "ct_4dlung").rglob("*.dcm"))
    home = tmp_path_factory.mktemp("home")
    http_port = free_port()
    with orthanc(node_url=f"http://127.0.0.1:{http_port}", stable_seconds=2) as pacs:
        destination = f"ORTHANC@127.0.0.1:{pacs.dicom_port}"
        kinds = '"seg", "sr-volumetric", "sr-planar", "capture", "pdf"'
        settings = home / "nadir.toml"
        settings.write_text(f'[delivery."{destination}"]\nresults = [{kinds}]\n')
        flags = ("--accept-any", "--quiet-seconds", "2", "--destination", destination)
        flags += ("--pacs-url", pacs.dicomweb, "--config", str(settings))
        process = NodeProcess(home, *flags, environment={"NADIR_ENABLED": "contours"})
        process.http_port = http_port
        try:
            process.start()
            for file in files:
                pacs.upload(file)
            process.wait_until_idle()
            rows = process.ask("findings")
            (instance,) = _instances(pacs, "SEG")
            (home / "seg.dcm").write_bytes(pacs.file(instance))
            # From now on only its pages: what the tests put into the PACS is not to be analysed.
            process.stop()
            process.kill()
            process = NodeProcess(home, *flags, "--role", "web")
            process.http_port = http_port
            process.start()
            yield Whole(read_study(files), rows, dcmread(home / "seg.dcm"), pacs, process)
        finally:
            process.kill()


def _instances(pacs: OrthancServer, modality: str) -> list[str]:
    query = {"Level": "Instance", "Query": {"Modality": modality}}
    answer = httpx.post(f"{pacs.url}/tools/find", json=query, timeout=30, trust_env=False)
    return list(answer.raise_for_status().json())


@pytest.fixture(scope="module")
def case(whole: Whole) -> Case:
    """Return two of the drawn regions as findings, for reports that this study does not give by itself."""
    wanted = [whole.drawn[label] for label in ("Tumor_c40", "LN_c40")]
    findings = tuple(identify(_finding(d, whole.volume), i) for i, d in enumerate(wanted, start=1))
    return Case(volume=whole.volume, headers=dict(whole.read.headers), findings=findings)


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


def spoilt(seg: Dataset, how: str, volume: Volume) -> Dataset:
    """Return the SEG with one fault, under UIDs and a description of its own."""
    bad = dcmread(str(seg.filename))
    bad.SeriesDescription, bad.SeriesInstanceUID = how, generate_uid()
    bad.SOPInstanceUID = bad.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    first, second = bad.SegmentSequence[:2]
    groups = bad.PerFrameFunctionalGroupsSequence
    if how == "blanked frame":
        octets = bad.Rows * bad.Columns // 8
        bad.PixelData = bytes(octets) + bad.PixelData[octets:]
    elif how == "swapped labels":
        first.SegmentLabel, second.SegmentLabel = second.SegmentLabel, first.SegmentLabel
    elif how == "swapped colours":
        name = "RecommendedDisplayCIELabValue"
        first[name].value, second[name].value = list(second[name].value), list(first[name].value)
    else:
        at = {uid: k for k, uid in enumerate(volume.sop_instance_uids)}
        for group in groups:
            source = group.DerivationImageSequence[0].SourceImageSequence[0]
            k = at[source.ReferencedSOPInstanceUID] + 1
            source.ReferencedSOPInstanceUID = volume.sop_instance_uids[k]
            corner = volume.to_mm(np.array([k, 0, 0]))
            group.PlanePositionSequence[0].ImagePositionPatient = [round(float(mm), 4) for mm in corner]
    return bad


@pytest.fixture(scope="module")
def seen(whole: Whole, case: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything that the viewer shows of the study, looked at once."""
    folder = tmp_path_factory.mktemp("ohif")
    other = replace(case, provenance=replace(PROVENANCE, plugin="other", job_key="e" * 64))
    doubt = Flag(code="uneven-slices", sentence="The slices are not quite even.")
    nothing = encode_nothing_found([case.volume], other.report(804, flags=[doubt]))
    response = _response(case, whole.seg)
    added = {"nothing": nothing, "response": response}
    added |= {how: spoilt(whole.seg, how, whole.volume) for how in SPOILT}
    for name, dataset in added.items():
        dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True)
        whole.pacs.upload(folder / f"{name}.dcm")
    row = whole.row("Tumor_c40", "long_axis")
    words = [f"{whole.row('Tumor_c40', name)['value']:.2f} {unit}" for name, unit in SHOWN]
    want = {
        "segs": [
            {"series": series, "segments": len(whole.drawn), "paint": series in (SEG, "swapped colours")}
            for series in (SEG, *SPOILT)
        ],
        "reports": [
            {"series": PLANAR_SR, "words": words},
            {"series": SEGMENTS_SR, "words": words[:1], "patience": 15000},
            {"series": str(nothing.SeriesDescription), "words": []},
            {"series": str(response.SeriesDescription), "words": []},
        ],
        "others": [KEY_IMAGES, DOCUMENT],
        "link": links.viewer(row["study_instance_uid"], row["series_instance_uid"], row["sop_instance_uid"]),
    }
    (folder / "want.json").write_text(json.dumps(want))
    address = f"http://127.0.0.1:{whole.node.http_port}"
    done = subprocess.run(
        ["node", str(LOOK), address, row["study_instance_uid"], str(folder / "want.json"), str(folder)],
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
        env={**os.environ, "CHROMIUM": shutil.which("chromium") or ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads((folder / "seen.json").read_text()))


def faults(shown: list[dict[str, Any]], whole: Whole) -> set[str]:
    """Return in what the segments on the screen differ from what was drawn and what the node meant."""
    meant = whole.seg.SegmentSequence
    assert [one["number"] for one in shown] == [item.SegmentNumber for item in meant]
    found = set()
    for one, item in zip(shown, meant, strict=True):
        label = whole.row_of_segment(one["number"])["label"]
        if one["label"] != label:
            found.add("label")
        if _voxels(one) != _drawn_voxels(whole.drawn[label], whole.volume):
            found.add("voxels")
        colour = _rgb(item.RecommendedDisplayCIELabValue)
        if not np.allclose(one["rgb"], colour, atol=2):
            found.add("colour")
        if "painted" in one and not np.allclose(one["painted"], colour, atol=4):
            found.add("painted")
    return found


def _voxels(shown: Mapping[str, Any]) -> dict[str, frozenset[int]]:
    return {sop: frozenset(indices) for sop, indices in shown["voxels"].items()}


def _drawn_voxels(drawn: Drawn, volume: Volume) -> dict[str, frozenset[int]]:
    """Return the voxels of a region by the SOP Instance UID of their image, counted along its rows."""
    slices = drawn.mask.full()
    return {
        volume.sop_instance_uids[k]: frozenset(np.flatnonzero(slices[k]).tolist())
        for k in np.flatnonzero(slices.any(axis=(1, 2)))
    }


def _rgb(lab: list[int]) -> np.ndarray:
    """Return what CIELab in 16 bits (PS3.3 C.10.7.1.1) is in sRGB."""
    lightness, a, b = lab[0] / 65535 * 100, lab[1] / 65535 * 255 - 128, lab[2] / 65535 * 255 - 128
    return np.asarray(lab2rgb(np.array([[[lightness, a, b]]]))[0, 0] * 255)


def test_the_segments_have_our_labels_voxels_places_and_colours(seen: dict[str, Any], whole: Whole) -> None:
    assert len(whole.seg.SegmentSequence) == len(whole.drawn) == 4
    assert all("painted" in one for one in seen["segs"][SEG])
    assert faults(seen["segs"][SEG], whole) == set()


@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_segmentation_is_seen_to_be_spoilt(how: str, seen: dict[str, Any], whole: Whole) -> None:
    assert faults(seen["segs"][how], whole) == SPOILT[how]


def require_values(report: Mapping[str, Any], whole: Whole, label: str) -> None:
    """Fail unless the overlay shows long axis, short axis and volume of a lesion as the node measured them."""
    assert report["alive"]
    for name, unit in SHOWN:
        assert f"{whole.row(label, name)['value']:.2f} {unit}" in report["text"]


def test_the_overlay_shows_axes_and_volume(seen: dict[str, Any], whole: Whole) -> None:
    require_values(seen["reports"][0], whole, "Tumor_c40")


def test_a_report_by_segments_alone_is_seen_to_show_nothing(seen: dict[str, Any], whole: Whole) -> None:
    with pytest.raises(AssertionError):
        require_values(seen["reports"][1], whole, "Tumor_c40")


def test_the_axes_are_drawn_where_they_were_measured(seen: dict[str, Any], whole: Whole) -> None:
    lines = {line["tracking_uid"]: line for line in seen["reports"][0]["lines"]}
    assert len(lines) == len(whole.drawn)
    for label, drawn in whole.drawn.items():
        row = whole.row(label, "long_axis")
        line = lines[row["tracking_uid"]]
        finding = _finding(drawn, whole.volume)
        points = np.array(line["points_mm"])
        points = points[: len(region(finding, whole.volume)[0])]
        assert np.allclose(points[:2], finding.measurement("long_axis").end_points_mm or (), atol=0.01)
        assert np.allclose(points[-2:], finding.measurement("short_axis").end_points_mm or (), atol=0.01)
        assert row["sop_instance_uid"] in line["image"]


def test_a_report_of_nothing_found_can_be_read(seen: dict[str, Any]) -> None:
    report = seen["reports"][2]
    assert report["alive"]
    assert report["lines"] == []
    assert "All algorithms succeeded; without findings" in report["text"]
    assert "For research use only" in report["text"]
    assert "uneven-slices: The slices are not quite even." in report["text"]


def test_a_report_on_response_can_be_read_and_draws_nothing(seen: dict[str, Any], case: Case) -> None:
    report = seen["reports"][3]
    assert report["alive"]
    assert report["lines"] == []
    assert "Response Evaluation Method: RECIST 1.1" in report["text"]
    assert "Current Response: Stable Disease" in report["text"]
    assert "60.0 mm is the nadir of 60.0 mm." in report["text"]
    for identified in case.findings:
        assert report["text"].count(f"{identified.finding.label} {identified.tracking_uid}") == 2


def test_a_link_opens_the_study_at_the_image_of_the_lesion(seen: dict[str, Any], whole: Whole) -> None:
    row = whole.row("Tumor_c40", "long_axis")
    where = f"/series/{row['series_instance_uid']}/instances/{row['sop_instance_uid']}/"
    assert where in seen["link"]
    assert whole.volume.sop_instance_uids.index(row["sop_instance_uid"]) > 5


def test_key_images_and_the_document_show_for_destinations_that_ask_for_them(seen: dict[str, Any]) -> None:
    pictures = seen["others"][KEY_IMAGES]
    assert pictures["images"] == 5 and pictures["colour"]
    document = seen["others"][DOCUMENT]
    assert document["pdf"] == "%PDF-"


def test_the_pages_had_no_error_and_called_nobody_outside(seen: dict[str, Any]) -> None:
    assert seen["errors"] == []
    assert seen["outside"] == []
