from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres_server import PostgresServer
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import StatementError
from sqlmodel import SQLModel, select

import store.database as database_module
from plugins.errors import Broken, NadirError, Refused, Unavailable
from store import database_fault
from store.database import Database, aware_utc, filesystem, insert_new
from store.tables import Event, Patient, Study

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_the_migrations_make_exactly_the_tables_of_the_code(empty_url: str) -> None:
    database = Database(empty_url)
    database.upgrade()
    database.upgrade()
    engine = create_engine(database._url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, SQLModel.metadata) == []
        assert context.get_current_revision() == "0011"
    engine.dispose()
    database.dispose()


def test_no_index_repeats_the_beginning_of_another(database: Database) -> None:
    inspector, repeated = inspect(database.engine), []
    for table in inspector.get_table_names():
        unique = [one["column_names"] for one in inspector.get_unique_constraints(table)]
        indexes = [one["column_names"] for one in inspector.get_indexes(table)]
        whole = [inspector.get_pk_constraint(table)["constrained_columns"], *unique, *indexes]
        repeated += [
            (table, index)
            for index in indexes
            if any(len(other) > len(index) and other[: len(index)] == index for other in whole)
        ]
    assert repeated == []


def test_two_nodes_that_start_at_once_migrate_once(empty_url: str) -> None:
    failures: list[Exception] = []

    def start() -> None:
        database = Database(empty_url)
        try:
            database.upgrade()
        except Exception as error:
            failures.append(error)
        finally:
            database.dispose()

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    with database.transaction() as session:
        session.connection().execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Refused) as caught:
        database.upgrade()
    assert caught.value.code == "newer-database"
    name, sentence = database._engine.url.database, caught.value.sentence
    assert str(name) in sentence and "written by a newer version; start that version" in sentence


def test_a_transaction_is_kept_whole_or_not_at_all(database: Database) -> None:
    with database.transaction() as session:
        session.add(Event(at=NOON, kind="kept"))
    with pytest.raises(RuntimeError), database.transaction() as session:
        session.add(Event(at=NOON, kind="lost"))
        session.flush()
        raise RuntimeError
    with database.reading() as session:
        assert [event.kind for event in session.exec(select(Event))] == ["kept"]


def test_a_datetime_comes_back_aware_and_a_naive_one_is_refused(database: Database) -> None:
    with database.transaction() as session:
        session.add(Event(at=NOON, kind="x"))
    with database.reading() as session:
        assert session.exec(select(Event.at)).one() == NOON
        assert session.exec(select(Event.at)).one().tzinfo is not None
    with pytest.raises(StatementError, match="naive"), database.transaction() as session:
        session.add(Event(at=datetime(2026, 3, 1), kind="x"))  # noqa: DTZ001
    with pytest.raises(ValueError, match="naive"):
        aware_utc(datetime(2026, 3, 1))  # noqa: DTZ001


def test_a_reading_session_cannot_write(database: Database) -> None:
    with pytest.raises(NadirError) as caught, database.reading() as session:
        session.add(Event(at=NOON, kind="x"))
        session.flush()
    assert "read" in str(caught.value.__cause__).lower()
    with database.transaction() as session:
        assert session.exec(select(Event)).all() == []


def test_a_row_that_points_to_nothing_is_broken_and_not_kept(database: Database) -> None:
    with pytest.raises(Broken), database.transaction() as session:
        session.add(Study(patient_pk=7, study_instance_uid="1", first_arrival_at=NOON, last_arrival_at=NOON))
    with database.reading() as session:
        assert session.exec(select(Study)).all() == []


def test_a_null_in_a_text_is_refused_by_the_engine_that_keeps_none(database: Database) -> None:
    asked = select(Patient).where(Patient.patient_id == "a\0")
    with nullcontext() if database.is_sqlite else pytest.raises(Refused, match="null"):  # noqa: SIM117
        with database.reading() as session:
            assert session.exec(asked).first() is None


def test_the_filesystem_of_a_folder_is_that_of_its_deepest_mount() -> None:
    mounts = "/dev/vda / ext4 rw 0 0\nsrv:/x /data nfs4 rw 0 0\n/dev/vdb /data/local xfs rw 0 0\ntmpfs /t tmpfs rw\n"
    kinds = [
        filesystem(Path(folder), mounts)
        for folder in ("/home/a", "/data", "/data/x", "/data/local/y", "/database")
    ]
    assert kinds == ["ext4", "nfs4", "nfs4", "xfs", "ext4"]
    assert filesystem(Path("/x"), "") == ""
    assert filesystem(Path("/data"), mounts + "/dev/vdc /data ext4 rw 0 0\n") == "ext4"


