from __future__ import annotations

import csv
import io
import logging
import shutil
from pathlib import Path

import pydicom
import pytest
from demo_run import DemoRun
from rich.console import Console

from node.demo import MARK, run_demo
from node.fsck import look
from plugins.errors import Refused
from store.database import Database
from store.dicom.rules import check_files
from store.objects import ObjectStore

pytestmark = pytest.mark.xdist_group("demo")


def console_of(text: io.StringIO) -> Console:
    return Console(file=text, width=100, no_color=True)


def test_the_phantom_goes_through_the_node_and_truth_stands_beside_measurement(
    demo: DemoRun,
) -> None:
    text = demo.text
    assert demo.code == 0, text
    assert "Nodules: truth beside measurement" in text and "Lungs: truth beside measurement" in text
    assert "Right upper" in text and "Right middle" in text and "2024-06-03" in text
    assert "For research use only" in text


def test_what_was_measured_is_near_the_truth(demo: DemoRun) -> None:
    out = demo.out
    with (out / "measurements.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["truth"]]
    by_name: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append((float(row["truth"]), float(row["value"])))
    assert len(by_name["suv_max"]) == 7
    for true, measured in by_name["suv_max"]:
        assert measured == pytest.approx(true, rel=0.005)
    large = [pair for pair in by_name["long_axis"] if pair[0] >= 14]
    assert len(large) == 5
    for true, measured in large:
        assert measured == pytest.approx(true, abs=2 * 1.5625)
    assert len(by_name["laa_950"]) == 4
    for true, measured in by_name["laa_950"]:
        assert measured == pytest.approx(true, abs=0.5)


def test_the_folder_holds_valid_seg_and_srs_of_both_dates(demo: DemoRun) -> None:
    out = demo.out
    folders = sorted((out / "dicom").iterdir())
    assert [folder.name[:10] for folder in folders] == ["2024-03-04", "2024-06-03"]
    for folder in folders:
        names = {path.name for path in folder.iterdir()}
        for plugin in ("emphysema", "lung_nodule", "pet_lesion"):
            wanted = {f"SEG_{plugin}.dcm", f"SR_volumetric_{plugin}.dcm", f"SR_planar_{plugin}.dcm"}
            assert wanted <= names
            assert all(not found for _, found in check_files([folder / name for name in sorted(wanted)]))
        source = pydicom.dcmread(
            next((out / "input" / folder.name[:10] / "CT").iterdir()), stop_before_pixels=True
        )
        for path in folder.iterdir():
            written = pydicom.dcmread(path, stop_before_pixels=True)
            assert written.StudyInstanceUID == source.StudyInstanceUID
            assert written.PatientID == source.PatientID


def test_pictures_and_the_page_are_there_and_the_raw_archive_is_not(demo: DemoRun) -> None:
    out = demo.out
    assert len(list((out / "overlays").glob("*.png"))) >= 20
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "Truth beside measurement" in html and "Change between dates" in html
    assert "dicom/" in html and "pet_lesion" in html
    assert not (out / "archive").exists()
    assert (out / "node" / "nadir.sqlite").is_file()


def test_nothing_is_wrong_with_what_the_node_keeps(demo: DemoRun, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{shutil.copyfile(demo.home / 'nadir.sqlite', tmp_path / 'nadir.sqlite')}")
    assert look(database, ObjectStore(demo.home / "store"), quick=True) == []
    database.dispose()


def test_no_name_of_the_patient_is_in_the_log(demo: DemoRun) -> None:
    out = demo.out
    log = (out / "node.log").read_text(encoding="utf-8")
    assert "action=job-analysed job=1 " in log
    assert "Phantom" not in log and "PHANTOM-" not in log


def test_a_real_folder_goes_the_same_way_without_truth(demo: DemoRun, tmp_path: Path) -> None:
    source = demo.out
    pet = source / "input" / "2024-03-04" / "PET"
    (pet / "notes.txt").write_text("not DICOM")
    text, root = io.StringIO(), logging.getLogger()
    before = (list(root.handlers), root.level)
    code = run_demo(tmp_path / "out", data=pet, console=console_of(text), quiet_seconds=0.5)
    assert code == 0, text.getvalue()
    assert "truth" not in text.getvalue().lower()
    assert "PET lesion 1" in text.getvalue()
    assert "Truth" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert (list(root.handlers), root.level) == before


def test_a_folder_with_other_files_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(Refused, match="folder-not-empty"):
        run_demo(tmp_path, console=console_of(io.StringIO()))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_data_inside_the_output_folder_is_refused_before_anything_is_removed(tmp_path: Path) -> None:
    (tmp_path / MARK).touch()
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "image.dcm").write_bytes(b"x")
    with pytest.raises(Refused, match="lies inside"):
        run_demo(tmp_path, data=tmp_path / "input", console=console_of(io.StringIO()))
    assert (tmp_path / "input" / "image.dcm").exists()


def test_data_that_is_not_there_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no-such-path"):
        run_demo(tmp_path / "out", data=tmp_path / "absent", console=console_of(io.StringIO()))
    assert not (tmp_path / "out").exists()


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("hello")
    with pytest.raises(Refused, match="no-dicom"):
        run_demo(tmp_path / "out", data=tmp_path / "in", console=console_of(io.StringIO()))
