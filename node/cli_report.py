"""The command `nadir report`: a patient's course as a page, a document or data; or charts over all patients."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo

import typer

from node import printing
from node.cli_options import Config, Home, open_database, tell_exported
from node.cli_rules import with_rules
from node.flags import load_settings
from plugins.errors import Refused
from store.response.rules import Rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from store.database import Database
    from store.response.verdict import Response

Patient = Annotated[str | None, typer.Option(help="PatientID.", show_default=False)]
Issuer = Annotated[
    str | None, typer.Option(help="IssuerOfPatientID, when several gave that PatientID.", show_default=False)
]
AllPatients = Annotated[bool, typer.Option("--cohort", help="All patients: waterfall and swimmer plots.")]
Format = Annotated[Literal["html", "pdf", "json", "csv"], typer.Option("--format", help="What is written.")]
Criteria = Annotated[
    list[str] | None,
    typer.Option(
        help="recist1.1 (when none is given), irecist, percist, lugano, who or volume (repeatable; the first leads).",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", help="File; standard output when not given.", show_default=False)
]

Whose = set[tuple[str, str]]
"""Issuer and PatientID of whom something is."""
_ENDINGS = {"html": {".html", ".htm"}, "pdf": {".pdf"}, "json": {".json"}, "csv": {".csv"}}
OTHER_ENDINGS = {kind: set().union(*_ENDINGS.values()) - own for kind, own in _ENDINGS.items()}
"""By format, endings of files that are of another."""


@with_rules
def report(
    patient: Patient = None,
    issuer: Issuer = None,
    cohort: AllPatients = False,
    kind: Format = "html",
    criteria: Criteria = None,
    out: Out = None,
    home: Home = None,
    config: Config = None,
    **protocol: Any,
) -> None:
    """Write the longitudinal report of a patient (--patient), or charts over all patients (--cohort)."""
    from store.response.criteria import CRITERIA

    if cohort == (patient is not None):
        raise typer.BadParameter("give either --patient ID or --cohort")
    names = list(dict.fromkeys(criteria or ["recist1.1"]))
    unknown = [name for name in names if name not in CRITERIA]
    if unknown:
        raise typer.BadParameter(f"--criteria is one of {', '.join(CRITERIA)}, not '{unknown[0]}'")
    if cohort and len(names) > 1:
        raise typer.BadParameter("--cohort takes one --criteria")
    if kind == "pdf" and out is None and sys.stdout.isatty():
        raise typer.BadParameter("name a file for the PDF with --out")
    if out is not None and out.suffix.lower() in OTHER_ENDINGS[kind]:
        raise typer.BadParameter(f"--format {kind} is no {out.suffix}; name {out} otherwise, or the format")
    rules = Rules(**protocol)
    settings = load_settings(config, {"home": home})
    objects, zone = settings.home / "store", ZoneInfo(settings.time_zone)
    with open_database(home, config) as database:
        if patient is None:
            written, whose = _cohort(database, objects, kind, names[0], rules)
        else:
            written, whose = _course(database, objects, kind, (patient, issuer), names, rules, zone)
        what = f"{'cohort' if patient is None else 'course of a patient'} as {kind}"
        tell_exported(database, home, config, what, whose)
    if out is None:
        sys.stdout.buffer.write(written)
    else:
        out.write_bytes(written)
        printing.complain(f"nadir: {out} was written")


def _course(
    database: Database,
    store: Path,
    kind: str,
    who: tuple[str, str | None],
    criteria: Sequence[str],
    rules: Rules,
    zone: ZoneInfo,
) -> tuple[bytes, Whose]:
    from node.report.longitudinal.document import write_pdf
    from node.report.longitudinal.page import write_html
    from node.report.longitudinal.report import build
    from node.report.longitudinal.stored import objects_of
    from node.report.longitudinal.tables import write_csv, write_json
    from store.course import course
    from store.objects import ObjectStore
    from store.patients import find_patient
    from store.told import judge

    objects = ObjectStore(store)
    with database.reading() as session:
        known = course(session, int(find_patient(session, *who).id or 0), objects, rules)
        files = objects_of(session, known, objects)
    responses = [judge(known, name, rules) for name in criteria]
    made = build(known, responses, files.open_object, files.images_of, made_at=database.now())
    whose = {(known.patient.issuer, known.patient.patient_id)}
    if kind == "pdf":
        return write_pdf(made, zone), whose
    if kind == "html":
        return _encoded(write_html(made, zone)), whose
    return _encoded({"json": write_json, "csv": write_csv}[kind](made)), whose


def _cohort(database: Database, store: Path, kind: str, criteria: str, rules: Rules) -> tuple[bytes, Whose]:
    from node.report.longitudinal.cohort import cohort_of
    from node.report.longitudinal.cohort_document import write_cohort_pdf
    from node.report.longitudinal.page import write_cohort_html
    from node.report.longitudinal.tables import write_cohort_csv, write_cohort_json

    whose: Whose = set()
    responses = _responses(database, store, criteria, rules, whose)
    made = cohort_of(responses, criteria=criteria, made_at=database.now())
    if kind == "pdf":
        return write_cohort_pdf(made), whose
    write = {"html": write_cohort_html, "json": write_cohort_json, "csv": write_cohort_csv}[kind]
    return _encoded(write(made)), whose


def _responses(
    database: Database, store: Path, criteria: str, rules: Rules, whose: Whose
) -> Iterator[Response]:
    """Yield how each patient responded, from a reading of its own, and put into `whose` of whom something is known."""
    from store.course import course
    from store.objects import ObjectStore
    from store.patients import heads
    from store.told import judge

    objects = ObjectStore(store)
    with database.reading() as session:
        pks = heads(session)
    with printing.advancing("reading courses") as progress:
        for done, pk in enumerate(pks):
            progress(done, len(pks))
            with database.reading() as session:
                known = course(session, pk, objects, rules)
            one = known.patient
            if one.pk != pk:  # declared to be another patient meanwhile
                continue
            whose.add((one.issuer, one.patient_id))
            try:
                response = judge(known, criteria, rules)
            except Refused as reason:
                printing.complain(f"nadir: {one.patient_id}: {reason.sentence} ({reason.code})")
                continue
            yield response


def _encoded(text: str) -> bytes:
    # A name may hold halves of characters that are no text.
    return text.encode("utf-8", errors="replace")


__all__ = ["report"]
