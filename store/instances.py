"""The rows of what arrived: patients, studies, series, instances, and the associations that brought them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, bindparam, false, insert, null, select, true, union_all, update
from sqlmodel import Session, SQLModel, and_, col, not_

from plugins.errors import Refused
from store.charset import storable
from store.database import aware_utc
from store.known import Known, Place, Rows, place
from store.objects import Kept, ObjectStore
from store.part10 import Header
from store.priors import Coming, asked_for
from store.tables import Association, AssociationStudy, Event

RECEIVING, SETTLED = "receiving", "settled"
UPLOAD, STOW_RS, PULL, WORKITEM = "UPLOAD", "STOW-RS", "DICOMweb", "workitem"
"""What stands as the calling AE title of what came by HTTP, which holds studies back as an association does."""
STALE_SECONDS = 60.0
"""After so long without a sign of life an association counts as over."""
Outcome = Literal["new", "identical", "conflict", "superseded", "own"]

STUDY, SERIES, INSTANCE, RESULT, EVENT = (
    SQLModel.metadata.tables[name] for name in ("study", "series", "instance", "result", "event")
)
STATE = ("patient_pk", "state", "prior", "first_arrival_at", "last_arrival_at", "settle_now")
LOCKED_STUDIES = (
    select(STUDY.c.id, *(STUDY.c[name] for name in STATE))
    .where(STUDY.c.id.in_(bindparam("pks", expanding=True)))
    .order_by(STUDY.c.id)
    .with_for_update(key_share=True)
)
CHANGED_STUDIES = (
    update(STUDY).where(STUDY.c.id == bindparam("row")).values({name: bindparam(name) for name in STATE})
)
HELD = ("id", "sop_instance_uid", "sha256", "received_at", "current", "own")
# What is held under these UIDs; of those that are our own results, which have no series here, only that they are.
SAME_UID = union_all(
    select(*(INSTANCE.c[name] for name in HELD), SERIES.c.study_pk)
    .join(SERIES, SERIES.c.id == INSTANCE.c.series_pk)
    .where(INSTANCE.c.sop_instance_uid.in_(bindparam("uids", expanding=True))),
    select(RESULT.c.id, RESULT.c.sop_instance_uid, RESULT.c.sha256, null(), false(), true(), null()).where(
        RESULT.c.sop_instance_uid.in_(bindparam("uids", expanding=True))
    ),
).order_by("id")
NEW_INSTANCES = insert(INSTANCE).returning(INSTANCE.c.id, sort_by_parameter_order=True)


@dataclass(kw_only=True, eq=False)
class OpenAssociation:
    """Somebody who is sending; the row is made with the first object, an echo leaves none."""

    calling_ae: str = ""
    """Calling AE title."""
    address: str = ""
    """IP address."""
    pk: int | None = None
    """Row; None until its transaction is committed."""


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """An instance whose bytes are on disk and whose rows are still to be written."""

    header: Header
    """What it says of itself."""
    kept: Kept
    """Its bytes."""
    source: str
    """Who sent it."""
    now: datetime
    """When, aware UTC."""
    association: OpenAssociation | None = None
    """What brought it; None when nothing has to wait for its end."""
    coming: Coming = "sent"
    """Whether somebody sent it, or it comes because an earlier study was asked for."""
    found_in: ObjectStore | None = None
    """The store that it lay in without a row; None of what came just now."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What became of an instance that arrived."""

    outcome: Outcome
    """new; identical: held and current; conflict: not what was current under this UID, but now is; superseded: found
    on disk, and something under this UID came later; own: our own."""
    study_pk: int
    """Row of its study."""
    instance_pk: int
    """Row of the instance."""
    association_pk: int | None = None
    """Row of the association that brought it."""


def record(
    session: Session,
    header: Header,
    kept: Kept,
    *,
    source: str,
    now: datetime,
    association_pk: int | None = None,
    coming: Coming = "sent",
) -> Recorded:
    """Return what became of one instance whose bytes are on disk; see `record_all`."""
    association = None if association_pk is None else OpenAssociation(pk=association_pk)
    arrived = Arrived(
        header=header, kept=kept, source=source, now=now, association=association, coming=coming
    )
    return record_all(session, [arrived], Known().begin())[0]


