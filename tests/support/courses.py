"""Courses of patients made by hand, with the verdicts that their sums have in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from store.course import Course, CoursePatient, CourseVisit
from store.response.history import Role, Status
from store.response.verdict import Margin, Response, TimePoint
from store.sighting import Decision, Measure, Point, Sighting, Tracked
from store.tracking.link import Kind

START = date(2024, 1, 10)
METHOD = "0.5-level contour, slice of the largest long axis"


def course_patient(name: str = "Doe^Jane", patient_id: str = "P-0001") -> CoursePatient:
    """Return a patient."""
    return CoursePatient(
        pk=1, patient_id=patient_id, issuer="HOSP", name=name, sex="F", birth_date=date(1961, 3, 9)
    )


def visit(number: int, *, days: int = 56) -> CourseVisit:
    """Return the visit of this number, from 0, every `days` days."""
    return CourseVisit(
        study_pk=number + 1,
        study_instance_uid=f"1.2.826.0.1.{number + 1}",
        study_date=START + timedelta(days=days * number),
    )


def sighting(
    at: CourseVisit,
    lesion: int,
    long_mm: float | None,
    *,
    short_mm: float | None = None,
    sd_mm: float | None = 0.8,
    status: Status = Status.MEASURED,
    role: Role | None = Role.TARGET,
    role_by: str = "proposal",
    node: bool = False,
    site: str = "Lung",
    label: str | None = None,
    link: Tracked | None = None,
    decisions: Sequence[Decision] = (),
    **more: object,
) -> Sighting:
    """Return what was seen of a lesion at a visit; without a length nothing was drawn."""
    uid = f"2.25.{1000 + lesion}"
    measured = {} if long_mm is None else _axes(long_mm, short_mm or 0.7 * long_mm, sd_mm)
    there = Sighting(
        lesion=uid,
        tracking_uid=uid,
        written_uid=uid,
        label=label or f"Nodule {lesion}",
        study_instance_uid=at.study_instance_uid,
        date=at.study_date,
        series_instance_uid=f"{at.study_instance_uid}.1" if measured else "",
        segment_number=lesion if measured else None,
        type="Nodule",
        site=site,
        node=node,
        role=role,
        role_by=role_by,
        status=status,
        measurements=measured,
        confidence=0.91 if measured else None,
        link=link,
        plugin="lung_nodule",
        plugin_version="0.3.0",
        model_sha256="ab" * 32,
        decisions=tuple(decisions),
    )
    return replace(there, **more)  # type: ignore[arg-type]


def _axes(long_mm: float, short_mm: float, sd_mm: float | None) -> dict[str, Measure]:
    return {
        "long_axis": Measure(value=long_mm, unit="mm", uncertainty=sd_mm, method=METHOD),
        "short_axis": Measure(value=short_mm, unit="mm", uncertainty=sd_mm, method=METHOD),
        "volume": Measure(value=0.5236 * long_mm * short_mm**2 / 1000, unit="mL", method="voxels"),
    }


def tracked(
    kind: Kind, confidence: float = 0.94, earlier: Sequence[int] = (), expected: Point | None = None
) -> Tracked:
    """Return a link with a reason."""
    return Tracked(
        kind=kind,
        confidence=confidence,
        reason="2.1 mm from where it was expected, overlap 0.74, volume 0.8 times",
        earlier=tuple(f"2.25.{1000 + n}" for n in earlier),
        earlier_study_instance_uid="1.2.826.0.1.1",
        expected_mm=expected,
    )


def course_of(
    lengths_mm: Mapping[int, Sequence[float | None]],
    *,
    patient: CoursePatient | None = None,
    days: int = 56,
    more: Sequence[Sighting] = (),
) -> Course:
    """Return a course in which each target has these lengths, one a visit; None where it was not assessed."""
    count = max(map(len, lengths_mm.values()), default=0)
    visits = [visit(number, days=days) for number in range(max(count, 1))]
    seen = [
        sighting(visits[number], lesion, length, link=None if number == 0 else tracked(Kind.SAME))
        for number in range(count)
        for lesion, row in lengths_mm.items()
        if number < len(row) and (length := row[number]) is not None
    ]
    ordered = sorted([*seen, *more], key=lambda one: (one.date, one.study_instance_uid))
    return Course(patient=patient or course_patient(), visits=tuple(visits), sightings=tuple(ordered))


def response_of(
    patient: str,
    sums: Sequence[tuple[date, float | None]],
    verdicts: Sequence[str | None],
    *,
    criteria: str = "recist1.1",
    because: str = "The sum of diameters is between partial response and progression.",
    margins: Sequence[Margin] = (),
    new_from: int | None = None,
) -> Response:
    """Return the verdicts of sums, as given; the nadir is the smallest complete sum before each visit."""
    points = []
    for number, ((day, total), verdict) in enumerate(zip(sums, verdicts, strict=True)):
        before = [s for _, s in sums[:number] if s is not None]
        points.append(
            TimePoint(
                date=day,
                sum=total,
                nadir=min(before) if before else None,
                target=None if number == 0 else verdict,
                non_target=None,
                new=new_from is not None and number >= new_from,
                overall=verdict,
                because="The first visit is the baseline." if number == 0 else because,
                margins=tuple(margins) if number == len(sums) - 1 else (),
            )
        )
    told = [v for v in verdicts if v]
    return Response(
        patient=patient, criteria=criteria, quantity="sum of diameters", unit="mm", time_points=tuple(points),
        best_overall=told[0] if told else None, best_overall_confirmed=told[-1] if told else None,
    )  # fmt: skip


def decision(kind: str, value: str, author: str = "Dr. Grey", number: int = 1, note: str = "") -> Decision:
    """Return a choice of a person."""
    return Decision(
        number=number, at=datetime(2024, 5, 2, 9, 30, tzinfo=UTC), author=author, kind=kind, value=value,
        source="command", note=note,
    )  # fmt: skip


def ordinary() -> tuple[Course, tuple[Response, ...]]:
    """Return a course of four visits: three targets, a node among them, one non-target, and at last a new lesion.

    Sums 60.0, 41.0, 38.0 and 47.0 mm: baseline, PR, PR, PD (nadir 38.0, +9.0 mm, +23.68 %).
    """
    at = [visit(n) for n in range(4)]
    node = [(22.0, 18.0), (16.0, 12.0), (14.0, 10.0), (15.0, 11.5)]
    more = [
        sighting(at[n], 3, long, short_mm=short, node=True, site="Mediastinal lymph node", label="Node 4R",
                 role_by="Dr. Grey" if n else "proposal",
                 decisions=[decision("role", "target", note="reproducible in all planes")] if n == 1 else (),
                 link=None if n == 0 else tracked(Kind.SAME, 0.88))
        for n, (long, short) in enumerate(node)
    ]  # fmt: skip
    more += [
        sighting(at[n], 3, None, node=True, site="Lymph node", label="PET lesion", role_by="Dr. Grey",
                 plugin="pet_lesion", measurements={
            "suv_peak": Measure(value=6.1 - n, unit="g/ml{SUVlbm}", method="1 cm3 sphere"),
        })
        for n in range(4)
    ]  # fmt: skip
    more += [
        sighting(at[n], 4, None, role=Role.NON_TARGET, status=Status.PRESENT, label="Pleural thickening",
                 site="Pleura", sd_mm=None)
        for n in range(3)
    ]  # fmt: skip
    more += [
        sighting(at[3], 4, None, role=Role.NON_TARGET, status=Status.NOT_EVALUABLE, label="Pleural thickening",
                 site="Pleura", link=tracked(Kind.OUT_OF_VIEW, 1.0, [4])),
        sighting(at[3], 5, 9.5, role=Role.NEW, role_by="Dr. Grey", label="Nodule in the left lower lobe",
                 link=tracked(Kind.NEW, 0.97), decisions=[decision("role", "new", number=2)]),
    ]  # fmt: skip
    course = course_of({1: (24.0, 17.0, 16.0, 20.5), 2: (18.0, 12.0, 12.0, 15.0)}, more=more)
    margins = [
        Margin(lesion="2.25.1002", quantity="long_axis", value=15.0, change=-1.5, unit="mm", verdict="PR",
               standard_deviations=1.875),
        Margin(lesion="2.25.1003", quantity="short_axis", value=11.5, change=-1.5, unit="mm", verdict="PR"),
    ]  # fmt: skip
    because = (
        "Progression: the sum of diameters is 47.0 mm, at least 1.2 times the nadir of 38.0 mm (45.6 mm) and 9.0 mm "
        "above it; an unequivocal new lesion was seen (Nodule in the left lower lobe)."
    )
    sums = [(v.study_date, s) for v, s in zip(at, (60.0, 41.0, 38.0, 47.0), strict=True)]
    verdicts = (None, "PR", "PR", "PD")
    response = response_of("P-0001", sums, verdicts, because=because, margins=margins, new_from=3)
    return course, (response,)


__all__ = [
    "START", "course_of", "course_patient", "decision", "ordinary", "response_of", "sighting", "tracked", "visit",
]  # fmt: skip
