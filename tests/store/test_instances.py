from __future__ import annotations

import random
from datetime import date

import pytest
from at_once import at_once
from ledger import arrive, at, header, kept, queued, result, settled
from sqlmodel import select

from plugins.errors import Refused
from store import instances, operations, studies, tally, uploads
from store.database import Database
from store.instances import Arrived
from store.known import Known
from store.tables import Association, AssociationStudy, Event, Instance, Patient, Series, Study

SOURCE = "CT1@127.0.0.1"


def test_a_first_image_makes_its_patient_study_series_and_instance(database: Database) -> None:
    one = header(patient_birth_date=date(1960, 2, 29), study_date=date(2026, 3, 1), series_number=7)
    with database.transaction() as session:
        recorded = instances.record(session, one, kept("a"), source=SOURCE, now=at(0))
        assert recorded.outcome == "new"
    with database.reading() as session:
        patient, study = session.exec(select(Patient)).one(), session.exec(select(Study)).one()
        series, instance = session.exec(select(Series)).one(), session.exec(select(Instance)).one()
    assert (patient.patient_id, patient.patient_birth_date) == ("P1", date(1960, 2, 29))
    assert (study.state, study.first_arrival_at, study.last_arrival_at, study.revision) == (
        "receiving",
        at(0),
        at(0),
        0,
    )
    assert (series.series_number, series.modality) == (7, "CT")
    assert (instance.sha256, instance.size_bytes, instance.source, instance.current) == (
        kept("a").sha256,
        1,
        SOURCE,
        True,
    )
    assert (recorded.study_pk, recorded.instance_pk) == (study.id, instance.id)


def test_an_identical_resend_changes_nothing(database: Database) -> None:
    with database.transaction() as session:
        settled(session)
    with database.transaction() as session:
        again = arrive(session, 1, seconds=500)
        assert again.outcome == "identical"
        study = session.exec(select(Study)).one()
        assert (study.state, study.last_arrival_at) == ("settled", at(0))
        assert len(session.exec(select(Instance)).all()) == 1
        assert session.exec(select(Event)).all() == []


def test_a_late_image_opens_its_study_again(database: Database) -> None:
    with database.transaction() as session:
        settled(session)
        arrive(session, 2, seconds=500)
        study = session.exec(select(Study)).one()
        assert (study.state, study.first_arrival_at, study.last_arrival_at) == ("receiving", at(500), at(500))


def test_other_bytes_under_a_known_uid_become_current_and_are_told(database: Database) -> None:
    with database.transaction() as session:
        arrive(session)
        changed = instances.record(session, header(), kept("changed"), source=SOURCE, now=at(9))
        assert changed.outcome == "conflict"
        rows = session.exec(select(Instance).order_by(Instance.id)).all()  # type: ignore[arg-type]
        assert [(row.sha256, row.current) for row in rows] == [
            (kept("1.2.3.1.1").sha256, False),
            (kept("changed").sha256, True),
        ]
        assert [(event.kind, event.subject) for event in session.exec(select(Event))] == [
            ("conflict", kept("changed").sha256)
        ]


def test_an_older_version_that_comes_again_is_the_current_one_again(database: Database) -> None:
    with database.transaction() as session:
        first = settled(session)
        instances.record(session, header(), kept("changed"), source=SOURCE, now=at(9))
        studies.settle(session, first.study_pk, now=at(100), forced=False)
        assert arrive(session, seconds=200).outcome == "conflict"
        assert arrive(session, seconds=210).outcome == "identical"
        current = session.exec(select(Instance.sha256).where(Instance.current)).all()
        assert current == [kept("1.2.3.1.1").sha256]
        study = session.exec(select(Study)).one()
        assert (study.state, study.last_arrival_at) == ("receiving", at(200))
        assert [event.kind for event in session.exec(select(Event))] == ["conflict", "conflict"]
        assert len(session.exec(select(Instance)).all()) == 2


def test_our_own_results_are_kept_and_open_nothing(database: Database) -> None:
    seg = header(9, modality="SEG", series_instance_uid="2.25.9", sop_instance_uid="2.25.9.1", own=True)
    with database.transaction() as session:
        settled(session)
        recorded = instances.record(session, seg, kept("seg"), source=SOURCE, now=at(9))
        assert recorded.outcome == "own"
        assert session.exec(select(Study.state)).one() == "settled"
        assert session.exec(select(Instance.own).where(Instance.sha256 == kept("seg").sha256)).one() is True
        assert instances.record(session, seg, kept("seg"), source=SOURCE, now=at(10)).outcome == "identical"


def test_a_result_is_known_by_its_uid_when_an_archive_renamed_its_maker(database: Database) -> None:
    with database.transaction() as session:
        written = result(session, queued(session, settled(session)))
        back = header(9, series_instance_uid="2.25.9", sop_instance_uid=written.sop_instance_uid)
        assert instances.record(session, back, kept("coerced"), source=SOURCE, now=at(9)).outcome == "own"


def test_a_study_of_which_only_our_result_is_known_waits_for_nothing(database: Database) -> None:
    with database.transaction() as session:
        instances.record(session, header(own=True), kept("seg"), source=SOURCE, now=at(9))
        assert session.exec(select(Study.state)).one() == "settled"


def test_a_file_that_claims_to_be_ours_does_not_push_out_an_image(database: Database) -> None:
    with database.transaction() as session:
        settled(session)
        forged = instances.record(
            session, header(own=True, modality="SEG"), kept("forged"), source=SOURCE, now=at(9)
        )
        assert forged.outcome == "conflict"
        assert session.exec(select(Study.state)).one() == "receiving"


