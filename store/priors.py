"""A patient's earlier studies: which objects belong to one that was asked for, and what is here of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, not_, or_, true
from sqlmodel import Session, col, func, select, update

from plugins.errors import Refused
from store.order import is_before_this, order_of
from store.part10 import Header
from store.patients import same_person
from store.prior_tables import Prior, PriorSearch
from store.strangers import of_others
from store.tables import Instance, Job, Patient, Result, Revision, Series, Study

STATES = ("waiting", "done", "parked")
SHOWN = {"state", "attempt", "requested_at", "done_at", "error_code", "error_text"}
Coming = Literal["sent", "moved", "fetched"]
"""How an object came: sent by somebody; by C-MOVE in our name; in answer to our own C-GET or WADO-RS."""


@dataclass(frozen=True, kw_only=True)
class EarlierObject:
    """One DICOM object of an earlier study; its bytes are in the object store."""

    series_instance_uid: str
    """Series Instance UID."""
    sop_instance_uid: str
    """SOP Instance UID."""
    sop_class_uid: str
    """SOP Class UID."""
    sha256: str
    """Hash of the file, and its name in the object store."""


@dataclass(frozen=True, kw_only=True)
class EarlierStudy:
    """A study of the same patient that was made before another one."""

    study_pk: int
    """Row of the study."""
    study_instance_uid: str
    """Study Instance UID."""
    study_date: date
    """Study Date."""
    prior: bool
    """True when it is here only as an earlier study, so that this node never analysed it."""
    objects: tuple[EarlierObject, ...]
    """What others made of it (images, contours, reports), by series and SOP Instance UID."""
    results: tuple[EarlierObject, ...]
    """What Nadir made of it, here (as it counts now) or elsewhere and fetched, by series and SOP Instance UID."""


def asked_for(session: Session, header: Header, coming: Coming) -> bool:
    """Return True when an object is part of an earlier study that was asked for, and of the right patient.

    What was moved counts only while it is waited for: later, somebody may move the same study here to be analysed.

    Refuses `prior-not-asked` for what was fetched and belongs to no such study, and `prior-of-another-patient`.
    """
    if coming == "sent":
        return False
    still_wanted = col(Prior.state) == "waiting" if coming == "moved" else true()
    statement = (
        select(Study.patient_pk)
        .join(PriorSearch, col(PriorSearch.study_pk) == col(Study.id))
        .join(Prior, col(Prior.search_pk) == col(PriorSearch.id))
        .where(col(Prior.study_instance_uid) == header.study_instance_uid, still_wanted)
    )
    members = {pk for asking in set(session.exec(statement)) for pk in same_person(session, asking)}
    if not members and coming == "moved":
        return False
    if not members:
        raise Refused("prior-not-asked", "the object belongs to no study that was asked for")
    own = select(Patient.issuer, Patient.patient_id).where(col(Patient.id).in_(members))
    if not header.patient_id or (header.issuer, header.patient_id) not in set(session.exec(own)):
        raise Refused("prior-of-another-patient", "the object belongs to another patient than was asked for")
    return True


def earlier(session: Session, study_pk: int) -> tuple[EarlierStudy, ...]:
    """Return the studies of the same patient that were made before, by date and time, oldest first.

    Same patient is same IssuerOfPatientID and PatientID, never the name, or what an administrator declared to be the
    same; a patient without PatientID has none, and neither has a study without a date. See `store.order`.
    """
    return _others(session, study_pk, is_later=False)


def later(session: Session, study_pk: int) -> tuple[EarlierStudy, ...]:
    """Return the studies of the same patient that were made later, oldest first; otherwise as `earlier`."""
    return _others(session, study_pk, is_later=True)


def outstanding(session: Session, study_pk: int) -> int:
    """Return how many searches for a study's past, and studies that they found, wait or were given up."""
    searches = select(PriorSearch.id).where(
        col(PriorSearch.study_pk) == study_pk, col(PriorSearch.state) != "done"
    )
    found = (
        select(Prior.id)
        .join(PriorSearch, col(PriorSearch.id) == col(Prior.search_pk))
        .where(col(PriorSearch.study_pk) == study_pk, col(Prior.state) != "done")
    )
    return len(session.exec(searches).all()) + len(session.exec(found).all())


def _others(session: Session, study_pk: int, *, is_later: bool) -> tuple[EarlierStudy, ...]:
    study = session.get(Study, study_pk)
    if study is None or study.study_date is None:
        return ()
    members = same_person(session, study.patient_pk)
    statement = select(Study).where(
        col(Study.patient_pk).in_(members),
        col(Study.study_date).is_not(None),
        not_(is_before_this(Study, study)) if is_later else is_before_this(Study, study),
        col(Study.id) != study_pk,
    )
    rows = sorted(session.exec(statement), key=order_of)
    pks = [int(row.id or 0) for row in rows]
    received, made = _received(session, pks), _made_here(session, pks, members)
    return tuple(
        EarlierStudy(
            study_pk=pk,
            study_instance_uid=row.study_instance_uid,
            study_date=row.study_date or date.min,
            prior=row.prior,
            objects=tuple(one for one, own in received[pk] if not own),
            results=_results([one for one, own in received[pk] if own], made[pk]),
        )
        for pk, row in zip(pks, rows, strict=True)
    )


