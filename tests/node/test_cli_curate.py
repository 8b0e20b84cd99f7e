from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from ball_nodules import TINY, ball_nodule
from dicom_series import make_series
from drawn_regions import make_seg
from shapes import grid
from typer.testing import CliRunner

from node.cli import app
from plugins.contract import Mask
from plugins.errors import Refused
from training.curate.case_files import write_case, write_data_set
from training.evaluate.data import open_data
from training.evaluate.families import open_subject
from training.evaluate.judging import judge_model
from training.manifest import patient_key, read_manifest
from training.split import read_split

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def invoke(*words: object, status: int = 0) -> Any:
    """What a command printed, as JSON."""
    said = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert said.exit_code == status, said.output
    return json.loads(said.stdout)


def refused(*words: object) -> str:
    said = CliRunner().invoke(app, [*map(str, words)])
    assert isinstance(said.exception, Refused), said.output
    return said.exception.code


def balls(folder: Path, patients: int = 10) -> Path:
    """A data set in the training form of one ball in lung for each patient, written as any curation writes it."""
    cases = []
    for number in range(patients):
        nodule = ball_nodule(7.0 + number, (1.25, 0.75, 0.75), number)
        shape = tuple(int(n) for n in nodule.image.shape)
        volume = grid(shape, nodule.spacing_mm, array=np.rint(nodule.image))  # type: ignore[arg-type]
        mask = Mask.from_full(nodule.mask)
        cases.append(
            write_case(folder, volume, {"mask": mask}, case_id=f"P{number}-1", patient_id=f"P{number}")
        )
    write_data_set(folder, "balls", cases)
    return folder


def test_a_folder_without_a_data_set_a_fold_of_nobody_and_a_report_upon_the_data_are_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "empty").mkdir()
    assert refused("curate", "show", tmp_path / "empty") == "no-data-set"
    experiment = tmp_path / "tiny.yaml"
    experiment.write_text(TINY.replace("STEPS", "1"))
    data = balls(tmp_path / "balls", patients=2)
    asked = ("--data", data, "--out", tmp_path / "runs", "--fold", "77")
    assert refused("train", experiment, *asked) == "no-such-fold"
    experiment.write_text(experiment.read_text().replace("folds: [0]", "folds: [77]"))
    assert refused("train", experiment, "--data", data, "--out", tmp_path / "runs") == "no-such-fold"
    before = (data / "manifest.json").read_bytes()
    assert refused("evaluate", "nodule_segmenter", "--data", data, "--out", data) == "out-is-data"
    assert (data / "manifest.json").read_bytes() == before


def test_a_made_data_set_is_divided_learned_from_without_its_test_side_and_judged_on_it(
    tmp_path: Path,
) -> None:
    torch.set_num_threads(1)
    data, out = balls(tmp_path / "balls"), tmp_path / "runs"
    divided = invoke("curate", "split", data, "--shares", "0.6,0.2,0.2", "--seed", "3")["split"]
    assert {side: part["patients"] for side, part in divided["sides"].items()} == {
        "train": 6,
        "validation": 2,
        "test": 2,
    }
    experiment = tmp_path / "tiny.yaml"
    experiment.write_text(TINY.replace("STEPS", "5"))
    (row,) = invoke("train", experiment, "--data", data, "--out", out)
    assert 0 <= row["dice within"] <= 1
    manifest = read_manifest(data / "manifest.json")
    frozen = read_split(data / "split.json", manifest)
    kept_apart = {patient_key(case.patient_id) for case in frozen.cases(manifest, "test")}
    record = json.loads((out / "tiny" / "fold0" / "run.json").read_text())
    learned = open_data(data, sides=("train", "validation")).manifest
    assert record["data_sha256"] == learned.sha256 != manifest.sha256
    assert record["held_out"] == learned.held_out
    assert not kept_apart & record["held_out"].keys() and len(record["held_out"]) == 8
    # the report of the command takes seconds, and is tested elsewhere
    judged = open_data(data, sides=("test",))
    told = judge_model(open_subject(str(out / "tiny")), judged, made_at=NOON, resamples=100)
    assert (told.data["name"], told.data["patients"]) == ("balls, test", "2")
    assert told.made["judged_by"] == "2 patients that no fold has seen by 1 sets of weights together"
    judge = ["evaluate", out / "tiny", "--data", data, "--out", tmp_path / "report"]
    assert refused(*judge, "--side", "exam") == "no-such-side"
    assert refused("curate", "split", data) == "split-there"
    assert (
        invoke("curate", "split", data, "--keep", data / "split.json")["split"]["sides"] == divided["sides"]
    )


