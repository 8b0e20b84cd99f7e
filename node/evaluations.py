"""Evaluations of a model: the one that comes with the release, and those that were made for this node.

What is shown is the report of the weights that the page speaks of, and of no others: the hash in the report is held
against that of the model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from sqlmodel import Session

from models.shipped import EVALUATIONS
from node import audit_events, model_view
from node.evaluation_form import Report
from node.model_overview import Figures, figures_of
from node.model_view import Entry
from node.settings import Settings
from plugins.errors import Refused, Unavailable
from store import audit, evaluations
from store.database import Database
from store.evaluations import KeptEvaluation
from training.evaluate.card_figures import differences
from training.evaluate.kept import NAME

RELEASE: Final = "release"
"""Stands for the number of the evaluation that comes with the release."""
DOCUMENTS: Final = {
    "report.html": "text/html",
    "report.pdf": "application/pdf",
    "report.json": "application/json",
    NAME: "application/json",
    "manifest.json": "application/json",
}
"""Files of a report that was made for this node, with their kinds."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One evaluation of one model."""

    key: str
    """Its number on this node, or `release`."""
    data: str
    """Name of the data."""
    data_sha256: str
    """Hash of their manifest."""
    cases: int
    """How many were judged."""
    patients: int
    """Of how many patients."""
    made_at: datetime
    """When they were judged."""
    author: str
    """Who kept it; empty for the release."""
    files: tuple[str, ...]
    """What may be taken away."""


def model_of(session: Session, family: str, number: str) -> Entry:
    """Return a model by its family and number as an address says it. Refuses `no-family` and `no-such-model`."""
    for entry in model_view.entries(session, family):
        if str(entry.number) == number:
            return entry
    raise Refused("no-such-model", f"there is no {family} {number[:32]}")


def listed(session: Session, settings: Settings, model: Entry) -> tuple[list[Evaluated], str]:
    """Return the evaluations of a model, and why a shipped one has none of the release to show, else nothing.

    The newest of this node are first, that of the release is last.
    """
    found = [_of_row(settings.home, row) for row in evaluations.of_model(session, model.manifest_sha256)]
    if model.number == model_view.SHIPPED:
        try:
            found.append(_of_release(_report(_content(model), model)))
        except Refused as refused:
            return found, refused.sentence
    return found, ""


def opened(session: Session, settings: Settings, model: Entry, key: str) -> tuple[Evaluated, Report]:
    """Return an evaluation. Refuses `no-such-evaluation`, `other-weights`, `damaged-evaluation`, `changed-document`."""
    if key == RELEASE:
        report = _report(_content(model), model)
        return _of_release(report), report
    row = _row(session, model, key)
    content = evaluations.read(settings.home, row, NAME, sha256_of_it=row.kept_sha256)
    return _of_row(settings.home, row), _report(content, model)


def document(session: Session, settings: Settings, model: Entry, key: str, name: str) -> bytes:
    """Return a file of an evaluation. Refuses `no-such-document` and as `opened`."""
    if name not in DOCUMENTS or (key == RELEASE and name != NAME):
        raise Refused("no-such-document", f"this evaluation has no document '{name[:32]}'")
    if key == RELEASE:
        content = _content(model)
        _report(content, model)
        return content
    return evaluations.read(settings.home, _row(session, model, key), name)


def require_known(session: Session, manifest_sha256: str) -> Entry:
    """Return the model of this node with that manifest. Refuses `not-of-this-node`."""
    for entry in model_view.entries(session):
        if entry.manifest_sha256 == manifest_sha256:
            return entry
    sentence = (
        "the node keeps evaluations of its own models, of the release or made there, and this is none of them"
    )
    raise Refused("not-of-this-node", f"{sentence} (manifest {manifest_sha256[:12]})")


def keep(database: Database, settings: Settings, folder: Path, author: str) -> str:
    """Take a report, as `nadir evaluate` left it in a folder, and return its number on this node.

    Refuses `not-of-this-node` and `damaged-evaluation`; raises Unavailable for a disk.
    """
    try:
        files = {name: (folder / name).read_bytes() for name in DOCUMENTS if (folder / name).is_file()}
    except OSError as error:
        raise Unavailable(f"the report in {folder} cannot be read ({error.strerror})") from error
    report = _parsed(files.get(NAME, b""))
    with database.reading() as session:
        model = require_known(session, report.model.get("sha256", ""))
    now = database.now()
    row = KeptEvaluation(
        family=model.family,
        manifest_sha256=model.manifest_sha256,
        data_name=report.data.get("name", ""),
        data_sha256=report.data.get("sha256", ""),
        cases=int(report.data.get("cases", 0)),
        patients=int(report.data.get("patients", 0)),
        made_at=report.made_at,
        kept_at=now,
        author=author,
        folder=evaluations.stage(settings.home, model.family, files, now),
        kept_sha256=sha256(files[NAME]).hexdigest(),
    )
    message = audit_events.model_changed(
        "evaluation kept", f"{model.family}/{model.number}", model.manifest_sha256, author
    )
    with database.transaction() as session:
        number = evaluations.add(session, row)
        audit.append(session, [(now, message.xml(now, settings.ae_title))])
    return str(number)


