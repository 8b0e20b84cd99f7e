"""What people decided of what was drawn, of many patients: read only of those of whom somebody decided something."""

from __future__ import annotations

from collections.abc import Collection

from sqlmodel import Session, select

from store.course import course
from store.identity import drawn
from store.objects import ObjectStore
from store.patients import same_person
from store.sighting import Sighting
from store.tables import Choice, PatientMerge

Place = tuple[str, str, str, str]
"""Analysis, Study and Series Instance UID, and the Tracking UID as it was written."""


def decided_sightings(
    session: Session, patient_pks: Collection[int], objects: ObjectStore | None = None
) -> dict[Place, Sighting]:
    """Return what was drawn of these patients with what people decided, by its place; `objects` as for a course.

    Patients of whom nobody decided anything have none.
    """
    chose = set(session.exec(select(Choice.patient_pk).distinct()))
    if not chose:
        return {}
    pairs = session.exec(select(PatientMerge.patient_pk, PatientMerge.into_pk))
    merged = {pk for pair in pairs for pk in pair}
    heads = set()
    for pk in sorted(set(patient_pks) & (chose | merged)):
        members = same_person(session, pk)
        if chose & set(members):
            heads.add(members[0])
    return {
        (one.plugin, one.study_instance_uid, one.series_instance_uid, one.written_uid): one
        for pk in sorted(heads)
        for one in course(session, pk, objects).sightings
        if drawn(one)
    }


def is_rejected(one: Sighting) -> bool:
    """Return whether people said that it is no lesion."""
    return any((d.kind, d.value) == ("reject", "true") for d in one.decisions)


def corrected_site(one: Sighting) -> str | None:
    """Return the organ that people gave, in words; None when nobody did."""
    return one.site if any(d.kind == "site" for d in one.decisions) else None


__all__ = ["Place", "corrected_site", "decided_sightings", "is_rejected"]