def test_a_split_of_an_earlier_state_is_not_learned_from_and_made_anew_moves_nobody(tmp_path: Path) -> None:
    data = balls(tmp_path / "balls", 4)
    earlier = invoke("curate", "split", data, "--shares", "0.5,0,0.5")["split"]
    balls(data, 6)
    shown = invoke("curate", "show", data)
    assert (shown["cases"], "--keep" in shown["split"]) == (6, True)
    experiment = tmp_path / "tiny.yaml"
    experiment.write_text(TINY.replace("STEPS", "1"))
    assert refused("train", experiment, "--data", data, "--out", tmp_path / "out") == "other-data"
    before = json.loads((data / "split.json").read_text())["sides"]
    later = invoke("curate", "split", data, "--shares", "0.5,0,0.5", "--keep", data / "split.json")["split"]
    after = json.loads((data / "split.json").read_text())["sides"]
    assert all(set(before[side]) <= set(after[side]) for side in before)
    assert (sum(map(len, after.values())), later["sha256"] != earlier["sha256"]) == (6, True)


def test_regions_of_dicom_become_a_data_set_that_is_shown(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "set"
    make_series(source / "ct", np.random.default_rng(0).normal(-300, 100, (6, 30, 40)))
    frames = [(k, n, np.eye(30, 40, n)) for k in (1, 2) for n in (1, 2)]
    make_seg(source / "seg", frames, labels=("nodule", "vessel"))
    told = invoke("curate", "seg", source, "--out", out, "--without", "vess*", "--margin", "5")
    assert [(case["region"], case["voxels"]) for case in told["cases"]] == [("nodule", 60)]
    assert told["reasons"] == {"not-asked": 1}
    said = CliRunner().invoke(
        app, ["curate", "seg", str(source), "--out", str(tmp_path / "none"), "--region", "x"]
    )
    assert (said.exit_code, "0 cases" in said.stdout, "not-asked" in said.stdout) == (1, True, True)
    assert refused("curate", "rtstruct", source, "--out", tmp_path / "rt") == "no-regions"
    shown = invoke("curate", "show", out)
    assert (shown["name"], shown["cases"], shown["split"]) == ("set", 1, None)
    assert shown["tags"]["region"] == {"nodule": 1}
    plain = CliRunner().invoke(app, ["curate", "show", str(out)]).stdout
    assert "set: 1 cases of 1 patients" in plain and told["manifest_sha256"] in plain


def test_nifti_pairs_are_named_on_the_command_line(tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "images").mkdir(parents=True)
    values = np.random.default_rng(0).integers(-900, 100, (12, 12, 8)).astype(np.int16)
    mask = np.zeros((12, 12, 8), dtype=np.uint8)
    mask[4:7, 4:7, 3:5] = 2
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), source / "images" / "A.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), source / "A_label.nii.gz")
    names = ["--images", "images/{patient}.nii.gz", "--masks", "{patient}_label.nii.gz"]
    told = invoke(
        "curate", "nifti", source, "--out", tmp_path / "set", *names, "--label", "2", "--name", "mine"
    )
    assert (told["name"], told["patients"], told["cases"][0]["voxels"]) == ("mine", 1, 18)
    for words in ([], names[:2], [*names, "--table", "x.csv"]):
        said = CliRunner().invoke(app, ["curate", "nifti", str(source), "--out", "x", *words])
        assert said.exit_code == 2


def test_a_side_that_nobody_is_on_is_told(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["curate", "split", str(balls(tmp_path, 3)), "--shares", "0.9,0.05,0.05"])
    assert said.exit_code == 0
    sides = json.loads((tmp_path / "split.json").read_text())["sides"]
    empty = [side for side, held in sides.items() if not held]
    assert empty
    assert all(f"nobody is on the side {side}: 3 patients are few" in said.stderr for side in empty)


@pytest.mark.parametrize("shares", ["0.7,0.3", "a,b,c", ""])
def test_shares_that_are_not_three_numbers_are_a_wrong_command_line(tmp_path: Path, shares: str) -> None:
    said = CliRunner().invoke(app, ["curate", "split", str(balls(tmp_path, 1)), "--shares", shares])
    assert said.exit_code == 2
