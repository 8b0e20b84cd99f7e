"""The command `nadir studies`: every study, or what a person should look at next for a model to learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from node import printing
from node.cli_options import MOST_LISTED, AsJson, Config, Home, open_database
from node.flags import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from store.database import Database
    from store.objects import ObjectStore
    from store.study_list import Listed
    from training.teaching import Taught

LISTED = {
    "patient_id": "patient",
    "study_date": "date",
    "study_description": "description",
    "state": "state",
    "findings": "findings",
    "reviewed": "reviewed",
}
TAUGHT = {
    "patient_id": "patient",
    "study_date": "date",
    "finding": "finding",
    "use": "for",
    "score": "score",
    "why": "why",
}


def studies(
    by: Annotated[
        Literal["teaching"] | None,
        typer.Option(
            "--by",
            help="teaching: what nobody looked at and a model would learn most from.",
            show_default=False,
        ),
    ] = None,
    at_most: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"So many; 20 by teaching, else {MOST_LISTED}, with --json all.",
            show_default=False,
        ),
    ] = None,
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the studies, the newest first, with what was found and whether a person looked at it.

    Findings are those of all analyses that stand. A lesion that Nadir drew counts as looked at when a mask of a
    person stands for it, or when somebody confirmed it, judged its outline or rejected it ('nadir lesions').
    """
    from store.objects import ObjectStore

    settings = load_settings(config, {"home": home})
    with open_database(home, config) as database:
        objects = ObjectStore(settings.home / "store")
        if by is None:
            _print_list(database, objects, at_most, as_json)
            return
        from store.candidates import candidates
        from store.labels import labels
        from store.sides import sides

        with database.reading() as session:
            known = candidates(session, labels(session, objects), sides(session))
    from training.teaching import rank

    _print_taught(rank(known, at_most or 20), as_json)


def _print_list(database: Database, objects: ObjectStore, at_most: int | None, as_json: bool) -> None:
    from store.study_list import study_pks

    with database.reading() as session:
        pks = study_pks(session)
    shown = pks[: at_most or (None if as_json else MOST_LISTED)]
    listed = _listed(database, objects, shown)
    if as_json:
        printing.print_json_rows(vars(one) for one in listed)
    elif shown:
        rows = [{**vars(one), "reviewed": _reviewed(one)} for one in listed]
        printing.print_table(rows, LISTED, numbers=("findings",), wrapped=("patient_id", "study_description"))
        printing.complain_of_more(len(pks) - len(shown), "studies")
    else:
        printing.say("no studies")


def _listed(database: Database, objects: ObjectStore, pks: Sequence[int]) -> Iterator[Listed]:
    """Yield studies, some hundreds at a time, each from a reading of its own."""
    from store.findings import stretches
    from store.study_list import study_list

    for some in stretches(pks):
        with database.reading() as session:
            rows = study_list(session, objects, some)
        yield from rows


def _reviewed(one: Listed) -> str:
    if one.is_reviewed:
        return "yes"
    return f"{one.reviewed} of {one.lesions}" if one.reviewed else "no"


def _print_taught(taught: tuple[Taught, ...], as_json: bool) -> None:
    rows = [_plain(number, one) for number, one in enumerate(taught, start=1)]
    if as_json:
        printing.print_json(rows)
    elif rows:
        shown = [{**row, "finding": row["finding"] or "none found"} for row in rows]
        printing.print_table(shown, TAUGHT, numbers=("score",), wrapped=("patient_id", "why"))
    else:
        printing.say("nothing to look at: every finding of a model was reviewed, or nothing was found yet")


def _plain(number: int, one: Taught) -> dict[str, Any]:
    return {
        "rank": number,
        "patient_id": one.candidate.patient_id,
        "issuer": one.candidate.issuer,
        "study_instance_uid": one.candidate.study_instance_uid,
        "study_date": one.candidate.study_date,
        "series_instance_uid": one.candidate.series_instance_uid,
        "plugin": one.candidate.plugin,
        "model_sha256": one.candidate.model_sha256,
        "finding": one.candidate.label or None,
        "tracking_uid": one.candidate.tracking_uid or None,
        "use": one.use,
        "score": one.score,
        "uncertainty": one.uncertainty,
        "disagreement": one.disagreement,
        "novelty": round(one.novelty, 4),
        "why": one.why,
    }


__all__ = ["studies"]
