"""The commands `nadir users ...`, `nadir tokens ...` and `nadir audit ...`: who may ask over HTTP, and what was done.

Passwords come from a prompt, from standard input or out of a file, never as an argument: those stand in the list of
processes for everybody to read. Every change is told to the audit trail in the same transaction.
"""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node import printing
from node.cli_options import AsJson, Config, Home, open_database, operator
from node.flags import load_settings
from node.own_folder import make_home
from node.rows_place import require_no_node
from plugins.errors import Refused

if TYPE_CHECKING:
    from sqlmodel import Session

    from node.settings import Settings
    from store.database import Database

users_app = typer.Typer(help="People who may sign in to the HTTP port.", no_args_is_help=True)
tokens_app = typer.Typer(help="Tokens of programs that may ask the HTTP port.", no_args_is_help=True)
audit_app = typer.Typer(help="The audit trail.", no_args_is_help=True)

SHA256 = re.compile(r"[0-9a-f]{64}")
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of it.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file", help="File with the password; standard input when not given.", show_default=False
    ),
]


@users_app.command("add")
def users_add(
    name: Name,
    role: Annotated[str, typer.Option(help="viewer, physicist or administrator.")],
    password_file: PasswordFile = None,
    home: Home = None,
    config: Config = None,
) -> None:
    """Add a person who may sign in."""
    from store import accounts

    password = _password(password_file)
    with _changing(home, config, makes=True) as (session, now, tell):
        accounts.add_account(session, name, role, password, now)
        tell(f"account added as {role}", name, is_role=True)
    printing.say(f"{name} may sign in as {role}")


@users_app.command("list")
def users_list(home: Home = None, config: Config = None, as_json: AsJson = False) -> None:
    """List who may sign in."""
    from store import accounts

    with open_database(home, config) as database, database.reading() as session:
        rows = accounts.list_accounts(session)
    if as_json:
        printing.print_json(rows)
    else:
        printing.print_table(rows, {name: name.replace("_", " ") for name in ("name", "role", "disabled")})


@users_app.command("password")
def users_password(
    name: Name, password_file: PasswordFile = None, home: Home = None, config: Config = None
) -> None:
    """Give a person a new password, sign them out everywhere and forgive wrong tries.

    Whom an OpenID provider vouches for has no password here; nadir users disable signs them out.
    """
    from store import accounts, outside_people

    with open_database(home, config):  # where there is no node, nobody is asked for a password
        password = _password(password_file)
    with _changing(home, config) as (session, _, tell):
        outside_people.require_ours(session, name)
        accounts.set_password(session, name, password)
        tell("password changed", name)
    printing.say(f"{name} has a new password")


@users_app.command("disable")
def users_disable(
    name: Name,
    again: Annotated[bool, typer.Option("--undo", help="Let the person in again.")] = False,
    home: Home = None,
    config: Config = None,
) -> None:
    """Shut a person out, at once."""
    from store import accounts

    with _changing(home, config) as (session, _, tell):
        was_last = not again and accounts.is_last_administrator(session, name)
        accounts.set_disabled(session, name, disabled=not again)
        tell("account enabled" if again else "account disabled", name)
    if was_last:
        words = "nobody is administrator any more; nadir users add NAME --role administrator makes another"
        printing.complain(f"nadir: {words}")
    printing.say(f"{name} may sign in again" if again else f"{name} may sign in no more")


@tokens_app.command("add")
def tokens_add(
    name: Name,
    scope: Annotated[list[str], typer.Option(help="hook, sender, metrics or api (repeatable).")],
    days: Annotated[float, typer.Option(min=0, help="Days until it ends, 36500 at most; 0 for never.")] = 365,
    home: Home = None,
    config: Config = None,
) -> None:
    """Make a token and print it, this once: it is kept as a hash only."""
    from store import accounts

    with _changing(home, config, makes=True) as (session, now, tell):
        token = accounts.add_token(session, name, scope, now, days or None)
        tell(f"token added for {', '.join(scope)}", name, is_role=True)
    printing.say(token)


@tokens_app.command("list")
def tokens_list(home: Home = None, config: Config = None, as_json: AsJson = False) -> None:
    """List the tokens, without themselves."""
    from store import accounts

    with open_database(home, config) as database, database.reading() as session:
        rows = accounts.list_tokens(session, database.now())
    if as_json:
        printing.print_json(rows)
    else:
        columns = ("name", "scopes", "state", "expires_at")
        printing.print_table(rows, {name: name.replace("_", " ") for name in columns})


