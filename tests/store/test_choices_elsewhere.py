"""What people decide of lesions that came here as another node's SEG and SR, or that they measured by hand."""

from __future__ import annotations

from datetime import date

import pytest
from course_rows import Clock, Linked, lesion, patient_pk, visit
from ledger import at
from persons_report import IMAGE, image, report
from persons_report import bring as bring_report
from results_elsewhere import bring
from small_results import Case, make_case
from sqlmodel import Session

from plugins.errors import Refused
from store.choices import choose, swap
from store.course import Course, course
from store.database import Database
from store.objects import ObjectStore
from store.sighting import Decision
from store.tracking.link import Kind

JANUARY, MARCH = date(2026, 1, 10), date(2026, 3, 10)
ONE, TWO = "2.25.1", "2.25.2"


@pytest.fixture
def database(sqlite: Database) -> Database:
    return sqlite


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("elsewhere"))


def came(session: Session, objects: ObjectStore, case: Case) -> tuple[str, str, str]:
    """Take in two lesions of January, follow the first in March; return their Tracking UIDs and January's study."""
    seg = case.seg()
    for one in (seg, case.planar(seg), case.volumetric(seg)):
        bring(session, objects, one)
    first, second = (one.tracking_uid for one in case.findings[:2])
    study = str(seg.StudyInstanceUID)
    same = Linked(kind=Kind.SAME, uid=first, earlier=[first], study=study)
    visit(session, Clock(seconds=10, studies=9), MARCH, [lesion(first, 30)], [same])
    return first, second, study


def say(
    session: Session, objects: ObjectStore | None, kind: str, uid: str, value: str, study: str = ""
) -> Decision:
    return choose(
        session, patient_pk(session), kind, uid, value,
        author="Dr. Grey", now=at(100), study_instance_uid=study, objects=objects,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("reject", "true", (False, None, "")),
        ("role", "target", (True, "target", "")),
        ("site", "Liver", (True, "non-target", "Liver")),
        ("node", "true", (True, None, "")),  # too small for one
    ],
)
def test_a_lesion_that_another_node_measured_is_decided_of_like_any_other(
    database: Database, objects: ObjectStore, case: Case, kind: str, value: str,
    told: tuple[bool, str | None, str],
) -> None:  # fmt: skip
    with database.transaction() as session:
        _, second, _ = came(session, objects, case)
        with pytest.raises(Refused, match="has no lesion"):
            say(session, None, kind, second, value)
        say(session, objects, kind, second, value)
        known = course(session, patient_pk(session), objects)
    (one,) = [s for s in known.sightings if s.lesion == second]
    role = None if one.role is None else one.role.value
    site = one.site if kind == "site" else ""
    assert (one.counts, role, site) == told and one.decisions[-1].author == "Dr. Grey"


def lesions_at(known: Course, study: str) -> dict[str, str]:
    return {s.label: s.lesion for s in known.sightings if s.study_instance_uid == study}


def test_lesions_of_another_node_are_relinked_and_swapped(
    database: Database, objects: ObjectStore, case: Case
) -> None:
    with database.transaction() as session:
        first, second, study = came(session, objects, case)
        pk, about = patient_pk(session), {"author": "Dr. Grey", "now": at(100)}
        assert lesions_at(course(session, pk, objects), study) == {"Nodule 1": first, "Nodule 2": second}
        with pytest.raises(Refused, match="is that lesion at this visit already"):
            say(session, objects, "relink", second, first, study)
        swap(session, pk, first, second, study_instance_uid=study, objects=objects, **about)  # type: ignore[arg-type]
        assert lesions_at(course(session, pk, objects), study) == {"Nodule 1": second, "Nodule 2": first}
        say(session, objects, "relink", first, "new", study)
        assert lesions_at(course(session, pk, objects), study)["Nodule 2"] not in (first, second)


def test_two_drawings_of_one_visit_are_no_one_lesion_also_where_a_person_measured_one_by_hand(
    database: Database, objects: ObjectStore
) -> None:
    with database.transaction() as session:
        found = [lesion(ONE, 20), lesion(TWO, 12, segment_number=2)]
        visit(session, Clock(), JANUARY, found, study="1.2.1")
        bring_report(session, objects, image(), 1)
        bring_report(session, objects, report(ONE, IMAGE), 2)
        with pytest.raises(Refused, match="is that lesion at this visit already"):
            say(session, objects, "relink", ONE, TWO, "1.2.1")
        moved = say(session, objects, "relink", ONE, "new", "1.2.1")
        known = course(session, patient_pk(session), objects)
    own = [(s.plugin, s.lesion) for s in known.sightings if s.lesion != TWO]
    assert own == [("lung_nodule", moved.value), ("report", moved.value)]
