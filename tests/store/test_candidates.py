from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import event
from sqlmodel import Session, col, select, update
from weeks_of_use import MONDAY, insert, week_of

from store.candidates import Candidate, candidates, looked_at
from store.choices import keep
from store.chosen import decided_of
from store.database import Database
from store.labels import Label
from store.objects import ObjectStore
from store.patient_key import patient_key
from store.sides import Sides
from store.standing import standings
from store.study_list import Listed, study_list, study_pks
from store.tables import Finding, Job, Patient, Refusal, Revision, Study

WEEK = list(week_of(0, np.random.default_rng(1), studies=5))
NO_SIDES = Sides(side={}, person={})
LESION = "49755003"


def found(session: Session, *labels: Label, sides: Sides = NO_SIDES) -> list[Candidate]:
    return list(candidates(session, labels, sides).found)


def list_of(session: Session, objects: ObjectStore) -> tuple[Listed, ...]:
    return study_list(session, objects, study_pks(session))


def label(study: int, tracking_uid: str) -> Label:
    return Label(
        patient_pk=study,
        patient_key="k",
        study_instance_uid=f"1.2.826.{study}",
        series_instance_uid=f"1.2.826.{study}.1",
        modality="CT",
        sop_instance_uid="1.2.3",
        sha256="0",
        number=1,
        tracking_uid=tracking_uid,
        origin="corrected",
        author="Reader",
        at=MONDAY,
        plugin="lung_nodule",
        model_sha256="m",
    )


@pytest.fixture
def used(database: Database) -> Database:
    """Return a database with five studies, all of whose findings are lesions."""
    with database.transaction() as session:
        insert(session, WEEK)
        session.exec(update(Finding).values(category_value=LESION))
    return database


def test_every_lesion_that_counts_comes_with_its_doubt_and_its_series(used: Database) -> None:
    with used.transaction() as session:
        session.exec(update(Finding).where(col(Finding.job_pk) == 2).values(superseded=True))
        session.exec(update(Finding).where(col(Finding.job_pk) == 3).values(category_value="organ"))
        session.get_one(Job, 4).state = "superseded"
        session.add(
            Refusal(job_pk=1, code="drawn-classically", sentence="'Nodule 1': nothing is seen", refused=False)
        )
    with used.reading() as session:
        all_of_them = found(session)
    (first, *_) = all_of_them
    assert {one.patient_id for one in all_of_them} == {"P1", "P5"}
    assert len(all_of_them) == WEEK[0].numbers["findings"] + WEEK[4].numbers["findings"]
    assert first.uncertainties == pytest.approx({k: WEEK[0].numbers[k] for k in ("entropy", "disagreement")})
    assert first.long_axis_mm == pytest.approx(WEEK[0].numbers["long_axis"])
    assert [(one.patient_id, one.label) for one in all_of_them if one.is_unseen] == [("P1", "Nodule 1")]
    assert first.traits is not None
    assert first.traits.kernel == WEEK[0].categories["convolution_kernel"]
    assert first.traits.histogram == WEEK[0].histograms["[hnsf'U]"]


def test_a_mask_or_a_choice_of_a_person_says_that_he_looked(used: Database, objects: ObjectStore) -> None:
    with used.transaction() as session:
        for kind, value, study in (("confirm", "true", 2), ("reject", "true", 3), ("role", "target", 4)):
            uid = f"2.25.{100 * study}"
            keep(session, study, kind, uid, value, "Reader", MONDAY, study_instance_uid=f"1.2.826.{study}")
    with used.reading() as session:
        all_of_them = found(session, label(1, "2.25.100"))
        told = {one.tracking_uid: (one.is_labelled, one.is_reviewed) for one in all_of_them}
        listed = {one.patient_id: one for one in list_of(session, objects)}
    assert told["2.25.100"] == (True, True)
    assert told["2.25.200"] == told["2.25.300"] == (False, True)
    assert told["2.25.400"] == told["2.25.500"] == (False, False)
    assert (listed["P2"].reviewed, listed["P4"].reviewed, listed["P1"].is_reviewed) == (1, 0, False)
    assert listed["P2"].findings == WEEK[1].numbers["findings"]


def test_a_lesion_that_was_renamed_is_known_by_its_new_name(used: Database) -> None:
    with used.transaction() as session:
        keep(session, 1, "relink", "2.25.100", "2.25.7", "Reader", MONDAY, study_instance_uid="1.2.826.1")
    with used.reading() as session:
        (first, *_) = found(session, label(1, "2.25.7"))
    assert first.is_labelled


def test_a_series_that_was_drawn_on_is_known_once_for_each_mask(used: Database) -> None:
    with used.reading() as session:
        known = candidates(session, [label(1, "2.25.100"), label(1, "2.25.9"), label(77, "2.25.5")], NO_SIDES)
    assert [traits.kernel for traits in known.labelled] == [WEEK[0].categories["convolution_kernel"]] * 2


