"""What people drew or approved becomes labels; what Nadir drew does not, however it comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from edited_seg import Masks, edited
from labelled_node import LabelledNode, Seeing, Visited, contoured, renamed, repainted, tracking_uid, truth
from ledger import at
from numpy.typing import NDArray
from pydicom import Dataset
from small_node import SmallNode
from sqlmodel import col, select
from typer.testing import CliRunner

from node.cli import app
from plugins.contours import Contours
from plugins.contract import Mask, Volume
from store import patients
from store.choices import choose, undo
from store.dicom.series import read_grids, read_regions
from store.dicom.voxel_hash import voxel_hash
from store.labels import Label, Labelled, labelled, labels
from store.objects import ObjectStore
from store.patient_key import patient_key
from store.sides import assign
from store.tables import Finding, Instance, Series, Study

pytestmark = pytest.mark.xdist_group("labels")


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabelledNode, Visited, Visited]:
    made = SmallNode.make(tmp_path_factory.mktemp("labelled") / "node")
    objects = ObjectStore(made.home / "store", sync=False)
    node = LabelledNode(home=made.home, database=made.database, objects=objects)
    return node, node.visit("P1", "20260110"), node.visit("P2", "20260111", at(60))


@pytest.fixture
def node(seen: tuple[LabelledNode, Visited, Visited], tmp_path: Path) -> LabelledNode:
    return seen[0].copy(tmp_path / "node")


@pytest.fixture(scope="session")
def one(seen: tuple[LabelledNode, Visited, Visited]) -> Visited:
    return seen[1]


def wider(*numbers: int, more_mm: float = 1.2) -> Callable[[Masks], Masks]:
    def edit(masks: Masks) -> Masks:
        made = masks.copy()
        for number in numbers:
            made[..., number - 1] = truth(number, more_mm)
        return made

    return edit


def read(node: LabelledNode, **more: bool) -> Labelled:
    with node.database.reading() as session:
        return labelled(session, node.objects, **more)


@pytest.fixture(scope="session")
def grids(seen: tuple[LabelledNode, Visited, Visited]) -> tuple[Volume, ...]:
    node, one, _ = seen
    with node.database.reading() as session:
        uids = [image.SOPInstanceUID for image in one.images]
        images = select(Instance.sha256).where(col(Instance.sop_instance_uid).in_(uids))
        return read_grids([node.objects.path(sha256) for sha256 in session.exec(images)])


@pytest.fixture
def voxels(node: LabelledNode, grids: tuple[Volume, ...]) -> Callable[[Label], NDArray[np.bool_]]:
    def of(label: Label) -> NDArray[np.bool_]:
        regions, _ = read_regions(node.objects.path(label.sha256), grids)
        return next(region.mask.full() for region in regions if region.number == label.number)

    return of


def plain(visited: Visited) -> Dataset:
    return edited(visited.seg, visited.images, wider(2))


def as_automatic(visited: Visited) -> Dataset:
    """Return an edit whose writer left of our segments what it did not touch."""
    made = plain(visited)
    made.ContentCreatorName = ""
    for segment, ours in zip(made.SegmentSequence, visited.seg.SegmentSequence, strict=True):
        segment.SegmentAlgorithmType = "AUTOMATIC"
        segment.SegmentAlgorithmName = ours.SegmentAlgorithmName
    return made


def with_our_equipment(visited: Visited) -> Dataset:
    """Return an edit that names Nadir as what made it, and as what contributed, but says that a person drew."""
    made = plain(visited)
    for keyword in ("Manufacturer", "ManufacturerModelName", "ContributingEquipmentSequence"):
        made[keyword] = visited.seg[keyword]
    return made


def contributed(visited: Visited) -> Dataset:
    made = as_automatic(visited)
    made.ContributingEquipmentSequence = deepcopy(visited.seg.ContributingEquipmentSequence)
    return made


def everything_copied(visited: Visited) -> Dataset:
    return repainted(visited.seg, plain(visited))


def under_our_uid(visited: Visited) -> Dataset:
    made = plain(visited)
    made.SOPInstanceUID, made.SeriesInstanceUID = visited.seg.SOPInstanceUID, visited.seg.SeriesInstanceUID
    return made


def contours_by_hand(visited: Visited) -> Dataset:
    return contoured(visited, {2: truth(2, 1.2)}, ROIGenerationAlgorithm="MANUAL")


def contours_wider(visited: Visited) -> Dataset:
    return contoured(visited, {2: truth(2, 0.5)})


def contours_of_a_reviewer(visited: Visited) -> Dataset:
    return contoured(visited, {2: truth(2, -0.4)}, ReviewerName="Bailey^Miranda", ApprovalStatus="APPROVED")


@pytest.mark.parametrize(
    ("write", "more_mm", "author"),
    [
        (plain, 1.2, "Grey Meredith"),
        (lambda v: edited(v.seg, v.images, wider(2), without=[1, 3]), 1.2, "Grey Meredith"),
        (as_automatic, 1.2, "OHIF Viewer"),
        (contributed, 1.2, "OHIF Viewer"),
        (with_our_equipment, 1.2, "Grey Meredith"),
        (everything_copied, 1.2, "a person who is not named"),
        (under_our_uid, 1.2, "Grey Meredith"),
        (contours_by_hand, 1.2, "Planner"),
        (contours_wider, 0.5, "Planner"),
        (contours_of_a_reviewer, -0.4, "Bailey Miranda"),
    ],
)
def test_what_a_person_changed_is_a_label_of_exactly_these_voxels(
    node: LabelledNode,
    one: Visited,
    write: Callable[[Visited], Dataset],
    more_mm: float,
    author: str,
    voxels: Callable[[Label], NDArray[np.bool_]],
) -> None:
    sent = write(one)
    node.take(sent, at(1000))
    (label,) = read(node).labels
    assert (label.origin, label.author, label.at) == ("corrected", author, at(1000))
    assert (label.tracking_uid, label.plugin) == (tracking_uid("P1", 2), "lung_nodule")
    assert (label.modality, label.patient_key) == ("CT", patient_key("P1"))
    assert (label.sop_instance_uid, label.study_instance_uid) == (sent.SOPInstanceUID, one.study_instance_uid)
    assert len(label.model_sha256) == 64
    assert np.array_equal(voxels(label), truth(2, more_mm))


def unchanged(visited: Visited) -> Dataset:
    return edited(visited.seg, visited.images, lambda masks: masks)


def without_hashes(seg: Dataset) -> Dataset:
    """Return a SEG as releases wrote it that did not say which voxels it was made with."""
    for segment in seg.SegmentSequence:
        segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters = "model=a,settings=b"
    return seg


def rimless(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask as it comes of contours through its pixels whose last rows and columns were lost."""
    return mask & np.roll(mask, -1, axis=1) & np.roll(mask, -1, axis=2)


