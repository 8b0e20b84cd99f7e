"""What people drew on PET becomes cases with the CT of the same place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from labelled_node import LabelledNode
from ledger import at
from petct_labels import PET_SPACING_MM, RADIUS_MM, uptake_at, uptake_node, visit_uptake
from scipy import ndimage

from models.petct import NAME
from plugins import codes
from store.choices import APPROVED, OUTLINE, choose
from store.labels import Label, labels
from store.patient_key import patient_key
from training.collect import Collected, collect
from training.labelled_kind import KINDS
from training.sts import load_sarcoma

pytestmark = pytest.mark.xdist_group("gather_uptake")

DRAWN = uptake_at((20, 20, 20), PET_SPACING_MM, RADIUS_MM + 4.0)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelledNode]:
    """Return a node that found uptake on PETs of two persons, each corrected: with CT, and with half a CT."""
    node = uptake_node(tmp_path_factory.mktemp("uptake") / "node")
    for number, (patient, slices) in enumerate({"WHOLE": 20, "HALF": 10}.items()):
        visit_uptake(node, patient, at(number * 60), ct_slices=slices)
    yield node
    node.database.dispose()


def collected(node: LabelledNode, folder: Path, family: str) -> tuple[tuple[Label, ...], Collected]:
    with node.database.reading() as session:
        found = labels(session, node.objects)
        return found, collect(session, node.objects, found, folder, family)


def test_uptake_that_somebody_drew_anew_is_a_case_with_the_ct_that_holds_it(
    node: LabelledNode, tmp_path: Path
) -> None:
    found, made = collected(node, tmp_path, NAME)
    assert [(one.origin, one.plugin, one.modality) for one in found] == [
        ("corrected", "pet_lesion", "PT")
    ] * 2
    assert made.manifest is not None and made.left == ()
    by_key = {case.patient_id: case for case in made.manifest.cases}
    for patient, has_ct in {"WHOLE": True, "HALF": False}.items():
        case = by_key[patient_key(patient)]
        assert set(case.files) == {"pet", "mask", *(["ct"] if has_ct else [])}
        assert (case.tags["origin"], case.tags["scanner"]) == ("corrected", "Phantom")
        read = load_sarcoma(case, tmp_path)
        assert read.spacing_mm == pytest.approx(PET_SPACING_MM) and read.mask.sum() == DRAWN.sum()
        inside = ndimage.binary_erosion(read.mask, iterations=2)
        assert (read.suv_max, float(read.suv.min())) == pytest.approx((6.6, 0.5), rel=0.01)
        if has_ct:
            assert read.hu is not None
            assert read.hu[inside] == pytest.approx(50.0, abs=25.0)
            assert float(read.hu[0].max()) == pytest.approx(-100.0, abs=25.0)


def test_uptake_is_nothing_for_the_nodule_segmenter_and_other_labels_nothing_for_pet(
    node: LabelledNode, tmp_path: Path
) -> None:
    found, made = collected(node, tmp_path, "nodule_segmenter")
    assert made.manifest is None
    assert {left.sentence for left in made.left} == {"region 1: it lies on PT, and nodules are learned on CT"}
    others = [replace(found[0], modality="CT"), replace(found[0], plugin="contours")]
    with node.database.reading() as session:
        made = collect(session, node.objects, others, tmp_path, NAME)
    assert [left.sentence for left in made.left] == [
        "region 1: it lies on CT, and uptake is learned on PET",
        "region 1: 'contours' does not draw uptake on PET",
    ]
    missed, why_not = replace(found[0], origin="drawn", plugin=""), KINDS[NAME].why_not
    for code, is_meant in ((codes.LESION, True), (None, True), (codes.REFERENCE_REGION, False)):
        region = SimpleNamespace(type_code=code, category_code=None)
        assert (why_not(missed, region) is None) is is_meant  # type: ignore[arg-type]


def test_what_was_approved_of_a_threshold_is_a_case_as_it_was_drawn(
    node: LabelledNode, tmp_path: Path
) -> None:
    with node.database.transaction() as session:
        (label,) = (one for one in labels(session, node.objects) if one.patient_key == patient_key("WHOLE"))
        choose(
            session, label.patient_pk, OUTLINE, label.tracking_uid, APPROVED, author="Dr. Who",
            now=at(100000), study_instance_uid=label.study_instance_uid,
        )  # fmt: skip
    _, made = collected(node, tmp_path, NAME)
    assert made.manifest is not None
    by_origin = {case.tags["origin"]: case for case in made.manifest.cases}
    assert by_origin.keys() == {"corrected", "approved"}
    read = load_sarcoma(by_origin["approved"], tmp_path)
    assert read.mask.sum() == uptake_at((20, 20, 20), PET_SPACING_MM, RADIUS_MM).sum() and read.hu is not None
