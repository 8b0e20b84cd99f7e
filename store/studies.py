"""When a study is whole: the quiet time, the manifest, the revision."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import literal
from sqlmodel import Session, and_, col, exists, insert, or_, select, update
from sqlmodel.sql.expression import SelectOfScalar

from store import jobs
from store.corrected import Held, correct, read_ahead
from store.database import aware_utc
from store.due import has_come
from store.instances import RECEIVING, SETTLED, STALE_SECONDS, still_open
from store.objects import ObjectStore
from store.outstanding import is_to_come
from store.part10 import Header
from store.tables import Association, AssociationStudy, Instance, Revision, RevisionInstance, Series, Study


@dataclass(frozen=True, kw_only=True)
class Due:
    """A study whose time has come."""

    study_pk: int
    """Row of the study."""
    forced: bool
    """True when only the hard cap says so: it may be incomplete."""
    last_arrival_at: datetime
    """Latest new content that this was judged by."""


def due(
    session: Session,
    *,
    now: datetime,
    quiet_seconds: float,
    hard_cap_seconds: float,
    stale_seconds: float = STALE_SECONDS,
) -> list[Due]:
    """Return the studies that are to be settled, longest waiting first.

    A study is due when it was quiet for `quiet_seconds` (or a trusted source called it whole), no association that
    touched it is open and nothing of it is still to come (`store.outstanding`); an open one counts until it was silent
    for `stale_seconds`. It is due in any case `hard_cap_seconds` after the first content since it last settled. Asked
    each second: only what is being received is looked at, by an index that holds nothing else.
    """
    now = aware_utc(now)
    busy = exists().where(
        col(AssociationStudy.study_pk) == col(Study.id),
        col(Association.id) == col(AssociationStudy.association_pk),
        still_open(now, stale_seconds),
    )
    quiet_for, cap = timedelta(seconds=quiet_seconds), timedelta(seconds=hard_cap_seconds)
    quiet = or_(has_come(Study.last_arrival_at, now - quiet_for, quiet_for), col(Study.settle_now))
    whole = and_(quiet, ~busy, ~is_to_come())
    capped = has_come(Study.first_arrival_at, now - cap, cap)
    statement = (
        select(Study.id, Study.last_arrival_at, whole.label("whole"))
        .where(col(Study.state) == literal(RECEIVING, literal_execute=True), or_(whole, capped))
        .order_by(col(Study.first_arrival_at), col(Study.id))
    )
    rows = session.exec(statement).all()
    return [
        Due(study_pk=int(pk or 0), forced=not is_whole, last_arrival_at=last) for pk, last, is_whole in rows
    ]


def wait_anew(session: Session, now: datetime, step: timedelta, stale_seconds: float = STALE_SECONDS) -> int:
    """Begin every wait for what is being received at `now`; return for how many studies.

    For after the clock was set by `step`, which says nothing about them. Who was sending then counts as heard of now.
    A second time, by another process, does no harm.
    """
    now = aware_utc(now)
    sending = still_open(now - max(step, timedelta()), stale_seconds)
    rows = select(Study.id).where(col(Study.state) == RECEIVING).order_by(col(Study.id))
    receiving = session.exec(rows.with_for_update(key_share=True)).all()
    waits = (
        update(Study).where(col(Study.id).in_(receiving)).values(first_arrival_at=now, last_arrival_at=now)
    )
    heard = update(Association).where(sending).values(alive_at=now)
    for statement in (waits, heard):
        session.exec(statement, execution_options={"synchronize_session": False})
    return len(receiving)


def headers_ahead(session: Session, study_pk: int, objects: ObjectStore) -> dict[str, Header]:
    """Return by sha256 the headers that `settle` asks for now, so that no file is read while others wait to write."""
    study = session.get_one(Study, study_pk)
    current, before = _current(session, study_pk), set(session.exec(_latest_content(study)))
    return read_ahead(session, study, _held(current, before), objects)


def settle(
    session: Session,
    study_pk: int,
    *,
    now: datetime,
    forced: bool,
    seen: datetime | None = None,
    objects: ObjectStore | None = None,
    ahead: Mapping[str, Header] = MappingProxyType({}),
) -> Revision | None:
    """Return the new revision of a study, or None when there is nothing new to analyse.

    The study's row is locked: an image that comes at the same moment is either in the manifest or re-opens the
    study. None when it settled already, when it holds what it held, and, with `seen` (`Due.last_arrival_at`), when
    content came since then. Jobs of earlier revisions that have not begun are superseded. With the object store the
    study becomes what its objects say of it now (`store.corrected`); those whose header is not in `ahead`
    (`headers_ahead`) are read.
    """
    now = aware_utc(now)
    study = _locked(session, study_pk)
    if study is None or study.state != RECEIVING:
        return None
    if seen is not None and not forced and study.last_arrival_at > aware_utc(seen):
        return None
    study.state, study.settle_now = SETTLED, False
    current, before = _current(session, study_pk), set(session.exec(_latest_content(study)))
    if not current or {int(one.id or 0) for one in current} == before:
        session.flush()
        return None
    if objects is not None:
        correct(session, study, _held(current, before), objects, now, ahead)
    study.revision += 1
    manifest_sha256 = _new_manifest(session, study, [(one.sop_instance_uid, one.sha256) for one in current])
    revision = Revision(
        study_pk=study_pk,
        number=study.revision,
        manifest_sha256=manifest_sha256,
        settled_at=now,
        forced=forced,
    )
    session.add(revision)
    session.flush()
    lines = [{"revision_pk": revision.id, "instance_pk": one.id} for one in current]
    session.exec(insert(RevisionInstance), params=lines)
    jobs.supersede(session, study_pk, study.revision, now)
    return revision


def adopt(session: Session, study_instance_uid: str, now: datetime) -> bool:
    """Receive a study from now on that was here only as an earlier one of its patient; return whether it was so."""
    now = aware_utc(now)
    images = exists().where(
        col(Series.study_pk) == col(Study.id), col(Instance.series_pk) == col(Series.id), ~col(Instance.own)
    )
    condition = and_(col(Study.study_instance_uid) == study_instance_uid, col(Study.prior), images)
    values = {"state": RECEIVING, "prior": False, "first_arrival_at": now, "last_arrival_at": now}
    statement = update(Study).where(condition).values(**values)
    return session.exec(statement, execution_options={"synchronize_session": "fetch"}).rowcount == 1


def hint_complete(session: Session, study_instance_uid: str) -> bool:
    """Say that a trusted source called a study whole; return False when no such study is being received."""
    condition = and_(col(Study.study_instance_uid) == study_instance_uid, col(Study.state) == RECEIVING)
    statement = update(Study).where(condition).values(settle_now=True)
    return session.exec(statement, execution_options={"synchronize_session": "fetch"}).rowcount == 1


def modalities(session: Session, revision: Revision) -> frozenset[str]:
    """Return the modalities of the instances of a revision."""
    statement = (
        select(Series.modality)
        .distinct()
        .join(Instance, col(Instance.series_pk) == col(Series.id))
        .join(RevisionInstance, col(RevisionInstance.instance_pk) == col(Instance.id))
        .where(col(RevisionInstance.revision_pk) == revision.id)
    )
    return frozenset(session.exec(statement))


def manifest_files(session: Session, revision_pk: int) -> list[tuple[str, str]]:
    """Return (SOP Instance UID, sha256) of every instance of a revision, sorted."""
    statement = (
        select(Instance.sop_instance_uid, Instance.sha256)
        .join(RevisionInstance, col(RevisionInstance.instance_pk) == col(Instance.id))
        .where(col(RevisionInstance.revision_pk) == revision_pk)
    )
    return sorted((uid, sha256) for uid, sha256 in session.exec(statement))


def manifest_hash(lines: Sequence[tuple[str, str]]) -> str:
    """Return the sha256 of a manifest: its sorted lines `UID sha256`, each ended by a newline."""
    return hashlib.sha256("".join(f"{uid} {sha256}\n" for uid, sha256 in sorted(lines)).encode()).hexdigest()


def _locked(session: Session, study_pk: int) -> Study | None:
    statement = select(Study).where(col(Study.id) == study_pk).with_for_update(key_share=True)
    return session.exec(statement.execution_options(populate_existing=True)).first()


def _current(session: Session, study_pk: int) -> Sequence[Any]:
    """Return what a study holds, in the order in which it came first."""
    columns = (
        Instance.id,
        Instance.series_pk,
        Instance.sop_class_uid,
        Instance.sop_instance_uid,
        Instance.sha256,
    )
    statement = (
        select(*map(col, columns))
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .where(col(Series.study_pk) == study_pk, col(Instance.current), ~col(Instance.own))
        .order_by(col(Instance.id))
    )
    return session.execute(statement).all()


def _held(current: Sequence[Any], before: Collection[int]) -> list[Held]:
    return [
        Held(
            pk=one.id,
            series_pk=one.series_pk,
            sop_class_uid=one.sop_class_uid,
            sha256=one.sha256,
            fresh=one.id not in before,
        )
        for one in current
    ]


def _latest_content(study: Study) -> SelectOfScalar[int]:
    return (
        select(RevisionInstance.instance_pk)
        .join(Revision, col(Revision.id) == col(RevisionInstance.revision_pk))
        .where(col(Revision.study_pk) == study.id, col(Revision.number) == study.revision)
    )


def _new_manifest(session: Session, study: Study, lines: Sequence[tuple[str, str]]) -> str:
    """Return the hash of a manifest that no revision of the study has yet.

    A study that went back to earlier content is analysed again under new UIDs: the earlier results have been
    superseded wherever they were sent, so only new ones can say what counts now.
    """
    sha256 = manifest_hash(lines)
    statement = select(Revision.id).where(
        col(Revision.study_pk) == study.id, col(Revision.manifest_sha256) == sha256
    )
    if session.exec(statement.limit(1)).first() is None:
        return sha256
    return manifest_hash([*lines, ("revision", str(study.revision))])