@pytest.mark.parametrize("changes", [{"sop_instance_uid": "1.2.4.7"}, {"series_instance_uid": "1.2.4.9"}])
def test_a_uid_of_another_study_is_refused_and_leaves_no_row(
    database: Database, changes: dict[str, str]
) -> None:
    with database.transaction() as session:
        arrive(session)
    with pytest.raises(Refused) as caught, database.transaction() as session:
        colliding = {"series_instance_uid": "1.2.3.1", "sop_instance_uid": "1.2.3.1.1", **changes}
        instances.record(session, header(study="1.2.4", **colliding), kept("x"), source=SOURCE, now=at(1))
    assert caught.value.code == "uid-collision"
    with database.reading() as session:
        assert session.exec(select(Study.study_instance_uid)).all() == ["1.2.3"]


def test_patients_are_joined_by_issuer_and_id_and_never_by_name(database: Database) -> None:
    people = [("P1", "", "A"), ("P1", "", "B"), ("P1", "X", "A"), ("P2", "", "A")]
    with database.transaction() as session:
        for number, (patient_id, issuer, name) in enumerate(people):
            one = header(study=f"1.2.{number}", patient_id=patient_id, issuer=issuer, patient_name=name)
            instances.record(session, one, kept(str(number)), source=SOURCE, now=at(0))
        patients = session.exec(select(Study.patient_pk).order_by(Study.id)).all()  # type: ignore[arg-type]
    assert patients[0] == patients[1]
    assert len(set(patients)) == 3


def test_two_studies_without_a_patient_id_are_not_one_patient(database: Database) -> None:
    with database.transaction() as session:
        for study in ("1.2.1", "1.2.2"):
            one = header(study=study, patient_id="")
            instances.record(session, one, kept(study), source=SOURCE, now=at(0))
        assert len(set(session.exec(select(Study.patient_pk)).all())) == 2


def test_an_image_of_another_patient_in_the_study_is_kept_and_told(database: Database) -> None:
    with database.transaction() as session:
        arrive(session)
        other = header(2, patient_id="P2")
        assert instances.record(session, other, kept("x"), source=SOURCE, now=at(1)).outcome == "new"
        assert session.exec(select(Event.kind)).all() == ["patient-conflict"]


def test_an_association_is_linked_once_and_closed_once(database: Database) -> None:
    with database.transaction() as session:
        pk = instances.open_association(session, "CT1", "127.0.0.1", at(0))
        for number in (1, 2):
            instances.record(
                session, header(number), kept(str(number)), source=SOURCE, now=at(1), association_pk=pk
            )
        instances.beat(session, pk, at(5))
        instances.close_association(session, pk, at(6))
        instances.close_association(session, pk, at(7))
        instances.beat(session, pk, at(8))
    with database.reading() as session:
        row = session.exec(select(Association)).one()
        assert (row.alive_at, row.closed_at) == (at(5), at(6))
        assert len(session.exec(select(AssociationStudy)).all()) == 1


def test_four_associations_that_send_one_study_at_once_make_one_study(database: Database) -> None:
    def send(first: int) -> None:
        for number in (*range(first, 24, 4), 100):
            with database.transaction() as session:
                arrive(session, number)

    at_once(send, 4)
    with database.reading() as session:
        assert len(session.exec(select(Instance)).all()) == 25
        assert len(session.exec(select(Study)).all()) == 1
        assert session.exec(select(Event)).all() == []


def test_groups_of_several_processes_that_meet_in_the_same_studies_never_stop_each_other(
    database: Database,
) -> None:
    images = [
        header(number, f"1.2.{study}", patient_id=f"P{study % 2}")
        for study in range(5)
        for number in range(12)
    ]

    def send(seed: int) -> None:
        mine, known = images.copy(), Known()
        random.Random(seed).shuffle(mine)
        for start in range(0, len(mine), 10):
            arrived = [
                Arrived(header=one, kept=kept(one.sop_instance_uid), source=SOURCE, now=at(seed))
                for one in mine[start : start + 10]
            ]
            rows = known.begin()
            with database.transaction() as session:
                instances.record_all(session, arrived, rows)
            known.learn(rows)

    at_once(send, 4)
    with database.reading() as session:
        assert len(session.exec(select(Instance)).all()) == 60
        assert len(session.exec(select(Study)).all()) == 5
        assert len(session.exec(select(Patient)).all()) == 2
        assert session.exec(select(Event)).all() == []


def test_uploads_and_what_else_comes_by_http_are_no_dicom_associations(database: Database) -> None:
    with database.transaction() as session:
        uploads.begin(session, "ANNA", delivered=False, now=at(0))
        for calling_ae, address in (
            ("STOW-RS", "10.0.0.7"),
            ("DICOMweb", "http://pacs:8042/dicom-web"),
            ("workitem", "OLD"),
        ):
            instances.open_association(session, calling_ae, address, at(1))
        gone = instances.open_association(session, "CT1", "10.0.0.7", at(2))
        instances.close_association(session, gone, at(3))
        instances.open_association(session, "UPLOAD", "10.0.0.8", at(4))  # a scanner that is called so
    with database.reading() as session:
        assert tally.associations(session, at(5)) == (1, 2)
        assert [one.address for one in operations.associations(session, at(5))] == ["10.0.0.8"]


def test_an_association_of_which_nothing_is_heard_any_more_is_not_open(database: Database) -> None:
    with database.transaction() as session:
        silent = instances.open_association(session, "CT1", "10.0.0.7", at(0))
    for heard, until in ((0, 59), (50, 109)):
        with database.transaction() as session:
            instances.beat(session, silent, at(heard))
            assert tally.associations(session, at(until)) == (1, 1)
            assert tally.associations(session, at(until + 1)) == (0, 1)
            assert [len(operations.associations(session, at(until + n))) for n in (0, 1)] == [1, 0]
