"""What is shown of a study: what came, and of the results only the newest of each analysis."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from ledger import arrive, at, queued, result, settled
from small_node import SmallNode
from sqlmodel import update

from store import jobs
from store.held import StudyQuery, count_studies, held_objects, held_studies, is_uploaded, patient_of
from store.tables import Patient


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


@pytest.mark.parametrize(
    ("name", "found", "not_found"),
    [
        (
            "Wang^XiaoDong=王^小東=ワン^シアオドン",
            ("王*", "王^小東", "wang^*", "WANG^XIAODONG", "ワン*", "*小東*", "Wang^XiaoDong=王*", "王?小東"),
            ("小東*", "王", "Wang", "王^小東=", "シ*", "=*x", "_^小東"),
        ),
        ("Yamada^Tarou==やまだ^たろう", ("やまだ*", "yamada*", "*たろう"), ("山田*", "たろう*")),
        ("Müller^Jörg", ("Mu\u0308ller*", "Mü*", "MÜLLER^JO\u0308RG", "m?ller*"), ("Mu*", "ller*", "*=*")),
        ("A=B%_\\", ("b%_\\", "B*"), ("b%", "_*", "b%x\\")),
    ],
)
def test_a_name_is_found_by_each_of_its_groups_composed_or_not(
    node: SmallNode, name: str, found: tuple[str, ...], not_found: tuple[str, ...]
) -> None:
    with node.database.transaction() as session:
        arrive(session)
        session.exec(update(Patient).values(patient_name=name))
    with node.database.reading() as session:
        for keys, is_found in ((found, True), (not_found, False)):
            for key in keys:
                query = StudyQuery(patient_name=key)
                assert (key, count_studies(session, query) == 1) == (key, is_found)


def test_another_text_is_found_by_a_key_that_is_not_composed(node: SmallNode) -> None:
    with node.database.transaction() as session:
        arrive(session)
        session.exec(update(Patient).values(patient_id="Ü1"))
    with node.database.reading() as session:
        assert count_studies(session, StudyQuery(patient_id="u\u03081")) == 1
