"""The promises of a node, looked at one by one.

====  =============================================================================================================
I1    an acknowledged object has its row and its bytes, with the hash that the row says
I2    at most one result of one analysis of one content
I3    at most one delivery of a result to a destination; one that was delivered says with what status
I4    no file outside the store's folders, none under a name that came from outside
I5    every object received is in exactly one of {current, superseded, quarantined}; one is current per SOP UID
I6    a result's manifest is what it was computed from: instances of one study and one patient, whose the study is
====  =============================================================================================================
"""

from __future__ import annotations

from datetime import datetime

from plugins.errors import Broken
from store.database import Database
from store.fsck.fault import Fault, database_damaged
from store.fsck.files import check_files, named
from store.fsck.folders import check_evaluations
from store.fsck.hold_outs import check_hold_outs
from store.fsck.models import check_models
from store.fsck.patients import check_patients
from store.fsck.results import check_results
from store.fsck.rows import check_rows
from store.objects import ObjectStore


def check(database: Database, objects: ObjectStore, *, now: datetime, quick: bool = False) -> list[Fault]:
    """Return every fault of a node, running or not; nothing is changed, and no transaction outlives its questions.

    `quick` reads no object's bytes that seem sound: hashes, headers and what results refer to are taken on trust.
    Raises Unavailable when the database or the disk does not answer.
    """
    try:
        with database.reading() as session:
            faults = check_rows(session, now, quick=quick)
        with database.reading() as session:
            held = named(session)
        with database.reading() as session:
            faults += check_models(session, objects.root.parent, now=now, quick=quick)
            faults += check_evaluations(session, objects.root.parent, now=now)
            faults += check_hold_outs(session, objects.root.parent, quick=quick)
    except Broken as error:
        return [unread(error)]
    faults += check_files(objects, held, now=now.timestamp(), quick=quick)
    if not quick:
        faults += check_patients(database, objects)
        faults += check_results(database, objects)
    return faults


def unread(error: Broken) -> Fault:
    """Return the fault of a database that could not be read."""
    return database_damaged(f"The database cannot be read: {error}")


__all__ = ["check", "unread"]
