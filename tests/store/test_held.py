"""What is shown of a study: what came, and of the results only the newest of each analysis."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from ledger import arrive, at, queued, result, settled
from small_node import SmallNode

from store import jobs
from store.held import StudyQuery, held_objects, held_studies, is_uploaded, patient_of


@pytest.fixture
def node(tmp_path: Path) -> SmallNode:
    return SmallNode.make(tmp_path)


def test_only_the_newest_results_of_an_analysis_are_shown(node: SmallNode) -> None:
    with node.database.transaction() as session:
        for number, plugin in enumerate(("lung_nodule", "emphysema", "lung_nodule"), start=1):
            revision = settled(session, number)
            queued(session, revision, plugin)
            job = jobs.claim(session, "worker", at(number), 60)
            assert job is not None and job.id is not None
            result(session, job, number)
            jobs.finish(session, job.id, job.attempt, jobs.DELIVERING, at(number + 1))
    with node.database.reading() as session:
        shown = held_objects(session, "1.2.3")
        came = [one for one in shown if one.sop_instance_uid.startswith("1.2.3")]
        made = [one.sop_instance_uid for one in shown if one not in came]
        assert len(made) == 2
        assert held_objects(session, "1.2.3", came[0].series_instance_uid, came[0].sop_instance_uid) == [
            came[0]
        ]
        assert held_objects(session, "1.2.3", "9.9") == []
        assert held_objects(session, "9.9") == []


def test_a_study_is_found_by_what_a_query_names(node: SmallNode) -> None:
    with node.database.transaction() as session:
        arrive(session)
    with node.database.reading() as session:
        (study,) = held_studies(session, StudyQuery(), 10, 0)
        patient = patient_of(session, study.study_instance_uid)
        assert patient is not None and patient.patient_id == study.patient_id
        first, rest = study.patient_id[0], study.patient_id[1:]
        for text, is_found in ((f"?{rest}", True), (f"{first}*", True), (f"_{rest}", False), ("%", False)):
            assert bool(held_studies(session, StudyQuery(patient_id=text), 10, 0)) is is_found
        assert len(held_studies(session, StudyQuery(issuer=patient.issuer), 10, 0)) == 1
        assert held_studies(session, StudyQuery(patient_id=study.patient_id, issuer="Y"), 10, 0) == []
        assert held_studies(session, StudyQuery(), 10, 1) == []
        assert held_studies(session, StudyQuery(until=date(1900, 1, 1)), 10, 0) == []
        assert not is_uploaded(session, study.study_instance_uid)
        assert patient_of(session, "9.9") is None
