"""The commands `nadir patients ...`: who is one person, declared by an administrator and never by name."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from node import printing
from node.cli_author import Author, Note, who
from node.cli_options import AsJson, Config, Home, open_database
from node.flags import load_settings

if TYPE_CHECKING:
    from sqlmodel import Session

    from node.settings import Settings

patients_app = typer.Typer(help="Patients that are one person.", no_args_is_help=True)
IssuerOf = Annotated[
    str | None, typer.Option(help="Its issuer, when several gave that PatientID.", show_default=False)
]
COLUMNS = {
    "at": "at",
    "author": "by",
    "patient_id": "patient",
    "issuer": "issuer",
    "into_patient_id": "is",
    "into_issuer": "of issuer",
    "note": "note",
}


@patients_app.command("merge")
def patients_merge(
    patient: Annotated[str, typer.Argument(help="PatientID that is another one.")],
    into: Annotated[str, typer.Argument(help="PatientID that it is.")],
    issuer: IssuerOf = None,
    into_issuer: IssuerOf = None,
    author: Author = None,
    note: Note = "",
    home: Home = None,
    config: Config = None,
) -> None:
    """Declare that two patients are one person: their studies are one course from now on."""
    with open_database(home, config) as database:
        from node.decisions import ask_anew
        from store.patients import merge, patient_row
        from store.retrack import retrack

        settings = load_settings(config, {"home": home})

        now = database.now()
        with database.transaction() as session:
            one, other = patient_row(session, patient, issuer), patient_row(session, into, into_issuer)
            merge(session, int(one.id or 0), int(other.id or 0), who(author), now, note)
            _ask_for_past(session, settings, int(other.id or 0), now)
            retrack(session, int(other.id or 0), now, settings.max_attempts)
            ask_anew(session, settings, int(other.id or 0), now)
    back = ["nadir", "patients", "part", patient, *([] if issuer is None else ["--issuer", issuer])]
    printing.say(f"{patient} is {into}; '{shlex.join(back)}' takes it back")


def _ask_for_past(session: Session, settings: Settings, patient_pk: int, now: datetime) -> None:
    """Have the archives asked for what they hold of the person before the newest study, by every PatientID."""
    from sqlmodel import col, select

    from node.deliveries import key_of
    from node.priors import request
    from store.patients import same_person
    from store.tables import Study

    dated = select(Study.id).where(col(Study.patient_pk).in_(same_person(session, patient_pk)))
    dated = dated.where(col(Study.study_date).is_not(None), ~col(Study.prior), col(Study.revision) > 0)
    newest = session.exec(dated.order_by(col(Study.study_date).desc(), col(Study.id).desc())).first()
    if newest is not None:
        request(session, newest, tuple(map(key_of, settings.prior_sources)), now=now)


@patients_app.command("part")
def patients_part(
    patient: Annotated[str, typer.Argument(help="PatientID that was merged into another one.")],
    issuer: IssuerOf = None,
    author: Author = None,
    note: Note = "",
    home: Home = None,
    config: Config = None,
) -> None:
    """Take back that a patient is another one: what was compared with studies of his is analysed once more."""
    with open_database(home, config) as database:
        from node.decisions import ask_anew
        from store.patients import part, patient_row, same_person
        from store.retrack import retrack

        settings = load_settings(config, {"home": home})

        now = database.now()
        with database.transaction() as session:
            pk = int(patient_row(session, patient, issuer).id or 0)
            others = [other for other in same_person(session, pk) if other != pk]
            part(session, pk, who(author), now, note)
            for one in (pk, *others[:1]):
                retrack(session, one, now, settings.max_attempts)
                ask_anew(session, settings, one, now)
    printing.say(f"{patient} is a patient of its own again")


@patients_app.command("list")
def patients_list(home: Home = None, config: Config = None, as_json: AsJson = False) -> None:
    """List what was declared, oldest first; the newest of a patient counts."""
    with open_database(home, config) as database:
        from store.patients import merges

        with database.reading() as session:
            rows = merges(session)
    if as_json:
        printing.print_json(rows)
    else:
        shown = [{**row, "at": f"{row['at']:%Y-%m-%d %H:%M}Z"} for row in rows]
        printing.print_table(shown, COLUMNS, wrapped=("note",))


__all__ = ["patients_app"]
