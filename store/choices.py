"""The choices of people: append-only, the newest of a kind counts, taken back by a further one.

Of a lesion as a whole are its role, whether it is a node, its site, and whether it is one at all; of one visit are
which lesion it is there, what was seen of it, whether a reader confirmed it, and whether its outline is right there.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlmodel import Session, col, select

from plugins.errors import Refused
from store import given_reference
from store.by_hand import PLUGIN as REPORT
from store.charset import storable
from store.chosen import chosen, decision_of
from store.course import Course, course
from store.database import aware_utc
from store.identity import drawn
from store.objects import ObjectStore
from store.patients import hold, same_person
from store.sighting import Decision, Sighting
from store.strangers import first_given
from store.tables import Choice, Finding, Study

COMMAND: Final = "command"
"""Source of a choice that was given on the command line."""
PAGE: Final = "page"
"""Source of a choice that was given on a page, or by the JSON."""
OUTLINE: Final = "outline"
"""The kind of choice that speaks of what Nadir drew at a visit: approved, it is a label for models to learn from."""
APPROVED: Final = "approved"
VALUES: Final[dict[str, tuple[str, ...]]] = {
    "relink": (),
    "role": ("target", "non-target", "new", "ignore"),
    "node": ("true", "false"),
    "site": (),
    "status": ("measured", "absent", "NE", "present", "too-small", "unequivocal-progression"),
    "reject": ("true", "false"),
    "confirm": ("true", "false"),
    OUTLINE: (APPROVED, "not-approved"),
    "drawn": (),
    "undo": (),
}
"""The kinds of choices, and what each may say; nothing listed for one that takes a Tracking UID, words or a number.