def test_sqlite_on_a_network_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "filesystem", lambda *_: "nfs4")
    with pytest.raises(Refused) as caught:
        Database(f"sqlite:///{tmp_path / 'nadir.sqlite'}")
    assert caught.value.code == "network-disk"


def test_the_clock_is_aware_and_close_to_ours(database: Database) -> None:
    assert abs((database.now() - datetime.now(UTC)).total_seconds()) < 5


def test_what_is_inserted_twice_is_there_once(database: Database) -> None:
    with database.transaction() as session:
        first = insert_new(session, Patient, {"patient_id": "P1"})
        assert first is not None
        assert insert_new(session, Patient, {"patient_id": "P1"}) is None
        assert session.exec(select(Patient.issuer)).all() == [""]


def test_sqlite_syncs_every_commit_and_keeps_foreign_keys(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'deep' / 'nadir.sqlite'}")
    database.upgrade()
    with database.transaction() as session:
        pragmas = {
            name: session.connection().exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}
    database.dispose()


def test_without_sync_nothing_is_waited_for(tmp_path: Path, postgres: PostgresServer) -> None:
    name = postgres.create()
    for url, question in (
        (f"sqlite:///{tmp_path / 'a.sqlite'}", "PRAGMA synchronous"),
        (postgres.url(name), "SHOW synchronous_commit"),
    ):
        database = Database(url, sync=False)
        with database.transaction() as session:
            assert session.connection().exec_driver_sql(question).scalar() in (0, "off")
        database.dispose()
    postgres.drop(name)


def test_a_postgresql_that_does_not_sync_commits_is_told_to(request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("postgres")
    name = server.create()
    server._execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    database = Database(server.url(name))
    with database.reading() as session:
        assert session.connection().execute(text("SHOW synchronous_commit")).scalar() == "on"
    database.dispose()
    server.drop(name)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_new_postgresql_database_that_cannot_keep_every_name_is_refused(
    postgres: PostgresServer, encoding: str
) -> None:
    name = postgres.create(options=f"ENCODING '{encoding}' LOCALE 'C'")
    database = Database(postgres.url(name))
    with pytest.raises(Refused, match=f"is encoded as {encoding}, which cannot keep") as caught:
        database.upgrade()
    assert caught.value.code == "database-encoding"
    assert database.is_empty()
    database.dispose()
    postgres.drop(name)


def test_times_are_read_whatever_style_of_dates_a_postgresql_has(postgres: PostgresServer) -> None:
    name = postgres.create()
    postgres._execute(f"ALTER DATABASE \"{name}\" SET datestyle = 'German, DMY'")
    database = Database(postgres.url(name))
    database.upgrade()
    with database.transaction() as session:
        session.add(Event(at=NOON, kind="told"))
    with database.reading() as session:
        assert session.exec(select(Event.at)).one() == NOON
    assert abs((database.now() - datetime.now(UTC)).total_seconds()) < 600
    database.dispose()
    postgres.drop(name)


def test_a_locked_sqlite_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "WAIT_SECONDS", 0.2)
    url = f"sqlite:///{tmp_path / 'nadir.sqlite'}"
    first, second = Database(url), Database(url)
    with first.transaction() as session:
        session.connection()
        with pytest.raises(Unavailable), second.transaction() as other:
            other.connection()
        with pytest.raises(Unavailable), first.transaction():
            pass
    with second.transaction() as other:
        other.connection()
    first.dispose()
    second.dispose()


def test_a_file_that_cannot_be_opened_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "nadir.sqlite").mkdir()
    database = Database(f"sqlite:///{tmp_path / 'nadir.sqlite'}")
    with pytest.raises(Unavailable, match="cannot be opened or written \\(SQLITE_CANTOPEN"):
        database.upgrade()
    database.dispose()