def record_all(session: Session, arrived: Sequence[Arrived], rows: Rows) -> list[Recorded]:
    """Return what became of instances whose bytes are on disk, each of another SOP Instance UID.

    New content re-opens its study; identical bytes change nothing; our own results are kept and never analysed, and
    neither is an earlier study that was asked for, until somebody sends it (`coming`). Other bytes under a known UID
    become the current ones, also those that were so before: what came last counts, and an Event tells of it. What was
    only found on disk came when its file did, and is never current where something else came then or later. An
    instance whose patient is not the study's is kept with an Event too; the study stays whose it is until it settles
    (`store.corrected`), and reading refuses the mixture.
    `rows` are the ids that are known already (`Known.begin`); what is found or made is added.
    Refuses `uid-collision`, a SOP or series UID of another study, and what `store.priors.asked_for` refuses; then
    the transaction has to be rolled back.
    """
    group = _Group(session, rows)
    # One order for all, so that two processes that record the same studies wait for each other and never in a ring.
    placed = {id(one): group.place(one) for one in sorted(arrived, key=_order)}
    group.read(
        [one.place.study_pk for one in placed.values()], [one.header.sop_instance_uid for one in arrived]
    )
    drafts = [group.judge(one, placed[id(one)]) for one in arrived]
    group.write()
    return [
        Recorded(
            outcome=draft.outcome,
            study_pk=draft.study_pk,
            instance_pk=draft.instance_pk or group.new[draft.sop_instance_uid],
            association_pk=draft.association_pk,
        )
        for draft in drafts
    ]


def open_association(session: Session, calling_ae: str, address: str, now: datetime) -> int:
    """Return the id of a new open association."""
    now = aware_utc(now)
    row = Association(calling_ae=storable(calling_ae), address=storable(address), opened_at=now, alive_at=now)
    session.add(row)
    session.flush()
    return int(row.id or 0)


def by_dicom() -> ColumnElement[bool]:
    """Return the condition that a row is an association of the DICOM port, whatever its peer calls itself `UPLOAD`."""
    by_upload = and_(col(Association.calling_ae) == UPLOAD, col(Association.address) == "")
    return and_(col(Association.calling_ae).not_in((STOW_RS, PULL, WORKITEM)), not_(by_upload))


def still_open(now: datetime, stale_seconds: float = STALE_SECONDS) -> ColumnElement[bool]:
    """Return the condition that an association is open, and was so when it was last heard of: a listener may die."""
    alive_since = aware_utc(now) - timedelta(seconds=stale_seconds)
    return and_(col(Association.closed_at).is_(None), col(Association.alive_at) > alive_since)


def beat(session: Session, association_pk: int, now: datetime) -> None:
    """Say that an association is still alive."""
    _update_association(session, association_pk, {"alive_at": aware_utc(now)})


def close_association(session: Session, association_pk: int, now: datetime) -> None:
    """Say that an association ended, however it did; a second time changes nothing."""
    _update_association(session, association_pk, {"closed_at": aware_utc(now)})


def _update_association(session: Session, association_pk: int, values: dict[str, Any]) -> None:
    condition = and_(col(Association.id) == association_pk, col(Association.closed_at).is_(None))
    statement = update(Association).where(condition).values(values)
    session.exec(statement, execution_options={"synchronize_session": False})


@dataclass(frozen=True, kw_only=True)
class _Placed:
    place: Place
    is_prior: bool
    """Came because it was asked for."""
    association_pk: int | None


@dataclass(frozen=True, kw_only=True)
class _Draft:
    outcome: Outcome
    study_pk: int
    sop_instance_uid: str
    association_pk: int | None
    instance_pk: int | None
    """None of one that is inserted with its group."""


