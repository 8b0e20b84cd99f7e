"""A study as people look at it, what was found in it, and what they made of each result."""

from __future__ import annotations

from datetime import date

import pytest
from course_rows import ANATOMY, LUNG, Clock, Linked, lesion, patient_pk, visit
from ledger import at
from sqlmodel import Session, select

from plugins.errors import Refused
from store.assessments import assessments
from store.choices import choose, undo
from store.database import Database
from store.finding_view import FindingPage, findings_of
from store.findings import Wanted, findings_page
from store.study_head import study_head
from store.study_view import study_view
from store.tables import Finding, Refusal
from store.tracking.link import Kind

JANUARY, MARCH = date(2026, 1, 10), date(2026, 3, 10)
ONE, TWO, NEW, ORGAN = "2.25.1", "2.25.2", "2.25.3", "2.25.4"


@pytest.fixture
def database(sqlite: Database) -> Database:
    """Give a patient with two visits: two nodules, then one of them, a new one, and a lung; the other one is gone."""
    with sqlite.transaction() as session:
        clock = Clock()
        first = visit(session, clock, JANUARY, [lesion(ONE), lesion(TWO, segment_number=2)], study="1.2.1")
        organ = lesion(ORGAN, label="Left lung", category=ANATOMY, type=LUNG, measurements=())
        found = [organ, lesion(ONE, 18), lesion(NEW, 30, segment_number=2, label="Nodule B")]
        links = [
            Linked(kind=Kind.SAME, uid=ONE, earlier=[ONE], study=first),
            Linked(kind=Kind.NEW, uid=NEW, study=first),
            Linked(kind=Kind.GONE, uid=TWO, earlier=[TWO], study=first, is_drawn=False),
        ]
        visit(session, clock, MARCH, found, links, study="1.2.2")
    return sqlite


def findings(session: Session, study: str = "1.2.2", **options: int | bool) -> FindingPage:
    return findings_of(session, study_head(session, study).study_pk, **options)  # type: ignore[arg-type]


def said(session: Session, kind: str, uid: str, value: str, study: str = "1.2.2") -> int:
    about = {"author": "Dr. Grey", "now": at(100), "note": "because"}
    pk = patient_pk(session)
    return choose(session, pk, kind, uid, value, study_instance_uid=study, **about).number  # type: ignore[arg-type]


def verdicts(session: Session) -> dict[str, str]:
    return {one.label: one.assessment.verdict for one in findings(session).findings}


def test_a_study_tells_its_series_analyses_and_results_and_that_none_is_known_by_another_name(
    database: Database,
) -> None:
    with database.reading() as session:
        view = study_view(session, "1.2.2")
        assert (view.head.study_date, view.head.revision, view.head.state) == (MARCH, 1, "settled")
        (analysis,) = view.analyses
        assert (analysis.plugin, analysis.state, analysis.findings) == ("lung_nodule", "done", 3)
        assert [result.kind for result in analysis.results] == ["seg"]
        assert [series.instances for series in view.series] == [1] and not view.is_moving
        with pytest.raises(Refused, match="no such study"):
            study_view(session, "1.2.3")


def test_a_doubt_about_one_of_two_findings_of_a_name_is_told_beside_it(sqlite: Database) -> None:
    with sqlite.transaction() as session:
        found = [
            lesion(ONE, label="Lesion"),
            lesion(TWO, segment_number=2, label="Lesion", tracking_identifier="Lesion 2"),
        ]
        visit(session, Clock(), MARCH, found, study="1.2.2")
        (job_pk,) = set(session.exec(select(Finding.job_pk)))
        for sentence in ("'Lesion 2' was not seen before", "'Lesion 22' is new"):
            session.add(Refusal(job_pk=job_pk, code="lesion-new", sentence=sentence, refused=False))
    with sqlite.reading() as session:
        told = [one.said for one in findings(session).findings]
    assert told == [(), ("'Lesion 2' was not seen before",)]


def test_findings_say_which_lesion_they_are_and_which_lesion_was_not_drawn(database: Database) -> None:
    with database.reading() as session:
        page = findings(session)
    assert [one.label for one in page.findings] == ["Nodule .1", "Nodule B", "Left lung"]
    same, new, organ = page.findings
    assert same.identity is not None and new.identity is not None and organ.identity is None
    assert (same.identity.kind, same.identity.lesion_uid, same.identity.compared_with) == (
        "same",
        ONE,
        "1.2.1",
    )
    assert (new.identity.kind, new.role, new.role_by) == ("new", "new", "not confirmed")
    assert [(one.tracking_uid, one.kind, one.status) for one in page.missed] == [
        (TWO, "disappeared", "absent")
    ]
    assert set(page.lesions) == {ONE, TWO, NEW}


