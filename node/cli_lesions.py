"""The commands `nadir lesions ...`: what is followed of a patient, and what people decide of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node import lesion_lines, printing
from node.cli_author import Author, Note, who
from node.cli_options import AsJson, Config, Home, open_database
from node.flags import load_settings
from plugins.errors import Refused

if TYPE_CHECKING:
    from sqlmodel import Session

    from store.course import Course
    from store.objects import ObjectStore
    from store.sighting import Decision

lesions_app = typer.Typer(help="Lesions over time, and what people decide of them.", no_args_is_help=True)

PatientId = Annotated[str, typer.Option("--patient", help="PatientID.")]
Issuer = Annotated[
    str | None, typer.Option(help="IssuerOfPatientID, when several gave that PatientID.", show_default=False)
]
Lesion = Annotated[str, typer.Option("--lesion", help="Its Tracking UID, or its name in the list.")]
AtStudy = Annotated[str, typer.Option("--study", help="The visit: Study Instance UID, or date (2026-01-31).")]
MaybeStudy = Annotated[
    str | None,
    typer.Option(
        "--study", help="Only at this visit: Study Instance UID, or date (2026-01-31).", show_default=False
    ),
]
Sul = Annotated[float | None, typer.Option(help="SUL, g/ml.", show_default=False)]


@dataclass(frozen=True, kw_only=True)
class _Patient:
    """A patient whose lesions are decided of."""

    session: Session
    pk: int
    known: Course
    now: datetime
    objects: ObjectStore
    made: list[Decision] = field(default_factory=list)
    """Choices that were kept."""

    def lesion(self, said: str) -> str:
        """Return the Tracking UID of a lesion, by that or by its name in the list."""
        named = [uid for uid, name in self.known.names.items() if name == said]
        return named[0] if named else said

    def study(self, said: str | None, lesion: str = "") -> str:
        """Return a Study Instance UID, by that or by its date; empty for none."""
        if said is None:
            return ""
        try:
            on = date.fromisoformat(said)
        except ValueError:
            return said
        of_day = [v.study_instance_uid for v in self.known.visits if v.study_date == on]
        with_it = [
            s.study_instance_uid
            for s in self.known.sightings
            if s.date == on and lesion in (s.lesion, s.tracking_uid) and s.series_instance_uid
        ]
        found = list(dict.fromkeys(with_it if len(of_day) > 1 and with_it else of_day))
        if len(found) != 1:
            there = f"{len(found)} studies" if found else "no study"
            raise Refused(
                "no-such-study", f"the patient has {there} of {on}; name one by its Study Instance UID"
            )
        return found[0]


@lesions_app.command("list")
def lesions_list(
    patient: PatientId,
    issuer: Issuer = None,
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the lesions of a patient: what each is to the criteria and who said so, and what was seen at each visit.

    A size in brackets does not count: it is another measurement of the same lesion, or was rejected.
    """
    with _opened(patient, issuer, home, config) as found:
        known = found.known
    if as_json:
        printing.print_json(lesion_lines.plain(known))
        return
    days = sorted({s.date for s in known.sightings})
    columns = {"name": "lesion", "uid": "tracking uid", "role": "role", "by": "said by", "site": "site"}
    columns |= {str(day): str(day) for day in days}
    rows = [lesion_lines.row(known, uid, name, days) for uid, name in known.names.items()]
    printing.print_table(rows, columns, numbers=[str(day) for day in days])
    for decision in lesion_lines.decisions(known):
        printing.say(lesion_lines.line(decision, known))