def test_a_study_without_a_finding_is_one_too_until_somebody_draws_in_it(used: Database) -> None:
    with used.transaction() as session:
        number = 1 + max(session.exec(select(Study.id)).all(), default=0)
        empty = list(week_of(1, np.random.default_rng(2), studies=1))
        empty[0].numbers["findings"] = 0.0  # type: ignore[index]
        insert(session, empty, first=number)
    with used.reading() as session:
        last = found(session)[-1]
        seen = found(session, label(number, "2.25.1"))[-1]
    assert (last.label, last.patient_id, last.is_reviewed) == ("", f"P{number}", False)
    assert (seen.label, seen.is_reviewed) == ("", True)
    with used.transaction() as session:
        session.get_one(Study, number).revision = 2
        session.add(Revision(id=99, study_pk=number, number=2, manifest_sha256="", settled_at=MONDAY))
    with used.reading() as session:
        assert all(one.label for one in found(session))


def test_a_person_is_one_under_all_identifiers_and_has_a_side(used: Database) -> None:
    with used.transaction() as session:
        session.get_one(Patient, 5).patient_id = ""
        key = patient_key("P1")
        sides = Sides(side={key: "judge"}, person={patient_key("P2"): key, key: key})
    with used.reading() as session:
        of = {one.patient_id: one for one in found(session, sides=sides)}
    assert of["P1"].person == of["P2"].person
    assert (of["P1"].side, of["P3"].side) == ("judge", None)
    assert of[""].person == "row 5"


def test_the_list_counts_every_finding_that_stands_as_the_worklist_does(
    used: Database, objects: ObjectStore
) -> None:
    with used.transaction() as session:
        insert(session, WEEK[:1], plugin="contours", first=6)
        drawn = {"study_pk": 1, "patient_pk": 1, "automatic": False, "category_value": "organ"}
        session.exec(update(Finding).where(col(Finding.job_pk) == 6).values(**drawn))
        session.get_one(Job, 6).revision_pk = 1
        session.exec(update(Finding).where(col(Finding.job_pk) == 2).values(superseded=True))
        keep(session, 1, "confirm", "2.25.100", "true", "Reader", MONDAY, study_instance_uid="1.2.826.1")
    with used.reading() as session:
        listed = {one.patient_id: one for one in list_of(session, objects)}
        page = standings(session, session.exec(select(Study)).all(), MONDAY, 0.0)
    found = int(WEEK[0].numbers["findings"])
    assert (listed["P1"].findings, listed["P1"].lesions, listed["P1"].reviewed) == (2 * found, found, 1)
    assert (listed["P2"].findings, listed["P6"].findings) == (0, 0)
    assert {pk: sum(task.findings for task in one.tasks) for pk, one in page.items()} == {
        int(patient_id[1:]): one.findings for patient_id, one in listed.items()
    }


def test_the_list_asks_as_often_for_many_studies_as_for_few(used: Database, objects: ObjectStore) -> None:
    def asked() -> int:
        statements: list[str] = []
        with used.reading() as session:
            pks, engine = study_pks(session), session.connection().engine
            event.listen(engine, "before_cursor_execute", lambda *said: statements.append(said[2]))
            study_list(session, objects, pks)
        return len(statements)

    few = asked()
    with used.transaction() as session:
        insert(session, list(week_of(1, np.random.default_rng(2), studies=20)), first=6)
    assert few == asked() <= 10


def test_the_list_has_every_study_the_newest_first(used: Database, objects: ObjectStore) -> None:
    with used.transaction() as session:
        session.get_one(Study, 3).prior = True
        session.get_one(Study, 4).study_date = None
    with used.reading() as session:
        listed = list_of(session, objects)
    assert [one.patient_id for one in listed][-1] == "P4"
    dates = [one.study_date for one in listed[:-1]]
    assert dates == sorted(dates, reverse=True)  # type: ignore[type-var]
    assert {one.patient_id: one.state for one in listed}["P3"] == "prior"


def test_what_was_looked_at_in_some_studies_is_what_is_said_of_them_among_all(used: Database) -> None:
    with used.transaction() as session:
        empty = list(week_of(1, np.random.default_rng(2), studies=1))
        empty[0].numbers["findings"] = 0.0  # type: ignore[index]
        insert(session, empty, first=6)
        keep(session, 1, "relink", "2.25.100", "2.25.7", "Reader", MONDAY, study_instance_uid="1.2.826.1")
        keep(session, 1, "confirm", "2.25.7", "true", "Reader", MONDAY)
        keep(session, 2, "reject", "2.25.200", "true", "Reader", MONDAY, study_instance_uid="1.2.826.2")
    drawn = [label(3, "2.25.300"), label(6, "2.25.1")]
    with used.reading() as session:
        among_all = found(session, *drawn)
        some = looked_at(session, drawn, [1, 3, 4, 6])
        assert decided_of(session, [1, 3, 4, 6]) == [1]
    for study in (1, 3, 4, 6):
        own = [one for one in among_all if one.study_instance_uid == f"1.2.826.{study}"]
        lesions, is_looked_at = some.get(f"1.2.826.{study}", ((), False))
        assert lesions == tuple(one.is_reviewed for one in own if one.label)
        assert is_looked_at == any(one.is_reviewed for one in own) == (study != 4)
    assert "1.2.826.2" not in some