def emptied(visited: Visited) -> Dataset:
    return edited(visited.seg, visited.images, lambda m: m & (np.arange(3) != 1))


def of_other_hands(visited: Visited) -> Dataset:
    """Return what `contours` of another node writes of a drawing by a person: a copy."""
    made = with_our_equipment(visited)
    made.ManufacturerModelName, made.ContentCreatorName = "contours", "Nadir^Algorithm"
    return made


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (unchanged, "its voxels are those that Nadir drew"),
        (lambda v: contoured(v, {2: truth(2)}), "its voxels are those that Nadir drew"),
        (lambda v: without_hashes(everything_copied(v)), "equipment of Nadir made it"),
        (of_other_hands, "equipment of Nadir made it"),
        (lambda v: contoured(v, {2: rimless(truth(2))}), "as a conversion does"),
        (emptied, "it has no voxels"),
    ],
)
def test_what_no_person_changed_is_told_and_is_no_label(
    node: LabelledNode, one: Visited, write: Callable[[Visited], Dataset], said: str
) -> None:
    node.take(write(one))
    found = read(node)
    assert found.labels == ()
    assert any(said in left.sentence for left in found.left)
    assert not any(name in left.sentence for left in found.left for name in ("P1", "Phantom", "Nodule"))


def test_what_another_node_of_ours_drew_otherwise_is_no_label(
    node: LabelledNode, one: Visited, tmp_path: Path
) -> None:
    made = SmallNode.make(tmp_path / "other")
    other = LabelledNode(home=made.home, database=made.database, objects=made.objects)
    for image in one.images:
        other.take(deepcopy(image))
    seg = other.analyse(one.study_instance_uid, at(5), Seeing(more_mm=0.9))
    node.take(renamed(seg))
    for keyword in ("Manufacturer", "ContributingEquipmentSequence"):  # as an anonymiser leaves it
        del seg[keyword]
    node.take(renamed(seg, 3))
    found = read(node)
    assert found.labels == ()
    assert {left.sentence for left in found.left if "region 2" in left.sentence} == {
        "region 2: its voxels are those that Nadir drew"
    }


