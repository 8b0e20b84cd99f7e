"""A patient who comes again: two studies lie in a real Orthanc, a third arrives, and a reader corrects the verdict."""

from __future__ import annotations

import io
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from node_process import NodeProcess, nadir, nadir_json
from orthanc_server import OrthancServer, orthanc
from ports import free_port
from pydicom import Dataset, dcmread
from tumour_course import Visit, read_chest, write_visit

from store.dicom.rules import check

# The demo goes the same way with two visits and an archive of our own.
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("follow-up")]

PATIENT = "COURSE-1"
VISITS = (
    Visit("20260105", (24.0, 16.0)),
    Visit("20260305", (16.0, 10.0), moved_mm=(12.0, -7.0, 30.0)),
    Visit("20260505", (22.0, 12.0), moved_mm=(-5.0, 4.0, -18.0), turned_degrees=3.0),
)
PD, SD = "C35571", "C18213"


@dataclass(frozen=True)
class Round:
    """What there is after the third study."""

    node: NodeProcess
    pacs: OrthancServer
    studies: tuple[str, ...]
    """Study Instance UIDs, by date."""

    def objects(self, study: int, modality: str) -> list[Dataset]:
        """Return what lies in Orthanc of one study and modality."""
        found = []
        for series in self.pacs.get("/series?expand"):
            tags = series["MainDicomTags"]
            parent = self.pacs.get(f"/studies/{series['ParentStudy']}")["MainDicomTags"]
            if parent["StudyInstanceUID"] != self.studies[study] or tags["Modality"] != modality:
                continue
            found += [dcmread(io.BytesIO(self.pacs.file(i))) for i in series["Instances"]]
        return found

    def reports(self) -> list[Dataset]:
        """Return the reports on response of the newest study, oldest first."""
        found = [sr for sr in self.objects(2, "SR") if "response" in str(sr.SeriesDescription)]
        return sorted(
            found, key=lambda sr: (sr.ContentDate, sr.ContentTime, "PredecessorDocumentsSequence" in sr)
        )

    def wait_for(self, reports: int, seconds: float = 300) -> list[Dataset]:
        """Return the reports once there are so many of them."""
        deadline = time.monotonic() + seconds
        while len(found := self.reports()) < reports:
            assert time.monotonic() < deadline, "".join(self.node.log[-40:])
            time.sleep(0.5)
        return found


@pytest.fixture(scope="module")
def followed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Round]:
    folder = tmp_path_factory.mktemp("follow_up")
    chest = read_chest(data / "ct_4dlung" / "CT")
    files = [write_visit(chest, visit, folder / visit.date, PATIENT) for visit in VISITS]
    http_port = free_port()
    with orthanc(node_url=f"http://127.0.0.1:{http_port}", stable_seconds=2) as pacs:
        for path in (*files[0], *files[1]):
            pacs.upload(path)
        process = NodeProcess(
            folder / "home",
            *("--accept-any", "--quiet-seconds", "1", "--ae-title", "NADIR", "--reserve-bytes", "0"),
            *("--destination", f"ORTHANC@127.0.0.1:{pacs.dicom_port}", "--pacs-url", pacs.dicomweb),
            *("--plugin", "contours", "--response-criteria", "recist1.1"),
        )
        process.http_port = http_port
        try:
            process.start()
            for path in files[2]:
                pacs.upload(path)
            uids = tuple(str(dcmread(f[0], stop_before_pixels=True).StudyInstanceUID) for f in files)
            yield Round(process, pacs, uids)
        finally:
            process.kill()


def _codes(sr: Dataset, value: str) -> list[str]:
    found = []
    for item in sr.get("ContentSequence", ()):
        if "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeValue == value:
            found += [c.CodeValue for c in item.get("ConceptCodeSequence", ())]
        found += _codes(item, value)
    return found


