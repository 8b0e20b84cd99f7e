"""Labels to frozen cases: the voxels that a person drew, on one side each, and a hold-out that only grows."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_series import make_series
from edited_seg import Masks, edited
from labelled_node import SPACING_MM, LabelledNode, Visited, contoured, tracking_uid, truth
from ledger import at
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from small_node import SmallNode
from sqlmodel import col, select

from plugins.errors import Refused
from store import patients, runs, studies
from store.labels import Label, labels
from store.objects import ObjectStore
from store.patient_key import patient_key
from store.sides import JUDGE, LEARN, NEITHER, lot, sides
from store.tables import Instance, Patient
from training.collect import Collected, collect
from training.frozen import Gathered
from training.gather import gather
from training.image_owners import VOXELS
from training.lidc import load_nodule
from training.manifest import Case, DataManifest, read_manifest

pytestmark = pytest.mark.xdist_group("gather")

FAMILY = "nodule_segmenter"
SALT = b"0" * 64


def somebody(side: str, number: int) -> str:
    """Return the PatientID number `number` of those whom the lot puts on a side."""
    names = [n for n in (f"G{i}" for i in range(60)) if (lot(SALT, patient_key(n)) < 0.3) == (side == JUDGE)]
    return names[number]


LEARNT, JUDGED, LATER = somebody(LEARN, 0), somebody(JUDGE, 0), somebody(JUDGE, 1)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabelledNode, dict[str, Visited]]:
    made = SmallNode.make(tmp_path_factory.mktemp("gathered") / "node")
    (made.home / "sides.salt").write_bytes(SALT)
    objects = ObjectStore(made.home / "store", sync=False)
    node = LabelledNode(home=made.home, database=made.database, objects=objects)
    visits = {
        "first": node.visit(LEARNT, "20260110", at(0)),
        "second": node.visit(LEARNT, "20260310", at(60)),
        "judged": node.visit(JUDGED, "20260111", at(120)),
        "later": node.visit(LATER, "20260112", at(180)),
    }
    return node, visits


@pytest.fixture
def node(seen: tuple[LabelledNode, dict[str, Visited]], tmp_path: Path) -> LabelledNode:
    return seen[0].copy(tmp_path / "node")


@pytest.fixture(scope="module")
def visits(seen: tuple[LabelledNode, dict[str, Visited]]) -> dict[str, Visited]:
    return seen[1]


def wider(*numbers: int, more_mm: float = 1.2) -> Callable[[Masks], Masks]:
    def edit(masks: Masks) -> Masks:
        made = masks.copy()
        for number in numbers:
            made[..., number - 1] = truth(number, more_mm)
        return made

    return edit


def correct(
    node: LabelledNode, visited: Visited, numbers: Sequence[int], more_mm: float = 1.2, times: int = 1
) -> None:
    made = edited(visited.seg, visited.images, wider(*numbers, more_mm=more_mm), times=times)
    node.take(made, at(1000 + times))


def collected(node: LabelledNode, folder: Path, found: Sequence[Label] | None = None) -> Collected:
    with node.database.reading() as session:
        own = labels(session, node.objects) if found is None else found
        return collect(session, node.objects, own, folder, FAMILY)


def hounsfield(images: Sequence[Dataset]) -> NDArray[np.float64]:
    return np.stack([i.pixel_array * float(i.RescaleSlope) + float(i.RescaleIntercept) for i in images])


def where(case: Case, root: Path) -> tuple[slice, ...]:
    """Return the part of the source grid that a case is, by the affine of its image."""
    image = nibabel.load(root / case.files["image"])
    x, y, z = image.affine[:3, 3] * (-1, -1, 1)
    first = np.rint(np.array((z, y, x)) / SPACING_MM).astype(int)
    return tuple(slice(f, f + n) for f, n in zip(first, image.shape[::-1], strict=True))


def test_a_case_is_what_was_drawn_on_the_grid_of_its_images(
    node: LabelledNode, visits: dict[str, Visited], tmp_path: Path
) -> None:
    correct(node, visits["first"], [1, 3])
    correct(node, visits["second"], [1], more_mm=2.0)
    manifest = collected(node, tmp_path / "set").manifest
    assert manifest is not None
    assert read_manifest(tmp_path / "set" / "manifest.json") == manifest
    by_visit = {"first": visits["first"], "second": visits["second"]}
    drawn = {("first", 1): 1.2, ("first", 3): 1.2, ("second", 1): 2.0}
    met = set()
    for case in manifest.cases:
        series = {v.images[0].SeriesInstanceUID: name for name, v in by_visit.items()}
        name = series[case.tags["series_instance_uid"]]
        number = next(n for n in (1, 2, 3) if case.tags["tracking_uid"] == tracking_uid(LEARNT, n))
        met.add((name, number))
        nodule = load_nodule(case, tmp_path / "set")
        box = where(case, tmp_path / "set")
        mask = truth(number, drawn[name, number])
        assert np.array_equal(nodule.mask, mask[box])
        assert nodule.mask.sum() == mask.sum()
        assert np.array_equal(nodule.image, hounsfield(by_visit[name].images)[box])
        assert nodule.spacing_mm == pytest.approx(SPACING_MM)
        for axis, mm in enumerate(SPACING_MM):
            at_axis = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
            room = min(at_axis[0] - box[axis].start, box[axis].stop - 1 - at_axis[-1]) * mm
            is_edge = box[axis] == slice(0, mask.shape[axis])
            assert room >= 15 or is_edge or box[axis].start == 0 or box[axis].stop == mask.shape[axis]
        assert case.patient_id == patient_key(LEARNT)
        voxels = hounsfield(by_visit[name].images).astype(np.float32)
        assert case.tags[VOXELS] == hashlib.sha256(voxels).hexdigest()
        assert (case.tags["scanner"], case.tags["kernel"]) == ("ACME Scan 1", "B45f")
        assert (case.tags["origin"], case.tags["slice_thickness_mm"]) == ("corrected", 2.0)
        assert case.fold == int(patient_key(LEARNT), 16) % 5
        assert case.size_mm > 8
    assert met == set(drawn)


def test_the_same_labels_make_the_same_data_set(
    node: LabelledNode, visits: dict[str, Visited], tmp_path: Path
) -> None:
    correct(node, visits["first"], [1, 2])
    one, other = (collected(node, tmp_path / name).manifest for name in ("one", "other"))
    assert one is not None and other is not None
    assert one.sha256 == other.sha256
    assert LEARNT not in (tmp_path / "one" / "manifest.json").read_text()


def test_what_becomes_no_case_is_told(node: LabelledNode, visits: dict[str, Visited], tmp_path: Path) -> None:
    correct(node, visits["first"], [1, 2])
    with node.database.reading() as session:
        found = sorted(labels(session, node.objects), key=lambda label: label.number)
        first = select(Instance.sha256).where(
            col(Instance.sop_instance_uid) == visits["first"].images[0].SOPInstanceUID
        )
        gone = session.exec(first).one()
    others = [replace(found[0], modality="PT"), replace(found[1], plugin="pet_lesion")]
    made = collected(node, tmp_path / "others", others)
    assert made.manifest is None
    assert [left.sentence for left in made.left] == [
        "region 1: it lies on PT, and nodules are learned on CT",
        "region 2: 'pet_lesion' does not draw with the nodule segmenter",
    ]
    node = node.copy(tmp_path / "own", objects=True)
    node.objects.path(gone).unlink()
    made = collected(node, tmp_path / "gone", found)
    assert made.manifest is None
    assert {left.sentence for left in made.left} == {
        f"region {n}: 1 of its 14 images are no longer in the object store" for n in (1, 2)
    }
    with pytest.raises(Refused, match="not for 'tea'"), node.database.reading() as session:
        collect(session, node.objects, found, tmp_path, "tea")


def run(node: LabelledNode, number: int, learned: Sequence[str] = (), *, drawn: bool = False) -> Gathered:
    """Gather for a run, which ends as one that learned."""
    folder = node.home / "training" / FAMILY / str(number)
    found = gather(node.database, node.objects, node.home, FAMILY, folder, learned, drawn=drawn)
    with node.database.transaction() as session:
        pk = runs.begin(session, FAMILY, "me", at(5000 + number), 60)
        runs.move(session, pk, "me", runs.State.FITTING, folder=f"training/{FAMILY}/{number}")
        runs.move(session, pk, "me", runs.State.JUDGING)
        runs.end(session, pk, "me", runs.State.REFUSED, "", at(5001 + number))
    return found


def people(manifest: DataManifest | None) -> set[str]:
    return {case.patient_id for case in manifest.cases} if manifest else set()


def test_the_hold_out_grows_by_new_persons_and_is_the_same_otherwise(
    node: LabelledNode, visits: dict[str, Visited]
) -> None:
    correct(node, visits["first"], [1])
    correct(node, visits["judged"], [2])
    first = run(node, 1)
    assert first.learn is not None and first.judge is not None
    assert (people(first.learn), people(first.judge)) == ({patient_key(LEARNT)}, {patient_key(JUDGED)})

    correct(node, visits["second"], [3])
    correct(node, visits["judged"], [1, 2], more_mm=2.0, times=2)
    second = run(node, 2)
    assert second.learn is not None and second.judge is not None
    assert len(second.learn.cases) == 2
    assert second.judge.sha256 == first.judge.sha256
    assert "the hold-out keeps 1 cases of 1 persons as earlier runs had them" in second.told

    correct(node, visits["later"], [2])
    third = run(node, 3)
    assert third.judge is not None
    assert all(case in third.judge.cases for case in first.judge.cases)
    assert people(third.judge) == {patient_key(JUDGED), patient_key(LATER)}
    for case in third.judge.cases:  # files came along, whole
        load_nodule(case, node.home / "training" / FAMILY / "3" / "judge")

    with node.database.transaction() as session:
        pks = {p.patient_id: int(p.id or 0) for p in session.exec(select(Patient))}
        patients.merge(session, pks[LATER], pks[LEARNT], "Admin", at(3000))
    fourth = run(node, 4)
    assert fourth.learn is None and fourth.judge is not None
    assert fourth.judge.sha256 == first.judge.sha256
    assert any("on neither side" in told for told in fourth.told)
    with node.database.transaction() as session:
        patients.part(session, pks[LATER], "Admin", at(3001))
    fifth = run(node, 5)
    assert fifth.learn is None and fifth.judge is not None
    assert fifth.judge.sha256 == first.judge.sha256
    with node.database.reading() as session:
        assert sides(session).of(patient_key(LATER)) == NEITHER


def test_two_patients_of_the_hold_out_who_turn_out_to_be_one_count_as_one(
    node: LabelledNode, visits: dict[str, Visited]
) -> None:
    correct(node, visits["judged"], [2])
    correct(node, visits["later"], [2])
    first = run(node, 1)
    with node.database.transaction() as session:
        pks = {p.patient_id: int(p.id or 0) for p in session.exec(select(Patient))}
        patients.merge(session, pks[JUDGED], pks[LATER], "Admin", at(3000))
    second = run(node, 2)
    assert (len(people(first.judge)), people(second.judge)) == (2, {patient_key(JUDGED)})
    assert second.judge is not None and len(second.judge.cases) == 2


def test_whom_the_champion_learned_from_is_never_judged_on(
    node: LabelledNode, visits: dict[str, Visited]
) -> None:
    correct(node, visits["judged"], [2])
    correct(node, visits["later"], [2])
    found = run(node, 1, learned=[patient_key(JUDGED)])
    assert (people(found.learn), people(found.judge)) == ({patient_key(JUDGED)}, {patient_key(LATER)})
    found = run(node, 2, learned=[patient_key(patient_key(LATER))])
    assert (people(found.learn), people(found.judge)) == ({patient_key(JUDGED)}, set())


@pytest.mark.parametrize(("first", "then"), [(LEARN, JUDGE), (JUDGE, LEARN)])
def test_images_that_get_another_patient_do_not_change_sides(
    node: LabelledNode, tmp_path: Path, first: str, then: str
) -> None:
    voxels = np.where(truth(1), 40.0, -850.0)
    paths = make_series(tmp_path / "ct", voxels, spacing_mm=SPACING_MM, patient_id=somebody(first, 3))
    images = tuple(dcmread(path) for path in paths)
    for image in images:
        node.take(image, at(200))
    uid = str(images[0].StudyInstanceUID)
    seen = Visited(patient_id=somebody(first, 3), study_instance_uid=uid, images=images, seg=Dataset())
    missed = contoured(seen, {1: truth(1)})  # what nobody but a person found
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "27925004", "SCT", "Nodule"
    missed.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence = [code]
    del missed.RTROIObservationsSequence[0].TrackingUID
    node.take(missed, at(300))
    before = run(node, 1, drawn=True)
    assert people(before.learn) | people(before.judge) == {patient_key(somebody(first, 3))}
    for one in (*images, missed):
        one.PatientID = somebody(then, 3)
        taken = node.take(one, at(400))
    with node.database.transaction() as session:
        studies.settle(session, taken.study_pk, now=at(500), forced=True, objects=node.objects)
    after = run(node, 2, drawn=True)
    assert people(after.learn) == set()
    assert people(after.judge) == people(before.judge)
    assert "1 masks lie on images that had another patient, on the other side" in after.told


def test_a_hold_out_that_somebody_changed_is_refused(node: LabelledNode, visits: dict[str, Visited]) -> None:
    correct(node, visits["judged"], [2])
    first = run(node, 1)
    assert first.judge is not None
    folder = node.home / "training" / FAMILY / "1" / "judge"
    mask, manifest = folder / first.judge.cases[0].files["mask"], folder / "manifest.json"
    todo = f"; bring {folder} back from another backup, or remove it: then the hold-out before it, if any, is kept"

    def refused(number: int) -> str:
        with pytest.raises(Refused) as caught:
            run(node, number)
        return str(caught.value)

    changed = f"changed-file: {mask} is not the file that earlier runs judged on{todo}"
    mask.write_bytes(b"other")
    assert refused(2) == changed
    mask.unlink()
    assert refused(3) == changed
    said = json.loads(manifest.read_text())
    said["cases"][0]["patient_id"] = patient_key(LEARNT)
    manifest.write_text(json.dumps(said))
    assert refused(4).startswith("changed-manifest: ") and refused(5).endswith(todo)
    manifest.unlink()
    assert refused(6) == f"bad-manifest: {manifest} cannot be read (No such file or directory){todo}"
    shutil.rmtree(folder)
    again = run(node, 7)
    assert again.judge is not None and people(again.judge) == people(first.judge)
