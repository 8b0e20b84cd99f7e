"""Which model of a family counts: one that was made and approved here, in its place, else the one of the release."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from models.files import BadModel
from models.shipped import Model, open_model, open_shipped

UNREACHABLE = "unreachable"
"""Code of a place that cannot be looked into from here: it may be there later, or for another machine."""


@dataclass(frozen=True, kw_only=True)
class ModelPlace:
    """Where a model lies that counts instead of the one of the release."""

    folder: str
    """Its folder."""
    sha256: str
    """Hash of its manifest: what was approved."""


Places = Mapping[str, ModelPlace]
"""The models made here that count, by family; a family that is not among them uses the one of the release."""
NOWHERE: Places = {}


def open_current(family: str, places: Places = NOWHERE) -> Model:
    """Return the model of a family that counts, every file held against its manifest.

    One that was approved is never replaced by another one: raises BadModel with `unreachable` when its folder cannot be
    looked into, as `models.files.verify` does when it is not what was approved, and as `open_shipped` does.
    """
    place = places.get(family)
    if place is None:
        return open_shipped(family)
    try:
        os.listdir(place.folder)
    except OSError as error:
        sentence = f"the model of {family} that counts lies in {place.folder}, which cannot be read here"
        raise BadModel(UNREACHABLE, f"{sentence}: {error.strerror}") from error
    try:
        return open_model(Path(place.folder), {place.sha256}, date.min)
    except BadModel as bad:
        sentence = f"the model of {family} in {place.folder} is not as it was judged: {bad.sentence}"
        raise BadModel(bad.code, f"{sentence}; put its files back, or roll it back") from bad


__all__ = ["NOWHERE", "UNREACHABLE", "ModelPlace", "Places", "open_current"]
