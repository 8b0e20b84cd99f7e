from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from cohort_rows import LENGTHS, START, write_cohort
from sqlmodel import Session

from store import cohort_rows, measured
from store.choices import choose
from store.cohort import members
from store.cohort_rows import Short
from store.database import Database
from store.measured import Chosen
from store.patients import merge, part

NOW = datetime(2024, 7, 1, 9, 0, tzinfo=UTC)


@pytest.fixture
def filled(database: Database) -> tuple[Database, dict[str, int]]:
    with database.transaction() as session:
        return database, write_cohort(session)


def test_the_state_of_a_course_is_another_after_a_choice_a_merge_and_another_maker_and_that_of_others_is_not(
    filled: tuple[Database, dict[str, int]],
) -> None:
    database, pks = filled
    with database.transaction() as session:
        before = cohort_rows.states(session, "Nadir 1")
        assert set(before) == set(pks.values())
        assert cohort_rows.states(session, "Nadir 1") == before
        assert not set(before.values()) & set(cohort_rows.states(session, "Nadir 2").values())
        choose(session, pks["GROWS"], "role", "2.25.101", "non-target", author="ANNA", now=NOW)
        after = cohort_rows.states(session, "Nadir 1")
        assert {pk for pk in before if before[pk] != after[pk]} == {pks["GROWS"]}
        merge(session, pks["ONCE"], pks["STAYS"], "ANNA", NOW)
        merged = cohort_rows.states(session, "Nadir 1")
        assert set(merged) == set(pks.values()) - {pks["ONCE"]}
        assert {pk for pk in merged if merged[pk] != after[pk]} == {pks["STAYS"]}
        part(session, pks["ONCE"], "ANNA", NOW)
        parted = cohort_rows.states(session, "Nadir 1")
        assert set(parted) == set(pks.values())
        assert parted[pks["ONCE"]] != before[pks["ONCE"]]
        assert cohort_rows.states(session, "Nadir 1", [pks["GROWS"]]) == {pks["GROWS"]: after[pks["GROWS"]]}


def test_numbers_are_chosen_counted_sorted_and_paged(filled: tuple[Database, dict[str, int]]) -> None:
    database, pks = filled
    every = sum(map(len, LENGTHS.values()))
    with database.reading() as session:
        assert measured.count(session, Chosen()) == 3 * every
        long_axes = Chosen(name="long_axis")
        values = [one.value for one in measured.page(session, long_axes, sort="value")]
        assert values == sorted(length for lengths in LENGTHS.values() for length in lengths)
        assert [one.value for one in measured.page(session, long_axes, sort="-value", limit=3, offset=1)] == [
            31.0, 30.0, 30.0,
        ]  # fmt: skip
        newest = measured.page(session, Chosen(), limit=4)
        assert [one.pk for one in newest] == sorted((one.pk for one in newest), reverse=True)
        assert measured.before(session, Chosen(), newest[1].pk, 2) == newest[2:]
        by_patient = measured.page(session, long_axes, sort="patient")
        assert [one.patient_id for one in by_patient] == sorted(one.patient_id for one in by_patient)
        dates = [one.study_date for one in measured.page(session, long_axes, sort="date")]
        assert dates == sorted((day for day in dates if day), reverse=True)
        early = Chosen(until=START + timedelta(days=10))
        assert measured.count(session, replace(early, name="volume")) == len(LENGTHS)
        assert measured.count(session, Chosen(since=date(2030, 1, 1))) == 0
        assert measured.count(session, Chosen(made_by="lung_nodule 1 m")) == 3 * every
        assert measured.count(session, Chosen(made_by="lung_nodule 2 m")) == 0
        assert measured.count(session, Chosen(site="Lung", analysis="lung_nodule")) == 3 * every
        assert measured.count(session, Chosen(modality="PT")) == 0
        assert measured.offered(session, "recist1.1").names == ("long_axis", "short_axis", "volume")
        last = measured.last_row(session)
        assert len(measured.stretch(session, Chosen(), 1, last)) == 3 * every
        assert measured.patients_with(session, Chosen(until=START)) == {pks["SHRINKS"]}


def rows(session: Session, pks: dict[str, int]) -> None:
    for name, change in (("SHRINKS", -55.0), ("GROWS", 50.0), ("STAYS", 5.0), ("ONCE", None)):
        best = {None: "", -55.0: "PR", 50.0: "PD", 5.0: "SD"}[change]
        short = Short(patient_pk=pks[name], best_percent=change, best_overall=best, lesions=1, days=56)
        cohort_rows.save(session, "recist1.1", "state", short)


def test_a_cohort_is_chosen_by_response_and_findings_and_those_who_were_merged_count_with_whom_they_are(
    filled: tuple[Database, dict[str, int]],
) -> None:
    database, pks = filled
    with database.transaction() as session:
        rows(session, pks)
        names = [one.patient_id for one in members(session, Chosen())]
        assert names == ["GROWS", "STAYS", "SHRINKS", "ONCE"]
        assert [one.patient_id for one in members(session, Chosen(response="none"))] == ["ONCE"]
        assert [one.patient_id for one in members(session, Chosen(until=START))] == ["SHRINKS"]
        assert members(session, Chosen(least=2)) == ()
        assert measured.count(session, Chosen(response="PR", name="volume")) == 3
        merge(session, pks["ONCE"], pks["SHRINKS"], "ANNA", NOW)
        assert measured.count(session, Chosen(response="PR", name="volume")) == 4
        first = measured.first_dates(session)
        assert first[pks["ONCE"]] == first[pks["SHRINKS"]] == START


def test_a_row_is_replaced_and_forgotten(filled: tuple[Database, dict[str, int]]) -> None:
    database, pks = filled
    short = Short(patient_pk=pks["GROWS"], verdicts=((56, "PD"),), new_days=(56,), best_overall="PD")
    with database.transaction() as session:
        cohort_rows.save(session, "recist1.1", "a", replace(short, verdicts=()))
        cohort_rows.save(session, "recist1.1", "b", short)
        cohort_rows.save(session, "volume", "c", short)
        assert cohort_rows.known_states(session, "recist1.1") == {pks["GROWS"]: "b"}
        assert [one.short for one in members(session, Chosen())] == [short]
        cohort_rows.forget(session, "recist1.1", [pks["GROWS"]])
        assert cohort_rows.known_states(session, "recist1.1") == {}
        assert cohort_rows.known_states(session, "volume") == {pks["GROWS"]: "c"}
