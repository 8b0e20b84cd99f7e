"""The SQL engine: one class that opens SQLite or PostgreSQL so that what is committed is on disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, PoolProxiedConnection, create_engine, event, func, inspect, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlmodel import Session, SQLModel, select

from plugins.errors import Broken, Refused, Unavailable
from store.database_fault import translated

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

WAIT_SECONDS = 30.0
MIGRATIONS = Path(__file__).with_name("migrations")
UPGRADE_LOCK = 0x4E616469
NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "fuse.sshfs", "afs"}
)


def aware_utc(now: datetime) -> datetime:
    """Return `now` in UTC. Raises ValueError when it is naive."""
    if now.tzinfo is None:
        raise ValueError("datetimes are aware UTC; this one is naive")
    return now.astimezone(UTC)


class Database:
    """The SQL database of one node; safe to share between threads, not between processes."""

    def __init__(self, url: str, *, sync: bool = True) -> None:
        """Open lazily; nothing is read or written yet. Without `sync` a power cut may take what was committed.

        Refuses `bad-database-url`, and `network-disk` for SQLite on a disk that other hosts write to.
        """
        self._url = _checked(url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self.where = _place(self._url)
        if self.is_sqlite:
            _make_folder(Path(str(self._url.database)).parent)
        self._engine = _engine(self._url, sync=sync)
        # SQLite has one writer: a fair queue here beats fifty threads that poll for its lock.
        self._turn = threading.Lock() if self.is_sqlite else None
        self._own: PoolProxiedConnection | None = None

    def upgrade(self) -> None:
        """Bring the tables to the newest revision.

        Refuses `newer-database` when a later Nadir wrote it, and for a new one what `require_unicode` refuses.
        """
        if self.is_sqlite:
            _make_private(Path(str(self._url.database)))
        if self.is_current():
            return
        if self.is_empty():
            self.require_unicode()
        # Here, because a command would wait longer for this import than for its answer.
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        engine = self._engine.execution_options(nadir_foreign_keys="OFF")
        with self._writer(), translated(self.where), engine.begin() as connection:
            if not self.is_sqlite:
                connection.execute(select(func.pg_advisory_xact_lock(UPGRADE_LOCK)))
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise _newer(self.where) from error
            if self.is_sqlite and connection.execute(text("PRAGMA foreign_key_check")).first() is not None:
                raise Broken("The upgrade would leave rows that point to nothing; it was rolled back.")

    def is_current(self) -> bool:
        """Return True when the tables are of the newest revision. Refuses `newer-database`; raises Unavailable."""
        known = {path.name.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py")}
        with translated(self.where), self._engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return False
            revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if revision is not None and revision not in known:
            raise _newer(self.where)
        return revision == max(known)

    def is_empty(self) -> bool:
        """Return True when it has no tables of ours yet; a file that is not there is not made. Raises Unavailable."""
        if self.is_sqlite and not Path(str(self._url.database)).is_file():
            return True
        with translated(self.where), self._engine.connect() as connection:
            return not inspect(connection).has_table("alembic_version")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Give a session that commits on exit and rolls back on any exception.

        The commit is on disk when the block has ended (SQLite `synchronous=FULL`, PostgreSQL
        `synchronous_commit` not off). Raises Unavailable when the database cannot be reached, is
        locked for longer than 30 s or is full.
        """
        with (
            self._writer(),
            translated(self.where),
            Session(self._engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def cursor(self) -> Iterator[DBAPICursor]:
        """Give a cursor of the driver, in a transaction that ends as that of `transaction` does."""
        driver = self._engine.dialect.loaded_dbapi
        with self._writer(), translated(self.where):
            try:
                with self._driven() as cursor:
                    yield cursor
            except driver.Error as error:
                raise DBAPIError.instance(None, None, error, driver.Error) from error

    @contextmanager
    def _driven(self) -> Iterator[DBAPICursor]:
        if not self.is_sqlite:
            with self._engine.begin() as connection:
                yield connection.connection.cursor()
            return
        # SQLite has one writer: a connection that stays its own keeps its pages, and need not be asked for.
        try:
            if self._own is None:
                self._own = self._engine.raw_connection()
                _set_mode(self._own.info, self._own.cursor().execute, ("ON", "OFF"))
            # By the driver: SQLAlchemy's own steps around it take as long as the statements between.
            cursor = self._own.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            yield cursor
            cursor.execute("COMMIT")
        except BaseException:
            # After a COMMIT that failed it may still be in its transaction; the pool ends that.
            self._close_own()
            raise

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session on one consistent snapshot that cannot write. Raises Unavailable."""
        options: Mapping[str, Any] = (
            {"nadir_read_only": True}
            if self.is_sqlite
            else {"postgresql_readonly": True, "isolation_level": "REPEATABLE READ"}
        )
        engine = self._engine.execution_options(**options)
        with (
            translated(self.where),
            Session(engine, expire_on_commit=False, autoflush=False) as session,
            session.begin(),
        ):
            yield session

    def now(self) -> datetime:
        """Return the clock of the database, aware UTC, so that all hosts agree on leases."""
        if self.is_sqlite:
            return datetime.now(UTC)
        with translated(self.where), self._engine.connect() as connection:
            return aware_utc(connection.execute(select(func.clock_timestamp())).scalar_one())

    def is_read_only(self) -> bool:
        """Return True when the server takes no writes, as a PostgreSQL standby does not. Raises Unavailable."""
        if self.is_sqlite:
            return False
        asked = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'"
        with translated(self.where), self._engine.connect() as connection:
            return bool(connection.execute(text(asked)).scalar_one())

    def require_unicode(self) -> None:
        """Refuse `database-encoding` when not every patient's name can be kept, as in a PostgreSQL of LATIN1."""
        if self.is_sqlite:
            return
        with translated(self.where), self._engine.connect() as connection:
            encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
        if encoding != "UTF8":
            sentence = (
                f"The database {self.where} is encoded as {encoding}, which cannot keep every patient's name; make one "
                "with ENCODING 'UTF8' TEMPLATE template0."
            )
            raise Refused("database-encoding", sentence)

    @property
    def engine(self) -> Engine:
        """Return the engine, for a library that speaks SQLAlchemy by itself, in a block of `translating`."""
        return self._engine

    def translating(self) -> AbstractContextManager[None]:
        """Raise what a library meets at the engine in the block as one of our errors, as `transaction` does."""
        return translated(self.where)

    def dispose(self) -> None:
        """Close all connections."""
        if self._own is not None:
            with self._writer():
                self._close_own()
        self._engine.dispose()

    def _close_own(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            own.close()

    @contextmanager
    def _writer(self) -> Iterator[None]:
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=WAIT_SECONDS):
            raise Unavailable("The database was busy for too long; try again.")
        try:
            yield
        finally:
            self._turn.release()


def insert_new(session: Session, table: type[SQLModel], values: Mapping[str, Any]) -> int | None:
    """Return the id of the inserted row, or None when a unique key already holds such a row.

    One statement, so that two processes that insert the same thing never fail.
    """
    insert = dialect_insert(session)
    columns = table.__table__.c  # type: ignore[attr-defined]  # sqlmodel does not declare __table__
    known = {name: field.default for name, field in table.model_fields.items() if not field.is_required()}
    known.pop("id", None)
    statement = insert(table).values({**known, **values}).on_conflict_do_nothing().returning(columns.id)
    found = session.exec(statement).first()
    return None if found is None else int(found[0])


def dialect_insert(session: Session) -> Callable[..., sqlite.Insert | postgresql.Insert]:
    """Return the `insert` of the session's own database, which knows ON CONFLICT."""
    if session.get_bind().dialect.name == "sqlite":
        return sqlite.insert
    # Here, because few nodes need it, and it loads every driver's part of the dialect.
    from sqlalchemy.dialects import postgresql

    return postgresql.insert


def _checked(text_url: str) -> URL:
    try:
        url = make_url(text_url)
    except ArgumentError as error:
        sentence = "The database URL cannot be read; write sqlite:///file or postgresql://user@host/name."
        raise Refused("bad-database-url", sentence) from error
    backend = "postgresql" if url.drivername == "postgres" else url.drivername.partition("+")[0]
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise Refused("bad-database-url", f"'{backend}' is not supported; use sqlite or postgresql.")
    if url.database in (None, "", ":memory:"):
        raise Refused(
            "bad-database-url", "A database in memory keeps nothing; name a file: sqlite:///path/nadir.sqlite"
        )
    return url.set(drivername="sqlite+pysqlite")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mounts = Path("/proc/self/mounts").read_text() if Path("/proc/self/mounts").exists() else ""
    except OSError as error:
        raise Unavailable("The folder of the database cannot be made; free or mend the disk.") from error
    if filesystem(folder.resolve(), mounts) in NETWORK_FILESYSTEMS:
        sentence = (
            "SQLite does not lock on a network disk; put the home folder on a local one or use PostgreSQL."
        )
        raise Refused("network-disk", sentence)


def _make_private(file: Path) -> None:
    """Make the file that SQLite would make for everybody to read; its log takes the mode of it."""
    with suppress(OSError):  # it is there, or SQLite tells what hinders
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def filesystem(folder: Path, mounts: str) -> str:
    """Return the type of the filesystem that holds `folder`, by the lines of /proc/mounts; empty when unknown."""
    found = [
        (Path(fields[1]), fields[2])
        for fields in (line.split() for line in mounts.splitlines())
        if len(fields) > 2
    ]
    holding = [(len(point.parts), kind) for point, kind in found if folder.is_relative_to(point)]
    # Of two mounts on one point the later hides the earlier.
    deepest = max((depth for depth, _ in holding), default=0)
    return next((kind for depth, kind in reversed(holding) if depth == deepest), "")


def _engine(url: URL, *, sync: bool) -> Engine:
    if url.get_backend_name() == "sqlite":
        arguments: dict[str, Any] = {"timeout": WAIT_SECONDS, "check_same_thread": False}
        engine = create_engine(
            url,
            connect_args=arguments,
            pool_size=8,
            max_overflow=120,
            pool_timeout=WAIT_SECONDS,
            pool_use_lifo=True,  # the connection that wrote last is the one whose page cache still holds
        )
        event.listen(engine, "connect", partial(_connect_sqlite, sync=sync))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    arguments = {"connect_timeout": 10, "application_name": "nadir", "client_encoding": "utf8"}
    engine = create_engine(
        url,
        connect_args=arguments,
        pool_size=8,
        max_overflow=56,
        pool_timeout=WAIT_SECONDS,
        pool_pre_ping=True,
    )
    event.listen(engine, "connect", partial(_connect_postgresql, sync=sync))
    return engine


def _connect_sqlite(connection: Any, _record: object, *, sync: bool) -> None:
    # The driver must not begin transactions by itself: `_begin_sqlite` says which kind.
    connection.isolation_level = None
    # SQLite's own knows the 26 letters of English: a search would not find a name with an umlaut in upper case.
    connection.create_function("lower", 1, _lower, deterministic=True)
    connection.execute(f"PRAGMA busy_timeout={int(WAIT_SECONDS * 1000)}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={'FULL' if sync else 'OFF'}")


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    read_only = bool(options.get("nadir_read_only"))
    mode = (options.get("nadir_foreign_keys", "ON"), "ON" if read_only else "OFF")
    _set_mode(connection.info, connection.exec_driver_sql, mode)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _set_mode(
    info: MutableMapping[Any, Any], execute: Callable[[str], object], mode: tuple[str, str]
) -> None:
    """Let a connection hold to foreign keys, and only read, or not; `info` remembers which."""
    if info.get("nadir_mode") != mode:
        execute(f"PRAGMA foreign_keys={mode[0]}")
        execute(f"PRAGMA query_only={mode[1]}")
        info["nadir_mode"] = mode


def _connect_postgresql(connection: Any, _record: object, *, sync: bool) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
        cursor.execute("SET datestyle = 'ISO'")
        cursor.execute(f"SET lock_timeout = '{int(WAIT_SECONDS)}s'")
        current, wanted = ("off", "on") if sync else ("on", "off")
        cursor.execute(
            "SELECT set_config('synchronous_commit', %s, false) WHERE current_setting('synchronous_commit') = %s",
            (wanted, current),
        )
    connection.commit()


def _newer(where: str) -> Refused:
    sentence = (
        f"The database {where} was written by a newer version; start that version or use another database."
    )
    return Refused("newer-database", sentence)


def _place(url: URL) -> str:
    """Return where a database is, for a sentence: never who signs in there, nor with what."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    port = f":{url.port}" if url.port else ""
    return f"'{url.database}' on {url.host or 'this machine'}{port}"


def place_of(url: str) -> str:
    """Return where the database of a URL is: a file, or `'name' on host`. Refuses `bad-database-url`."""
    return _place(_checked(url))


__all__ = ["Database", "aware_utc", "dialect_insert", "insert_new", "place_of"]
