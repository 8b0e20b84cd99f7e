from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from nodule_crops import write_crops, write_readers

from plugins.errors import Refused
from store.patient_key import patient_key
from training.evaluate.crops import AS_GIVEN, EDGE, LUNG, OFF, asked
from training.evaluate.data import Data, open_data
from training.evaluate.families import FAMILIES, Family, open_subject
from training.evaluate.judged import (
    Candidate,
    Case,
    DrawnCase,
    FollowedCase,
    Lesion,
    RatedCase,
    SearchedCase,
)
from training.evaluate.judging import judge_model
from training.evaluate.kept import kept
from training.evaluate.report import Evaluation, title, write_report
from training.evaluate.subject import Subject
from training.lidc import COLUMNS, load_nodule
from training.manifest import DataManifest, read_manifest

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return open_data(write_crops(tmp_path_factory.mktemp("crops"), patients=4))


@pytest.fixture(scope="module")
def judged(crops: Data) -> Evaluation:
    return judge_model(open_subject("classical-nodule-segmenter"), crops, made_at=NOON, resamples=100)


def test_round_nodules_are_drawn_by_the_classical_segmenter_in_every_setting(judged: Evaluation) -> None:
    found = judged.figures["segmentation"]["settings"]
    assert list(found) == [AS_GIVEN, EDGE, LUNG, OFF]
    assert found[AS_GIVEN]["dice"]["value"] > 0.9
    assert found[AS_GIVEN]["dice"]["cases"] == 5 and found[AS_GIVEN]["dice"]["patients"] == 4
    assert found[AS_GIVEN]["open_dice"] is None
    assert found[LUNG]["open_dice"]["value"] > 0.9
    assert found[AS_GIVEN]["long_axis_error_median_mm"]["value"] < 1.0


def test_the_report_is_three_files_that_say_the_same_and_fetch_nothing(
    judged: Evaluation, tmp_path: Path
) -> None:
    plain, page, paper = write_report(judged, tmp_path / "out")
    value = json.loads(plain.read_text())["segmentation"]["settings"][AS_GIVEN]["dice"]["value"]
    html = page.read_text()
    text = subprocess.run(
        ["pdftotext", "-layout", paper, "-"], capture_output=True, text=True, check=True
    ).stdout
    for shown in (html, text):
        assert f"{value:.3f}" in shown
        assert "For research use only" in shown
        assert "Worst cases" in shown and "What is not known" in shown
        assert "one truth per case" in " ".join(shown.split())
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", html)
    assert not re.findall(r"https?://(?!www\.w3\.org/)", html)
    assert "<script" not in html
    assert "scanner A" in html


def test_how_far_readers_agree_is_told_where_data_hold_what_each_drew(tmp_path: Path) -> None:
    data = open_data(write_readers(write_crops(tmp_path, patients=4)))
    found = judge_model(open_subject("classical-nodule-segmenter"), data, made_at=NOON, resamples=100)
    told = found.figures["segmentation"]["readers"]
    assert told["readers_dice"]["cases"] == 3
    within = told["readers_dice"]["value"]  # one drew a part of what the other did: 2 part / (1 + part)
    assert within == pytest.approx(2 / 3, abs=0.1)
    assert told["model_dice"]["value"] == pytest.approx((1 + within) / 2, abs=0.05)
    assert told["readers_volume_cv"]["value"] == pytest.approx(2**0.5 * (1 - within))
    assert not any("one truth" in limit for limit in found.limits)
    (section,) = (section for section in found.sections if section.title == "Readers")
    assert section.text == "On the 3 cases of 3 patients that several readers drew."
    (row, *_) = section.tables[0].rows
    assert row[0] == "Dice, reader with reader" and row[1].startswith(f"{told['readers_dice']['value']:.3f}")


