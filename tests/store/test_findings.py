from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger import at, kept, queued, settled
from sqlalchemy import event
from sqlmodel import Session, select

from plugins.errors import Broken
from store import jobs, outbox
from store.analysed import SeriesFacts
from store.database import Database
from store.findings import AnalysedFindings, Coded, Found, Measured, Told, Written, list_findings, save
from store.model_tables import FindingDoubt, SeriesFact
from store.tables import Finding, Job, Measurement, Refusal, Result

TISSUE = Coded(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure")
NODULE = Coded(value="27925004", scheme="SCT", meaning="Nodule")
LUNG = Coded(value="39607008", scheme="SCT", meaning="Lung")
RIGHT = Coded(value="24028007", scheme="SCT", meaning="Right")
LENGTH = Coded(value="103339001", scheme="SCT", meaning="Long Axis")

AXIS = Measured(
    name="long_axis",
    concept=LENGTH,
    value=12.5,
    unit="mm",
    method="0.5-level contour",
    derivation_meaning="Maximum",
    uncertainty=0.25,
    end_points_mm=((1.0, 2.0, 3.0), (4.0, 5.0, 3.0)),
    sop_instance_uid="1.2.3.1.1",
)
VOLUME = Measured(name="volume", concept=LENGTH, value=1000.0, unit="mm3", method="voxels")
FOUND = Found(
    label="Nodule 1",
    tracking_identifier="T-1",
    tracking_uid="2.25.77",
    series_instance_uid="1.2.3.1",
    segment_number=1,
    category=TISSUE,
    type=NODULE,
    site=LUNG,
    laterality=RIGHT,
    confidence=0.75,
    automatic=False,
    centroid_mm=(10.0, -20.0, 30.5),
    measurements=(AXIS, VOLUME),
    flags=(Told(code="touches-edge", sentence="It touches the edge."),),
    uncertainties=(("entropy", 0.25), ("disagreement", 0.5)),
)
BARE = Found(
    label="Nodule 2",
    tracking_identifier="T-2",
    tracking_uid="2.25.78",
    series_instance_uid="1.2.3.1",
    segment_number=2,
    category=TISSUE,
    type=NODULE,
    centroid_mm=(0.0, 0.0, 0.0),
)
SEG = Written(
    kind="seg", sop_instance_uid="2.25.1", sop_class_uid="1.2", series_instance_uid="2.25.2", path="a.dcm"
)
REPORT = Written(
    kind="sr-planar", sop_instance_uid="2.25.3", sop_class_uid="1.3", series_instance_uid="2.25.4", path="b"
)
FACTS = SeriesFacts(
    series_instance_uid="1.2.3.1",
    modality="CT",
    manufacturer="ACME",
    manufacturer_model_name="One",
    convolution_kernel="B70f",
    slice_distance_mm=1.25,
    pixel_spacing_mm=0.7,
    slices=300,
    unit="[hnsf'U]",
    histogram=(0.25, 0.75),
)
WHOLE = AnalysedFindings(
    found=(FOUND, BARE),
    told=(Told(code="localizer", sentence="A localizer.", series_instance_uid="1.2.3.8", refused=True),),
    written=(SEG, REPORT),
    series=(FACTS,),
)
KEPT = {"2.25.1": kept("seg"), "2.25.3": kept("report")}


def saved(session: Session, analysed: AnalysedFindings = WHOLE) -> tuple[Job, list[Result]]:
    queued(session, settled(session), plugin="lung_nodule")
    job = jobs.claim(session, "w", at(0), 60)
    assert job is not None
    return job, save(session, job, analysed, KEPT, at(1))


def test_what_crosses_the_process_border_comes_back_equal() -> None:
    assert AnalysedFindings.from_json(WHOLE.to_json()) == WHOLE
    assert AnalysedFindings.from_json(AnalysedFindings().to_json()) == AnalysedFindings()


@given(value=st.floats(allow_nan=False, allow_infinity=False), label=st.text())
def test_every_number_and_text_crosses_the_border_unchanged(value: float, label: str) -> None:
    measured = Measured(name="x", concept=LENGTH, value=value, unit="mm", method=label)
    found = replace(BARE, label=label, measurements=(measured,))
    analysed = AnalysedFindings(found=(found,), told=(Told(code="x", sentence=label),))
    assert AnalysedFindings.from_json(analysed.to_json()) == analysed


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_broken(value: float) -> None:
    with pytest.raises(Broken):
        Measured(name="x", concept=LENGTH, value=value, unit="mm", method="")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"found": 3, "told": [], "written": []}',
        '{"found": [{}], "told": [], "written": []}',
    ],
)
def test_a_text_of_another_kind_is_broken(text: str) -> None:
    with pytest.raises(Broken):
        AnalysedFindings.from_json(text)


