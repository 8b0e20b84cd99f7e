"""What a fault of the SQL driver means, in our words: who has to do something, and what."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from plugins.errors import Broken, Refused, Unavailable

NO_DATABASE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
UNWRITABLE = (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
DISK_FAULTS = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)
LOGIN_REFUSED = (
    "The database {where} refuses the login; check user and password in database_url, and its pg_hba.conf."
)
TOO_MANY = (
    "The database {where} lets no more connections in; raise max_connections there, or run fewer processes."
)
NOT_UP = "The database {where} is starting or stopping; wait, and if it stays so look at its log."
NO_ANSWER = "The database {where} did not answer ({name}); try again."
UNREACHABLE = "The database cannot be used; nadir doctor says why."
MOUNT = "mount that for writing, or copy the home to another disk"
NO_CONNECTION = {
    "authentication failed": LOGIN_REFUSED,
    "no password supplied": LOGIN_REFUSED,
    "pg_hba.conf": LOGIN_REFUSED,
    'FATAL:  role "': LOGIN_REFUSED,
    'FATAL:  database "': "There is no database {where}; make it, or name another in database_url.",
    "Connection refused": "Nothing listens for the database {where}; start it, or check host and port in database_url.",
    "failed to resolve host": "The host of the database {where} is not known; check it in database_url.",
    "too many clients": TOO_MANY,
    "too many connections": TOO_MANY,
    "remaining connection slots": TOO_MANY,
    "the database system is": NOT_UP,
}
"""What to do, by the words of PostgreSQL: of a connection that was not made its library tells no SQLSTATE."""
READ_ONLY = (
    "The database {where} can only be read, as a standby after a failover can; "
    "name the one that takes writes in database_url, or let this one take them."
)
SQLSTATES = {
    "25006": READ_ONLY,
    "42501": "The database {where} gives its user too few rights; make that user the owner of it and of its tables.",
    "53100": "The disk of the database {where} is full; free it.",
    "53200": "The database {where} has no memory left; give its machine more, or run fewer processes.",
    "53300": TOO_MANY,
    "57P01": NOT_UP,
    "57P02": NOT_UP,
    "57P03": NOT_UP,
}
"""What to do, by the codes of PostgreSQL (its manual, Appendix A)."""


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise what the driver raises in the block as one of our errors; `where` says which database it is."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise Unavailable(_why(error, where), outside=UNREACHABLE) from error
    except DBAPIError as error:
        if getattr(error.orig, "sqlite_errorcode", None) in NO_DATABASE:
            raise Broken(
                f"The database file {where} is damaged or no SQLite database; restore it from a copy."
            ) from error
        if told := _of_postgresql(error.orig):
            raise Unavailable(told.format(where=where), outside=UNREACHABLE) from error
        if isinstance(error, DataError) and "NUL" in str(error.orig):
            raise Refused("bad-text", "a text holds a null, which is no character of a text") from error
        if error.connection_invalidated:
            raise Unavailable("The connection to the database broke; try again.") from error
        raise Broken(
            f"The database refused a statement ({type(error).__name__}); this is a fault of Nadir."
        ) from error


def _why(error: Exception, where: str) -> str:
    original = getattr(error, "orig", None)
    code = getattr(original, "sqlite_errorcode", 0) & 0xFF  # the extended codes say which part of the kind
    name = getattr(original, "sqlite_errorname", type(error.__cause__ or error).__name__)
    if code in UNWRITABLE and is_mounted_read_only(Path(where).parent):
        return f"The database {where} lies on a read-only file system ({name}); {MOUNT}."
    if code in UNWRITABLE:
        return f"The database cannot be opened or written ({name}); check its folder, its owner and the disk."
    if code in DISK_FAULTS:
        return f"The disk of the database is full or failing ({name}); free or mend it."
    sentence = next((told for sign, told in NO_CONNECTION.items() if sign in str(original)), NO_ANSWER)
    return (_of_postgresql(original) or sentence).format(where=where, name=name)


def is_mounted_read_only(folder: Path) -> bool:
    """Return True for a folder of a file system that nobody can write, whatever the rights; False without a folder."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _of_postgresql(original: BaseException | None) -> str:
    """Return what PostgreSQL's own code means; empty when it is none that somebody can do something about."""
    code = getattr(original, "sqlstate", None) or ""
    # A standby in recovery says 0A000, "not supported", of a snapshot or a lock that a writer would have.
    if code == "0A000" and "recovery" in str(original):
        return READ_ONLY
    return SQLSTATES.get(code, "")


__all__ = ["MOUNT", "is_mounted_read_only", "translated"]
