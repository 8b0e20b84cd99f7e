from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from sqlmodel import Session, col, select, update
from weeks_of_use import MONDAY, insert, week_of

from plugins import codes
from store.database import Database
from store.drifts import Alarm, dated_ahead, observed, promoted_at, record, watched
from store.model_tables import DriftAlarm, FindingDoubt, Promotion, SeriesFact
from store.tables import Finding, Job, Measurement, Revision

WEEK = list(week_of(0, np.random.default_rng(0), studies=6))
NOW = MONDAY + timedelta(weeks=52)
ALARM = Alarm(week="2026-W03", what="volume", statistic="KS", value=0.4, limit=0.1, sentence="It changed.")


def of_finding(session: Session, number: int) -> int:
    return int(session.exec(select(Finding.id).where(Finding.job_pk == number)).first() or 0)


def test_what_was_written_of_a_study_is_read_as_one_point(database: Database) -> None:
    with database.transaction() as session:
        insert(session, WEEK)
    with database.reading() as session:
        assert watched(session) == ("lung_nodule",)
        found = observed(session, "lung_nodule", NOW)
        assert observed(session, "emphysema", NOW) == ()
    wanted = sorted(WEEK, key=lambda one: one.at)
    assert [one.at for one in found] == [one.at for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.categories == other.categories
        assert one.spacings_mm == other.spacings_mm
        assert one.histograms == other.histograms
        assert one.numbers == pytest.approx(other.numbers)


def test_of_several_findings_of_a_study_the_median_counts(database: Database) -> None:
    with database.transaction() as session:
        insert(session, WEEK[:1])
        session.exec(update(Measurement).where(col(Measurement.name) == "volume").values(value=1.0))
        session.add(Measurement(finding_pk=of_finding(session, 1), name="volume", value=9.0, unit="ml", method="",
                                concept_value="", concept_scheme="", concept_meaning="", plugin="", plugin_version="",
                                model_sha256=""))  # fmt: skip
        for value in (0.1, 0.2, 0.4, 0.8):
            session.add(FindingDoubt(finding_pk=of_finding(session, 1), name="entropy", value=value))
        count = len(session.exec(select(Finding)).all())
    with database.reading() as session:
        (one,) = observed(session, "lung_nodule", NOW)
    own = [WEEK[0].numbers["entropy"]] * count
    assert one.numbers["volume"] == pytest.approx(np.median([1.0] * count + [9.0]))
    assert one.numbers["entropy"] == pytest.approx(np.median([*own, 0.1, 0.2, 0.4, 0.8]))


def test_a_reference_region_is_no_finding_and_a_study_without_one_has_none(database: Database) -> None:
    with database.transaction() as session:
        insert(session, WEEK[:1])
        session.exec(update(Finding).values(type_value=codes.REFERENCE_REGION.value))
    with database.reading() as session:
        (one,) = observed(session, "lung_nodule", NOW)
    assert one.numbers == {"findings": 0.0}


def test_of_a_study_that_was_analysed_again_the_newest_results_count(database: Database) -> None:
    with database.transaction() as session:
        insert(session, WEEK)
        again = session.get_one(Job, 6)
        revision = session.get_one(Revision, again.revision_pk)
        revision.study_pk, revision.number = 1, 2
    with database.reading() as session:
        found = observed(session, "lung_nodule", NOW)
        assert len(found) == 5
        assert WEEK[0].at not in {one.at for one in found}
    with database.transaction() as session:
        session.get_one(Job, 6).state = "superseded"
    with database.reading() as session:
        assert {one.at for one in observed(session, "lung_nodule", NOW)} == {one.at for one in WEEK[:5]}


def test_another_model_begins_anew(database: Database) -> None:
    with database.transaction() as session:
        insert(session, WEEK)
        session.exec(update(SeriesFact).where(col(SeriesFact.job_pk) >= 5).values(model_sha256="newer"))
    with database.reading() as session:
        assert len(observed(session, "lung_nodule", NOW)) == 2
        assert observed(session, "lung_nodule", NOW, MONDAY + timedelta(weeks=1)) == ()
        assert promoted_at(session, ["nodule_segmenter"], NOW) is None


def test_the_last_promotion_of_any_family_is_when_it_began(database: Database) -> None:
    with database.transaction() as session:
        for number, (family, days) in enumerate((("a", 3), ("b", 5), ("c", 9))):
            session.add(
                Promotion(family=family, number=number, kind="approve", manifest_sha256="", author="A",
                          at=MONDAY + timedelta(days=days))
            )  # fmt: skip
    with database.reading() as session:
        assert promoted_at(session, ["a", "b"], NOW) == MONDAY + timedelta(days=5)
        assert promoted_at(session, [], NOW) is None
        assert promoted_at(session, ["a", "b"], MONDAY + timedelta(days=4)) == MONDAY + timedelta(days=5)
        assert promoted_at(session, ["a", "b"], MONDAY + timedelta(days=3)) == MONDAY + timedelta(days=3)


def test_results_that_are_dated_ahead_are_counted_and_not_looked_at(database: Database) -> None:
    last = max(one.at for one in WEEK)
    with database.transaction() as session:
        insert(session, WEEK)
        late = {"at": last + timedelta(days=400), "model_sha256": "newer"}
        session.exec(update(SeriesFact).where(col(SeriesFact.job_pk) == 6).values(**late))
    with database.reading() as session:
        found = observed(session, "lung_nodule", last)
        assert {one.at for one in found} == {one.at for one in WEEK[:5]}
        (ahead,) = observed(session, "lung_nodule", last + timedelta(days=400))
        assert ahead.at == late["at"]
        counts = [dated_ahead(session, "lung_nodule", last + timedelta(days=days)) for days in (0, 398, 400)]
        assert counts == [1, 1, 0]
        assert dated_ahead(session, "emphysema", last) == 0


def test_an_alarm_is_kept_once_a_week(database: Database) -> None:
    with database.transaction() as session:
        assert record(session, "lung_nodule", [ALARM], MONDAY) == (ALARM,)
        assert record(session, "lung_nodule", [ALARM], MONDAY) == ()
        assert record(session, "emphysema", [ALARM], MONDAY) == (ALARM,)
        assert len(session.exec(select(DriftAlarm)).all()) == 2
