"""Lesions that were asked for or marked, through the whole pipeline: SEG and SR like those of any analysis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import make_series
from marked_images import group, report, scoord
from pydicom import dcmread

from node.offline import analyse_folder
from node.pipeline import analyse
from node.settings import Settings
from node.task import Task
from plugins.errors import Refused
from store.dicom.rules import check_files

CLASSICAL = {"marked_lesion": {"segmenter": "classical"}}
SPACING = (2.0, 0.8, 0.8)
CENTRE_MM = (-20 + 27 * 0.8, 10 + 31 * 0.8, 100 + 9 * 2.0)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Analyse without a child process: what crosses into it is JSON here too."""

    def run(task_json: str, scratch: Path, **_: Any) -> dict[str, Any]:
        answer = analyse(Task.from_json(task_json)).to_json()
        return json.loads(json.dumps(answer))  # type: ignore[no-any-return]

    monkeypatch.setattr("node.offline.run_in_child", run)


@pytest.fixture
def study(tmp_path: Path) -> list[Path]:
    """Return a CT of lung with one ball of 12 mm."""
    at = (np.indices((20, 60, 64)).reshape(3, -1).T - (9, 31, 27)) * SPACING
    inside = (np.linalg.norm(at, axis=1) <= 6.0).reshape(20, 60, 64)
    hu = np.where(inside, 40.0, -850.0)
    return make_series(tmp_path / "study", hu, spacing_mm=SPACING, origin_mm=(-20.0, 10.0, 100.0))


def test_a_mark_in_a_report_gives_seg_and_sr_that_say_who_marked_it(
    tmp_path: Path, study: list[Path]
) -> None:
    content = [group("Target 1", scoord(study[9], "POINT", [28.5, 31.5]))]
    files = [*study, report(study[0].parent / "sr.dcm", study[0], content)]
    out = tmp_path / "out"
    out.mkdir()
    task = Task(
        files=tuple(map(str, files)),
        manifest_sha256="0" * 64,
        plugins=("marked_lesion",),
        plugin_settings=CLASSICAL,
        out=str(out),
        started_at="2026-03-01T08:00:00+00:00",
        predecessors={},
    )
    (analysed,) = analyse(task).analysed
    (found,) = analysed.results.found
    assert found.tracking_identifier == "Target 1"
    assert found.centroid_mm == pytest.approx(CENTRE_MM, abs=0.5)
    assert [w.kind for w in analysed.results.written] == ["seg", "sr-volumetric", "sr-planar"]
    paths = [Path(w.path) for w in analysed.results.written]
    (segment,) = dcmread(paths[0]).SegmentSequence
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert segment.SegmentAlgorithmName == algorithm.AlgorithmName
    assert "voxels=" in algorithm.AlgorithmParameters
    assert not any(violations for _, violations in check_files(paths))
    assert all(b"marked by Doe Jane (SR)" in path.read_bytes() for path in paths[1:])


def test_analyse_at_a_point_answers_that_point_and_another_point_is_another_result(
    tmp_path: Path, study: list[Path]
) -> None:
    settings = Settings(home=tmp_path / "home", plugins=CLASSICAL)
    uids = []
    for number, dx in enumerate((0.0, 2.0)):
        point = (CENTRE_MM[0] + dx, *CENTRE_MM[1:])
        answer = analyse_folder(study[0].parent, tmp_path / f"out{number}", settings, marks=[point])
        (finding,) = answer["findings"]
        assert finding["plugin"] == "marked_lesion"
        assert finding["centroid_mm"] == pytest.approx(CENTRE_MM, abs=0.5)
        uids.append(dcmread(next(p for p in answer["outputs"] if "-seg-" in p)).SOPInstanceUID)
    assert uids[0] != uids[1]


def test_a_point_that_no_analysis_uses_is_refused(tmp_path: Path, study: list[Path]) -> None:
    settings, out = Settings(home=tmp_path / "home", plugins=CLASSICAL), tmp_path / "out"
    with pytest.raises(Refused, match=r"marked_lesion, not emphysema; leave --at or --plugin out"):
        analyse_folder(study[0].parent, out, settings, marks=[CENTRE_MM], plugins=["emphysema"])
    assert not out.exists()
    answer = analyse_folder(study[0].parent, out, settings, marks=[CENTRE_MM], plugins=["marked_lesion"])
    assert len(answer["findings"]) == 1


def test_a_point_in_a_study_without_a_ct_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    make_series(tmp_path / "study", np.ones((6, 24, 24)), modality="PT", spacing_mm=SPACING)
    settings = Settings(home=tmp_path / "home", plugins=CLASSICAL)
    answer = analyse_folder(tmp_path / "study", tmp_path / "out", settings, marks=[(0.0, 0.0, 0.0)])
    assert answer["failed"]
    (refused,) = [one for one in answer["refused"] if one["code"] == "no-ct"]
    assert refused["sentence"].startswith(
        "a lesion is drawn on a CT in Hounsfield units, and the study holds"
    )
    assert "(PT)" in refused["sentence"]
    assert "nothing-to-analyse" not in [one["code"] for one in answer["refused"]]


def test_a_mark_in_a_study_without_a_ct_is_told_by_every_analysis_and_on_the_page(tmp_path: Path) -> None:
    images = make_series(tmp_path / "study", np.ones((6, 24, 24)), modality="MR", spacing_mm=SPACING)
    report(tmp_path / "study" / "sr.dcm", images[0], [group("A", scoord(images[3], "POINT", [9.5, 9.5]))])
    settings = Settings(home=tmp_path / "home", plugins=CLASSICAL)
    answer = analyse_folder(tmp_path / "study", tmp_path / "out", settings)
    (told,) = [one for one in answer["flags"] if one["code"] == "marks-without-ct"]
    assert "holds 1 mark in a study without a CT in Hounsfield units" in told["sentence"]
    (page,) = [Path(path) for path in answer["outputs"] if path.endswith(".html")]
    assert told["sentence"] in page.read_text()


def test_a_point_outside_of_the_images_is_refused(tmp_path: Path, study: list[Path]) -> None:
    settings = Settings(home=tmp_path / "home", plugins=CLASSICAL)
    answer = analyse_folder(study[0].parent, tmp_path / "out", settings, marks=[(500.0, 0.0, 0.0)])
    assert answer["failed"]
    assert [one["code"] for one in answer["refused"]] == ["no-mark"]
    with pytest.raises(Refused, match="bad-numbers"):
        from node.points import point_of

        point_of("1,nan,2")