def test_what_is_kept_has_every_case_of_the_first_setting_and_charts_as_numbers_and_no_picture(
    judged: Evaluation,
) -> None:
    plain = kept(judged)
    assert (
        plain["figures"]["segmentation"]["settings"][LUNG] == judged.figures["segmentation"]["settings"][LUNG]
    )
    assert "cases" not in plain["figures"]["segmentation"] and "Worst cases" not in json.dumps(plain)
    (table,) = plain["cases"]
    names = [column["words"] for column in table["columns"]]
    assert table["setting"] == AS_GIVEN and len(table["rows"]) == 5 and "Patient" not in names
    true, drawn = (
        np.array([row[names.index(f"Volume, {which}, ml")] for row in table["rows"]])
        for which in ("true", "drawn")
    )
    apart = 200 * (drawn - true) / (drawn + true)
    sections = {section["title"]: section for section in plain["sections"]}
    assert "the size that the data give of a case" in sections["By kind of case"]["text"]
    means = "bars are means between 6, 10 and 20 mm of long axis."
    assert [chart["caption"] for chart in sections["By kind of case"]["charts"]][:2] == [
        f"Dice of each case against the long axis of its truth; {means}",
        f"Error of the long axis against the long axis of the truth; {means}",
    ]
    chart = sections["By kind of case"]["charts"][-1]
    assert chart["y"] == pytest.approx(apart, abs=0.2)
    assert chart["limits"] == pytest.approx(
        apart.mean() + 1.96 * apart.std(ddof=1) * np.array([-1, 1]), abs=0.3
    )