@dataclass(frozen=True, kw_only=True)
class Beside:
    """The figures of one task in one setting, beside those on the card."""

    task: str
    """In words."""
    setting: str
    """How the model was asked."""
    rows: Sequence[tuple[Any, Mapping[str, Any] | None, Mapping[str, Any] | None]]
    """Figure (name, digits, scale), what was found, and what the card says."""


def beside(report: Report, card: Mapping[str, Any]) -> list[Beside]:
    """Return every figure of an evaluation with that of the card."""
    on_card = {
        (part.task, setting, row.name): row.values[i]
        for part in figures_of(card)
        for row in part.rows
        for i, setting in enumerate(part.settings)
    }
    return [
        Beside(task=part.task, setting=setting, rows=_rows(part, i, on_card))
        for part in figures_of({"figures": report.figures})
        for i, setting in enumerate(part.settings)
    ]


def _rows(part: Figures, i: int, on_card: Mapping[tuple[str, str, str], Any]) -> list[tuple[Any, Any, Any]]:
    setting = part.settings[i]
    rows = [(row, row.values[i], on_card.get((part.task, setting, row.name))) for row in part.rows]
    return [row for row in rows if row[1] or row[2]]


def differing(report: Report, card: Mapping[str, Any]) -> list[str] | None:
    """Return a sentence for each figure of the card that is another here; None when the data are not the card's."""
    figures = card.get("figures")
    if not isinstance(figures, Mapping) or figures.get("data", {}).get("sha256") != report.data.get("sha256"):
        return None
    return list(differences(figures, report.figures))


def _row(session: Session, model: Entry, key: str) -> KeptEvaluation:
    if not (key.isascii() and key.isdecimal() and len(key) < 19):
        raise Refused("no-such-evaluation", f"there is no evaluation '{key[:32]}'; evaluations have numbers")
    return evaluations.get(session, model.manifest_sha256, int(key))


def _content(model: Entry) -> bytes:
    if model.number == model_view.SHIPPED:
        try:
            return (EVALUATIONS / f"{model.family}.json").read_bytes()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Unavailable(
                f"the evaluation of {model.family} cannot be read ({error.strerror})"
            ) from error
    raise Refused("no-such-evaluation", f"no evaluation comes with {model.family} {model.number}")


def _report(content: bytes, model: Entry) -> Report:
    """Return a report of this model and no other. Refuses `damaged-evaluation` and `other-weights`."""
    report = _parsed(content)
    judged = report.model.get("sha256", "")
    if judged != model.manifest_sha256:
        raise Refused(
            "other-weights",
            f"the report is of other weights than those of {model.family} {model.number} and is not shown: it judged "
            f"the manifest {judged[:12] or 'unknown'}, the model's is {model.manifest_sha256[:12]}",
        )
    return report


def _parsed(content: bytes) -> Report:
    try:
        return Report.model_validate_json(content)
    except ValidationError as error:
        (first, *_) = error.errors()
        where = ".".join(map(str, first["loc"])) or "the file"
        raise Refused(
            "damaged-evaluation",
            f"the report is not one that 'nadir evaluate' of this release writes ({where}: {first['msg']})",
        ) from error


def _of_release(report: Report) -> Evaluated:
    return Evaluated(
        key=RELEASE,
        data=report.data.get("name", ""),
        data_sha256=report.data.get("sha256", ""),
        cases=int(report.data.get("cases", 0)),
        patients=int(report.data.get("patients", 0)),
        made_at=report.made_at,
        author="",
        files=(NAME,),
    )


def _of_row(home: Path, row: KeptEvaluation) -> Evaluated:
    return Evaluated(
        key=str(row.id),
        data=row.data_name,
        data_sha256=row.data_sha256,
        cases=row.cases,
        patients=row.patients,
        made_at=row.made_at,
        author=row.author,
        files=tuple(name for name in DOCUMENTS if os.path.isfile(home / row.folder / name)),
    )


__all__ = [
    "DOCUMENTS",
    "RELEASE",
    "Beside",
    "Evaluated",
    "beside",
    "differing",
    "document",
    "keep",
    "listed",
    "model_of",
    "opened",
    "require_known",
]
