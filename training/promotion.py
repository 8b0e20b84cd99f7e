"""A model made here comes to count: the one door, for commands and pages alike."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sqlmodel import Session

from store import registry, runs
from store.model_tables import ModelVersion, Promotion
from store.sides import sides
from training.frozen import JUDGE, LEARN, MANIFEST, require_apart
from training.manifest import read_manifest


def approve(
    session: Session, home: Path, family: str, number: int, *, author: str, now: datetime, note: str = ""
) -> Promotion:
    """Let a model count from now on, and return the row that says so.

    Refuses what `store.registry.approve` does, and what `require_still_apart` does.
    """
    require_still_apart(session, home, registry.version_of(session, family, number))
    return registry.approve(session, home, family, number, author=author, now=now, note=note)


def require_still_apart(session: Session, home: Path, version: ModelVersion) -> None:
    """Refuse (`patient-on-both-sides`) a model when persons of both sides of its run are known to be one by now.

    Refuses `image-of-two-patients` where one image is on both sides, as earlier releases let it be.
    """
    run = None if version.run_pk is None else runs.get(session, version.run_pk)
    places = [home / run.folder / side / MANIFEST for side in (LEARN, JUDGE)] if run and run.folder else []
    if places and all(place.is_file() for place in places):  # whoever tidied up keeps his models
        learn, judge = (read_manifest(place).cases for place in places)
        require_apart(learn, judge, sides(session).several)


__all__ = ["approve", "require_still_apart"]
