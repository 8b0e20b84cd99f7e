"""Lesions of a patient over several studies, worked off by the worker: who is who, in SEG, SR and rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clinic import QUALITY, A, B, C, Clinic, D, ball, clinic_in
from pydicom import Dataset
from thorax import Ball

from node import offline
from node.decisions import decided
from node.settings import Settings
from plugins.contract import Volume
from plugins.errors import Refused
from plugins.registry import load_plugins
from store import choices
from store.tables import Job, Refusal
from store.tracking import brought
from store.tracking.motion import Motion, Trust


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    with clinic_in(tmp_path, monkeypatch) as made:
        yield made


def _segments(seg: Dataset) -> dict[str, str]:
    return {s.TrackingID: s.TrackingUID for s in seg.SegmentSequence}


def test_lesions_keep_their_identity_when_they_grow_vanish_come_back_and_leave_the_view(
    clinic: Clinic,
) -> None:
    first = clinic.examine("20250101", ball(A, 22), ball(B, 18), ball(C, 16))
    assert list(first) == ["Nodule 1", "Nodule 2", "Nodule 3", "Body"]
    assert clinic.links("20250101") == {}

    second = clinic.examine("20250401", ball(A, 18), ball(C, 16), ball(D, 26), shift_mm=(14.0, -9.0, 11.0))
    assert list(second) == ["Nodule 4", "Nodule 1", "Nodule 3", "Body"]
    assert {n: second[n] for n in ("Nodule 1", "Nodule 3", "Body")} == {
        n: first[n] for n in ("Nodule 1", "Nodule 3", "Body")
    }
    assert second["Nodule 4"] not in first.values()
    assert {n: link.kind for n, link in clinic.links("20250401").items()} == {
        "Nodule 4": "new",
        "Nodule 1": "same",
        "Nodule 3": "same",
        "Nodule 2": "disappeared",
    }
    seg = clinic.written("20250401", "seg")
    assert _segments(seg) == second
    assert [s.SegmentLabel for s in seg.SegmentSequence] == list(second)
    for kind in ("sr-volumetric", "sr-planar"):
        assert _tracking_uids(clinic.written("20250401", kind)) == set(second.values())
    assert {"lesion-new", "lesion-disappeared"} <= set(clinic.told("20250401"))

    third = clinic.examine(
        "20250701", ball(A, 26), ball(B, 18), ball(D, 22), slices=slice(8, None), shift_mm=(-6.0, 4.0, 0.0)
    )
    assert third == {n: {**first, **second}[n] for n in ("Nodule 1", "Nodule 4", "Nodule 2", "Body")}
    kinds = {n: link.kind for n, link in clinic.links("20250701").items()}
    assert kinds == {
        "Nodule 1": "same",
        "Nodule 2": "same",
        "Nodule 4": "same",
        "Nodule 3": "outside-field-of-view",
    }


def _tracking_uids(report: Dataset) -> set[str]:
    found: set[str] = set()

    def visit(item: Dataset) -> None:
        for child in item.get("ContentSequence", []):
            if child.ValueType == "UIDREF" and child.ConceptNameCodeSequence[0].CodeValue == "112040":
                found.add(str(child.UID))
            visit(child)

    visit(report)
    return found


def test_another_patient_of_the_same_shape_has_other_lesions(clinic: Clinic) -> None:
    first = clinic.examine("20250101", ball(A, 22), ball(B, 18))
    other = clinic.examine("20250401", ball(A, 22), ball(B, 18), patient_id="P2")
    assert not set(first.values()) & set(other.values())
    assert list(other) == list(first)
    assert clinic.links("20250401", "P2") == {}


def test_a_follow_up_without_lesions_tells_what_is_gone(clinic: Clinic) -> None:
    first = clinic.examine("20250101", ball(A, 22))
    assert clinic.examine("20250401") == {"Body": first["Body"]}
    (link,) = clinic.links("20250401").values()
    assert (link.kind, link.tracking_uid, link.finding_pk) == ("disappeared", first["Nodule 1"], None)
    assert json.loads(link.earlier) == [first["Nodule 1"]]
    assert "lesion-disappeared" in clinic.told("20250401")


def test_what_a_person_relinked_is_found_under_its_new_name(clinic: Clinic) -> None:
    first = clinic.examine("20250101", ball(A, 22), ball(B, 18))
    second = clinic.examine("20250401", ball(A, 22), ball(B, 18))
    assert second == first
    with clinic.node.database.transaction() as session:
        choices.swap(
            session,
            1,
            first["Nodule 1"],
            first["Nodule 2"],
            author="Dr Who",
            now=clinic.node.database.now(),
            study_instance_uid=clinic.written("20250401", "seg").StudyInstanceUID,
        )
    third = clinic.examine("20250701", ball(A, 26), ball(B, 18))
    by_size = [f.tracking_uid for f in clinic.findings("20250701")]
    assert by_size == [first["Nodule 2"], first["Nodule 1"], first["Body"]]
    assert third == first


def decide(clinic: Clinic, *made: Any, undone: tuple[int, ...] = (), **said: Any) -> list[Job]:
    """Keep a choice of a person after all that was done, and return the jobs that wait then."""
    clinic.seconds_ahead += 100
    about: dict[str, Any] = {
        "author": "Dr Who",
        "now": clinic.node.database.now() + timedelta(seconds=clinic.seconds_ahead - 20),
    }
    with clinic.node.database.transaction() as session:
        kept = [choices.undo(session, 1, number, **about) for number in undone]
        if said:
            kept.append(choices.choose(session, 1, "relink", **said, **about))
        if made:
            kept += choices.swap(session, 1, *made[:2], study_instance_uid=made[2], **about)
        decided(session, Settings(home=clinic.node.home, response_criteria="off"), 1, kept, about["now"])
    return [job for job in clinic.node.rows(Job) if job.state == "queued"]


@pytest.mark.long
def test_a_relink_is_written_once_more_in_every_study_that_it_changes_and_can_be_taken_back(
    clinic: Clinic,
) -> None:
    dates = ("20250101", "20250401", "20250701")
    first, *_ = (clinic.examine(date, ball(A, 22), ball(B, 18)) for date in dates)
    (one, other) = (first["Nodule 1"], first["Nodule 2"])
    before = {date: clinic.written(date, "sr-planar") for date in dates}
    second = before["20250401"].StudyInstanceUID

    assert len(decide(clinic, one, other, second)) == 2
    clinic.work()
    by_size = [[f.tracking_uid for f in clinic.findings(date)][:2] for date in dates]
    assert by_size == [[one, other], [other, one], [other, one]]
    for date in dates[1:]:
        segments = clinic.written(date, "seg").SegmentSequence
        assert [(s.TrackingID, s.TrackingUID) for s in segments[:2]] == [
            ("Nodule 2", other),
            ("Nodule 1", one),
        ]
        report = clinic.written(date, "sr-planar")
        (named,) = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert named.ReferencedSOPInstanceUID == before[date].SOPInstanceUID
    assert {link.reason.partition(";")[0] for link in clinic.links("20250401").values()} == {
        "as a person said"
    }
    assert clinic.written("20250101", "sr-planar").SOPInstanceUID == before["20250101"].SOPInstanceUID
    clinic.work()
    assert len(clinic.node.rows(Job)) == 5

    assert len(decide(clinic, undone=(1, 2))) == 2
    clinic.work()
    assert [clinic.named(date) for date in dates] == [first] * 3

    assert len(decide(clinic, tracking_uid=one, value="new", study_instance_uid=second)) == 2
    clinic.work()
    named = [clinic.named(date) for date in dates]
    assert list(named[1]) == list(named[2]) == ["Nodule 3", "Nodule 2", "Body"]
    assert named[1] == named[2] and named[1]["Nodule 3"] not in first.values()
    assert clinic.links("20250401")["Nodule 3"].kind == "new"


def test_what_cannot_be_laid_on_the_earlier_images_is_neither_gone_nor_surely_new(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = clinic.examine("20250101", ball(A, 22))
    motion = Motion(matrix=np.eye(4), deformation=None, quality=replace(QUALITY, trust=Trust.FAILED))
    monkeypatch.setattr(brought, "register", lambda fixed, moving: motion)
    second = clinic.examine("20250401", ball(A, 22))
    assert set(first.values()) & set(second.values()) == {first["Body"]}
    links = clinic.links("20250401")
    assert {n: link.kind for n, link in links.items()} == {
        "Nodule 1": "outside-field-of-view",
        "Nodule 2": "new",
    }
    assert links["Nodule 2"].confidence == pytest.approx(0.3)
    assert "earlier-not-compared" in clinic.told("20250401")


def test_a_lesion_that_was_missed_and_is_still_visible_is_drawn_at_its_place(clinic: Clinic) -> None:
    first = clinic.examine("20250101", ball(A, 22), ball(B, 18))
    # Too faint to be found, and plainly there.
    second = clinic.examine("20250401", Ball(centre_mm=A, diameter_mm=20, hu=60.0), ball(B, 18))
    assert second == first
    assert list(second) == ["Nodule 2", "Body", "Nodule 1"]
    link = clinic.links("20250401")["Nodule 1"]
    found = next(f for f in clinic.findings("20250401") if f.tracking_identifier == "Nodule 1")
    assert (link.kind, link.finding_pk) == ("re-segmented", found.id)
    assert found.centroid_x_mm == pytest.approx(A[0], abs=2)
    assert "lesion-redrawn" in clinic.told("20250401")
    assert _segments(clinic.written("20250401", "seg")) == second


def test_a_fault_in_what_was_before_costs_the_study_no_result(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.examine("20250101", ball(A, 22))

    def fault(fixed: Volume, moving: Volume) -> Motion:
        raise ValueError("of a patient whose name must not be told")

    monkeypatch.setattr(brought, "register", fault)
    second = clinic.examine("20250401", ball(A, 22))
    assert list(second) == ["Nodule 1", "Body"]
    assert clinic.told("20250401") == ["not-followed"]
    assert not any("name" in row.sentence for row in clinic.node.rows(Refusal))


def test_a_plugin_that_exits_when_asked_for_a_lesion_costs_only_the_comparison(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.examine("20250101", ball(A, 22), ball(B, 18))
    (plugin,) = load_plugins(names=["balls"])
    monkeypatch.setattr(type(plugin), "segment_at", lambda *_: sys.exit(2))
    second = clinic.examine("20250401", Ball(centre_mm=A, diameter_mm=20, hu=60.0), ball(B, 18))
    assert list(second) == ["Nodule 1", "Body"]
    assert clinic.told("20250401") == ["not-followed"]


def test_a_folder_with_the_earlier_study_and_its_results_gives_lesions_their_names(
    clinic: Clinic, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path)
    earlier, later = (
        clinic.study(date, *balls)[0].parent
        for date, balls in (
            ("20250101", (ball(A, 22), ball(B, 18))),
            ("20250401", (ball(A, 14), ball(B, 20))),
        )
    )
    first = offline.analyse_folder(earlier, earlier / "out", settings, plugins=("balls",))
    second = offline.analyse_folder(later, tmp_path / "out", settings, plugins=("balls",), prior=earlier)
    names = [{f["label"]: f["tracking_uid"] for f in report["findings"]} for report in (first, second)]
    assert list(names[1]) == ["Nodule 2", "Nodule 1", "Body"]
    assert names[1] == names[0]
    assert [f.get("link") for f in second["findings"]] == ["same", "same", None]
    stranger = clinic.study("20250501", ball(A, 22), patient_id="P2")[0].parent
    with pytest.raises(Refused, match="not of this patient"):
        offline.analyse_folder(stranger, tmp_path / "out", settings, plugins=("balls",), prior=earlier)
