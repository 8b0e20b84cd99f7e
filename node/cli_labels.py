"""The command `nadir models labels`: which masks of people stand now, on which side, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from node import printing
from node.cli_options import AsJson, Config, Home, open_database
from node.flags import load_settings

COLUMNS = {
    "patient_id": "patient",
    "tracking_uid": "lesion",
    "origin": "what",
    "author": "by",
    "at": "on",
    "side": "side",
}
WRAPPED = ("patient_id", "tracking_uid", "author")


def labels(
    drawn: Annotated[
        bool, typer.Option("--drawn", help="Also lesions that people drew and Nadir did not know.")
    ] = False,
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the masks that people drew or approved, as they stand now: what the next retraining learns and judges on.

    A person without a side yet gets one in the next run. What is no label is told with its reason.
    """
    settings = load_settings(config, {"home": home})
    with open_database(home, config) as database:
        from store.labels import labelled
        from store.objects import ObjectStore
        from store.sides import sides
        from store.tables import Patient

        with database.reading() as session:
            found = labelled(session, ObjectStore(settings.home / "store"), drawn=drawn)
            standing = sides(session)
            rows: list[dict[str, Any]] = [
                {
                    **asdict(label),
                    "patient_id": session.get_one(Patient, label.patient_pk).patient_id,
                    "side": standing.of(label.patient_key),
                }
                for label in found.labels
            ]
    if as_json:
        left = [asdict(one) for one in found.left]
        printing.print_json({"labels": rows, "left_out": left})
        return
    print_labels([{**row, "at": f"{row['at']:%Y-%m-%d}", "side": row["side"] or "none yet"} for row in rows])
    for one in found.left:
        printing.complain(f"left out: {one.sentence} {one.sop_instance_uid}")


def print_labels(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the masks as a table."""
    if rows:
        printing.print_table(rows, COLUMNS, wrapped=WRAPPED)
    else:
        printing.say("no masks of people")


__all__ = ["labels", "print_labels"]
