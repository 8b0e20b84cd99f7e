"""Key images and PDF: what a viewer that reads neither SEG nor SR is sent."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_checkers import iod_errors, program
from pydicom import Dataset, dcmread

from node.offline import analyse_folder
from node.pipeline import analyse
from node.report.overlays import OUTLINE
from node.settings import Settings
from node.task import Analysed, Task
from plugins.errors import Refused

MakeTask = Callable[..., Task]
BOTH = ("capture", "pdf")


def _one(task: Task) -> Analysed:
    (analysed,) = analyse(task).analysed
    assert analysed.error_code is None
    return analysed


def _written(analysed: Analysed, kind: str) -> list[Dataset]:
    return [dcmread(w.path) for w in analysed.results.written if w.kind == kind]


def _text(document: Dataset, folder: Path) -> str:
    """Return the words of an encapsulated PDF as poppler reads them."""
    file = folder / "report.pdf"
    file.write_bytes(document.EncapsulatedDocument[: document.EncapsulatedDocumentLength])
    done = subprocess.run(
        [program("pdftotext", "poppler-utils"), "-layout", str(file), "-"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_nothing_is_made_for_people_unless_a_destination_asks(make_task: MakeTask) -> None:
    kinds = [w.kind for w in _one(make_task("box")).results.written]
    assert kinds == ["seg", "sr-volumetric", "sr-planar"]


def test_key_images_and_pdf_come_after_the_others_and_name_them(make_task: MakeTask) -> None:
    analysed = _one(make_task("box", more=BOTH))
    kinds = [w.kind for w in analysed.results.written]
    assert kinds[:3] == ["seg", "sr-volumetric", "sr-planar"]
    assert kinds[3:] == ["capture", "capture", "pdf"]
    (document,) = _written(analysed, "pdf")
    named = [item.ReferencedSOPInstanceUID for item in document.SourceInstanceSequence]
    assert named == [w.sop_instance_uid for w in analysed.results.written[:3]]


def test_equal_input_gives_equal_key_images_and_pdf(make_task: MakeTask) -> None:
    hashes = [
        [
            hashlib.sha256(Path(w.path).read_bytes()).hexdigest()
            for w in _one(make_task("box", out=out, more=BOTH)).results.written
        ]
        for out in ("first", "second")
    ]
    assert len(hashes[0]) == 6
    assert hashes[0] == hashes[1]


def test_they_belong_to_patient_and_study_and_each_kind_has_a_series_of_its_own(
    make_task: MakeTask, small_study: list[Path]
) -> None:
    source = dcmread(small_study[0])
    analysed = _one(make_task("box", more=BOTH))
    objects = [dcmread(w.path) for w in analysed.results.written]
    for dataset in objects:
        assert (dataset.PatientID, dataset.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    series = [(d.SeriesInstanceUID, d.SeriesNumber) for d in objects]
    assert len(set(series)) == 5  # the two key images share one
    first, second = _written(analysed, "capture")
    assert (first.InstanceNumber, second.InstanceNumber) == (1, 2)
    assert first.SOPInstanceUID != second.SOPInstanceUID


def test_a_key_image_has_the_outline_in_its_pixels_and_names_its_slice(
    make_task: MakeTask, small_study: list[Path]
) -> None:
    _, lesion = _written(_one(make_task("box", more=("capture",))), "capture")
    pixels = lesion.pixel_array.astype(int)
    assert lesion.PhotometricInterpretation == "RGB"
    assert (np.abs(pixels - OUTLINE).max(axis=2) < 40).sum() > 50
    band = len(pixels) // 12
    assert np.ptp(pixels[:band], axis=(0, 1)).max() == np.ptp(pixels[-band:], axis=(0, 1)).max() == 0
    named = lesion.SourceImageSequence[0].ReferencedSOPInstanceUID
    assert named in {dcmread(path).SOPInstanceUID for path in small_study}


@pytest.mark.parametrize("kind", BOTH)
def test_dciodvfy_finds_no_error(make_task: MakeTask, kind: str) -> None:
    analysed = _one(make_task("box", more=(kind,)))
    made = [written.path for written in analysed.results.written if written.kind == kind]
    assert made
    for path in made:
        assert iod_errors(Path(path)) == []


def test_the_pdf_says_who_what_and_that_it_is_not_for_diagnosis(make_task: MakeTask, tmp_path: Path) -> None:
    analysed = _one(make_task("box", more=("pdf",)))
    (document,) = _written(analysed, "pdf")
    words = _text(document, tmp_path)
    volume = next(m for m in analysed.results.found[0].measurements if m.name == "volume")
    assert str(document.PatientID) in words
    assert analysed.results.found[0].label in words
    assert f"{volume.value:.2f}" in words or f"{volume.value:.1f}" in words
    assert "For research use only" in words
    assert "not verified by a person" in words


def test_a_study_without_findings_says_so_in_the_pdf_and_has_an_overview(
    make_task: MakeTask, tmp_path: Path
) -> None:
    analysed = _one(make_task("nothing", more=BOTH))
    (document,) = _written(analysed, "pdf")
    assert "Nothing was found." in _text(document, tmp_path)
    assert len(_written(analysed, "capture")) == 1


def test_of_more_findings_than_pictures_the_largest_have_them_and_it_is_told_everywhere(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.present.MOST_PICTURES", 2)
    analysed = _one(make_task("several", more=BOTH))
    titles = [image.ImageComments.split(". ")[0] for image in _written(analysed, "capture")]
    assert titles == ["Overview", "Box large", "Box medium"]
    said = "2 of 3 findings have pictures of their own, the largest by volume"
    (told,) = [t.sentence for t in analysed.results.told if t.code == "findings-without-picture"]
    assert said in told
    (document,) = _written(analysed, "pdf")
    words = " ".join(_text(document, tmp_path).split())
    assert f"Pictures {said}." in words and "(findings-without-picture)" in words
    assert "Box small" in words
    reports = [Path(w.path).read_bytes() for w in analysed.results.written if w.kind.startswith("sr-")]
    assert len(reports) == 2 and all(said.encode() in report for report in reports)


def test_as_many_findings_as_pictures_are_no_doubt(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.present.MOST_PICTURES", 3)
    analysed = _one(make_task("several", more=BOTH))
    assert len(_written(analysed, "capture")) == 4
    assert analysed.results.told == _one(make_task("several", out="bare")).results.told


def test_markup_in_a_label_stays_text(make_task: MakeTask, tmp_path: Path) -> None:
    (document,) = _written(_one(make_task("markup", more=("pdf",))), "pdf")
    assert "<b>bold</b>" in " ".join(_text(document, tmp_path).split())
    for active in (b"javascript", b"/URI", b"/Action", b"/JS"):
        assert active not in document.EncapsulatedDocument


def test_a_folder_is_analysed_with_a_pdf_when_asked(
    tmp_path: Path, small_study: list[Path], trouble: Path
) -> None:
    folder, settings = small_study[0].parent, Settings(home=tmp_path, plugins={"trouble": {"mode": "box"}})
    report = analyse_folder(folder, tmp_path / "out", settings, plugins=["trouble"], also=["pdf"])
    assert [Path(o).name for o in report["outputs"] if "pdf" in o] == ["trouble-pdf-4.dcm"]
    with pytest.raises(Refused, match="'fax' is no kind of result; use capture or pdf"):
        analyse_folder(folder, tmp_path / "out", settings, plugins=["trouble"], also=["fax"])