def test_every_field_is_in_its_column(database: Database) -> None:
    with database.transaction() as session:
        job, _ = saved(session)
    with database.reading() as session:
        first, second = session.exec(select(Finding).order_by(Finding.id)).all()  # type: ignore[arg-type]
        axis, volume = session.exec(select(Measurement).order_by(Measurement.id)).all()  # type: ignore[arg-type]
        reasons = {(row.code, row.series_instance_uid, row.refused) for row in session.exec(select(Refusal))}
    assert (first.label, first.tracking_uid, first.segment_number, first.job_pk) == (
        "Nodule 1",
        "2.25.77",
        1,
        job.id,
    )
    assert (first.category_value, first.type_meaning, first.site_scheme) == ("49755003", "Nodule", "SCT")
    assert (first.laterality_meaning, first.confidence, first.automatic, first.superseded) == (
        "Right",
        0.75,
        False,
        False,
    )
    assert (first.centroid_x_mm, first.centroid_y_mm, first.centroid_z_mm) == (10.0, -20.0, 30.5)
    assert (second.site_value, second.confidence, second.automatic) == (None, None, True)
    assert (axis.value, axis.unit, axis.method, axis.uncertainty) == (12.5, "mm", "0.5-level contour", 0.25)
    assert (axis.x1_mm, axis.y1_mm, axis.z1_mm, axis.x2_mm, axis.y2_mm, axis.z2_mm) == (1, 2, 3, 4, 5, 3)
    assert (axis.derivation_meaning, axis.sop_instance_uid) == ("Maximum", "1.2.3.1.1")
    assert (axis.plugin, axis.plugin_version, axis.model_sha256) == ("lung_nodule", "1", "m")
    assert (volume.name, volume.x1_mm, volume.sop_instance_uid) == ("volume", None, None)
    assert reasons == {("localizer", "1.2.3.8", True), ("touches-edge", None, False)}


def test_results_are_rows_in_the_order_of_writing_and_go_into_the_outbox_in_it(database: Database) -> None:
    with database.transaction() as session:
        job, results = saved(session)
        assert [(row.kind, row.sha256, row.size_bytes) for row in results] == [
            ("seg", kept("seg").sha256, 3),
            ("sr-planar", kept("report").sha256, 6),
        ]
        for row in results:
            outbox.add(session, row, ["A@h:1"], at(1))
        assert jobs.finish(session, int(job.id or 0), 1, jobs.DELIVERING, at(1)) == "delivering"
        assert [d.result_pk for d in outbox.list_deliveries(session)] == [row.id for row in results]


def test_an_object_that_was_not_kept_is_broken_and_nothing_is_saved(database: Database) -> None:
    with database.transaction() as session:
        queued(session, settled(session))
        job = jobs.claim(session, "w", at(0), 60)
        assert job is not None
    with pytest.raises(Broken), database.transaction() as session:
        save(session, job, WHOLE, {}, at(1))
    with database.reading() as session:
        assert session.exec(select(Finding)).all() == []


def test_a_second_attempt_replaces_what_the_first_one_told(database: Database) -> None:
    with database.transaction() as session:
        job, _ = saved(session)
        jobs.fail(session, int(job.id or 0), 1, "no-images", "Nothing to measure.", at(1), permanent=True)
        jobs.retry(session, int(job.id or 0), at(2))
        again = jobs.claim(session, "w", at(2), 60)
        assert again is not None
        save(session, again, WHOLE, KEPT, at(3))
        assert len(session.exec(select(Finding)).all()) == 2
        assert len(session.exec(select(Measurement)).all()) == 2
        assert len(session.exec(select(Refusal)).all()) == 2
        assert len(session.exec(select(Result)).all()) == 2
        assert len(session.exec(select(FindingDoubt)).all()) == 2
        assert len(session.exec(select(SeriesFact)).all()) == 1