class _Group:
    """One transaction's work: what it reads once for all, and what it writes once for all."""

    def __init__(self, session: Session, rows: Rows) -> None:
        session.flush()
        self._session, self._connection = session, session.connection()
        self._rows = rows
        self._studies: dict[int, dict[str, Any]] = {}
        self._changed: set[int] = set()
        self._earlier: dict[str, list[Any]] = {}
        self._results: set[str] = set()
        self._inserts: list[dict[str, Any]] = []
        self._events: list[dict[str, Any]] = []
        self._opened: dict[OpenAssociation, int] = {}
        self._conflicts: set[int] = set()
        self.new: dict[str, int] = {}

    def place(self, one: Arrived) -> _Placed:
        """Return where an instance belongs, with what is missing of its rows made."""
        is_prior = asked_for(self._session, one.header, one.coming)
        values: dict[str, Any] = {}
        if ("study", one.header.study_instance_uid) not in self._rows:
            # Of an earlier study, and of one of which only our own results are here, nothing is waited for.
            prior = is_prior or one.header.own or self._is_result(one.header.sop_instance_uid)
            values = {"state": SETTLED if prior else RECEIVING, "prior": prior}
        where = place(self._session, self._rows, one.header, aware_utc(one.now), values)
        association_pk = None if one.association is None else self._link(one.association, where, one.now)
        return _Placed(place=where, is_prior=is_prior, association_pk=association_pk)

    def _link(self, association: OpenAssociation, where: Place, now: datetime) -> int:
        """Return the row of an association, which touches the study from now on."""
        pk = association.pk or self._opened.get(association)
        if pk is None:
            pk = open_association(self._session, association.calling_ae, association.address, now)
            self._opened[association] = pk
        if ("link", pk, where.study_pk) not in self._rows:
            if self._session.get(AssociationStudy, (pk, where.study_pk)) is None:
                self._session.add(AssociationStudy(association_pk=pk, study_pk=where.study_pk))
                self._session.flush()
            self._rows["link", pk, where.study_pk] = ()
        return pk

    def _is_result(self, sop_instance_uid: str) -> bool:
        statement = select(RESULT.c.id).where(RESULT.c.sop_instance_uid == sop_instance_uid)
        return self._connection.execute(statement).first() is not None

    def read(self, study_pks: Iterable[int], sop_instance_uids: Sequence[str]) -> None:
        """Lock the studies until the transaction ends, settling waits for us or we for it, and read what is there."""
        for row in self._connection.execute(LOCKED_STUDIES, {"pks": sorted(set(study_pks))}):
            self._studies[row.id] = dict(row._mapping)
        for row in self._connection.execute(SAME_UID, {"uids": sop_instance_uids}):
            if row.study_pk is None:
                self._results.add(row.sop_instance_uid)
            else:
                self._earlier.setdefault(row.sop_instance_uid, []).append(row)

    def judge(self, one: Arrived, placed: _Placed) -> _Draft:
        """Return what becomes of an instance, and note what is to be written."""
        uid, study_pk = one.header.sop_instance_uid, placed.place.study_pk
        earlier = self._earlier.get(uid, [])
        if any(old.study_pk != study_pk for old in earlier):
            raise Refused("uid-collision", "The SOP Instance UID belongs to another study.")
        # What was once content stays content, whatever a later file claims about its maker.
        own = (one.header.own or uid in self._results) and all(old.own for old in earlier)
        held = next((old for old in earlier if old.sha256 == one.kept.sha256), None)
        study = self._studies[study_pk]
        # What somebody sends is to be analysed, also when it lay here before as an earlier study of a patient.
        is_content = not own and not (placed.is_prior and study["prior"])
        is_late = _is_late(one, earlier)
        is_known = held is not None and (held.current or own or is_late)
        if is_content and not is_late and (study["prior"] or not is_known):
            self._touch(study, placed.place.patient_pk, one)
        if not is_known and is_late:
            text = f"Content that {one.source} found on disk is not current: other content of the image came later."
            self._tell(one, "conflict", one.kept.sha256, text)
        elif not is_known and earlier:
            self._replace(one, None if held is None else held.id)
        if held is None:
            values = instance_values(one, placed.place.series_pk, own=own, current=not is_late)
            self._inserts.append(values)
        changed: Outcome = "superseded" if is_late else "conflict" if earlier else "new"
        outcome: Outcome = "identical" if is_known else "own" if own else changed
        return _Draft(
            outcome=outcome,
            study_pk=study_pk,
            sop_instance_uid=uid,
            association_pk=placed.association_pk,
            instance_pk=None if held is None else held.id,
        )

    def _replace(self, one: Arrived, held_pk: int | None) -> None:
        """Let nothing be current under the UID but what was held already, and tell."""
        statement = update(INSTANCE).where(INSTANCE.c.sop_instance_uid == one.header.sop_instance_uid)
        self._connection.execute(statement.values(current=INSTANCE.c.id == (held_pk or 0)))
        text = f"Other content came under the same SOP Instance UID from {one.source}."
        self._tell(one, "conflict", one.kept.sha256, text)

    def _touch(self, study: dict[str, Any], patient_pk: int, one: Arrived) -> None:
        self._changed.add(study["id"])
        now = aware_utc(one.now)
        study["prior"] = False
        if study["state"] != RECEIVING:
            study.update(state=RECEIVING, first_arrival_at=now, settle_now=False)
        # Two hosts may hand in their clocks in either order; the quiet time never runs backwards.
        study["last_arrival_at"] = max(study["last_arrival_at"], now)
        if study["patient_pk"] != patient_pk and not self._is_told(study):
            text = f"An instance of another patient came from {one.source}."
            self._tell(one, "patient-conflict", str(study["id"]), text)

    def _is_told(self, study: dict[str, Any]) -> bool:
        """Return whether an Event told already, since the study last settled, that another patient is in it."""
        if study["id"] in self._conflicts:
            return True
        self._conflicts.add(study["id"])
        told = select(EVENT.c.id).where(
            EVENT.c.kind == "patient-conflict",
            EVENT.c.subject == str(study["id"]),
            EVENT.c.at >= study["first_arrival_at"],
        )
        return self._connection.execute(told.limit(1)).first() is not None

    def _tell(self, one: Arrived, kind: str, subject: str, text: str) -> None:
        at = aware_utc(one.now)
        self._events.append({"at": at, "kind": kind, "subject": subject, "text": storable(text)})

    def write(self) -> None:
        """Write what was noted."""
        if self._inserts:
            pks = self._connection.execute(NEW_INSTANCES, self._inserts).scalars()
            self.new = {one["sop_instance_uid"]: pk for one, pk in zip(self._inserts, pks, strict=True)}
        if self._changed:
            changed = [{**self._studies[pk], "row": pk} for pk in sorted(self._changed)]
            self._connection.execute(CHANGED_STUDIES, changed)
        if self._events:
            self._connection.execute(insert(Event), self._events)


