from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from thorax import ct_volume, study_of
from tiny_segmenter import bright_segmenter

from plugins.contract import Mark, Plugin, Study, Volume, parted
from plugins.errors import Refused
from plugins.marked_lesion import MarkedLesion
from plugins.nodule_drawing import choose

SPACING = (2.0, 0.8, 0.8)


@pytest.fixture(scope="module")
def volume() -> Volume:
    """Return lung with two balls of 12 and 8 mm, around 20, 20, 20 and 44, 40, 30 mm."""
    hu = np.full((25, 70, 70), -850.0, dtype=np.float32)
    z, y, x = np.meshgrid(*[np.arange(n) * s for n, s in zip(hu.shape, SPACING, strict=True)], indexing="ij")
    for centre, radius in (((20, 20, 20), 6), ((44, 40, 30), 4)):
        hu[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 <= radius**2] = 30
    affine = np.array([[0, 0, 0.8, 0], [0, 0.8, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]])
    return ct_volume(hu, affine)


def mark(x: float, y: float, z: float, **more: Any) -> Mark:
    told = {"label": "", "source": "SR", "made_by": "Doe Jane", **more}
    return Mark(point_mm=(x, y, z), **told)


def marked(volume: Volume, *marks: Mark) -> Study:
    return replace(study_of(volume), marks=marks)


@pytest.fixture
def plugin() -> MarkedLesion:
    made = MarkedLesion()
    made.__dict__["drawer"] = bright_segmenter()
    return made


def test_it_follows_the_contract_and_applies_where_somebody_marked(
    plugin: MarkedLesion, volume: Volume
) -> None:
    assert isinstance(plugin, Plugin)
    assert plugin.model is not None
    assert plugin.model.kind == "learned"
    assert plugin.accepts(marked(volume, mark(20, 20, 20)))
    assert not plugin.accepts(study_of(volume))


def test_every_mark_gives_a_lesion_that_says_who_marked_it(plugin: MarkedLesion, volume: Volume) -> None:
    marks = (mark(21, 20, 20, label="Target 1"), mark(44, 40, 30, tracking_uid="1.2.3"))
    found, flags = parted(plugin.run(marked(volume, *marks)))
    assert flags == ()
    assert [f.label for f in found] == ["Target 1", "Marked lesion 2"]
    assert found[1].tracking_uid == "1.2.3"
    assert found[0].measurement("long_axis").value == pytest.approx(12, abs=1.2)
    assert found[0].measurement("volume").uncertainty > 0
    assert found[0].measurement("short_axis").uncertainty is None
    assert {"entropy", "disagreement", "dice_deficit"} < found[0].uncertainties.keys()
    told = found[0].flags[0]
    assert (told.code, told.plugin) == ("marked-by", "marked_lesion")
    assert "Doe Jane" in told.sentence
    assert "90 %" in told.sentence
    assert all(f.automatic for f in found)


def test_a_mark_beside_any_lesion_outside_or_twice_on_one_is_told(
    plugin: MarkedLesion, volume: Volume
) -> None:
    marks = (mark(20, 20, 20), mark(22, 21, 20), mark(10, 45, 40), mark(500, 0, 0))
    found, flags = parted(plugin.run(marked(volume, *marks)))
    assert len(found) == 1
    assert [f.code for f in flags] == ["same-lesion", "no-lesion-at-mark", "mark-outside"]


def test_marks_that_lie_on_no_ct_are_refused(plugin: MarkedLesion, volume: Volume) -> None:
    with pytest.raises(Refused, match="no-mark"):
        plugin.run(marked(volume, mark(500, 0, 0)))
    with pytest.raises(Refused, match="no-mark"):
        plugin.run(marked(volume, mark(20, 20, 20, frame_of_reference_uid="9.9")))


def beside_a_reformat(volume: Volume) -> tuple[Volume, Volume]:
    """Return the volume as series 2 and, with thinner slices, as the coronal series 3 that was made of it."""
    turned = volume.geometry.affine[:, [1, 0, 2, 3]]
    coronal = ct_volume(volume.array.transpose(1, 0, 2), turned)
    return (
        replace(volume, series_number=2),
        replace(coronal, series_instance_uid="1.1", series_number=3, is_reformatted=True),
    )


def test_a_lesion_is_measured_on_the_acquired_series_and_which_one_of_several_is_told_once(
    plugin: MarkedLesion, volume: Volume
) -> None:
    axial, coronal = beside_a_reformat(volume)
    assert coronal.spacing_mm[0] < axial.spacing_mm[0]
    marks = (mark(20, 20, 20, source="request"), mark(44, 40, 30))
    found, flags = parted(plugin.run(replace(study_of(coronal, axial), marks=marks)))
    alone, _ = parted(plugin.run(replace(study_of(axial), marks=marks)))
    assert [f.series_instance_uid for f in found] == [axial.series_instance_uid] * 2
    assert [f.measurements for f in found] == [f.measurements for f in alone]
    assert [(f.code, f.plugin, f.is_note) for f in flags] == [("several-series", "marked_lesion", True)]
    assert "of 2 CT series, series 2 was taken" in flags[0].sentence


def test_a_reformat_serves_where_nothing_else_shows_the_place_or_it_was_marked_and_says_so(
    plugin: MarkedLesion, volume: Volume
) -> None:
    axial, coronal = beside_a_reformat(volume)
    for study, one in (
        (study_of(coronal), mark(20, 20, 20)),
        (study_of(axial, coronal), mark(20, 20, 20, series_instance_uid="1.1")),
    ):
        found, flags = parted(plugin.run(replace(study, marks=(one,))))
        assert [f.series_instance_uid for f in found] == ["1.1"]
        assert [(f.code, f.is_note) for f in flags] == [("reformatted", False)]


def test_a_mark_is_measured_in_its_own_frame_of_reference_and_one_without_is_doubted(
    plugin: MarkedLesion, volume: Volume
) -> None:
    first = replace(volume, series_number=1)
    elsewhere = ct_volume(volume.array, volume.geometry.affine, frame="1.2.9")
    other = replace(elsewhere, series_instance_uid="1.1", series_number=2)
    for frame, uid in ((volume.frame_of_reference_uid, volume.series_instance_uid), ("1.2.9", "1.1")):
        one = mark(20, 20, 20, frame_of_reference_uid=frame)
        found, flags = parted(plugin.run(replace(study_of(first, other), marks=(one,))))
        assert ([f.series_instance_uid for f in found], flags) == ([uid], ())
    marks = (mark(20, 20, 20), mark(44, 40, 30))
    found, flags = parted(plugin.run(replace(study_of(first, other), marks=marks)))
    assert [f.series_instance_uid for f in found] == [volume.series_instance_uid] * 2
    assert [f.code for f in flags] == ["several-series", "several-frames-of-reference"]
    assert "series 1 was measured, and in that of series 2 it is another place" in flags[1].sentence


def test_its_keys_follow_the_place_and_not_the_order(plugin: MarkedLesion, volume: Volume) -> None:
    one, two = mark(20, 20, 20), mark(44, 40, 30)
    keys = [{f.key for f in parted(plugin.run(marked(volume, *m)))[0]} for m in ((one, two), (two, one))]
    assert keys[0] == keys[1]


def test_without_weights_the_best_is_the_classical_one_and_the_learned_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("models.shipped.VOUCHED", {})
    assert choose("best").card.kind == "classical"
    with pytest.raises(Refused, match="no-segmenter"):
        choose("learned")
    with pytest.raises(ValueError, match="segmenter"):
        MarkedLesion(segmenter="other")  # type: ignore[arg-type]