def test_findings_come_in_pages_that_leave_none_out(database: Database) -> None:
    with database.reading() as session:
        pages = [findings(session, offset=n, limit=1) for n in range(3)]
        assert [page.findings[0].label for page in pages] == ["Nodule .1", "Nodule B", "Left lung"]
        assert {page.total for page in pages} == {3} and not pages[1].missed
        wanted, after, seen = Wanted(patient_id="P1"), 0, []
        for _ in range(5):
            rows, total, last = findings_page(session, wanted, after=after, limit=1)
            seen.append({row["finding"] for row in rows})
            after = last or 0
        assert total == 5 and last is None and len(set.union(*seen)) == 5


@pytest.mark.parametrize(
    ("wanted", "labels"),
    [
        (Wanted(tracking_uid=ONE), ["Nodule .1", "Nodule .1"]),
        (Wanted(study_instance_uid="1.2.1"), ["Nodule .1", "Nodule .2"]),
        (Wanted(plugin="pet_lesion"), []),
        (Wanted(patient_id="another"), []),
    ],
)
def test_findings_are_filtered(database: Database, wanted: Wanted, labels: list[str]) -> None:
    with database.reading() as session:
        rows, total, _ = findings_page(session, wanted)
    shown = dict.fromkeys((row["finding"], row["label"]) for row in rows)
    assert [label for _, label in shown] == labels and total == len(labels)


def test_what_people_made_of_a_finding_follows_their_choices_and_taking_them_back(database: Database) -> None:
    with database.transaction() as session:
        assert verdicts(session)["Nodule B"] == "not-assessed"
        said(session, "confirm", NEW, "true")
        approved = said(session, "outline", NEW, "approved")
        assert verdicts(session) == {
            "Nodule .1": "not-assessed", "Nodule B": "accepted", "Left lung": "not-assessed",
        }  # fmt: skip
        said(session, "site", NEW, "liver")
        assert verdicts(session)["Nodule B"] == "supplemented"
        rejected = said(session, "reject", NEW, "true")
        assert verdicts(session)["Nodule B"] == "rejected"
        (one,) = [one for one in findings(session).findings if one.label == "Nodule B"]
        assert (one.assessment.author, one.assessment.note, one.counts) == ("Dr. Grey", "because", False)
        for number in (rejected, approved):
            undo(session, patient_pk(session), number, author="Dr. Who", now=at(101))
        assert verdicts(session)["Nodule B"] == "supplemented"
        said(session, "outline", ONE, "not-approved")
        assert verdicts(session)["Nodule .1"] == "supplemented"


def test_a_drawing_of_a_person_supplements_what_was_found_of_the_lesion(database: Database) -> None:
    with database.transaction() as session:
        drawn = lesion(ONE, 19, automatic=False, label="by hand", confidence=None)
        visit(session, Clock(seconds=500), MARCH, [drawn], study="1.2.2", plugin="contours")
        page = findings(session)
    found = {one.label: one for one in page.findings}
    assert found["Nodule .1"].assessment.verdict == "supplemented"
    assert found["by hand"].assessment.verdict == "not-assessed" and not found["by hand"].is_automatic


def test_assessments_of_all_results_are_told_page_by_page(database: Database) -> None:
    with database.transaction() as session:
        said(session, "outline", ONE, "approved")
        rows, total, last = assessments(session, Wanted())
        assert (total, last) == (4, None)
        assert [(r["study_instance_uid"], r["tracking_uid"], r["verdict"]) for r in rows] == [
            ("1.2.1", ONE, "not-assessed"),
            ("1.2.1", TWO, "not-assessed"),
            ("1.2.2", ONE, "accepted"),
            ("1.2.2", NEW, "not-assessed"),
        ]
        assert all(len(row["results"]) == 1 for row in rows)
        first, _, last = assessments(session, Wanted(study_instance_uid="1.2.2"), limit=1)
        assert [row["tracking_uid"] for row in first] == [ONE] and last == first[0]["finding"]