`drawn` tells who drew a lesion of the patient, and changes nothing by itself: what a person drew counts anyway.
"""
OWN: Final = "new"
"""Value of a relink that gives the lesion an identity of its own."""


def choose(
    session: Session,
    patient_pk: int,
    kind: str,
    tracking_uid: str,
    value: str,
    *,
    author: str,
    now: datetime,
    study_instance_uid: str = "",
    source: str = COMMAND,
    note: str = "",
    split: bool = False,
    objects: ObjectStore | None = None,
) -> Decision:
    """Keep one choice of a person about a lesion, named by any Tracking UID that it has now, and return it.

    A relink says that what was drawn at this study is the lesion `value`, or with `new` one of its own. `split` allows
    that two drawings of one analysis at one study become one lesion: fragments, whose axes are added up. With the
    object store also of what came here as SEG and SR.

    Refuses `no-author`, `no-such-choice`, `bad-choice`, `no-such-lesion`, `lesion-of-another-patient`,
    `no-such-study` and `two-lesions-of-one-visit`.
    """
    _require_author(author)
    _check_value(kind, value)
    hold(session, patient_pk)
    now_known = course(session, patient_pk, objects)
    _require_lesion(session, now_known, tracking_uid)
    if study_instance_uid and study_instance_uid not in {v.study_instance_uid for v in now_known.visits}:
        raise Refused("no-such-study", f"the patient has no dated study {study_instance_uid}")
    if kind == "relink":
        one = _drawn_at(now_known, tracking_uid, study_instance_uid)
        if value == OWN:
            value = f"2.25.{uuid.uuid4().int}"
        elif value not in {uid for s in now_known.sightings for uid in (s.written_uid, s.choice_uid)}:
            _require_lesion(session, now_known, value)
        if not split:
            _refuse_two_of_one_visit(now_known, one, value)
        tracking_uid = one.choice_uid
    elif kind in ("status", OUTLINE) and not study_instance_uid:
        raise Refused("bad-choice", "what was seen or drawn of a lesion is said of one visit; name its study")
    elif kind == OUTLINE:
        _require_outline(now_known, tracking_uid, study_instance_uid)
    about = {"study_instance_uid": study_instance_uid, "source": source, "note": note}
    row = _row_of(session, now_known, tracking_uid, study_instance_uid)
    return keep(session, row, kind, tracking_uid, value, author, now, **about)


def swap(
    session: Session,
    patient_pk: int,
    tracking_uid: str,
    other_uid: str,
    *,
    author: str,
    now: datetime,
    study_instance_uid: str,
    note: str = "",
    objects: ObjectStore | None = None,
) -> tuple[Decision, Decision]:
    """Keep that two lesions were taken for each other at a study, and return both relinks. Refuses as `choose`."""
    _require_author(author)
    hold(session, patient_pk)
    known = course(session, patient_pk, objects)
    one, other = (_drawn_at(known, uid, study_instance_uid) for uid in (tracking_uid, other_uid))
    if one is other:
        raise Refused("bad-choice", "a lesion is not swapped with itself")
    about = {"study_instance_uid": study_instance_uid, "note": note}
    row = _row_of(session, known, tracking_uid, study_instance_uid)
    return (
        keep(session, row, "relink", one.choice_uid, other.tracking_uid, author, now, **about),
        keep(session, row, "relink", other.choice_uid, one.tracking_uid, author, now, **about),
    )


def undo(
    session: Session,
    patient_pk: int,
    number: int,
    *,
    author: str,
    now: datetime,
    source: str = COMMAND,
    note: str = "",
) -> Decision:
    """Take a choice back, or back again what took it back, by a further one. Refuses `no-such-choice`, `undone`."""
    _require_author(author)
    hold(session, patient_pk)
    known = chosen(session, patient_pk)
    row = next((one for one in known.decisions if one.number == number), None)
    if row is None:
        raise Refused("no-such-choice", f"the patient has no choice number {number}; 'history' lists them")
    by = next((d for d in reversed(known.standing) if d.kind == "undo" and d.value == str(number)), None)
    if by is not None:
        raise Refused("undone", f"choice {number} was taken back already, by number {by.number}")
    made_of = session.get_one(Choice, number).patient_pk
    if made_of in same_person(session, patient_pk):
        patient_pk = made_of
    return keep(
        session, patient_pk, "undo", row.tracking_uid, str(number), author, now, source=source, note=note
    )


def give_reference(
    session: Session,
    patient_pk: int,
    study_instance_uid: str,
    values: Mapping[str, float],
    *,
    author: str,
    now: datetime,
    source: str = COMMAND,
    note: str = "",
) -> Decision:
    """Keep what a person measured of the normal tissue of a PET, SUL in g/ml, and return it.

    A further one adds to it, or takes its place where it gives the same number. Refuses `no-author`, `no-such-study`
    and `bad-reference`.
    """
    _require_author(author)
    hold(session, patient_pk)
    known = course(session, patient_pk)
    if study_instance_uid not in {v.study_instance_uid for v in known.visits}:
        raise Refused("no-such-study", f"the patient has no dated study {study_instance_uid}")
    if not values or set(values) - set(given_reference.NUMBERS):
        raise Refused("bad-reference", f"give at least one of {', '.join(given_reference.NUMBERS)}")
    for name, value in values.items():
        least = 0.0 if name.endswith("_sd") else 0.01
        if not least <= value <= given_reference.MOST:
            words = f"{name} is an SUL from {least:g} to {given_reference.MOST:g} g/ml, not {value:g}"
            raise Refused("bad-reference", words)
    said = json.dumps({name: values[name] for name in given_reference.NUMBERS if name in values})
    about = {"study_instance_uid": study_instance_uid, "source": source, "note": note}
    row = _row_of(session, known, "", study_instance_uid)
    return keep(session, row, given_reference.KIND, "", said, author, now, **about)


def keep(
    session: Session,
    patient_pk: int,
    kind: str,
    tracking_uid: str,
    value: str,
    author: str,
    now: datetime,
    *,
    study_instance_uid: str = "",
    source: str = COMMAND,
    note: str = "",
) -> Decision:
    """Keep a choice that is known to be possible, and return it; a relink by `Sighting.choice_uid`.

    It is kept of the row that is given, not of the one that speaks for the person: rows are parted again.
    """
    row = Choice(
        patient_pk=patient_pk,
        at=aware_utc(now),
        author=storable(author.strip()),
        source=source,
        kind=kind,
        tracking_uid=tracking_uid,
        study_instance_uid=study_instance_uid,
        value=storable(value),
        note=storable(note),
    )
    session.add(row)
    session.flush()
    return decision_of(row)


def _require_author(author: str) -> None:
    if not author.strip():
        raise Refused("no-author", "a choice needs the name of whoever makes it; give --author")


def _check_value(kind: str, value: str) -> None:
    if kind not in VALUES or kind in ("undo", "drawn"):
        raise Refused("no-such-choice", f"'{kind}' is no kind of choice that can be given like this")
    if VALUES[kind] and value not in VALUES[kind]:
        raise Refused("bad-choice", f"{kind} is one of {', '.join(VALUES[kind])}, not '{value}'")
    if kind in ("site", "relink") and not value.strip():
        raise Refused("bad-choice", f"{kind} needs a value")


def _row_of(session: Session, known: Course, uid: str, study_instance_uid: str) -> int:
    """Return the row of the patient whose study, or else whose lesion, a choice speaks of."""
    members = same_person(session, known.patient.pk)
    if not study_instance_uid and (rows := first_given(session, members).get(uid)):
        return rows[0]
    seen_at = (s.study_instance_uid for s in known.sightings if uid in (s.lesion, s.tracking_uid))
    study = study_instance_uid or next(seen_at, "")
    owner = session.exec(select(Study.patient_pk).where(col(Study.study_instance_uid) == study)).first()
    return owner if owner in members else members[0]


def _uids(known: Course) -> set[str]:
    return {uid for one in known.sightings for uid in (one.lesion, one.tracking_uid)}


def _require_lesion(session: Session, known: Course, uid: str) -> None:
    if uid in _uids(known):
        return
    elsewhere = select(Finding.id).where(col(Finding.tracking_uid) == uid)
    if session.exec(elsewhere).first() is not None and uid not in {s.written_uid for s in known.sightings}:
        members = set(same_person(session, known.patient.pk))
        owners = set(session.exec(select(Finding.patient_pk).where(col(Finding.tracking_uid) == uid)))
        if not owners & members:
            raise Refused("lesion-of-another-patient", f"the lesion {uid} is one of another patient")
    raise Refused("no-such-lesion", f"the patient has no lesion {uid}; 'nadir lesions list' shows them")


def _drawn_at(known: Course, uid: str, study_instance_uid: str) -> Sighting:
    there = [
        one
        for one in known.sightings
        if uid in (one.tracking_uid, one.lesion) and one.study_instance_uid == study_instance_uid
    ]
    found: Sequence[Sighting] = [one for one in there if drawn(one)]
    found = [one for one in found if one.plugin != REPORT] or found
    found = [one for one in found if one.tracking_uid == uid] or found
    if not found:
        raise Refused(
            "no-such-lesion", f"nothing was drawn of the lesion {uid} at the study; nothing to relink"
        )
    # Of two that are called so the one that nobody moved there is meant.
    return max(found, key=lambda one: (one.choice_uid == uid, one.counts, not one.automatic))


def _require_outline(known: Course, uid: str, study_instance_uid: str) -> None:
    there = (s for s in known.sightings if s.study_instance_uid == study_instance_uid)
    if not any(uid in (s.tracking_uid, s.lesion) and s.automatic and drawn(s) for s in there):
        raise Refused(
            "no-such-lesion", f"Nadir drew nothing of the lesion {uid} at the study; nothing to approve"
        )


def _refuse_two_of_one_visit(known: Course, one: Sighting, value: str) -> None:
    for other in known.sightings:
        same_analysis = (other.plugin, other.series_instance_uid, other.study_instance_uid) == (
            one.plugin,
            one.series_instance_uid,
            one.study_instance_uid,
        )
        if (
            same_analysis
            and other.choice_uid != one.choice_uid
            and value in (other.tracking_uid, other.lesion)
        ):
            raise Refused(
                "two-lesions-of-one-visit",
                f"'{other.label}' is that lesion at this visit already; relink it first, or say that both are "
                "fragments of one lesion (--split)",
            )


__all__ = [
    "APPROVED",
    "COMMAND",
    "OUTLINE",
    "OWN",
    "PAGE",
    "VALUES",
    "choose",
    "give_reference",
    "keep",
    "swap",
    "undo",
]