def instance_values(one: Arrived, series_pk: int, *, own: bool, current: bool = True) -> dict[str, Any]:
    """Return the row of an instance, but for its id."""
    return {
        "series_pk": series_pk,
        "sop_instance_uid": one.header.sop_instance_uid,
        "sop_class_uid": one.header.sop_class_uid,
        "transfer_syntax_uid": one.header.transfer_syntax_uid,
        "sha256": one.kept.sha256,
        "size_bytes": one.kept.size_bytes,
        "received_at": aware_utc(one.now),
        "source": storable(one.source),
        "current": current,
        "own": own,
    }


def _is_late(one: Arrived, earlier: Iterable[Any]) -> bool:
    """Return whether an instance was found on disk and something under its UID came at the same time or later."""
    if one.found_in is None:
        return False
    came = one.found_in.came_at(one.kept.sha256)
    return any(
        came is None or (one.found_in.came_at(old.sha256) or old.received_at) >= came for old in earlier
    )


def _order(one: Arrived) -> tuple[str, ...]:
    header = one.header
    return header.issuer, header.patient_id, header.study_instance_uid, header.series_instance_uid


__all__ = [
    "PULL",
    "RECEIVING",
    "SETTLED",
    "STOW_RS",
    "UPLOAD",
    "WORKITEM",
    "Arrived",
    "OpenAssociation",
    "Outcome",
    "Recorded",
    "beat",
    "by_dicom",
    "close_association",
    "instance_values",
    "open_association",
    "record",
    "record_all",
]