def test_the_same_judgement_gives_the_same_bytes(judged: Evaluation, crops: Data, tmp_path: Path) -> None:
    again = judge_model(open_subject("classical-nodule-segmenter"), crops, made_at=NOON, resamples=100)
    again = replace(again, made=judged.made)  # the commit may move on while tests run
    written = (write_report(one, tmp_path / name) for name, one in (("a", judged), ("b", again)))
    for first, second in zip(*written, strict=True):
        assert first.read_bytes() == second.read_bytes()


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_report_that_cannot_be_made_leaves_the_earlier_one_whole(
    judged: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(judged, tmp_path, {"evaluation.json": "1", "manifest.json": "1"})
    before = _contents(tmp_path)
    other = replace(judged, model={**judged.model, "name": "another"})
    with monkeypatch.context() as faulty, pytest.raises(OSError, match="no paper"):
        faulty.setattr("training.evaluate.paper.report_pdf", _fails(OSError("no paper")))
        write_report(other, tmp_path, {"evaluation.json": "2", "manifest.json": "2"})
    assert _contents(tmp_path) == before and len(before) == 5
    with monkeypatch.context() as full, pytest.raises(OSError, match="no space"):
        full.setattr(Path, "write_bytes", _fails(OSError("no space")))
        write_report(other, tmp_path, {"evaluation.json": "2", "manifest.json": "2"})
    assert _contents(tmp_path) == before


def test_a_report_that_was_interrupted_at_any_file_stands_beside_none_of_the_earlier_one(
    judged: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(judged, model={**judged.model, "name": "another"})
    fresh = write_report(other, tmp_path / "fresh", {"evaluation.json": "2", "manifest.json": "2"})
    put = Path.replace
    for at in range(5):
        folder = tmp_path / str(at)
        write_report(judged, folder, {"evaluation.json": "1", "manifest.json": "1"})
        done: list[Path] = []

        def stopped(half: Path, path: Path, done: list[Path] = done, at: int = at) -> Path:
            if len(done) == at:
                raise KeyboardInterrupt
            done.append(path)
            return put(half, path)

        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
            killed.setattr(Path, "replace", stopped)
            write_report(other, folder, {"evaluation.json": "2", "manifest.json": "2"})
        assert _contents(folder) == {path.name: path.read_bytes() for path in fresh[:at]}


def _fails(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_the_crop_stands_unchanged_in_its_larger_volumes(crops: Data) -> None:
    nodule = load_nodule(crops.manifest.cases[3], crops.root)
    for setting in (EDGE, LUNG):
        image, truth, point, box = asked(nodule, setting)
        assert box is not None
        assert np.array_equal(image[box], nodule.image)
        assert truth.sum() == truth[box].sum() == nodule.mask.sum()
        assert truth[tuple(round(p) for p in point)]
        assert min(b.start * s for b, s in zip(box, nodule.spacing_mm, strict=True)) >= 25
    assert asked(nodule, LUNG)[0][0].mean() == pytest.approx(-860, abs=5)
    assert asked(nodule, EDGE)[0][0, 0, 0] == nodule.image[0, 0, 0]


def test_the_moved_point_is_three_millimetres_off_and_the_same_each_time(crops: Data) -> None:
    nodule = load_nodule(crops.manifest.cases[4], crops.root)
    point, moved = (np.asarray(asked(nodule, setting)[2]) for setting in (AS_GIVEN, OFF))
    assert np.linalg.norm((moved - point) * nodule.spacing_mm) == pytest.approx(3.0)
    assert asked(nodule, OFF)[2] == tuple(moved)


def test_patients_are_judged_by_the_fold_that_has_not_seen_them(crops: Data) -> None:
    subject = Subject(
        name="m",
        version="1",
        family="nodule_segmenter",
        sha256="0",
        folds=(0, 1, 2),
        held_out=crops.manifest.held_out,
    )
    for case in crops.manifest.cases:
        assert subject.weights_for(case.patient_id) == (case.fold,)
    assert subject.weights_for("somebody else") == (0, 1, 2)
    assert subject.judged_by({"P00": 0, "somebody else": None}) == (
        "1 patients by the weights of the fold that had not seen them; "
        "1 patients that no fold has seen by 3 sets of weights together"
    )


def test_a_patient_is_known_under_the_id_under_its_key_and_as_a_node_learned_him() -> None:
    key = patient_key("P1")
    for name in (key, patient_key(key)):
        subject = Subject(
            name="m", version="1", family="nodule_segmenter", sha256="0", folds=(0, 1), held_out={name: 1}
        )
        for called in ("P1", key):
            assert subject.weights_for(called) == (1,)
            assert (
                subject.judged_by({called: 1})
                == "1 patients by the weights of the fold that had not seen them"
            )
        assert subject.weights_for("P2") == (0, 1)


def test_a_patient_that_all_weights_have_learned_from_is_refused_before_anything_is_asked(
    crops: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> Iterator[Case]:
        raise AssertionError("the model was asked")
        yield

    monkeypatch.setitem(FAMILIES, "nodule_segmenter", Family(cases=never, limits=()))  # type: ignore[arg-type]
    subject = Subject(
        name="m",
        version="1",
        family="nodule_segmenter",
        sha256="0",
        folds=(0, 1),
        held_out=crops.manifest.held_out,
    )
    with pytest.raises(Refused, match="learned from patient P02") as refused:
        judge_model(subject, crops, made_at=NOON)
    assert refused.value.code == "training-patient"


@pytest.mark.parametrize(
    ("family", "needs"),
    [("nodule_detector", "it needs whole scans, "), ("nodule_malignancy", "a mean rating of malignancy other than 3")],
)  # fmt: skip
def test_data_on_which_nothing_can_be_judged_are_refused_with_what_a_model_needs(
    crops: Data, family: str, needs: str
) -> None:
    subject = Subject(name="m", version="1", family=family, sha256="0")
    with pytest.raises(
        Refused, match=f"of the 5 cases of round nodules a {family} .* none; .*{needs}"
    ) as found:
        judge_model(subject, crops, made_at=NOON)
    assert found.value.code == "nothing-to-judge"


def test_a_run_is_judged_on_the_data_that_it_learned_from_and_on_no_other(crops: Data) -> None:
    subject = Subject(
        name="m",
        version="1",
        family="nodule_segmenter",
        sha256="0",
        folds=(0, 1, 2),
        learned_from=crops.manifest.sha256,
    )
    assert subject.on(crops.manifest).held_out == crops.manifest.held_out
    with pytest.raises(Refused, match="unknown-patients"):
        subject.on(replace(crops.manifest, cases=crops.manifest.cases[1:]))


def as_table(manifest: Path) -> Path:
    """Put the table of nodules in the place of a manifest of crops; return their folder."""
    root = manifest.parent
    lines = [",".join(COLUMNS)]
    for n, case in enumerate(read_manifest(manifest).cases):
        files = case.files
        lines.append(
            f"{files['image']},{files['mask']},{case.patient_id},{n},{case.size_mm},0.75,1.25,3,3,3,3,3"
        )
    (root / "nodules.csv").write_text("\n".join(lines))
    manifest.unlink()
    return root


def test_a_set_that_only_its_table_tells_has_the_name_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ours", "lidc_nodules"):
        (tmp_path / name).mkdir()
        as_table(write_crops(tmp_path / name, patients=1))
    ours, known = tmp_path / "ours", open_data(tmp_path / "lidc_nodules")
    monkeypatch.chdir(ours)
    assert [open_data(path).name for path in (ours, ours / "nodules.csv", Path())] == ["ours"] * 3
    assert known.name == "lidc_nodules" and known.manifest.sha256 == open_data(ours).manifest.sha256
    found = judge_model(open_subject("classical-nodule-segmenter"), open_data(ours), made_at=NOON)
    assert title(found) == "classical-nodule-segmenter judged on ours" and found.data["name"] == "ours"
    assert "How the model does on other data than ours is not known." in found.limits
    assert found.limits[-1] == "One patient: no interval can be had."
    assert found.figures["segmentation"]["settings"][AS_GIVEN]["dice"]["low"] is None


def test_data_that_are_not_there_are_refused(crops: Data, tmp_path: Path) -> None:
    manifest = read_manifest(crops.root / "manifest.json")
    manifest.write(tmp_path / "manifest.json")
    with pytest.raises(Refused, match="--root"):
        open_data(tmp_path / "manifest.json")
    assert open_data(tmp_path / "manifest.json", crops.root).manifest == manifest
    replace(manifest, cases=()).write(tmp_path / "none.json")
    with pytest.raises(Refused, match="no-cases"):
        open_data(tmp_path / "none.json")
    with pytest.raises(Refused, match="no-model"):
        open_subject("no-such-model")


def test_a_manifest_that_gives_an_image_to_two_patients_is_no_data(crops: Data, tmp_path: Path) -> None:
    first, *_ = crops.manifest.cases
    again = replace(first, case_id="again", patient_id="Q")
    twice = tmp_path / "twice.json"
    DataManifest(name="twice", cases=(*crops.manifest.cases, again)).write(twice)
    told = f"image-of-two-patients: {first.files['image']} of again is also the image of {first.case_id}; name one"
    with pytest.raises(Refused, match=told):
        open_data(twice, crops.root)
    DataManifest(
        name="once", cases=(*crops.manifest.cases, replace(again, patient_id=first.patient_id))
    ).write(twice)
    assert len(open_data(twice, crops.root).cases) == len(crops.manifest.cases) + 1


def test_a_family_of_every_kind_of_case_is_judged_in_one_report(
    crops: Data, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)

    def everything(_: Subject, __: Data, ___: bool) -> Iterator[Case]:
        for number in range(30):
            whose = {"case_id": str(number), "patient_id": f"P{number // 2}"}
            truth = np.zeros((6, 12, 12), dtype=np.bool_)
            truth[2:4, 3:9, 4:8] = True
            drawn = np.roll(truth, number % 3, axis=2)
            yield DrawnCase(
                **whose, drawn=drawn, truth=truth, spacing_mm=(1.0, 1.0, 1.0),
                readers=(truth, np.roll(truth, 1, axis=1)), probability=np.where(drawn, 0.9, 0.1).astype(np.float32),
                uncertainties={"entropy": number % 3 + random.random()}, volume_interval_ml=(0.0, 1.0),
            )  # fmt: skip
            lesion = Lesion(centre_mm=(0, 0, 0), radius_mm=4)
            near = Candidate(at_mm=(0, 0, 5 * random.random()), score=random.random())
            yield SearchedCase(
                **whose, lesions=(lesion,), candidates=(near, Candidate(at_mm=(9, 9, 9), score=0.4))
            )
            yield RatedCase(
                **whose,
                known={"scanner": "AB"[number % 3 > 0]},
                positive=bool(number % 2),
                probability=random.random(),
            )
            risk = float(random.normal())
            yield FollowedCase(
                **whose, risk=risk, duration_days=100 * np.exp(-risk), event=number % 5 > 0, true_risk=risk
            )

    monkeypatch.setitem(FAMILIES, "everything", Family(cases=everything, limits=("Made up.",)))  # type: ignore[arg-type]
    subject = Subject(name="m", version="1", family="everything", sha256="0")
    found = judge_model(subject, crops, made_at=NOON, resamples=100)
    assert set(found.figures) == {"segmentation", "detection", "classification", "survival"}
    drawn = found.figures["segmentation"]
    assert drawn["settings"]["as given"]["volume_covered"]["value"] == 1.0
    assert drawn["settings"]["as given"]["ece"]["value"] > 0
    assert drawn["settings"]["as given"]["uncertainty_error: entropy"]["value"] > 0.8
    assert [group["name"] for group in found.figures["classification"]["groups"]] == ["A", "B"]
    assert drawn["readers"]["readers_dice"]["value"] == pytest.approx(5 / 6)
    assert found.figures["survival"]["figures"]["of_true"]["value"] == pytest.approx(1.0)
    html = write_report(found, tmp_path)[1].read_text()
    for heading in ("Detection", "Classification", "Survival", "Readers", "Uncertainty"):
        assert f"<h2>{heading}</h2>" in html
    assert "simulated" in html
