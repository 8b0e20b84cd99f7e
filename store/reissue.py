"""SEG and SR once more under the names that people gave: of every study whose lesions are called otherwise now.

A relink changes identities in SQL at once. What lies in the PACS follows by a further run of the analysis, whose
results supersede those before and name them as their predecessors. Studies that were compared with a relinked one
follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from plugins.errors import Refused
from store.chosen import Chosen, chosen
from store.identity import Names, drawn
from store.patients import same_person
from store.rerun import rerun
from store.sighting import Sighting
from store.sightings import COUNTING, found_here, studies_of
from store.tables import Job, Revision, Study

COMMITTED_AFTER = timedelta(seconds=5)
"""A choice is in the database so long after the time that it bears, at the latest."""


def reissue(session: Session, patient_pk: int, now: datetime, max_attempts: int = 5) -> list[Job]:
    """Ask for each analysis whose SEGs call a lesion of the patient otherwise than it is called now; return the jobs.

    Once for each change: what an analysis knew when it began is not asked of it again, and what is under way or parked
    will know. Nothing is asked for results of other nodes. To be called in the transaction that keeps a choice, and in
    the one that ends an analysis, which may not have known of it.
    """
    decided = chosen(session, patient_pk)
    if not any(one.kind == "relink" for one in decided.decisions):
        return []
    members = same_person(session, patient_pk)
    found = found_here(session, studies_of(session, members), members)
    asked: list[Job] = []
    for study, plugin in sorted({(s.study_instance_uid, s.plugin) for s in outdated(found, decided)}):
        try:
            asked.append(rerun(session, _newest(session, study, plugin), now, max_attempts))
        except Refused:  # of newer content, or asked for already: who does that learns of the choice
            continue
    return asked


def outdated(found: Sequence[Sighting], decided: Chosen) -> tuple[Sighting, ...]:
    """Return what is written under another Tracking UID than counts now, because of a choice that came later. Pure.

    Of fragments of one lesion only one is written under its name: no two segments of a SEG share a Tracking UID.
    """
    names = Names(found, decided)
    changes = sorted({one.at for one in decided.decisions if one.kind in ("relink", "undo")})

    def knew(one: Sighting, name: str) -> bool:
        """Return whether it was called so for as long as its analysis may have looked, and ever since."""
        if one.made_at is None:
            return False
        since = one.made_at - COMMITTED_AFTER
        return all(names.name(one, at) == name for at in (since, *(at for at in changes if at > since)))

    there = [one for one in found if drawn(one)]
    right = {(_place(one), one.written_uid) for one in there if names.name(one) == one.written_uid}
    return tuple(
        one
        for one in there
        if (name := names.name(one)) != one.written_uid
        and (_place(one), name) not in right
        and not knew(one, name)
    )


def _place(one: Sighting) -> tuple[str, str, str]:
    return (one.study_instance_uid, one.plugin, one.series_instance_uid)


def _newest(session: Session, study_instance_uid: str, plugin: str) -> int:
    """Return the newest job of an analysis on a study whose results count."""
    statement = (
        select(Job.id)
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .join(Study, col(Study.id) == col(Revision.study_pk))
        .where(col(Study.study_instance_uid) == study_instance_uid, col(Job.plugin) == plugin)
        .where(col(Job.state).in_(COUNTING))
        .order_by(col(Revision.number).desc(), col(Job.id).desc())
    )
    return int(session.exec(statement).first() or 0)


__all__ = ["outdated", "reissue"]
