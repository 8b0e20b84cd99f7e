"""Lesions of a study of several series, laid beside a study of other series in one space."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from clinic import QUALITY
from shapes import grid

from plugins import codes
from plugins.contract import Finding, Mask, Patient, Study, Volume
from store.tracking import brought
from store.tracking.brought import Motions, Scene, Standing
from store.tracking.earlier import EarlierSeries, Region
from store.tracking.link import Kind, Link, was_compared
from store.tracking.motion import Motion
from store.tracking.story import HARDLY_NEW, Story

NOW = "1.2.9"
"""Frame of reference of the new study."""


@pytest.fixture(autouse=True)
def still_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        brought, "register", lambda *_: Motion(matrix=np.eye(4), deformation=None, quality=QUALITY)
    )


def pet(uid: str, slices: tuple[int, int] = (0, 60), frame: str = NOW) -> Volume:
    """Return a PET of voxels of 4 mm that shows some slices of a body, never of one value."""
    low, high = slices
    made = grid(
        (high - low, 30, 30),
        (4.0, 4.0, 4.0),
        role="pet_suv",
        start_mm=(0.0, 0.0, 4.0 * low),
        series_instance_uid=uid,
        frame_of_reference_uid=frame,
    )
    made.array[...] = np.random.default_rng(3).uniform(0.5, 1.5, made.array.shape)
    return made


def cube(volume: Volume, at: int, side: int = 4) -> Mask:
    """Return a cube of voxels whose lowest slice is this one of the body."""
    k = at - round(volume.slice_positions[0][2] / 4)
    shape: Any = volume.array.shape
    return Mask(shape=shape, origin=(k, 10, 10), voxels=np.ones((side,) * 3, dtype=np.bool_))


def earlier(
    monkeypatch: pytest.MonkeyPatch, volume: Volume, lesions: dict[str, Mask], study: str = "1.1"
) -> EarlierSeries:
    class Held(EarlierSeries):
        def masks(self, volume: Volume) -> dict[int, Mask]:
            return dict(enumerate(lesions.values()))

    regions = tuple(
        Region(
            number=n,
            label=uid,
            tracking_uid=uid,
            tracking_identifier=uid,
            category=codes.MORPHOLOGICALLY_ABNORMAL,
            type=codes.LESION,
            site=None,
            laterality=None,
        )
        for n, uid in enumerate(lesions)
    )
    made = Held(
        study_instance_uid=study,
        study_date="2025-01-01",
        series_instance_uid=volume.series_instance_uid,
        modality="PT",
        description="",
        regions=regions,
        segmentation=None,  # type: ignore[arg-type]
        files=(),
    )
    made.__dict__["volume"] = volume
    monkeypatch.setattr(brought, "_frame_of", lambda series: series.volume.frame_of_reference_uid or "")
    return made


def finding(volume: Volume, mask: Mask) -> Finding:
    return Finding(
        key=f"at {volume.centroid_mm(mask)[2]:g}",
        label="PET lesion",
        series_instance_uid=volume.series_instance_uid,
        mask=mask,
        category=codes.MORPHOLOGICALLY_ABNORMAL,
        type=codes.LESION,
        measurements=(),
    )


def links(earlier: list[EarlierSeries], volumes: list[Volume], *found: Finding) -> dict[str, Link]:
    study = Study(
        study_instance_uid="1.9",
        patient=Patient(patient_id="P"),
        study_date=None,
        volumes=tuple(volumes),
    )
    scene = Scene(study=study, looked_at={f.series_instance_uid for f in found}, motions=Motions())
    scene.take(earlier, Standing.EARLIER)
    story = Story(plugin="p", study=study, lesions=found, scene=scene, pins={}, was_compared=False, known=())
    return {link.tracking_uid: link for link in story.told()[1]}


def test_a_second_reconstruction_is_compared_though_the_first_one_is_not_measured_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, now = pet("1.1.1", frame="1.2.8"), pet("1.9.2")
    told = links(
        [earlier(monkeypatch, before, {"A": cube(before, 20)})],
        [pet("1.9.1"), now],
        finding(now, cube(now, 20)),
    )
    assert {uid: link.kind for uid, link in told.items()} == {"A": Kind.SAME}


def test_lesions_of_two_bed_ranges_are_found_again_on_one_whole_body(monkeypatch: pytest.MonkeyPatch) -> None:
    body, head, now = pet("1.1.1", (0, 35), "1.2.8"), pet("1.1.2", (30, 60), "1.2.8"), pet("1.9.1")
    before = [
        earlier(monkeypatch, body, {"A": cube(body, 10)}),
        earlier(monkeypatch, head, {"B": cube(head, 50)}),
    ]
    told = links(before, [now], finding(now, cube(now, 10)), finding(now, cube(now, 50)))
    assert {uid: link.kind for uid, link in told.items()} == {"A": Kind.SAME, "B": Kind.SAME}


def test_lesions_of_a_whole_body_are_found_again_on_two_bed_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, body, head = pet("1.1.1", frame="1.2.8"), pet("1.9.1", (0, 35)), pet("1.9.2", (30, 60))
    before = [earlier(monkeypatch, whole, {"A": cube(whole, 10), "B": cube(whole, 50)})]
    found = [finding(body, cube(body, 10)), finding(head, cube(head, 50)), finding(head, cube(head, 40))]
    told = links(before, [body, head], *found)
    assert {uid: told[uid].kind for uid in "AB"} == {"A": Kind.SAME, "B": Kind.SAME}
    (new,) = (link for uid, link in told.items() if uid not in "AB")
    assert new.kind is Kind.NEW
    assert was_compared(new.reason)
    assert new.confidence > 0.9


def test_a_lesion_that_was_drawn_on_two_series_of_one_place_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, now = pet("1.1.1", frame="1.2.8"), pet("1.1.2", frame="1.2.8"), pet("1.9.1")
    before = [
        earlier(monkeypatch, first, {"A": cube(first, 20), "C": cube(first, 40, 6)}),
        earlier(monkeypatch, second, {"B": cube(second, 20), "D": cube(second, 43)}),
    ]
    told = links(before, [now], finding(now, cube(now, 20)), finding(now, cube(now, 40, 6)))
    assert {uid: link.kind for uid, link in told.items()} == {
        "A": Kind.SAME,
        "C": Kind.SAME,
        "D": Kind.OUT_OF_VIEW,
    }
    assert told["D"].reason == "it reaches over the place of 'C', drawn on another series of its study"


def test_what_lies_at_the_place_of_a_known_lesion_on_a_second_series_is_hardly_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, now, second = pet("1.1.1", frame="1.2.8"), pet("1.9.1"), pet("1.9.2")
    found = [finding(v, cube(v, 20)) for v in (now, second)]
    given = [earlier(monkeypatch, before, {"A": cube(before, 20)})]
    told = links(given, [now, second], *found)
    assert told.pop("A").kind is Kind.SAME
    (new,) = told.values()
    assert (new.kind, new.confidence) == (Kind.NEW, HARDLY_NEW)
    assert not was_compared(new.reason)
    assert "'A' is expected there on another series" in new.reason
    elsewhere = replace(second, geometry=pet("1.9.2", frame="1.2.7").geometry)
    sure = links(given, [now, elsewhere], *found)
    assert [k.confidence > HARDLY_NEW for uid, k in sure.items() if uid != "A"] == [True]