def listed(session: Session, state: str | None = None, newest: int | None = None) -> list[dict[str, Any]]:
    """Return what was asked for, as plain data, oldest first: each search, after it each study that it found.

    With `newest` only so many of the searches that were begun last, of those that have, or found, what is in the state.
    A search has no `study_instance_uid`. Refuses `no-such-state`.
    """
    asked = select(PriorSearch, Study.study_instance_uid).join(
        Study, col(Study.id) == col(PriorSearch.study_pk)
    )
    last = asked.where(*_in_state(state)).order_by(col(PriorSearch.id).desc()).limit(newest)
    searches = session.exec(last).all()[::-1]
    found: defaultdict[int, list[Prior]] = defaultdict(list)
    first = searches[0][0].id if searches else 0
    for prior in session.exec(select(Prior).where(col(Prior.search_pk) >= first).order_by(col(Prior.id))):
        found[prior.search_pk].append(prior)
    rows: list[dict[str, Any]] = []
    for search, uid in searches:
        common = {"for_study": uid, "source": search.source}
        rows.append({**common, "study_instance_uid": None, **search.model_dump(include=SHOWN)})
        for prior in found[int(search.id or 0)]:
            own = {"study_instance_uid": prior.study_instance_uid, **prior.model_dump(include=SHOWN)}
            rows.append({**common, **own})
    return [row for row in rows if state in (None, row["state"])]


def how_many(session: Session, state: str | None = None) -> int:
    """Return how many searches `listed` tells of. Refuses `no-such-state`."""
    return session.exec(select(func.count()).select_from(PriorSearch).where(*_in_state(state))).one()


def _in_state(state: str | None) -> tuple[ColumnElement[bool], ...]:
    if state is not None and state not in STATES:
        raise Refused("no-such-state", f"'{state}' is not a state; use one of {', '.join(STATES)}.")
    of_found = select(Prior.search_pk).where(col(Prior.state) == state)
    is_in = or_(col(PriorSearch.state) == state, col(PriorSearch.id).in_(of_found))
    return () if state is None else (is_in,)


def retry_parked(session: Session, now: datetime) -> int:
    """Put everything that is parked back on the list, and return how much there was."""
    values = {"state": "waiting", "attempt": 0, "run_after": now, "requested_at": now}
    return sum(
        session.exec(update(table).where(col(table.state) == "parked").values(**values)).rowcount
        for table in (PriorSearch, Prior)
    )


def _results(
    came_back: list[EarlierObject], made: list[tuple[EarlierObject, bool]]
) -> tuple[EarlierObject, ...]:
    """Return the results that count: of those made here the newest of each analysis, of the others all."""
    ours = {one.sop_instance_uid for one, _ in made}
    counting = [one for one, counts in made if counts]
    counting += [one for one in came_back if one.sop_instance_uid not in ours]
    return tuple(sorted(counting, key=lambda one: (one.series_instance_uid, one.sop_instance_uid)))


def _received(session: Session, study_pks: list[int]) -> defaultdict[int, list[tuple[EarlierObject, bool]]]:
    """Return the current instances of each study, each with whether Nadir made it."""
    statement = (
        select(Series, Instance)
        .join(Instance, col(Instance.series_pk) == col(Series.id))
        .where(col(Series.study_pk).in_(study_pks), col(Instance.current))
        .order_by(col(Series.series_instance_uid), col(Instance.sop_instance_uid))
    )
    found: defaultdict[int, list[tuple[EarlierObject, bool]]] = defaultdict(list)
    for series, instance in session.exec(statement):
        one = EarlierObject(
            series_instance_uid=series.series_instance_uid,
            sop_instance_uid=instance.sop_instance_uid,
            sop_class_uid=instance.sop_class_uid,
            sha256=instance.sha256,
        )
        found[series.study_pk].append((one, instance.own))
    return found


def _made_here(
    session: Session, study_pks: list[int], members: Sequence[int]
) -> defaultdict[int, list[tuple[EarlierObject, bool]]]:
    """Return what this node made of each study for this patient, each with whether it is the newest of its analysis."""
    statement = (
        select(Revision.study_pk, Job.plugin, Result)
        .join(Job, col(Job.revision_pk) == col(Revision.id))
        .join(Result, col(Result.job_pk) == col(Job.id))
        .where(col(Revision.study_pk).in_(study_pks), ~of_others(members))
        .order_by(col(Revision.number), col(Job.id))
    )
    rows = session.exec(statement).all()
    newest = {(study_pk, plugin): result.job_pk for study_pk, plugin, result in rows}
    found: defaultdict[int, list[tuple[EarlierObject, bool]]] = defaultdict(list)
    for study_pk, plugin, result in rows:
        one = EarlierObject(
            series_instance_uid=result.series_instance_uid,
            sop_instance_uid=result.sop_instance_uid,
            sop_class_uid=result.sop_class_uid,
            sha256=result.sha256,
        )
        found[study_pk].append((one, result.job_pk == newest[study_pk, plugin]))
    return found


__all__ = [
    "Coming",
    "EarlierObject",
    "EarlierStudy",
    "asked_for",
    "earlier",
    "how_many",
    "later",
    "listed",
    "outstanding",
    "retry_parked",
]
