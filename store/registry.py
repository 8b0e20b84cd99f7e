"""The models that were made here, and which of each family counts. Writes the tables ModelVersion and Promotion.

A promotion is a row that is only ever added, so one transaction moves a family from one model to another and nothing in
between is ever seen. Approvals lie on each other like plates: a rollback takes the uppermost one away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy.orm import aliased
from sqlmodel import Session, and_, col, func, select

from models.files import BadModel, verify
from models.place import ModelPlace
from models.shipped import VOUCHED, Model
from plugins.errors import Refused
from store.charset import storable
from store.database import aware_utc, insert_new
from store.failpoint import reach
from store.model_folders import Staged, folder_of, give_name
from store.model_tables import ModelVersion, Promotion

APPROVE: Final = "approve"
ROLLBACK: Final = "rollback"
RELEASE: Final = ""
"""Stands for the hash of the model that comes with the release."""
Standing = Literal["active", "proposed", "refused", "overtaken", "retired"]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the gate said of a model."""

    champion_sha256: str
    """Manifest hash of the model that it was held against, as `counts_now` tells it."""
    is_proposed: bool
    """Whether it may be approved."""
    because: str
    """Why, in sentences."""
    data_sha256: str
    """Hash of the frozen manifest that it learned from."""
    judged_sha256: str
    """Hash of the frozen manifest that both were judged on."""
    figures: Mapping[str, Any]
    """What was looked at, as plain data."""


def register(
    session: Session, staged: Staged, judged: Judged, *, now: datetime, run_pk: int | None = None
) -> ModelVersion:
    """Return the row of a staged model, which has its folder from now on; it counts only when a person approves it.

    To be called in the transaction that ends its run. The same model again, by the same run, is the row that is there.
    Refuses `known-model` and `overtaken` (another one got the number at the same time: do it again).
    """
    model = staged.model
    statement = select(ModelVersion).where(col(ModelVersion.manifest_sha256) == model.manifest.sha256)
    if (known := session.exec(statement).first()) is not None:
        if (known.family, known.run_pk) == (staged.family, run_pk):
            return known
        raise Refused("known-model", f"this very model is {known.family} {known.number} already")
    highest = select(func.max(ModelVersion.number)).where(col(ModelVersion.family) == staged.family)
    number = (session.exec(highest).one() or 0) + 1
    values = {
        "family": staged.family,
        "number": number,
        "version": model.manifest.version,
        "manifest_sha256": model.manifest.sha256,
        "folder": folder_of(staged, number),
        "run_pk": run_pk,
        "champion_sha256": judged.champion_sha256,
        "is_proposed": judged.is_proposed,
        "because": storable(judged.because),
        "data_sha256": judged.data_sha256,
        "judged_sha256": judged.judged_sha256,
        **made_with(model),
        "figures": json.dumps(judged.figures, sort_keys=True),
        "made_at": aware_utc(now),
    }
    if (pk := insert_new(session, ModelVersion, values)) is None:
        raise Refused("overtaken", f"another model of {staged.family} was registered at the same time; again")
    give_name(staged, number)
    return session.get_one(ModelVersion, pk)


def versions(session: Session, family: str | None = None) -> tuple[ModelVersion, ...]:
    """Return the models that were made here, of one family or of all, by family and number."""
    statement = select(ModelVersion).order_by(col(ModelVersion.family), col(ModelVersion.number))
    if family is not None:
        statement = statement.where(col(ModelVersion.family) == family)
    return tuple(session.exec(statement))


def version_of(session: Session, family: str, number: int) -> ModelVersion:
    """Return one model that was made here. Refuses `no-such-model`."""
    found = next((one for one in versions(session, family) if one.number == number), None)
    if found is None:
        raise Refused("no-such-model", f"there is no {family} {number}; 'nadir models list' shows them")
    return found


def active(session: Session, home: Path) -> dict[str, ModelPlace]:
    """Return where the models lie that count instead of those of the release, by family: one small question."""
    newer = aliased(Promotion)
    statement = (
        select(ModelVersion.family, ModelVersion.folder, ModelVersion.manifest_sha256)
        .join(Promotion, col(Promotion.manifest_sha256) == col(ModelVersion.manifest_sha256))
        .outerjoin(
            newer,
            and_(col(newer.family) == col(Promotion.family), col(newer.number) > col(Promotion.number)),
        )
        .where(col(newer.id).is_(None))
    )
    return {
        family: ModelPlace(folder=str((home / folder).absolute()), sha256=sha256)
        for family, folder, sha256 in session.exec(statement)
    }


def counts_now(session: Session, family: str) -> str:
    """Return the manifest hash of the model of a family that counts; empty when it has none."""
    return stack(history(session, family))[-1] or VOUCHED.get(family, "")


def history(session: Session, family: str | None = None) -> tuple[Promotion, ...]:
    """Return every approval and rollback, of one family or of all, oldest first."""
    statement = select(Promotion).order_by(col(Promotion.id))
    if family is not None:
        statement = statement.where(col(Promotion.family) == family)
    return tuple(session.exec(statement))


