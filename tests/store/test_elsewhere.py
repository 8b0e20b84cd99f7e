"""What another node measured, out of the SEG and SR that came from the PACS."""

from __future__ import annotations

import hashlib
from datetime import date

import pytest
from course_rows import Clock, Linked, lesion, patient_pk, visit
from results_elsewhere import bring
from small_results import Case, make_case, with_finding

from plugins import codes
from plugins.contract import Measurement
from store.course import course
from store.database import Database
from store.objects import ObjectStore
from store.response.history import Reference, Role, Status
from store.tracking.link import Kind

JANUARY, MARCH = date(2026, 1, 10), date(2026, 3, 10)


@pytest.fixture
def database(sqlite: Database) -> Database:
    return sqlite


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("elsewhere"))


def test_what_was_measured_elsewhere_is_part_of_the_course(
    database: Database, objects: ObjectStore, case: Case
) -> None:
    nodule = case.findings[0]
    with database.transaction() as session:
        seg = case.seg()
        kept = bring(session, objects, seg)
        bring(session, objects, case.planar(seg))
        bring(session, objects, case.volumetric(seg))
        uid = nodule.tracking_uid
        same = Linked(kind=Kind.SAME, uid=uid, earlier=[uid], study=seg.StudyInstanceUID)
        visit(session, Clock(seconds=10, studies=9), MARCH, [lesion(uid, 30)], [same])
        pk = patient_pk(session)
        found = course(session, pk, objects)
        assert [v.date for v in course(session, pk).history().visits] == [MARCH]
    first = next(one for one in found.sightings if one.lesion == uid)
    assert (
        len([one for one in found.sightings if one.date == JANUARY]) == 2
    )  # two nodules, and the lung is none
    assert (first.date, first.label, first.plugin, first.plugin_version) == (
        JANUARY,
        "Nodule 1",
        "lung_nodule",
        "1.2",
    )
    assert (first.seg_sha256, first.segment_number, first.confidence) == (kept.sha256, 1, 0.875)
    assert first.series_instance_uid == case.volume.series_instance_uid
    measured = nodule.finding.measurement("long_axis").value
    assert first.measurements["long_axis"].value == pytest.approx(measured, rel=1e-9)
    assert (first.site, first.status, first.automatic) == ("Lung", Status.MEASURED, True)
    roles = {one.lesion: one.role for one in found.history().visits[1].seen}
    assert roles == {uid: Role.TARGET}
    assert found.analysed == ((JANUARY, "lung_nodule"), (MARCH, "lung_nodule"))


def test_the_liver_that_another_node_measured_is_the_reference_of_its_lesions(
    database: Database, objects: ObjectStore, case: Case
) -> None:
    told = (
        ("suv_mean", codes.SUV_BW, 2.0, codes.SUV_BW_UNIT, codes.MEAN),
        ("sul_mean", codes.SUV_LBM_JANMA, 1.6, codes.SUV_LBM_JANMA_UNIT, codes.MEAN),
        ("sul_sd", codes.SUV_LBM_JANMA, 0.2, codes.SUV_LBM_JANMA_UNIT, codes.STANDARD_DEVIATION),
        ("uptake_time", codes.UPTAKE_TIME, 61.5, codes.MINUTE, None),
        ("injected_activity", codes.ADMINISTERED_ACTIVITY, 300.0, codes.MEGABECQUEREL, None),
    )
    numbers = tuple(
        Measurement(
            name=name, concept=concept, value=value, unit=unit, method="by hand", derivation=derivation
        )
        for name, concept, value, unit, derivation in told
    )
    peak = Measurement(
        name="sul_peak",
        concept=codes.SUV_LBM_JANMA,
        value=8.0,
        unit=codes.SUV_LBM_JANMA_UNIT,
        method="by hand",
        derivation=codes.PEAK,
    )
    hot = with_finding(case, 1, measurements=(*case.findings[0].finding.measurements, peak))
    pet = with_finding(
        hot,
        2,
        category=codes.SPATIAL_CONCEPT,
        type=codes.REFERENCE_REGION,
        site=codes.LIVER,
        laterality=None,
        measurements=numbers,
    )
    with database.transaction() as session:
        bring(session, objects, pet.volumetric(pet.seg()))
        found = course(session, patient_pk(session), objects)
    (visited,) = found.history("percist").visits
    assert [(one.lesion, one.suv_peak) for one in visited.seen] == [(case.findings[0].tracking_uid, 8.0)]
    assert visited.reference == Reference(
        liver_mean=1.6, liver_sd=0.2, uptake_minutes=61.5, injected_mbq=300.0
    )


def test_of_several_versions_the_newest_counts_and_what_this_node_made_before_all(
    database: Database, objects: ObjectStore, case: Case
) -> None:
    with database.transaction() as session:
        seg = case.seg()
        old = case.volumetric(seg)
        bring(session, objects, old)
        newer = case.nothing(predecessors=[old])
        newer.SOPInstanceUID = "2.25.900"
        bring(session, objects, newer)
        pk = patient_pk(session)
        nothing = course(session, pk, objects)
        visit(session, Clock(seconds=10), JANUARY, [lesion("2.25.7")], study=seg.StudyInstanceUID)
        here = course(session, pk, objects)
    assert nothing.sightings == ()
    assert [one.lesion for one in here.sightings] == ["2.25.7"]


def test_an_object_that_is_gone_or_broken_is_passed_over(
    database: Database, objects: ObjectStore, case: Case
) -> None:
    with database.transaction() as session:
        report = case.volumetric(case.seg())
        kept = bring(session, objects, report)
        objects.path(kept.sha256).unlink()
        report.SOPInstanceUID = "2.25.901"
        broken = bring(session, objects, report)
        objects.path(broken.sha256).write_bytes(b"\0" * 128 + b"DICM" + hashlib.sha256(b"x").digest())
        assert course(session, patient_pk(session), objects).sightings == ()