def test_a_file_system_that_is_read_only_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not database_fault.is_mounted_read_only(tmp_path)
    assert not database_fault.is_mounted_read_only(tmp_path / "none")
    (tmp_path / "nadir.sqlite").mkdir()
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_flag=os.ST_RDONLY | os.ST_NOSUID))
    database = Database(f"sqlite:///{tmp_path / 'nadir.sqlite'}")
    with pytest.raises(Unavailable) as raised:
        database.upgrade()
    assert str(raised.value) == (
        f"The database {tmp_path / 'nadir.sqlite'} lies on a read-only file system (SQLITE_CANTOPEN); mount that for "
        "writing, or copy the home to another disk."
    )
    database.dispose()


def test_a_full_database_names_the_disk(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'nadir.sqlite'}")
    with (
        pytest.raises(Unavailable, match="full or failing \\(SQLITE_FULL"),
        database.transaction() as session,
    ):
        session.connection().exec_driver_sql("PRAGMA max_page_count = 2")
        session.connection().exec_driver_sql("CREATE TABLE t (x)")
        session.connection().exec_driver_sql("INSERT INTO t VALUES (zeroblob(100000))")
    database.dispose()


def test_a_postgresql_that_is_down_is_unavailable_and_one_that_restarts_is_found_again(
    request: pytest.FixtureRequest,
) -> None:
    server = request.getfixturevalue("postgres")
    nowhere = Database("postgresql://nadir@127.0.0.1:1/none")
    with pytest.raises(Unavailable), nowhere.transaction() as session:
        session.connection()
    name = server.create(request.getfixturevalue("postgres_template"))
    database = Database(server.url(name))
    with database.transaction() as session:
        session.exec(select(Event)).all()
    with pytest.raises(Unavailable), database.transaction() as session:
        session.add(Event(at=NOON, kind="lost"))
        session.flush()
        server._execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with database.transaction() as session:
        assert session.exec(select(Event)).all() == []
    database.dispose()
    nowhere.dispose()
    server.drop(name)


def told_of(url: str) -> str:
    database = Database(url)
    with pytest.raises(Unavailable) as caught:
        database.upgrade()
    return str(caught.value)


def test_a_postgresql_that_lets_nobody_in_says_where_and_what_to_do_and_never_who(
    postgres: PostgresServer,
) -> None:
    rules = postgres.folder / "pg_hba.conf"
    before = rules.read_text()
    lines = ("host all guarded 127.0.0.1/32 scram-sha-256", "host all barred 127.0.0.1/32 reject", before)
    name = postgres.create()
    postgres._execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    rules.write_text("\n".join(lines))
    postgres._execute("SELECT pg_reload_conf()")
    try:
        at = f"127.0.0.1:{postgres.port}"
        refused = f"The database '{name}' on {at} refuses the login; check user and password in database_url"
        for user in ("guarded:wrong-secret", "guarded", "barred:wrong-secret", "nobody"):
            told = told_of(f"postgresql://{user}@{at}/{name}")
            assert told == f"{refused}, and its pg_hba.conf.", user
        assert told_of(f"postgresql://nadir@{at}/absent") == (
            f"There is no database 'absent' on {at}; make it, or name another in database_url."
        )
    finally:
        rules.write_text(before)
        postgres._execute("SELECT pg_reload_conf()")
        postgres._execute("DROP ROLE guarded")
        postgres.drop(name)


def test_a_wrong_port_or_host_of_the_database_is_told_as_such() -> None:
    assert told_of("postgresql://nadir:secret@127.0.0.1:1/rows") == (
        "Nothing listens for the database 'rows' on 127.0.0.1:1; start it, or check host and port in database_url."
    )
    assert told_of("postgresql://nadir:secret@nowhere.invalid/rows") == (
        "The host of the database 'rows' on nowhere.invalid is not known; check it in database_url."
    )


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "nonsense", ""])
def test_a_url_that_keeps_nothing_or_says_nothing_is_refused(url: str) -> None:
    with pytest.raises(Refused) as caught:
        Database(url)
    assert caught.value.code == "bad-database-url"


def test_fifty_threads_write_to_sqlite_without_a_loss(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'nadir.sqlite'}")
    database.upgrade()

    def write(number: int) -> None:
        with database.transaction() as session:
            session.add(Event(at=NOON, kind=str(number)))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as session:
        assert {event.kind for event in session.exec(select(Event))} == {str(n) for n in range(50)}
    database.dispose()
