"""Masks of probabilities are cut at 0.5, and a report says of which cases."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from ball_sarcomas import write_sarcomas
from nodule_crops import write_crops, write_readers
from numpy.typing import NDArray
from rewritten_files import with_other
from scipy import ndimage

from training.evaluate.data import Data, open_data
from training.evaluate.families import open_subject
from training.evaluate.judging import judge_model
from training.evaluate.report import write_report
from training.lidc import load_nodule
from training.manifest import DataManifest

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def _soft(voxels: NDArray[Any], affine: NDArray[Any]) -> object:
    """Return a mask that fades over several voxels."""
    return nibabel.Nifti1Image(ndimage.gaussian_filter(voxels.astype(np.float32), (1.5, 1.5, 0.7)), affine)


def _with_soft(data: Data, role: str, at_most: int | None = None) -> Data:
    """Return the data after the masks of that role were blurred."""
    cases = list(data.manifest.cases)
    for number in [n for n, case in enumerate(cases) if role in case.files][:at_most]:
        cases[number] = with_other(cases[number], data.root, role, _soft)
    return replace(data, manifest=DataManifest(name=data.manifest.name, cases=tuple(cases)))


def _told(model: str, data: Data) -> tuple[str, ...]:
    found = judge_model(open_subject(model), data, made_at=NOON, resamples=100)
    return tuple(limit for limit in found.limits if "mask-thresholded" in limit)


def test_a_soft_mask_is_cut_at_a_half_and_the_report_names_its_cases(tmp_path: Path) -> None:
    data = _with_soft(open_data(write_crops(tmp_path, patients=4)), "mask")
    case = data.cases[2]
    values = np.asarray(nibabel.load(tmp_path / case.files["mask"]).dataobj)
    nodule = load_nodule(case, tmp_path)
    assert int(nodule.mask.sum()) == np.count_nonzero(values >= 0.5) < np.count_nonzero(values > 0) / 2
    assert [doubt.code for doubt in nodule.doubts] == ["mask-thresholded"]
    found = judge_model(open_subject("classical-nodule-segmenter"), data, made_at=NOON, resamples=100)
    assert found.figures["segmentation"]["settings"]["the crop alone"]["dice"]["value"] > 0.85
    names = ", ".join(case.case_id for case in data.cases[:3])
    sentence = (
        f"The mask of {names} and 2 more: its values between 0 and 1 were cut at 0.5 (mask-thresholded)."
    )
    assert found.limits.count(sentence) == 1
    plain, page, _ = write_report(found, tmp_path / "out")
    assert sentence in json.loads(plain.read_text())["limits"] and sentence in page.read_text()


@pytest.mark.parametrize("role", ["mask", "mask_reader2"])
def test_of_one_soft_mask_among_whole_ones_or_of_one_reader_the_report_tells_as_well(
    tmp_path: Path, role: str
) -> None:
    data = open_data(write_readers(write_crops(tmp_path, patients=1)))
    assert _told("classical-nodule-segmenter", data) == ()
    soft = _with_soft(data, role, at_most=1)
    assert _told("classical-nodule-segmenter", soft) == (
        "The mask of P00_nodule00: its values between 0 and 1 were cut at 0.5 (mask-thresholded).",
    )


def test_a_soft_mask_on_pet_is_told_as_well(tmp_path: Path) -> None:
    data = _with_soft(open_data(write_sarcomas(tmp_path / "sts", patients=2)), "mask", at_most=1)
    assert _told("suv-41-percent", data) == (
        "The mask of STS_000: its values between 0 and 1 were cut at 0.5 (mask-thresholded).",
    )
