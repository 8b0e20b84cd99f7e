"""A settled study asks for its patient's earlier ones: found, checked, fetched once, and never analysed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from prior_bench import TODAY, Bench, uids
from pydicom import dcmread
from sqlmodel import col, select

from node import pull
from node.priors import PriorFetcher, Wanted
from store import jobs, priors, studies
from store.patients import merge
from store.prior_tables import Prior, PriorSearch
from store.tables import Event, Instance, Job, Pull, Revision, Series, Study


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.node.database.dispose()


def test_a_settled_study_brings_its_patients_newest_earlier_studies_and_only_it_is_analysed(
    bench: Bench,
) -> None:
    for day in ("20240101", "20250101", "20250601", "20251201", "20260302"):
        bench.archive.add(bench.series(day, study_date=day))
    bench.receive(bench.series("today", study_date=TODAY))
    assert bench.settle() == 2
    assert bench.fetch() == 4  # one search, three studies
    assert bench.dates() == ["20250101", "20250601", "20251201"]
    assert all(one.prior and len(one.objects) == 2 for one in bench.earlier())
    assert bench.settle() == 0
    assert len(bench.node.rows(Job)) == 2
    assert len(bench.node.rows(PriorSearch)) == 1
    assert {row.state for row in bench.node.rows(Prior)} == {"done"}
    assert bench.node.incoming() == []
    assert bench.events() == []


def test_earlier_studies_are_analysed_on_wish_oldest_first_but_not_one_that_has_results_and_ask_for_no_further_ones(
    bench: Bench,
) -> None:
    days = ("20250101", "20250601", "20251201")
    for day in days:
        bench.archive.add(bench.series(day, study_date=day))
    bench.receive(bench.series("today", study_date=TODAY))
    assert bench.settle() == 2
    bench.fetch(analysed=False)
    with bench.node.database.transaction() as session:  # the newest came with a result of ours
        newest = session.exec(select(Study.id).where(Study.study_date == date(2025, 12, 1))).one()
        series = select(col(Series.id)).where(col(Series.study_pk) == newest)
        one = session.exec(select(Instance).where(col(Instance.series_pk).in_(series))).first()
        assert one is not None
        one.own = True
        for prior in session.exec(select(Prior)):
            prior.state, prior.run_after = "waiting", bench.now
    assert bench.fetch(analysed=True) == 3
    with bench.node.database.transaction() as session:
        # Two earlier ones are about to settle.
        assert jobs.claim(session, "w", bench.now, 60, 120) is None

    assert bench.settle() == 4
    assert len(bench.node.rows(PriorSearch)) == 1
    with bench.node.database.transaction() as session:
        claimed = [jobs.claim(session, "w", bench.later(seconds=1), 60) for _ in range(4)]
        studies_of = [session.get_one(Revision, one.revision_pk).study_pk for one in claimed if one]
        dates = [session.get_one(Study, pk).study_date for pk in studies_of]
    assert dates == [date(2025, 1, 1)] * 2  # both analyses of the oldest; the rest waits for them
    assert [one.study_date.isoformat() for one in bench.earlier() if one.prior] == ["2025-12-01"]


@pytest.mark.parametrize("patient_id", ["P1", "P*", "P?", "*", "p1", "P1\\P2", "0012"])
def test_an_archive_that_ignores_what_it_is_asked_for_brings_nobody_elses_studies(
    bench: Bench, patient_id: str
) -> None:
    others = {"P1", "P2", "p1", "P11", "P*", "P?", "*", "12", "0012", "P1\\P2", ""} - {patient_id}
    for number, other in enumerate(sorted(others)):
        day = f"202501{number + 1:02}"
        bench.archive.add(bench.series(f"other{number}", patient_id=other, study_date=day))
    own = uids(bench.series("own", patient_id=f"{patient_id} ", study_date="20250201"))
    bench.archive.add(bench.folder.glob("own/*"))
    bench.receive(bench.series("today", patient_id=patient_id, study_date=TODAY))
    bench.settle()
    bench.fetch()
    assert bench.dates() == ["20250201"]
    assert set(bench.archive.given) == own
    foreign, ownerless = bench.node.rows(Event)
    name = bench.archive.name
    assert (foreign.kind, foreign.text) == (
        "priors-foreign", f"{name} answered with 9 studies of other patients; they were passed over",
    )  # fmt: skip
    assert (ownerless.kind, ownerless.text) == (
        "priors-ownerless", f"{name} answered with 1 studies that do not say whose they are; they were passed over",
    )  # fmt: skip


@pytest.mark.parametrize("knows_issuer", [True, False])
def test_the_same_id_of_another_issuer_is_another_patient(bench: Bench, knows_issuer: bool) -> None:
    bench.archive.knows_issuer = knows_issuer
    bench.archive.add(bench.series("a", study_date="20250101", IssuerOfPatientID="A"))
    bench.archive.add(bench.series("b", study_date="20250102", IssuerOfPatientID="B"))
    bench.receive(bench.series("today", study_date=TODAY, IssuerOfPatientID="A"))
    bench.settle()
    bench.fetch()
    assert bench.dates() == ["20250101"]
    if not knows_issuer:  # then the objects themselves say whose they are
        (parked,) = [row for row in bench.node.rows(Prior) if row.state == "parked"]
        assert parked.error_code == "prior-of-another-patient"


def test_an_archive_is_asked_for_every_id_of_a_person_and_what_it_has_under_any_of_them_comes(
    bench: Bench,
) -> None:
    bench.archive.add(bench.series("old", study_date="20250101", patient_id="OLD", IssuerOfPatientID="H"))
    bench.archive.add(bench.series("foreign", study_date="20250102", patient_id="OLD", IssuerOfPatientID="X"))
    bench.archive.add(bench.series("own", study_date="20250103"))
    bench.receive(
        bench.series("known", study_date="20240101", patient_id="OLD", IssuerOfPatientID="H", series_number=2)
    )
    bench.receive(bench.series("today", study_date=TODAY))
    with bench.node.database.transaction() as session:
        merge(session, 1, 2, "Admin", bench.now)
    bench.settle()
    bench.fetch()
    assert sorted(bench.archive.asked) == ["OLD", "OLD", "P1", "P1"]  # of either study, by both
    with bench.node.database.reading() as session:
        found = priors.earlier(session, 2)
    assert [f"{one.study_date:%Y%m%d}" for one in found] == ["20240101", "20250101", "20250103"]
    assert "quarantine" not in bench.events()


def test_a_patient_without_an_id_and_a_study_without_a_date_are_asked_for_nowhere(bench: Bench) -> None:
    bench.receive(bench.series("nameless", patient_id="", study_date=TODAY))
    bench.receive(bench.series("dateless", patient_id="P9", StudyDate=""))
    assert bench.settle() == 4
    assert bench.node.rows(PriorSearch) == []
    assert bench.fetch() == 0
    assert bench.archive.asked == []


def test_images_of_other_kinds_are_left_where_they_are_and_reports_come_along(bench: Bench) -> None:
    for number, modality in enumerate(("CT", "MR", "SR", "SEG", "OT")):
        bench.archive.add(
            bench.series(
                modality, modality=modality, study_date="20250101", series_number=number,
                SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
            )
        )  # fmt: skip
    bench.archive.add(bench.series("mr", modality="MR", study_date="20250601"))
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    bench.fetch()
    assert bench.dates() == ["20250101"]
    assert sorted({bench.archive.files[uid][1].Modality for uid in bench.archive.given}) == [
        "CT",
        "SEG",
        "SR",
    ]


def test_an_archive_that_tells_no_modalities_is_asked_for_the_series(bench: Bench) -> None:
    bench.archive.knows_modalities = False
    bench.archive.add(bench.series("ct", study_date="20250101"))
    bench.archive.add(bench.series("mr", modality="MR", study_date="20250601"))
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    bench.fetch(studies=1)
    assert bench.dates() == ["20250101"]


@pytest.mark.parametrize("knows_modalities", [True, False])
def test_an_archive_that_tells_the_modality_of_no_series_gives_them_all_the_same(
    bench: Bench, knows_modalities: bool
) -> None:
    bench.archive.knows_modalities, bench.archive.knows_modality = knows_modalities, False
    old = bench.series("old", study_date="20250101")
    bench.archive.add(old)
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    bench.fetch()
    assert [row.state for row in bench.node.rows(Prior)] == ["done"]
    assert set(bench.archive.given) == uids(old)


def test_an_earlier_study_that_holds_nothing_of_what_is_wanted_is_done(bench: Bench) -> None:
    bench.archive.add(bench.series("ct", study_date="20250101"))
    bench.archive.add(bench.series("mr", modality="MR", study_date="20250101"))
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    assert PriorFetcher(bench.node.database, bench.intake, bench.archive).tick(bench.now)  # the search
    for uid in uids(list(bench.folder.glob("ct/*"))):
        del bench.archive.files[uid]
    bench.fetch()
    assert [(row.state, row.error_code) for row in bench.node.rows(Prior)] == [("done", None)]
    assert bench.archive.given == bench.events() == []


def test_own_results_of_an_earlier_study_are_fetched_and_kept_as_own(bench: Bench) -> None:
    bench.archive.add(bench.series("ct", study_date="20250101"))
    own = bench.series(
        "own", count=1, modality="SEG", study_date="20250101", Manufacturer="Nadir", series_number=801,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4",
    )  # fmt: skip
    bench.archive.add(own)
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    bench.fetch()
    (earlier,) = bench.earlier()
    assert {one.sop_instance_uid for one in earlier.results} == uids(own)
    assert len(earlier.objects) == 2


def test_a_study_further_back_than_wanted_stays_where_it_is(bench: Bench) -> None:
    for day in ("20250228", "20250301"):
        bench.archive.add(bench.series(day, study_date=day))
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    bench.fetch(days=365)
    assert bench.dates() == ["20250301"]


@pytest.mark.parametrize(
    ("day", "since"),
    [
        (date(2026, 3, 1), date(2026, 1, 30)),
        (date(1895, 11, 20), date(1895, 11, 8)),
        (date(1, 1, 1), date(1, 1, 1)),
    ],
)
def test_the_past_begins_no_earlier_than_images_were_made(day: date, since: date) -> None:
    assert Wanted(days=30).since(day) == since


def test_an_earlier_study_that_is_here_whole_by_itself_is_not_fetched(bench: Bench) -> None:
    old = bench.series("old", count=3, study_date="20250101")
    bench.archive.add(old)
    bench.receive(old)
    bench.settle()
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    bench.fetch()
    assert bench.archive.given == []
    assert [row.state for row in bench.node.rows(Prior)] == ["done"]
    assert bench.settle() == 0


@pytest.mark.parametrize("analysed", [True, False])
def test_an_earlier_study_of_which_a_part_was_sent_is_fetched_and_analysed_anew_as_a_whole(
    bench: Bench, analysed: bool
) -> None:
    old = bench.series("old", count=8, study_date="20250101")
    bench.archive.add(old)
    bench.receive(old[3:4])
    assert bench.settle() == 2
    bench.receive(bench.series("today", study_date=TODAY))
    assert bench.settle() == 2
    bench.fetch(analysed=analysed)
    assert sorted(bench.archive.given) == sorted(uids(old) - uids(old[3:4]))
    with bench.node.database.reading() as session:
        (earlier,) = priors.earlier(session, 2)
    assert (len(earlier.objects), earlier.prior) == (8, False)
    assert bench.settle() == 2
    assert [(row.study_pk, row.number) for row in bench.node.rows(Revision)] == [(1, 1), (2, 1), (1, 2)]
    assert len(bench.node.rows(PriorSearch)) == 2  # what it was asked for brings no search of its own
    assert bench.events() == []


def test_an_earlier_study_of_which_only_a_report_of_others_was_sent_brings_its_images(bench: Bench) -> None:
    old = bench.series("old", study_date="20250101")
    uid = str(dcmread(old[0]).StudyInstanceUID)
    report = bench.series(
        "report", count=1, modality="SR", study_uid=uid, study_date="20250101", series_number=9,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33",
    )  # fmt: skip
    bench.archive.add([*old, *report])
    bench.receive(report)
    bench.settle()
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    bench.fetch(analysed=True)
    assert sorted(bench.archive.given) == sorted(uids(old))
    with bench.node.database.reading() as session:
        (earlier,) = priors.earlier(session, 2)
    assert {one.sop_instance_uid for one in earlier.objects} == uids([*old, *report])


def test_a_prior_that_the_pacs_tells_of_is_analysed_after_all(bench: Bench) -> None:
    old = bench.series("old", study_date="20250101")
    bench.archive.add(old)
    bench.receive(bench.series("today", study_date=TODAY))
    bench.settle()
    bench.fetch()
    uid = str(dcmread(old[0]).StudyInstanceUID)
    with bench.node.database.transaction() as session:
        pull.request(session, uid, now=bench.now)
        assert studies.adopt(session, uid, bench.now)
    assert bench.settle() == 0
    with bench.node.database.transaction() as session:
        session.get_one(Pull, uid).state = "pulled"
    assert bench.settle() == 2