def _sums(sr: Dataset) -> list[float]:
    (container,) = [i for i in sr.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126011"]
    return [float(i.MeasuredValueSequence[0].NumericValue) for i in container.ContentSequence]


def _words(pdf: Dataset, folder: Path) -> str:
    path = folder / "response.pdf"
    path.write_bytes(pdf.EncapsulatedDocument)
    done = subprocess.run(
        ["/usr/bin/pdftotext", "-layout", path, "-"], capture_output=True, text=True, check=True
    )
    return " ".join(done.stdout.split())


def test_the_same_lesion_has_one_identity_in_the_segs_and_reports_of_all_three_studies(
    followed: Round,
) -> None:
    followed.wait_for(1)
    identities = []
    for study in range(3):
        (seg,) = [s for s in followed.objects(study, "SEG") if str(s.Manufacturer) == "Nadir"]
        identities.append({s.SegmentLabel: s.TrackingUID for s in seg.SegmentSequence})
        for sr in followed.objects(study, "SR"):
            assert check(sr) == ()
            assert set(identities[0].values()) <= set(_uids(sr))
    assert identities[0] == identities[1] == identities[2]
    assert len(set(identities[0].values())) == 2


def _uids(sr: Dataset) -> list[str]:
    found = [sr.UID] if "UID" in sr else []
    return found + [uid for item in sr.get("ContentSequence", ()) for uid in _uids(item)]


def test_the_verdict_of_the_third_visit_is_what_the_drawn_diameters_say(followed: Round) -> None:
    (sr, *_) = followed.wait_for(1)
    assert _codes(sr, "112048") == [PD]
    sums = _sums(sr)
    drawn = [sum(visit.diameters_mm) for visit in VISITS]
    # Two lengths, each within a pixel of 1.95 mm of what was drawn.
    assert all(abs(found - true) < 2 * 1.96 for found, true in zip(sums, drawn, strict=True))
    assert sums[2] >= 1.2 * sums[1]
    (asked,) = _response(followed)
    assert [point["overall"] for point in asked["time_points"]] == [None, "PR", "PD"]
    assert asked["time_points"][2]["sum"] == pytest.approx(sums[2], abs=0.051)


def _segs(followed: Round, study: int) -> list[Dataset]:
    """Return the SEGs that Nadir made of a study, oldest first."""
    found = [s for s in followed.objects(study, "SEG") if str(s.Manufacturer) == "Nadir"]
    return sorted(found, key=lambda s: (s.InstanceCreationDate, s.InstanceCreationTime))


def _response(followed: Round) -> Any:
    return nadir_json("response", "--patient", PATIENT, "--home", str(followed.node.home))


def test_the_document_and_the_page_say_the_verdict_and_why(followed: Round, tmp_path: Path) -> None:
    followed.wait_for(1)
    (pdf,) = [d for d in followed.objects(2, "DOC") if "response" in str(d.SeriesDescription)][:1]
    words = _words(pdf, tmp_path)
    assert "PD" in words
    assert "research use only" in words.lower()
    (page,) = (followed.node.home / "reports").glob("*.html")
    html = page.read_text()
    assert PATIENT in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert html.count("data:image/png") >= 6


def test_a_readers_correction_changes_the_verdict_and_is_kept(followed: Round, tmp_path: Path) -> None:
    followed.wait_for(1)
    said = ("--lesion", "Target 1", "--role", "ignore", "--author", "Dr. One")
    done = nadir("lesions", "mark", "--patient", PATIENT, *said, "--home", str(followed.node.home))
    assert done.returncode == 0, done.stderr

    (first, second) = followed.wait_for(2)
    assert _codes(second, "112048") == [SD]
    (predecessor,) = second.PredecessorDocumentsSequence
    (series,) = predecessor.ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    pdfs = [d for d in followed.objects(2, "DOC") if "response" in str(d.SeriesDescription)]
    assert any("Dr. One" in _words(pdf, tmp_path) for pdf in pdfs)
    (asked,) = _response(followed)
    assert asked["time_points"][-1]["overall"] == "SD"


def test_lesions_that_a_person_swapped_at_a_visit_are_written_so_into_the_archive(followed: Round) -> None:
    followed.wait_for(1)
    before = _segs(followed, 1)[0]
    said = (
        "--lesion",
        "Target 1",
        "--to",
        "Target 2",
        "--study",
        "2026-03-05",
        "--swap",
        "--author",
        "Dr. Two",
    )
    done = nadir("lesions", "relink", "--patient", PATIENT, *said, "--home", str(followed.node.home))
    assert done.returncode == 0, done.stderr

    uids = {s.SegmentLabel: s.TrackingUID for s in before.SegmentSequence}
    swapped = {"Target 1": uids["Target 2"], "Target 2": uids["Target 1"]}
    deadline = time.monotonic() + 300
    while any(len(_segs(followed, study)) < 2 for study in (1, 2)):
        assert time.monotonic() < deadline, "".join(followed.node.log[-40:])
        time.sleep(0.5)
    for study in (1, 2):
        assert {s.SegmentLabel: s.TrackingUID for s in _segs(followed, study)[-1].SegmentSequence} == swapped
    assert len(_segs(followed, 0)) == 1
    new = [sr for sr in followed.objects(1, "SR") if "PredecessorDocumentsSequence" in sr]
    assert new and all(set(swapped.values()) <= set(_uids(sr)) and check(sr) == () for sr in new)
