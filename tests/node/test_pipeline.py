"""From files to results: identity, refusals, what is told, and that equal input gives equal bytes."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from pydicom import Dataset, dcmread

from node.pipeline import analyse
from node.task import Analysed, Answer, Identity, Task
from plugins.contract import Mask
from store.dicom.rules import check
from store.dicom.series import read_study

MakeTask = Callable[..., Task]


def _one(task: Task) -> Analysed:
    (analysed,) = analyse(task).analysed
    return analysed


def _objects(analysed: Analysed) -> dict[str, Dataset]:
    return {w.kind: dcmread(w.path) for w in analysed.results.written}


def _codes(analysed: Analysed) -> dict[str, bool]:
    return {t.code: t.refused for t in analysed.results.told}


def test_equal_input_gives_equal_bytes(make_task: MakeTask) -> None:
    hashes = []
    for out in ("first", "second"):
        written = _one(make_task("box", out=out)).results.written
        hashes.append([hashlib.sha256(Path(w.path).read_bytes()).hexdigest() for w in written])
    assert len(hashes[0]) == 3
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(("mode", "family"), [("learned", "123110"), ("box", "123104")])
def test_a_result_names_the_family_of_what_drew_it_networks_as_artificial_intelligence(
    make_task: MakeTask, mode: str, family: str
) -> None:
    segment = _objects(_one(make_task(mode)))["seg"].SegmentSequence[0]
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == family


def test_no_key_of_a_job_depends_on_the_family_of_what_draws() -> None:
    names = ("plugin", "plugin_version", "model_name", "model_version", "model_sha256", "config_sha256")
    learned = Identity(**{name: name for name in names}, model_kind="learned")
    assert learned.job_key("0" * 64) == replace(learned, model_kind="classical").job_key("0" * 64)
    assert learned.job_key("0" * 64) == "310dc459c263994cabed238a1b955e19e1801159cba831fb837a0172ea5ed566"


def test_another_revision_gives_other_uids_and_series_numbers_but_the_same_tracking_uid(
    make_task: MakeTask,
) -> None:
    first = _one(make_task("box", out="first"))
    second = _one(make_task("box", out="second", manifest_sha256="1" * 64))
    assert first.results.found[0].tracking_uid == second.results.found[0].tracking_uid
    for kind, dataset in _objects(first).items():
        other = _objects(second)[kind]
        assert dataset.SOPInstanceUID != other.SOPInstanceUID
        assert dataset.SeriesInstanceUID != other.SeriesInstanceUID
        assert dataset.SeriesNumber != other.SeriesNumber


def test_each_result_series_has_a_number_of_its_own_that_no_source_has(
    make_task: MakeTask, tmp_path: Path
) -> None:
    plain = {d.SeriesNumber for d in _objects(_one(make_task("box"))).values()}
    assert len(plain) == 3
    files = make_series(tmp_path / "same_number", _ramp(), series_number=int(min(plain)))
    taken = _one(make_task("box", out="again", files=tuple(map(str, files))))
    numbers = [int(d.SeriesNumber) for d in _objects(taken).values()]
    assert len(set(numbers)) == 3
    assert int(min(plain)) not in numbers


def test_a_series_number_that_is_no_number_stops_nothing(make_task: MakeTask, tmp_path: Path) -> None:
    files = make_series(tmp_path / "odd", _ramp())
    for file in files:
        raw = file.read_bytes().replace(b"\x20\x00\x11\x00IS\x02\x001 ", b"\x20\x00\x11\x00IS\x02\x00x ")
        assert b"IS\x02\x00x " in raw
        file.write_bytes(raw)
    assert _one(make_task("box", files=tuple(map(str, files)))).error_code is None


def test_a_tracking_uid_of_the_source_is_kept_and_never_given_twice(make_task: MakeTask) -> None:
    analysed = _one(make_task("shared_uid"))
    first, second = (f.tracking_uid for f in analysed.results.found)
    assert first == "1.2.3.4"
    assert second.startswith("2.25.")
    assert _codes(analysed)["tracking-uid-shared"] is False
    segments = {s.TrackingUID for s in _objects(analysed)["seg"].SegmentSequence}
    assert segments == {first, second}


def test_no_result_has_the_illegal_tracking_uid_of_a_source(make_task: MakeTask) -> None:
    analysed = _one(make_task("illegal_uid"))
    assert analysed.error_code is None
    assert _codes(analysed)["tracking-uid-illegal"] is False
    (found,) = analysed.results.found
    assert found.tracking_uid.startswith("2.25.")
    for file in analysed.results.written:
        assert b"not a uid!" not in Path(file.path).read_bytes()


def test_how_unsure_it_was_and_what_the_series_was_like_come_back_and_are_in_no_result(
    make_task: MakeTask,
) -> None:
    analysed = _one(make_task("unsure"))
    (found,), (facts,) = analysed.results.found, analysed.results.series
    assert found.uncertainties == (("entropy", 0.4321),)
    assert (facts.series_instance_uid, facts.slices, facts.unit) == (found.series_instance_uid, 6, "[hnsf'U]")
    assert sum(facts.histogram) == pytest.approx(1.0, abs=1e-3)
    assert Analysed.from_json(json.loads(json.dumps(analysed.to_json()))) == analysed
    assert "SECRET" not in str(facts)
    written = "".join(dataset.to_json() for dataset in _objects(analysed).values())
    assert "0.4321" not in written


def test_a_study_in_which_nothing_was_found_has_facts_too(make_task: MakeTask) -> None:
    nothing, box = (_one(make_task(mode, out=mode)).results for mode in ("nothing", "box"))
    assert nothing.found == ()
    assert nothing.series == box.series != ()
    assert _one(make_task("refuse", out="refuse")).results.series == ()


def test_control_characters_of_a_label_stay_out_of_the_tracking_identifier(make_task: MakeTask) -> None:
    analysed = _one(make_task("odd_label"))
    assert [f.tracking_identifier for f in analysed.results.found] == ["tab here and there"]
    objects = _objects(analysed)
    assert objects["seg"].SegmentSequence[0].TrackingID == "tab here and there"
    assert "tab here and there" in objects["sr-planar"].to_json()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("same_key", "one key to two findings"),
        ("no_voxels", "without voxels"),
        ("wrong_number", "breaks rule"),
    ],
)
def test_a_result_that_breaks_a_rule_is_not_written(
    make_task: MakeTask, tmp_path: Path, mode: str, words: str
) -> None:
    analysed = _one(make_task(mode))
    assert analysed.error_code == "broken"
    assert words in (analysed.error_text or "")
    assert analysed.results.written == ()
    assert analysed.results.found == ()


def test_one_plugins_fault_takes_no_others_results_away(make_task: MakeTask) -> None:
    settings = {"trouble": {"mode": "fault"}, "second": {"mode": "box"}}
    bad, good = analyse(make_task(plugins=("trouble", "second"), plugin_settings=settings)).analysed
    assert (bad.plugin, bad.error_code) == ("trouble", "broken")
    assert (good.plugin, good.error_code, len(good.results.found)) == ("second", None, 1)


def test_what_a_plugin_refuses_is_told_with_its_code(make_task: MakeTask) -> None:
    analysed = _one(make_task("refuse"))
    assert (analysed.error_code, analysed.error_text) == ("not-today", "this plugin refuses everything")
    assert _codes(analysed) == {"not-today": True}
    assert analysed.declined


def test_anatomy_that_is_not_there_is_told_as_refused_and_is_no_error(make_task: MakeTask) -> None:
    analysed = _one(make_task("absent"))
    assert (analysed.applicable, analysed.error_code, analysed.results.written) == (True, None, ())
    assert _codes(analysed) == {"no-lungs": True}


@pytest.mark.parametrize(("mode", "found"), [("doubt", 1), ("only_doubt", 0)])
def test_a_doubt_about_the_study_is_told_once_with_findings_and_without(
    make_task: MakeTask, mode: str, found: int
) -> None:
    analysed = _one(make_task(mode))
    assert [(t.code, t.refused) for t in analysed.results.told] == [("odd", False)]
    assert len(analysed.results.found) == found
    reports = [d for kind, d in _objects(analysed).items() if kind != "seg"]
    assert len(reports) == found + 1
    for report in reports:
        assert report.to_json().count("odd: something is odd") == 1


def test_nothing_found_is_a_valid_report(make_task: MakeTask) -> None:
    analysed = _one(make_task("nothing"))
    assert analysed.applicable
    (kind, dataset), *rest = _objects(analysed).items()
    assert (kind, rest) == ("sr-volumetric", [])
    assert check(dataset) == ()


def test_a_study_with_nothing_for_a_plugin_says_so(make_task: MakeTask, tmp_path: Path) -> None:
    files = make_series(tmp_path / "mr", _ramp(), modality="MR")
    analysed = _one(make_task("box", files=tuple(map(str, files))))
    assert not analysed.applicable
    assert analysed.error_code is None
    assert _codes(analysed) == {"nothing-to-analyse": False}
    assert analysed.results.written == ()


def test_a_study_without_images_is_nothing_to_look_at(make_task: MakeTask) -> None:
    result = next(Path(w.path) for w in _one(make_task("nothing")).results.written)
    dataset = dcmread(result)
    dataset.Manufacturer = "Someone else"
    foreign = result.with_name("foreign.dcm")
    dataset.save_as(foreign)
    analysed = _one(make_task("box", out="again", files=(str(foreign),)))
    assert not analysed.applicable
    assert analysed.error_code is None
    assert _codes(analysed) == {"no-images": False}


def test_a_study_of_screen_captures_is_nothing_to_look_at(make_task: MakeTask, tmp_path: Path) -> None:
    files = make_series(tmp_path / "ot", _ramp(), modality="OT")
    analysed = _one(make_task("box", files=tuple(map(str, files))))
    assert not analysed.applicable
    assert analysed.error_code is None
    assert _codes(analysed) == {"secondary-capture": True, "nothing-to-analyse": False}


def test_a_study_whose_only_series_is_refused_is_refused_with_that_code(
    make_task: MakeTask, small_study: list[Path]
) -> None:
    without_middle = tuple(str(f) for n, f in enumerate(small_study) if n != 2)
    analysed = _one(make_task("box", files=without_middle))
    assert analysed.error_code == "missing-slices"
    assert analysed.error_text
    assert _codes(analysed) == {"missing-slices": True}


def test_a_study_of_two_patients_is_refused_whole(
    make_task: MakeTask, small_study: list[Path], tmp_path: Path
) -> None:
    others = make_series(tmp_path / "other", _ramp(), patient_id="P2")
    analysed = _one(make_task("box", files=tuple(map(str, [*small_study, *others]))))
    assert analysed.error_code == "mixed-patients"
    assert _codes(analysed) == {"mixed-patients": True}


def test_own_results_among_the_files_change_nothing(make_task: MakeTask, small_study: list[Path]) -> None:
    first = _one(make_task("box", out="first"))
    files = tuple(map(str, small_study)) + tuple(w.path for w in first.results.written)
    second = _one(make_task("box", out="second", files=files))
    assert second.results.found == first.results.found
    for one, other in zip(first.results.written, second.results.written, strict=True):
        assert Path(one.path).read_bytes() == Path(other.path).read_bytes()


def test_doubts_about_single_files_are_told_and_written(
    make_task: MakeTask, small_study: list[Path], tmp_path: Path
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("this is no DICOM")
    analysed = _one(make_task("box", files=(*map(str, small_study), str(note))))
    assert _codes(analysed) == {"not-dicom": False}
    for kind in ("sr-volumetric", "sr-planar"):
        assert "are not DICOM" in _objects(analysed)[kind].to_json()


def test_reports_name_those_that_they_supersede(make_task: MakeTask) -> None:
    first = {w.kind: w for w in _one(make_task("box", out="first")).results.written}
    before = {kind: first[kind].path for kind in ("sr-volumetric", "sr-planar")}
    second = _objects(_one(make_task("box", out="second", manifest_sha256="1" * 64, predecessors=before)))
    for kind in before:
        assert _predecessors(second[kind]) == {first[kind].sop_instance_uid}
    nothing = _objects(_one(make_task("nothing", out="third", manifest_sha256="2" * 64, predecessors=before)))
    assert _predecessors(nothing["sr-volumetric"]) == {first[kind].sop_instance_uid for kind in before}


def test_a_mask_is_measured_and_nothing_is_written(make_task: MakeTask) -> None:
    task = make_task("box", out="first")
    seg = next(w.path for w in _one(task).results.written if w.kind == "seg")
    analysed = _one(replace(task, plugins=("contours",), plugin_settings={"contours": {}}, mask=seg))
    assert [f.label for f in analysed.results.found] == ["Box box"]
    assert analysed.results.written == ()


def test_a_mask_on_images_that_are_refused_tells_why_they_are(
    make_task: MakeTask, small_study: list[Path], tmp_path: Path
) -> None:
    seg = next(w.path for w in _one(make_task("box", out="first")).results.written if w.kind == "seg")
    study_uid = dcmread(small_study[0]).StudyInstanceUID
    other = make_series(
        tmp_path / "mr",
        _ramp()[:, :9, :9] + 1,
        patient_id="P1-SECRET",
        modality="MR",
        series_number=2,
        study_uid=study_uid,
    )
    without_middle = tuple(str(f) for n, f in enumerate(small_study) if n != 2)
    task = make_task("box", files=without_middle)
    task = replace(task, plugins=("contours",), plugin_settings={"contours": {}}, mask=seg)
    assert list(_codes(_one(task))) == ["missing-slices"]
    beside = _one(replace(task, files=(*without_middle, *map(str, other))))
    assert list(_codes(beside)) == ["missing-slices", beside.error_code]


def test_every_refused_series_is_told_when_none_can_be_used(
    make_task: MakeTask, small_study: list[Path], tmp_path: Path
) -> None:
    study_uid = dcmread(small_study[0]).StudyInstanceUID
    other = make_series(
        tmp_path / "second", _ramp(), patient_id="P1-SECRET", study_uid=study_uid, series_number=2
    )
    files = [f for n, f in enumerate(small_study) if n != 2] + [f for n, f in enumerate(other) if n != 2]
    told = _one(make_task("box", files=tuple(map(str, files)))).results.told
    assert [t.code for t in told] == ["missing-slices", "missing-slices"]
    assert len({t.series_instance_uid for t in told}) == 2


def test_task_and_answer_survive_the_border(make_task: MakeTask) -> None:
    task = make_task("box")
    assert Task.from_json(task.to_json()) == task
    answer = analyse(task)
    assert Answer.from_json(json.loads(json.dumps(answer.to_json()))) == answer


def test_the_centre_of_a_box_is_its_middle(small_study: list[Path]) -> None:
    (volume,) = read_study(small_study).study.volumes
    mask = Mask(shape=(6, 20, 20), origin=(1, 2, 3), voxels=np.ones((3, 5, 7), dtype=bool))
    assert volume.centroid_mm(mask) == pytest.approx((6.0, 4.0, 4.0))


def _predecessors(dataset: Dataset) -> set[str]:
    return {
        sop.ReferencedSOPInstanceUID
        for study in dataset.PredecessorDocumentsSequence
        for series in study.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    }


def _ramp() -> np.ndarray:
    return np.arange(6 * 20 * 20, dtype=float).reshape(6, 20, 20) % 300


def test_images_of_a_private_class_are_refused_by_that(make_task: MakeTask, tmp_path: Path) -> None:
    files = make_series(tmp_path / "private", _ramp(), SOPClassUID="1.3.46.670589.5.0.1")
    analysed = _one(make_task("box", files=tuple(map(str, files))))
    assert analysed.error_code == "unknown-sop-class"


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_never_gets_past_the_reader_half_way(
    make_task: MakeTask, small_study: list[Path]
) -> None:
    """Bytes changed at random anywhere in the header: every study ends in findings or in a code that is no fault."""
    chance = random.Random(5)
    clean = [file.read_bytes() for file in small_study]
    ends = Counter()
    for number in range(80):
        damaged = chance.randrange(len(clean))
        data = bytearray(clean[damaged])
        for _ in range(chance.choice([1, 2, 5, 20])):
            data[chance.randrange(132, 1600)] = chance.choice([0, 47, 92, 255, chance.randrange(256)])
        small_study[damaged].write_bytes(data)
        got = _one(make_task("box", out=f"out{number}"))
        assert got.error_code != "broken", got.error_text
        ends[got.error_code] += 1
        small_study[damaged].write_bytes(clean[damaged])
    assert ends[None] > 5
    assert len(ends) > 3
