"""The course of a patient: what was seen of each lesion at each visit, with what people decided, out of SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import count

from sqlmodel import Session

from plugins.errors import Refused
from store import told
from store.by_hand import measured_by_hand
from store.chosen import Chosen, chosen
from store.coalesced import settled
from store.counting import counted
from store.density import Density, densities
from store.elsewhere import Elsewhere, found_elsewhere
from store.given_reference import GivenReference, given
from store.identity import drawn, named
from store.lesions import decided, with_roles
from store.normal import NormalTissue, normal_tissue
from store.objects import ObjectStore
from store.patients import Merged, merged, same_person
from store.response.history import History
from store.response.rules import USUAL, Rules
from store.scanners import Scanned, scanned
from store.sighting import Sighting
from store.sightings import analysed_on, found_here, on_slices, studies_of
from store.tables import Patient


@dataclass(frozen=True, kw_only=True)
class CoursePatient:
    """Whose course it is."""

    pk: int
    """Row of the patient."""
    patient_id: str
    """PatientID."""
    issuer: str = ""
    """IssuerOfPatientID, or empty."""
    name: str = ""
    """PatientName."""
    sex: str = ""
    """PatientSex."""
    birth_date: date | None = None
    """PatientBirthDate."""


@dataclass(frozen=True, kw_only=True)
class CourseVisit:
    """One study of the patient; studies of one date are one time point."""

    study_pk: int
    """Row of the study."""
    study_instance_uid: str
    """Study Instance UID."""
    study_date: date
    """Study Date."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """What is known of a patient's lesions over time."""

    patient: CoursePatient
    """Whose."""
    visits: tuple[CourseVisit, ...]
    """Studies with a date, oldest first."""
    sightings: tuple[Sighting, ...]
    """By date, then study, then as they were found."""
    analysed: tuple[tuple[date, str], ...] = ()
    """On which dates which analysis that finds lesions gave a result, also that there is nothing."""
    merges: tuple[Merged, ...] = ()
    """Who declared which other patients to be this one, by time."""
    normal: tuple[NormalTissue, ...] = ()
    """The liver references of its PETs."""
    given: tuple[GivenReference, ...] = ()
    """Normal tissue of its PETs that people entered, in that order."""
    scans: tuple[Scanned, ...] = ()
    """How the series were made that the analyses of this node looked at, by date."""
    densities: tuple[Density, ...] = ()
    """How dense the lungs were, by date."""

    @property
    def lesions(self) -> tuple[str, ...]:
        """Return the lesions by their Tracking UIDs, in the order in which they were first seen."""
        return tuple(dict.fromkeys(one.lesion for one in self.sightings))

    @property
    def names(self) -> dict[str, str]:
        """Return the name of each lesion: its Tracking ID as in SEG and SR, numbered when another lesion has it too."""
        best_last = sorted(
            reversed(self.sightings), key=lambda one: (one.written_uid == one.lesion, one.counts)
        )
        labels = {one.lesion: one.label for one in best_last}
        names: dict[str, str] = {}
        given: set[str] = set()
        for lesion in self.lesions:
            label = labels[lesion]
            numbered = (f"{label} ({n})" for n in count(2))
            free = (one for one in numbered if one not in given and one not in labels.values())
            names[lesion] = next(free) if label in given else label
            given.add(names[lesion])
        return names

    def history(self, criteria: str = "recist1.1") -> History:
        """Return what a set of criteria is told of it, see `store.told.history`."""
        return told.history(self, criteria)


def course(
    session: Session, patient_pk: int, objects: ObjectStore | None = None, rules: Rules = USUAL
) -> Course:
    """Return the course of one patient, and of those who were declared the same.

    With the object store also what was measured elsewhere and came here as SEG and SR, and what people measured of
    these lesions by hand in SRs of theirs. Refuses `no-such-patient`.
    """
    if session.get(Patient, patient_pk) is None:
        raise Refused("no-such-patient", f"there is no patient with the number {patient_pk}")
    members = same_person(session, patient_pk)
    patient = session.get_one(Patient, members[0])
    studies = studies_of(session, members)
    found = found_here(session, studies, members)
    ran = analysed_on(session, studies, members)
    if objects is not None:
        uids = {pk: uid for pk, uid, _ in studies}
        there = found_elsewhere(session, objects, studies, {(uids[pk], name) for pk, _, name in ran})
        own = measured_by_hand(session, objects, studies, (*found, *there.sightings))
        found = tuple(sorted(own, key=lambda one: (one.date, one.study_instance_uid)))
    else:
        there = Elsewhere()
    # Where nobody drew, nobody looked; an analysis looked wherever it gave a result.
    searching = {one.plugin for one in found if drawn(one) and one.automatic}
    gave = {(on, name) for _, on, name in ran} | set(there.analysed)
    analysed = tuple(sorted(one for one in gave if one[1] in searching))
    said = chosen(session, patient_pk)
    visits = tuple(CourseVisit(study_pk=pk, study_instance_uid=uid, study_date=on) for pk, uid, on in studies)
    return Course(
        patient=CoursePatient(
            pk=members[0],
            patient_id=patient.patient_id,
            issuer=patient.issuer,
            name=patient.patient_name,
            sex=patient.patient_sex,
            birth_date=patient.patient_birth_date,
        ),
        visits=visits,
        sightings=judged(on_slices(session, found), said, visits, analysed, rules),
        analysed=analysed,
        merges=merged(session, members),
        normal=(*normal_tissue(session, studies), *there.normal),
        given=given(said, studies),
        scans=scanned(session, studies),
        densities=densities(session, studies),
    )


def judged(
    sightings: Sequence[Sighting],
    choices: Chosen,
    visits: Sequence[CourseVisit],
    analysed: Sequence[tuple[date, str]],
    rules: Rules = USUAL,
) -> tuple[Sighting, ...]:
    """Return the sightings with what people decided of them, what counts, and what each is to the criteria. Pure."""
    studies = {visit.study_instance_uid: visit.study_date for visit in visits}
    found = counted(decided(named(sightings, choices), choices, studies))
    return settled(with_roles(found, choices, analysed, rules))


__all__ = ["Course", "CoursePatient", "CourseVisit", "course", "judged"]
