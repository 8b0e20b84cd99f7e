"""Who lesions are when drawings bring names of their own, and when only later studies know them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from thorax import SERIES, ct_volume, study_of

from plugins import codes
from plugins.contract import Finding, Mask, Volume
from store.tracking.brought import Brought, Motions, Scene, Standing
from store.tracking.earlier import EarlierSeries, Region
from store.tracking.lesion import EarlierLesion
from store.tracking.link import Kind, Link, was_compared
from store.tracking.past import Named
from store.tracking.story import Pin, Story, place_of


@pytest.fixture(scope="module")
def volume() -> Volume:
    affine = np.array([[0, 0, 2.0, 0], [0, 2.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]])
    return ct_volume(np.zeros((40, 40, 40), dtype=np.float32), affine)


def cube(at: int, side: int = 4) -> Mask:
    return Mask(shape=(40, 40, 40), origin=(at, at, at), voxels=np.ones((side,) * 3, dtype=np.bool_))


def finding(key: str, at: int, **more: Any) -> Finding:
    return Finding(
        key=key,
        label=more.pop("label", key),
        series_instance_uid=SERIES,
        mask=cube(at),
        category=codes.MORPHOLOGICALLY_ABNORMAL,
        type=codes.LESION,
        measurements=(),
        **more,
    )


def earlier(volume: Volume, uid: str, name: str, at: int, standing: Standing = Standing.EARLIER) -> Brought:
    region = Region(
        number=1,
        label=name,
        tracking_uid=uid,
        tracking_identifier=name,
        category=None,
        type=None,
        site=None,
        laterality=None,
    )
    series: Any = EarlierSeries(
        study_instance_uid="1.9",
        study_date="2025-01-01",
        series_instance_uid="1.9.1",
        modality="CT",
        description="",
        regions=(region,),
        segmentation=None,  # type: ignore[arg-type]
        files=(),
    )
    mask = cube(at)
    lesion = EarlierLesion(
        tracking_uid=uid,
        tracking_identifier=name,
        study_instance_uid="1.9",
        expected_mm=volume.centroid_mm(mask),
        expected_mask=mask,
        volume_mm3=mask.count * volume.voxel_volume_mm3,
        in_view=1.0,
    )
    return Brought(standing=standing, series=series, region=region, lesion=lesion, volume=volume)


def told(
    volume: Volume, lesions: list[Finding], *known: Brought, **more: Any
) -> tuple[dict[str, str], dict[str, Link]]:
    """Return the Tracking UID of each finding by its key, and the links by Tracking UID."""
    study = study_of(volume)
    scene = Scene(study=study, looked_at={SERIES}, motions=Motions(), **more.pop("scene", {}))
    scene.lesions.update({b.lesion.tracking_uid: b for b in known})
    values: dict[str, Any] = {"pins": {}, "was_compared": False, "known": (), **more}
    story = Story(plugin="p", study=study, lesions=lesions, scene=scene, **values)
    names, links = story.told()
    return {key: name.tracking_uid for (_, key), name in names.items()}, {k.tracking_uid: k for k in links}


def test_a_name_that_no_study_knows_gives_way_to_that_of_the_lesion_at_its_place(volume: Volume) -> None:
    drawn = finding("a", 10, tracking_uid="2.25.77", tracking_identifier="T1", automatic=False)
    uids, links = told(volume, [drawn], earlier(volume, "1.1", "Tumour", 10))
    assert uids == {"a": "1.1"}
    assert links["1.1"].kind is Kind.SAME


def test_a_new_name_beside_a_known_one_is_meant(volume: Volume) -> None:
    known = finding("a", 25, tracking_uid="1.1", automatic=False)
    new = finding("b", 10, tracking_uid="2.25.77", automatic=False)
    uids, links = told(volume, [known, new], earlier(volume, "1.1", "Tumour", 10))
    assert uids == {"a": "1.1", "b": "2.25.77"}
    assert links["1.1"].kind is Kind.SAME
    assert (links["2.25.77"].kind, links["2.25.77"].confidence) == (Kind.NEW, 1.0)


def test_a_name_that_another_analysis_gave_is_one_of_ours(volume: Volume) -> None:
    new = finding("b", 10, tracking_uid="2.25.77", automatic=False)
    place = earlier(volume, "1.1", "Tumour", 10)
    assert told(volume, [new], place, others=("2.25.77",))[0] == {"b": "2.25.77"}


def test_a_drawing_under_the_name_of_a_lesion_of_another_series_is_that_lesion(volume: Volume) -> None:
    elsewhere = replace(earlier(volume, "1.1", "Tumour", 10), volume=None, reason="no such series")
    uids, links = told(volume, [finding("a", 30, tracking_uid="1.1", automatic=False)], elsewhere)
    assert uids == {"a": "1.1"}
    assert (links["1.1"].kind, links["1.1"].earlier, len(links)) == (Kind.SAME, ("1.1",), 1)


def test_a_later_study_gives_a_name_and_no_link_to_what_was_before(volume: Volume) -> None:
    uids, links = told(
        volume,
        [finding("a", 10), finding("b", 30)],
        earlier(volume, "1.1", "Nodule 1", 10, Standing.LATER),
        earlier(volume, "1.2", "Nodule 2", 20, Standing.LATER),
    )
    assert uids["a"] == "1.1"
    assert (links["1.1"].kind, links["1.1"].earlier, links["1.1"].study_instance_uid) == (Kind.NEW, (), "")
    assert "1.2" not in links
    assert len(links) == 2


def test_what_was_said_of_the_study_before_stands_when_it_was_compared_then(volume: Volume) -> None:
    one = finding("a", 10)
    pins = {
        place_of(one): Pin(name=Named(tracking_uid="3.3", tracking_identifier="Nodule 8"), confidence=0.7)
    }
    place = earlier(volume, "1.1", "Nodule 1", 10)
    uids, links = told(volume, [one], place, pins=pins, was_compared=True)
    assert uids == {"a": "3.3"}
    assert (links["3.3"].kind, links["3.3"].confidence) == (Kind.NEW, 0.7)
    assert links["1.1"].kind is Kind.GONE
    uids, _ = told(volume, [one], place, pins=pins, was_compared=False)
    assert uids == {"a": "1.1"}


@pytest.mark.parametrize("was_compared", [True, False], ids=["kept", "looked at again"])
def test_a_lesion_that_could_not_be_compared_is_told_so_in_every_analysis(
    volume: Volume, was_compared: bool
) -> None:
    one, scene = finding("a", 10), {"incomplete": {SERIES}}
    uids, links = told(volume, [one], scene=scene)
    first = links[uids["a"]]
    assert first.reason == "no earlier lesion is known; not all earlier lesions could be compared"
    assert (first.kind, first.confidence) == (Kind.NEW, 0.3)
    name = Named(tracking_uid=uids["a"], tracking_identifier="Nodule 1")
    pins = {place_of(one): Pin(name=name, confidence=first.confidence)}
    again = told(volume, [one], scene=scene, pins=pins, was_compared=was_compared)[1][uids["a"]]
    assert (
        again.reason == "as in the earlier analysis of this study; not all earlier lesions could be compared"
    )
    assert (again.kind, again.confidence) == (Kind.NEW, 0.3)


def test_the_name_of_a_later_study_hides_no_doubt_about_the_earlier_ones(volume: Volume) -> None:
    later = earlier(volume, "1.1", "Nodule 1", 10, Standing.LATER)
    _, links = told(volume, [finding("a", 10)], later, scene={"incomplete": {SERIES}})
    assert (links["1.1"].kind, links["1.1"].confidence) == (Kind.NEW, 0.3)
    assert links["1.1"].reason.startswith("no earlier study shows it;")
    assert not was_compared(links["1.1"].reason)


def test_an_identity_that_was_given_to_something_else_is_not_given_again(volume: Volume) -> None:
    first, _ = told(volume, [finding("a", 10)])
    known = (Named(tracking_uid=first["a"], tracking_identifier="Nodule 1"),)
    again, _ = told(volume, [finding("a", 10)], known=known)
    assert again["a"] != first["a"]
    assert told(volume, [finding("a", 10)], known=known)[0] == again