def test_what_a_series_was_like_and_how_unsure_the_networks_were_are_rows(database: Database) -> None:
    with database.transaction() as session:
        job, _ = saved(session)
    with database.reading() as session:
        (fact,) = session.exec(select(SeriesFact)).all()
        first = session.exec(select(Finding.id).where(Finding.label == "Nodule 1")).one()
        doubts = {(d.finding_pk, d.name, d.value) for d in session.exec(select(FindingDoubt))}
    assert doubts == {(first, "entropy", 0.25), (first, "disagreement", 0.5)}
    assert (fact.job_pk, fact.at, fact.plugin, fact.model_sha256) == (job.id, at(1), "lung_nodule", "m")
    assert (fact.convolution_kernel, fact.slice_distance_mm, fact.slices) == ("B70f", 1.25, 300)
    assert json.loads(fact.histogram) == [0.25, 0.75]


def test_the_list_has_one_flat_row_per_measurement_and_one_for_a_finding_without(database: Database) -> None:
    with database.transaction() as session:
        saved(session)
    with database.reading() as session:
        rows = list_findings(session)
        assert list_findings(session, patient_id="P1") == rows
        assert list_findings(session, patient_id="P2") == []
    assert [(row["label"], row["name"], row["value"], row["unit"]) for row in rows] == [
        ("Nodule 1", "long_axis", 12.5, "mm"),
        ("Nodule 1", "volume", 1000.0, "mm3"),
        ("Nodule 2", None, None, None),
    ]
    first = rows[0]
    assert (first["patient_id"], first["study_instance_uid"], first["revision"], first["plugin"]) == (
        "P1",
        "1.2.3",
        1,
        "lung_nodule",
    )
    assert (first["concept_value"], first["method"], first["x2_mm"], first["plugin_version"]) == (
        "103339001",
        "0.5-level contour",
        4.0,
        "1",
    )
    assert json.loads(json.dumps(rows)) == rows


def test_superseded_findings_are_listed_only_when_asked_for(database: Database) -> None:
    with database.transaction() as session:
        job, _ = saved(session)
        jobs.finish(session, int(job.id or 0), 1, jobs.DONE, at(1))
        queued(session, settled(session, 2, seconds=10), plugin="lung_nodule")
        newer = jobs.claim(session, "w", at(20), 60)
        assert newer is not None
        save(session, newer, AnalysedFindings(), {}, at(21))
        jobs.finish(session, int(newer.id or 0), 1, jobs.DONE, at(21))
        assert list_findings(session) == []
        assert len(list_findings(session, superseded=True)) == 3


def test_a_label_that_no_column_holds_is_cleaned_and_not_lost(database: Database) -> None:
    with database.transaction() as session:
        saved(session, AnalysedFindings(found=(replace(FOUND, label="a\0b\ud800c"),)))
    with database.reading() as session:
        assert {row["label"] for row in list_findings(session)} == {"a b c"}


def test_measurements_stay_with_their_findings_whatever_their_number(database: Database) -> None:
    found = tuple(
        replace(
            FOUND,
            label=f"Nodule {n}",
            tracking_uid=f"2.25.{n}",
            flags=(),
            measurements=tuple(replace(AXIS, value=100.0 * n + i, name=f"m{i}") for i in range(n % 4)),
        )
        for n in range(1, 300)
    )
    with database.transaction() as session:
        saved(session, replace(WHOLE, found=found))
    with database.reading() as session:
        rows = list_findings(session)
    assert [(r["label"], r["name"], r["value"]) for r in rows] == [
        (one.label, m.name if m else None, m.value if m else None)
        for one in found
        for m in (one.measurements or (None,))
    ]


def test_the_number_of_statements_does_not_grow_with_the_findings(database: Database) -> None:
    told: list[str] = []

    def listen(*given: object) -> None:
        told.append(str(given[2]))

    counts = []
    with database.transaction() as session:
        job, _ = saved(session)
        event.listen(session.get_bind(), "before_cursor_execute", listen)
        for count in (2, 200):
            told.clear()
            found = tuple(replace(FOUND, tracking_uid=f"2.25.{n}") for n in range(count))
            save(session, job, replace(WHOLE, found=found, written=()), {}, at(1))
            counts.append(len(told))
        event.remove(session.get_bind(), "before_cursor_execute", listen)
    assert counts[0] == counts[1] > 0


def test_every_column_is_written(database: Database) -> None:
    with database.transaction() as session:
        saved(session)
        for table in (Finding, Measurement, Refusal):
            row = session.exec(select(table)).first()
            empty = {name for name in table.model_fields if getattr(row, name) is None}
            assert empty == set(), table