@tokens_app.command("revoke")
def tokens_revoke(name: Name, home: Home = None, config: Config = None) -> None:
    """End a token, at once and for good."""
    from store import accounts

    with _changing(home, config) as (session, now, tell):
        accounts.revoke_token(session, name, now)
        tell("token revoked", name)
    printing.say(f"the token {name} opens nothing any more")


@audit_app.command("verify")
def audit_verify(
    home: Home = None,
    config: Config = None,
    expected: Annotated[
        str, typer.Option(help="Hash that the last record had, to see whether the end was cut off.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Check the chain: no record changed, taken out or put in between."""
    from store import audit

    if expected and not SHA256.fullmatch(expected := expected.strip().lower()):
        sentence = "--expected takes a SHA-256, the 64 digits that `nadir audit verify` told once"
        raise Refused("bad-command", sentence)
    with open_database(home, config) as database, database.reading() as session:
        found = audit.verify(session)
        is_known = not expected or any(row.sha256 == expected for row in audit.records(session))
    if as_json:
        said = {"records": found.records, "last_sha256": found.last_sha256, "broken": found.broken_pk}
        printing.print_json(said | ({"expected_found": is_known} if expected else {}))
    elif found.broken_pk is not None:
        printing.complain(f"nadir: the audit trail is broken at record {found.broken_pk}")
    elif not is_known:
        printing.complain("nadir: no record has the expected hash: the end of the audit trail was cut off")
    else:
        printing.say(
            f"{found.records} records, each follows from the one before; the last is {found.last_sha256}"
        )
    if found.broken_pk is not None or not is_known:
        raise typer.Exit(1)


@audit_app.command("export")
def audit_export(
    home: Home = None,
    config: Config = None,
    after: Annotated[int, typer.Option(min=0, help="Only records after this number.")] = 0,
    as_xml: Annotated[bool, typer.Option("--xml", help="Print the messages alone, one XML a line.")] = False,
) -> None:
    """Print the audit trail, one JSON object or one DICOM audit message a line; the reading is a record too."""
    from node.audit_sinks import line_of
    from store import audit

    with open_database(home, config) as database:
        with database.reading() as session:
            for row in audit.records(session, after_pk=after):
                sys.stdout.write(f"{row.message}\n" if as_xml else line_of(row))
        _append_read(database, home, config)


def _append_read(database: Database, home: Path | None, config: Path | None) -> None:
    from node import audit_events
    from store import audit

    settings = load_settings(config, {"home": home})
    with database.transaction() as session:
        now = database.now()
        message = audit_events.trail_read(operator()).xml(now, settings.ae_title)
        audit.append(session, [(now, message)])


Tell = Callable[..., None]


@contextmanager
def _changing(
    home: Path | None, config: Path | None, *, makes: bool = False
) -> Iterator[tuple[Session, datetime, Tell]]:
    """Give a transaction on the database of a node and how to tell the trail; `makes` a node where there is none."""
    from node import audit_events
    from store import audit

    settings = load_settings(config, {"home": home})
    if makes:
        _make_node(settings)
    with open_database(home, config) as database, database.transaction() as session:
        now = database.now()

        def tell(what: str, subject: str, *, is_role: bool = False) -> None:
            message = audit_events.access_changed(what, subject, operator(), is_role=is_role)
            audit.append(session, [(now, message.xml(now, settings.ae_title))])

        yield session, now, tell


def _make_node(settings: Settings) -> None:
    """Make the folder and the database of a node that has none yet, and say so: another node may have been meant.

    Refuses `no-database`: there is a node whose rows are in a database that the settings do not name.
    """
    from store.database import Database

    is_made = bool(settings.database_url) or (settings.home / "nadir.sqlite").is_file()
    if not is_made:
        require_no_node(settings.home)
    make_home(settings.home)
    if is_made:
        return
    database = Database(settings.sql_url)
    try:
        database.upgrade()
    finally:
        database.dispose()
    printing.complain(f"nadir: made a new node in {settings.home}; --home or --config name one that is there")


def _password(file: Path | None) -> str:
    """Return a password from a private file, a prompt that is asked twice, or one line of standard input."""
    if file is not None:
        from node.secrets import read_secret

        return read_secret(file, "the password")
    if not sys.stdin.isatty():
        if line := sys.stdin.readline(1000):
            return line.rstrip("\r\n")
        sentence = (
            "standard input is closed or ends before a password; give one line there, or --password-file"
        )
        raise Refused("weak-password", sentence)
    try:
        password, again = getpass.getpass("Password: "), getpass.getpass("Again: ")
    except EOFError as error:
        raise typer.Abort from error
    if password != again:
        raise Refused("weak-password", "the two passwords differ")
    return password
