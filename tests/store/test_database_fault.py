from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import psycopg
import pytest
from postgres_server import PostgresServer
from sqlalchemy.exc import DBAPIError

from plugins.errors import Broken, Unavailable
from store.database import Database
from store.database_fault import translated
from store.tables import Event

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

pytestmark = pytest.mark.postgres


@pytest.fixture
def name(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    made = postgres.create(postgres_template)
    yield made
    postgres.drop(made)


def test_a_postgresql_that_takes_no_writes_is_unavailable_and_said_to_be_read_only(
    postgres: PostgresServer, name: str
) -> None:
    postgres._execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    database = Database(postgres.url(name))
    assert database.is_read_only()
    with pytest.raises(Unavailable) as caught, database.transaction() as session:
        session.add(Event(at=NOON, kind="x"))
    with pytest.raises(Unavailable, match="can only be read"), database.cursor() as cursor:
        cursor.execute("DELETE FROM event")
    database.dispose()
    assert str(caught.value) == (
        f"The database '{name}' on 127.0.0.1:{postgres.port} can only be read, as a standby after a failover can; "
        "name the one that takes writes in database_url, or let this one take them."
    )


def test_a_postgresql_that_takes_writes_is_not_read_only(database: Database) -> None:
    assert not database.is_read_only()


def test_a_postgresql_without_a_place_for_one_more_says_what_to_raise(
    postgres: PostgresServer, name: str
) -> None:
    with ExitStack() as crowd:
        with pytest.raises(psycopg.OperationalError):
            while True:
                crowd.enter_context(
                    psycopg.connect(
                        host="127.0.0.1", port=postgres.port, user="nadir", dbname=name, connect_timeout=60
                    )
                )
        database = Database(postgres.url(name))
        with pytest.raises(Unavailable, match="lets no more connections in; raise max_connections"):
            database.upgrade()
        database.dispose()


def told_of(original: psycopg.Error) -> str:
    error = DBAPIError.instance("", None, original, psycopg.Error)
    with pytest.raises(Unavailable) as caught, translated("'rows' on h"):
        raise error
    return str(caught.value)


@pytest.mark.parametrize(
    ("sqlstate", "told"),
    [
        ("42501", "The database 'rows' on h gives its user too few rights; make that user the owner"),
        ("53100", "The disk of the database 'rows' on h is full; free it."),
        ("53200", "The database 'rows' on h has no memory left; "),
        ("53300", "The database 'rows' on h lets no more connections in; "),
        ("57P01", "The database 'rows' on h is starting or stopping; wait"),
        ("57P03", "The database 'rows' on h is starting or stopping; wait"),
        ("08006", "The database 'rows' on h did not answer ("),
    ],
)
def test_what_postgresql_lacks_is_said_by_its_code(sqlstate: str, told: str) -> None:
    assert told_of(psycopg.errors.lookup(sqlstate)("in any language")).startswith(told)


def test_a_standby_says_not_supported_of_what_only_a_server_that_takes_writes_has() -> None:
    standby = psycopg.errors.FeatureNotSupported("cannot set transaction read-write mode during recovery")
    assert "can only be read" in told_of(standby)
    with pytest.raises(Broken), translated("'rows' on h"):
        raise DBAPIError.instance("", None, psycopg.errors.FeatureNotSupported("no"), psycopg.Error)