def test_what_comes_back_as_it_went_is_nothing_to_tell_of(node: LabelledNode, one: Visited) -> None:
    node.take(deepcopy(one.seg))
    node.take(renamed(one.seg))
    coerced = renamed(one.seg, 2)
    coerced.SOPInstanceUID, coerced.PatientName = one.seg.SOPInstanceUID, "Coerced"
    coerced.SeriesInstanceUID = one.seg.SeriesInstanceUID
    node.take(coerced)
    assert read(node) == Labelled(labels=(), left=())


def test_what_contours_writes_of_a_drawing_is_a_copy_and_takes_no_labels_place(
    node: LabelledNode, one: Visited
) -> None:
    sent = plain(one)
    node.take(sent)
    copied = node.analyse(one.study_instance_uid, at(2000), Contours())
    assert {segment.SegmentAlgorithmType for segment in copied.SegmentSequence} == {"MANUAL"}
    node.take(renamed(copied), at(2001))
    (label,) = read(node).labels
    assert (label.sop_instance_uid, label.tracking_uid) == (sent.SOPInstanceUID, tracking_uid("P1", 2))
    say(node, "reject", "true", 3000, one)
    assert read(node).labels == ()


def test_every_segment_counts_not_only_the_last_one(
    node: LabelledNode, one: Visited, voxels: Callable[[Label], NDArray[np.bool_]]
) -> None:
    node.take(edited(one.seg, one.images, wider(1, 2, 3)))
    found = read(node).labels
    assert {label.tracking_uid for label in found} == {tracking_uid("P1", n) for n in (1, 2, 3)}
    by_number = {label.number: voxels(label) for label in found}
    assert all(np.array_equal(by_number[n], truth(n, 1.2)) for n in (1, 2, 3))


def test_a_newer_correction_takes_the_place_of_an_older_one_lesion_by_lesion(
    node: LabelledNode, one: Visited
) -> None:
    first = edited(one.seg, one.images, wider(1, 2))
    second = edited(one.seg, one.images, wider(2, more_mm=2.0), times=2, author="Bailey^Miranda")
    second.ContentDate = "20991231"
    node.take(second, at(1000))  # came first, was drawn last
    node.take(first, at(1001))
    found = read(node).labels
    assert {(label.tracking_uid, label.author) for label in found} == {
        (tracking_uid("P1", 1), "Grey Meredith"),
        (tracking_uid("P1", 2), "Bailey Miranda"),
    }
    with node.database.reading() as session:
        assert labels(session, node.objects) == found


def say(node: LabelledNode, kind: str, value: str, seconds: float, visited: Visited, number: int = 2) -> int:
    with node.database.transaction() as session:
        study = select(Study).where(col(Study.study_instance_uid) == visited.study_instance_uid)
        pk = session.exec(study).one().patient_pk
        uid = tracking_uid(visited.patient_id, number)
        at_study = {} if kind == "role" else {"study_instance_uid": visited.study_instance_uid}
        return choose(
            session, pk, kind, uid, value, author="Dr. Who", now=at(seconds), **at_study
        ).number  # fmt: skip


