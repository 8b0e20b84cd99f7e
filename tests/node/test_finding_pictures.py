"""Pictures of single findings: where the outline lies, which slices there are, what is told when files are gone."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import course_images
import numpy as np
import pytest
from course_images import PLACES, Imaged, imaged
from PIL import Image

from node.picture_files import PictureFiles
from node.report.finding_pictures import BESIDE, SIZE, FindingPictures
from node.report.overlays import LONG, OUTLINE, SHORT
from plugins.errors import Refused
from store.depicted import Depicted

DIAMETER = 16.0


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Imaged:
    """Return two visits of one ball: pixels twice as wide as high, then a patient who lies on his face."""
    with pytest.MonkeyPatch.context() as patch:
        grids = (((3.0, 0.8, 1.6), (1, 0, 0, 0, 1, 0)), ((2.5, 1.2, 1.2), (-1, 0, 0, 0, -1, 0)))
        patch.setattr(course_images, "GRIDS", grids)
        return imaged(tmp_path_factory.mktemp("finding"), {1: (DIAMETER, DIAMETER)})


def what(known: Imaged, visit: int = 0) -> Depicted:
    one = known.course.sightings[visit]
    assert one.seg_sha256 is not None and one.segment_number is not None and one.centroid_mm is not None
    return Depicted(
        finding_pk=1,
        study_instance_uid=one.study_instance_uid,
        revision_pk=1,
        manifest_sha256=one.study_instance_uid,
        series_instance_uid=one.series_instance_uid,
        segment_number=one.segment_number,
        seg_sha256=one.seg_sha256,
        centroid_mm=one.centroid_mm,
        measurements=one.measurements,
    )


def images(known: Imaged, one: Depicted) -> Sequence[tuple[str, Path]]:
    uids = known.objects.images_of(one.study_instance_uid)[one.series_instance_uid]
    return [(uid, known.objects.open_object(uid)) for uid in uids]


def desk(known: Imaged) -> FindingPictures:
    return FindingPictures(known.objects.open_object)


def like(png: bytes, colour: tuple[int, int, int]) -> np.ndarray:  # type: ignore[type-arg]
    picture = np.asarray(Image.open(io.BytesIO(png)), dtype=int)
    return np.argwhere(np.abs(picture - colour).max(axis=2) < 60)


@pytest.mark.parametrize("visit", [0, 1])
def test_the_outline_is_round_and_of_true_size_whatever_the_pixels_are(known: Imaged, visit: int) -> None:
    one = what(known, visit)
    found = like(desk(known).png(one, lambda: images(known, one)), OUTLINE)
    extent_mm = (found.max(axis=0) - found.min(axis=0) + 1) * 50.0 / SIZE
    assert extent_mm == pytest.approx(DIAMETER, abs=2.4)
    assert (found.max(axis=0) + found.min(axis=0)) / 2 == pytest.approx(SIZE / 2, abs=10)


def test_the_slices_are_those_of_the_lesion_and_some_beside_and_begin_at_its_long_axis(known: Imaged) -> None:
    one = what(known)
    slices = desk(known).slices(one, lambda: images(known, one))
    axis = one.measurements["long_axis"]
    assert slices.sop_instance_uids[slices.key - slices.first] == axis.sop_instance_uid
    drawn = slices.last - slices.first + 1 - 2 * BESIDE
    assert drawn * 3.0 == pytest.approx(DIAMETER, abs=3.0)
    assert slices.count == 17 and abs(slices.key * 3.0 - PLACES[1][2]) <= 4.5


def test_diameters_are_drawn_on_their_own_slice_alone_and_nothing_when_it_is_not_wanted(
    known: Imaged,
) -> None:
    one = what(known)
    pictures, of = desk(known), lambda: images(known, one)
    key = pictures.slices(one, of).key
    assert len(like(pictures.png(one, of, number=key), SHORT)) > 30
    beside = pictures.png(one, of, number=key + 1)
    assert len(like(beside, SHORT)) == 0 and len(like(beside, OUTLINE)) > 100
    assert len(like(pictures.png(one, of, has_outline=False), OUTLINE)) == 0


def test_the_whole_slice_shows_where_the_picture_near_by_was_taken(known: Imaged) -> None:
    one = what(known)
    found = like(desk(known).png(one, lambda: images(known, one), view="whole"), OUTLINE)
    side_mm = (found.max(axis=0) - found.min(axis=0) + 1) * 97.6 / SIZE
    assert side_mm == pytest.approx(50.0, abs=1.5)


def test_without_its_seg_a_lesion_is_shown_where_it_was_measured_and_the_picture_says_so(
    known: Imaged,
) -> None:
    one = replace(what(known), seg_sha256="f" * 64)
    lost = FindingPictures(lambda name: Path("/nowhere") / name)
    png = lost.png(one, lambda: images(known, one))
    assert len(like(png, OUTLINE)) == 0 and len(like(png, LONG)) > 100


def test_without_images_there_is_a_sentence_instead_of_a_picture(known: Imaged) -> None:
    one = what(known)
    with pytest.raises(Refused, match="no longer here"):
        desk(known).png(one, lambda: [("1.2.3", Path("/nowhere/image.dcm"))])
    with pytest.raises(Refused, match="17 slices"):
        desk(known).png(one, lambda: images(known, one), number=17)


def test_kept_pictures_never_take_more_than_their_bound_and_the_oldest_go(tmp_path: Path) -> None:
    files = PictureFiles(tmp_path / "pictures", most_bytes=1000)
    names = [files.name("picture", n) for n in range(8)]
    for name in names:
        files.keep(name, b"x" * 300)
    kept = [name for name in names if files.get(name) is not None]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.png")) <= 1000
    assert kept == names[-len(kept) :] and len(kept) >= 2
    assert PictureFiles(tmp_path / "pictures").get(names[-1]) == b"x" * 300


def test_a_disk_that_takes_nothing_only_costs_time(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("in the way")
    files = PictureFiles(tmp_path / "pictures")
    files.keep(files.name(1), b"x")
    assert files.get(files.name(1)) is None


def test_images_that_come_back_are_counted_again_without_a_restart(known: Imaged, tmp_path: Path) -> None:
    one = what(known)
    copies = [(uid, shutil.copy(path, tmp_path / uid)) for uid, path in images(known, one)]
    pictures = desk(known)
    copies[0][1].rename(tmp_path / "away")
    fewer = pictures.slices(one, lambda: copies)
    assert (fewer.count, pictures.is_whole(one, lambda: copies)) == (len(copies) - 1, False)
    (tmp_path / "away").rename(copies[0][1])
    again = pictures.slices(one, lambda: copies)
    assert (again.count, pictures.is_whole(one, lambda: copies)) == (len(copies), True)
    assert not FindingPictures(lambda _: tmp_path / "gone").is_whole(one, lambda: copies)