@lesions_app.command("relink")
def lesions_relink(
    patient: PatientId,
    lesion: Lesion,
    study: AtStudy,
    to: Annotated[
        str, typer.Option("--to", help="The lesion that it is; `new` gives it an identity of its own.")
    ],
    split: Annotated[bool, typer.Option("--split", help="Both are fragments of one lesion.")] = False,
    swap: Annotated[bool, typer.Option("--swap", help="The two were taken for each other.")] = False,
    issuer: Issuer = None,
    author: Author = None,
    note: Note = "",
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say that what was drawn at a visit is another lesion, there and at the visits that were compared with it."""
    from store import choices

    with _opened(patient, issuer, home, config, write=True) as found:
        uid, other = found.lesion(lesion), found.lesion(to)
        about: dict[str, Any] = {
            "author": who(author),
            "now": found.now,
            "study_instance_uid": found.study(study, uid),
            "note": note,
            "objects": found.objects,
        }
        if swap:
            found.made.extend(choices.swap(found.session, found.pk, uid, other, **about))
        else:
            found.made.append(
                choices.choose(found.session, found.pk, "relink", uid, other, split=split, **about)
            )
    _tell(found.made, found.known, as_json)


@lesions_app.command("mark")
def lesions_mark(
    patient: PatientId,
    lesion: Lesion,
    role: Annotated[
        str | None, typer.Option(help="target, non-target, new or ignore.", show_default=False)
    ] = None,
    node: Annotated[
        bool | None, typer.Option("--node/--no-node", help="A lymph node or not.", show_default=False)
    ] = None,
    site: Annotated[str | None, typer.Option(help="Organ, in words.", show_default=False)] = None,
    status: Annotated[
        str | None,
        typer.Option(
            help="With --study: measured, absent, NE, present, too-small or unequivocal-progression.",
            show_default=False,
        ),
    ] = None,
    outline: Annotated[
        str | None,
        typer.Option(
            help="With --study: approved or not-approved, what Nadir drew there; models may learn from it.",
            show_default=False,
        ),
    ] = None,
    study: MaybeStudy = None,
    issuer: Issuer = None,
    author: Author = None,
    note: Note = "",
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say what a lesion is (--role, --node, --site), and of a visit what was seen (--status) and drawn (--outline)."""
    words = {
        "role": role,
        "node": None if node is None else str(node).lower(),
        "site": site,
        "status": status,
        "outline": outline,
    }
    said = {kind: value for kind, value in words.items() if value is not None}
    if not said:
        raise typer.BadParameter("say what it is: --role, --node, --site, --status or --outline")
    _decide(patient, issuer, lesion, said, study, author, note, home, config, as_json)


@lesions_app.command("reject")
def lesions_reject(
    patient: PatientId,
    lesion: Lesion,
    study: MaybeStudy = None,
    issuer: Issuer = None,
    author: Author = None,
    note: Note = "",
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say that it is no lesion, at one visit or at all."""
    _decide(patient, issuer, lesion, {"reject": "true"}, study, author, note, home, config, as_json)


@lesions_app.command("confirm")
def lesions_confirm(
    patient: PatientId,
    lesion: Lesion,
    study: MaybeStudy = None,
    issuer: Issuer = None,
    author: Author = None,
    note: Note = "",
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Confirm what the tracking says of a lesion: one that is new is progression from then on."""
    _decide(patient, issuer, lesion, {"confirm": "true"}, study, author, note, home, config, as_json)


@lesions_app.command("undo")
def lesions_undo(
    patient: PatientId,
    number: Annotated[int, typer.Option("--choice", help="Its number in the history.")],
    issuer: Issuer = None,
    author: Author = None,
    note: Note = "",
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take a choice back; nothing is deleted, and what took it back can be taken back."""
    from store.choices import undo

    with _opened(patient, issuer, home, config, write=True) as found:
        found.made.append(undo(found.session, found.pk, number, author=who(author), now=found.now, note=note))
    _tell(found.made, found.known, as_json)


@lesions_app.command("reference")
def lesions_reference(
    patient: PatientId,
    study: AtStudy,
    liver_mean: Sul = None,
    liver_sd: Sul = None,
    blood_pool_mean: Sul = None,
    blood_pool_sd: Sul = None,
    mediastinum: Sul = None,
    issuer: Issuer = None,
    author: Author = None,
    note: Note = "",
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Enter what you measured of the normal tissue of a PET, for PERCIST and the Deauville score.

    The liver is the mean of a sphere of 3 cm in its healthy right lobe, the blood pool that of the descending aorta.
    """
    from store.choices import give_reference

    said = {
        "liver_mean": liver_mean,
        "liver_sd": liver_sd,
        "blood_pool_mean": blood_pool_mean,
        "blood_pool_sd": blood_pool_sd,
        "mediastinum": mediastinum,
    }
    values = {name: value for name, value in said.items() if value is not None}
    with _opened(patient, issuer, home, config, write=True) as found:
        about: dict[str, Any] = {"author": who(author), "now": found.now, "note": note}
        found.made.append(give_reference(found.session, found.pk, found.study(study), values, **about))
    _tell(found.made, found.known, as_json)


@lesions_app.command("history")
def lesions_history(
    patient: PatientId,
    issuer: Issuer = None,
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List every choice that was made of a patient's lesions, oldest first, also what was taken back."""
    from store.chosen import chosen

    with _opened(patient, issuer, home, config) as found:
        choices = chosen(found.session, found.pk)
    made = sorted(choices.decisions, key=lambda d: d.number)
    standing = {d.number for d in choices.standing}
    if as_json:
        plain = ({**lesion_lines.plain_choice(d), "counts": d.number in standing} for d in made)
        printing.print_json(list(plain))
        return
    rows = [
        {**lesion_lines.choice_row(d, found.known), "counts": "yes" if d.number in standing else "no"}
        for d in made
    ]
    columns = {
        "number": "choice",
        "at": "at (UTC)",
        "author": "by",
        "lesion": "lesion",
        "kind": "kind",
        "value": "value",
        "visit": "visit",
        "source": "source",
        "counts": "counts",
        "note": "note",
    }
    printing.print_table(rows, columns, numbers=("number",), wrapped=("note",))


def _decide(
    patient: str,
    issuer: str | None,
    lesion: str,
    said: dict[str, str],
    study: str | None,
    author: str | None,
    note: str,
    home: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    from store.choices import choose

    of_visit = ("status", "outline", "reject", "confirm")
    with _opened(patient, issuer, home, config, write=True) as found:
        uid = found.lesion(lesion)
        at = found.study(study, uid)
        found.made.extend(
            choose(
                found.session,
                found.pk,
                kind,
                uid,
                value,
                author=who(author),
                now=found.now,
                study_instance_uid=at if kind in of_visit else "",
                note=note,
                objects=found.objects,
            )
            for kind, value in said.items()
        )
    _tell(found.made, found.known, as_json)
    if said.get("node") == "true" and not as_json:
        printing.say(lesion_lines.as_node(found.known, uid))


@contextmanager
def _opened(
    patient: str, issuer: str | None, home: Path | None, config: Path | None, *, write: bool = False
) -> Iterator[_Patient]:
    with open_database(home, config) as database:
        from node.decisions import decided
        from store import audit
        from store.course import course
        from store.objects import ObjectStore
        from store.patients import find_patient

        settings = load_settings(config, {"home": home})
        objects = ObjectStore(settings.home / "store")
        now = database.now()
        with database.transaction() if write else database.reading() as session:
            pk = int(find_patient(session, patient, issuer).id or 0)
            known = course(session, pk, objects)
            found = _Patient(session=session, pk=pk, known=known, now=now, objects=objects)
            yield found
            if write:
                message = decided(session, settings, pk, found.made, now)
                audit.append(session, [(now, message.xml(now, settings.ae_title))])


def _tell(made: Sequence[Decision], known: Course, as_json: bool) -> None:
    if as_json:
        printing.print_json([lesion_lines.plain_choice(decision) for decision in made])
    else:
        for decision in made:
            printing.say(lesion_lines.line(decision, known))


__all__ = ["lesions_app"]