def test_an_approved_outline_is_a_label_until_it_is_taken_back(
    node: LabelledNode, one: Visited, voxels: Callable[[Label], NDArray[np.bool_]]
) -> None:
    number = say(node, "outline", "approved", 100, one)
    (label,) = read(node).labels
    assert (label.origin, label.author, label.at) == ("approved", "Dr. Who", at(100))
    assert (label.sop_instance_uid, label.number) == (one.seg.SOPInstanceUID, 2)
    assert np.array_equal(voxels(label), truth(2))
    say(node, "outline", "not-approved", 101, one)
    assert read(node).labels == ()
    say(node, "outline", "approved", 102, one)
    assert len(read(node).labels) == 1
    with node.database.transaction() as session:
        undo(session, label.patient_pk, number + 2, author="Dr. Who", now=at(103))
    assert read(node).labels == ()


def test_of_an_approval_and_a_correction_the_newer_counts(node: LabelledNode, one: Visited) -> None:
    say(node, "outline", "approved", 100, one)
    node.take(plain(one), at(200))
    assert [label.origin for label in read(node).labels] == ["corrected"]
    say(node, "outline", "approved", 300, one)
    assert [label.origin for label in read(node).labels] == ["approved"]


def test_what_was_approved_is_what_was_drawn_then(
    node: LabelledNode, one: Visited, voxels: Callable[[Label], NDArray[np.bool_]]
) -> None:
    say(node, "outline", "approved", 100, one)
    more = deepcopy(one.images[0])
    more.SOPInstanceUID, more.SeriesInstanceUID, more.Modality = "1.2.3.4", "1.2.3", "OT"
    node.take(more, at(150))
    node.analyse(one.study_instance_uid, at(200), Seeing(more_mm=0.9))
    (label,) = read(node).labels
    assert np.array_equal(voxels(label), truth(2))


def test_what_was_approved_and_then_relinked_and_written_once_more_is_still_a_label(
    node: LabelledNode, one: Visited
) -> None:
    say(node, "outline", "approved", 100, one)
    say(node, "relink", "new", 150, one)
    (before,) = read(node).labels
    with node.database.transaction() as session:
        uid = tracking_uid(one.patient_id, 2)
        row = session.exec(select(Finding).where(col(Finding.tracking_uid) == uid)).one()
        row.tracking_uid, row.before_uid = before.tracking_uid, uid
        session.add(row)
    (label,) = read(node).labels
    assert before.tracking_uid != uid
    assert (label.tracking_uid, label.sop_instance_uid) == (before.tracking_uid, one.seg.SOPInstanceUID)


def test_an_outline_is_approved_of_a_visit_where_nadir_drew_it(node: LabelledNode, one: Visited) -> None:
    from plugins.errors import Refused

    with node.database.transaction() as session:
        uid = tracking_uid("P1", 2)
        with pytest.raises(Refused, match="one visit"):
            choose(session, 1, "outline", uid, "approved", author="A", now=at(1))
        with pytest.raises(Refused, match="approved, not-approved"):
            choose(
                session, 1, "outline", uid, "good", author="A", now=at(1),
                study_instance_uid=one.study_instance_uid,
            )  # fmt: skip


def test_what_was_rejected_is_left_out(node: LabelledNode, one: Visited) -> None:
    node.take(edited(one.seg, one.images, wider(1, 2)))
    say(node, "reject", "true", 100, one)
    found = read(node)
    assert [label.tracking_uid for label in found.labels] == [tracking_uid("P1", 1)]
    assert "region 2: Dr. Who said that it is no lesion" in {left.sentence for left in found.left}