def stack(promotions: Sequence[Promotion]) -> tuple[str, ...]:
    """Return what the promotions of one family, oldest first, leave: the release's model, then each upon the former."""
    plates = [RELEASE]
    for promotion in promotions:
        if promotion.kind == APPROVE:
            plates.append(promotion.manifest_sha256)
        else:
            del plates[plates.index(promotion.manifest_sha256) + 1 :]
    return tuple(plates)


def standing(version: ModelVersion, promotions: Sequence[Promotion]) -> Standing:
    """Return how a model stands by the promotions of its family, oldest first.

    `overtaken` was proposed against a model that counts no longer; `retired` counted once.
    """
    now = stack(promotions)[-1]
    if version.manifest_sha256 == now:
        return "active"
    if not version.is_proposed:
        return "refused"
    if version.champion_sha256 == (now or VOUCHED.get(version.family, "")):
        return "proposed"
    counted = {p.manifest_sha256 for p in promotions if p.kind == APPROVE}
    return "retired" if version.manifest_sha256 in counted else "overtaken"


def approve(
    session: Session, home: Path, family: str, number: int, *, author: str, now: datetime, note: str = ""
) -> Promotion:
    """Let a model count from now on, and return the row that says so.

    Refuses `no-author`, `no-such-model`, `already-active`, `not-proposed`, `overtaken` (it was judged against a model
    that counts no longer, or another promotion came at the same time), and what `models.files.verify` does.
    """
    _require_author(author)
    version, past = version_of(session, family, number), history(session, family)
    stands = standing(version, past)
    if stands == "active":
        raise Refused("already-active", f"{family} {number} counts already")
    if stands == "refused":
        raise Refused("not-proposed", f"the gate did not propose {family} {number}: {version.because}")
    if stands != "proposed":
        sentence = (
            f"{family} {number} was judged against a model that counts no longer; retrain and judge anew"
        )
        raise Refused("overtaken", sentence)
    _require_files(home, version)
    return _promote(session, past, APPROVE, version.manifest_sha256, family, author, now, note)


def rollback(
    session: Session,
    home: Path,
    family: str,
    *,
    author: str,
    now: datetime,
    note: str = "",
    to_release: bool = False,
    in_place_of: str = "",
) -> Promotion:
    """Let the model count again that counted before the present one was approved, and return the row that says so.

    Once more goes further back; `to_release` goes to the model of the release at once. `in_place_of` is the manifest
    hash of the model that counted when somebody looked; empty for whichever counts.
    Refuses `no-author`, `nothing-before`, `overtaken` (another model counts by now, or another promotion came at the
    same time), and what `models.files.verify` does of the model that is to count.
    """
    _require_author(author)
    past = history(session, family)
    plates = stack(past)
    if in_place_of and in_place_of != plates[-1]:
        raise Refused("overtaken", f"another {family} counts by now than when you looked; look again")
    if len(plates) == 1:
        raise Refused("nothing-before", f"the {family} of the release counts; there is none before it")
    sha256 = RELEASE if to_release else plates[-2]
    for version in versions(session, family):
        if version.manifest_sha256 == sha256:
            _require_files(home, version)
    return _promote(session, past, ROLLBACK, sha256, family, author, now, note)


def _promote(
    session: Session,
    past: Sequence[Promotion],
    kind: str,
    sha256: str,
    family: str,
    author: str,
    now: datetime,
    note: str,
) -> Promotion:
    values = {
        "family": family,
        "number": len(past) + 1,
        "kind": kind,
        "manifest_sha256": sha256,
        "at": aware_utc(now),
        "author": storable(author.strip()),
        "note": storable(note),
    }
    if (pk := insert_new(session, Promotion, values)) is None:
        raise Refused(
            "overtaken", f"another {family} was approved or rolled back at the same time; look again"
        )
    reach("promotion-made")
    return session.get_one(Promotion, pk)


def _require_author(author: str) -> None:
    if not author.strip():
        raise Refused("no-author", "a promotion needs the name of whoever decides it; give --author")


def _require_files(home: Path, version: ModelVersion) -> None:
    try:
        verify(home / version.folder, {version.manifest_sha256}, date.min)
    except BadModel as bad:
        sentence = f"the files of {version.family} {version.number} are not what was judged: {bad.sentence}"
        raise Refused(bad.code, sentence) from bad


def made_with(model: Model) -> dict[str, str]:
    """Return commit, environment and seeds of the folds of a card, each said once when all folds agree."""
    trained = model.card.get("trained")
    folds = trained if isinstance(trained, dict) else {}
    said = {
        key: {fold: made.get(key) for fold, made in folds.items() if isinstance(made, dict)}
        for key in ("commit", "environment", "seed")
    }
    commits = dict.fromkeys(str(one) for one in said["commit"].values())
    environments = dict.fromkeys(json.dumps(one, sort_keys=True) for one in said["environment"].values())
    return {
        "source_commit": ", ".join(commits),
        "environment": "\n".join(environments),
        "seeds": json.dumps(said["seed"], sort_keys=True),
    }


__all__ = [
    "APPROVE",
    "RELEASE",
    "ROLLBACK",
    "Judged",
    "Standing",
    "active",
    "approve",
    "counts_now",
    "history",
    "made_with",
    "register",
    "rollback",
    "stack",
    "standing",
    "version_of",
    "versions",
]
