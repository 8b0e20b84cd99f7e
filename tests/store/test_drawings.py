"""Whose a region is that Nadir drew where a person pointed: it says SEMIAUTOMATIC, and no person drew it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from small_results import PROVENANCE, Case, make_case, saved

from plugins.contract import Mask
from store.drawings import Drawing, read_drawings, why_not_a_persons


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return one lesion that `marked_lesion` drew."""
    made = make_case(tmp_path_factory.mktemp("ct"))
    first = replace(made.findings[0], finding=replace(made.findings[0].finding, is_pointed_at=True))
    return replace(made, findings=(first,), provenance=replace(PROVENANCE, plugin="marked_lesion"))


def _drawing(case: Case, seg: Dataset, file: Path) -> Drawing:
    saved(seg, file)
    ((drawing,), _) = read_drawings(file, "0" * 64, [case.volume])
    return drawing


def _shrunk(drawing: Drawing, array: NDArray[np.bool_]) -> Drawing:
    return replace(drawing, region=replace(drawing.region, mask=Mask.from_full(array)))


def test_it_is_nadirs_on_this_node_and_on_another_and_a_persons_once_changed(
    case: Case, tmp_path: Path
) -> None:
    seg = case.seg()
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    ours = _drawing(case, seg, tmp_path / "seg.dcm")
    assert (ours.algorithm_type, ours.is_as_made) == ("AUTOMATIC", True)
    assert why_not_a_persons(ours, []) == "it is what Nadir drew elsewhere, unchanged"
    larger = _shrunk(ours, np.roll(ours.mask.full(), 1, axis=2))
    assert not larger.is_as_made
    assert why_not_a_persons(larger, [ours]) is None


def test_it_is_nadirs_where_its_algorithm_was_left_out_and_a_viewers_semiautomatic_one_is_a_persons(
    case: Case, tmp_path: Path
) -> None:
    seg = case.seg()
    del seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    bare = _drawing(case, seg, tmp_path / "bare.dcm")
    assert (bare.made_with, bare.algorithm_type) == ("", "AUTOMATIC")
    assert why_not_a_persons(bare, []).startswith("equipment of Nadir made it")
    seg.Manufacturer, seg.ManufacturerModelName = "OHIF", "Viewer"
    viewers = _drawing(case, seg, tmp_path / "viewer.dcm")
    assert viewers.algorithm_type == "SEMIAUTOMATIC"
    assert why_not_a_persons(viewers, []) is None


def test_a_conversion_of_it_to_contours_that_copies_the_type_is_no_persons(
    case: Case, tmp_path: Path
) -> None:
    ours = _drawing(case, case.seg(), tmp_path / "seg.dcm")
    mask = ours.mask.full()
    rimless = _shrunk(ours, mask & np.roll(mask, -1, axis=1) & np.roll(mask, -1, axis=2))
    told = {"made_with": "", "is_ours": False, "model": "Planner", "algorithm_type": "SEMIAUTOMATIC"}
    converted = replace(rimless, region=replace(rimless.region, source="RTSTRUCT"), **told)
    assert "as a conversion does" in str(why_not_a_persons(converted, [ours]))
    assert why_not_a_persons(converted, [replace(ours, model="lung_nodule")]) is None