def test_relinks_and_merged_patients_are_honoured(
    node: LabelledNode, one: Visited, seen: tuple[LabelledNode, Visited, Visited]
) -> None:
    node.take(plain(one))
    node.take(edited(seen[2].seg, seen[2].images, wider(3)))
    with node.database.transaction() as session:
        patients.merge(session, 1, 2, "Admin", at(50))
    found = read(node).labels
    assert {(label.patient_pk, label.patient_key) for label in found} == {(2, patient_key("P2"))}
    with node.database.transaction() as session:
        choose(
            session, 2, "relink", tracking_uid("P1", 2), tracking_uid("P2", 3), author="A", now=at(60),
            study_instance_uid=one.study_instance_uid,
        )  # fmt: skip
    assert {label.tracking_uid for label in read(node).labels} == {tracking_uid("P2", 3)}
    assert len(read(node).labels) == 2


def test_a_lesion_of_another_patient_is_no_correction(
    node: LabelledNode, one: Visited, seen: tuple[LabelledNode, Visited, Visited]
) -> None:
    made = edited(one.seg, one.images, wider(2))
    for segment, other in zip(made.SegmentSequence, seen[2].seg.SegmentSequence, strict=True):
        segment.TrackingUID = other.TrackingUID
    node.take(made)
    found = read(node)
    assert found.labels == ()
    assert [left.sentence for left in found.left] == ["it names a lesion of another patient"]


def test_a_label_whose_images_are_not_here_is_told(node: LabelledNode, one: Visited, tmp_path: Path) -> None:
    node = node.copy(tmp_path / "own", objects=True)
    node.take(plain(one))
    with node.database.reading() as session:
        ct = select(Instance.sha256).join(Series, col(Series.id) == col(Instance.series_pk))
        gone = session.exec(ct.where(col(Series.modality) == "CT")).all()
    for sha256 in gone:
        node.objects.path(sha256).unlink()
    found = read(node)
    assert found.labels == ()
    assert any("the images it was made from are not here" in left.sentence for left in found.left)


def new_segment(visited: Visited) -> Dataset:
    """Return an edit of lesion 2 with a segment that Nadir does not know in the place of lesion 3."""
    made = edited(visited.seg, visited.images, wider(2, 3))
    del made.SegmentSequence[2].TrackingUID, made.SegmentSequence[2].TrackingID
    return made


def test_a_lesion_that_nadir_missed_is_a_label_when_it_is_asked_for(
    node: LabelledNode, one: Visited, voxels: Callable[[Label], NDArray[np.bool_]]
) -> None:
    node.take(new_segment(one))
    assert [label.origin for label in read(node).labels] == ["corrected"]
    found = {label.origin: label for label in read(node, drawn=True).labels}
    assert set(found) == {"corrected", "drawn"}
    assert (found["drawn"].number, found["drawn"].plugin) == (3, "")
    assert np.array_equal(voxels(found["drawn"]), truth(3, 1.2))
    assert found["drawn"].tracking_uid.startswith("2.25.")


def test_a_hash_of_voxels_does_not_know_the_box() -> None:
    tight = Mask.from_full(truth(1))
    loose = Mask(
        shape=tight.shape,
        origin=(0, 0, 0),
        voxels=tight.full(),
    )
    moved = Mask.from_full(np.roll(truth(1), 1, axis=2))
    assert voxel_hash(tight) == voxel_hash(loose)
    assert voxel_hash(tight) != voxel_hash(moved)


def test_the_command_line_lists_labels_and_what_was_left_out(node: LabelledNode, one: Visited) -> None:
    node.take(edited(one.seg, one.images, wider(2), without=[3]))
    words = ["models", "labels", "--home", str(node.home)]
    (node.home / "store").symlink_to(node.objects.root)
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    (label,) = told["labels"]
    assert (label["patient_id"], label["origin"], label["side"]) == ("P1", "corrected", None)
    assert [left["sentence"] for left in told["left_out"]] == [
        "region 1: its voxels are those that Nadir drew"
    ]
    with node.database.transaction() as session:
        assign(session, [label["patient_pk"]], salt=b"salt", now=at(1), learned=[patient_key("P1")])
    said = CliRunner().invoke(app, words)
    assert "Grey Meredith" in said.stdout and "learn" in said.stdout
    assert "left out: region 1" in said.stderr
