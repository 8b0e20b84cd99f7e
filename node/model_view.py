"""What the commands about models show: every model of a family, where it came from, and who let it count."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

from sqlmodel import Session

from models.files import BadModel
from models.place import ModelPlace, open_current
from models.shipped import VOUCHED, open_shipped
from node.settings import Settings
from node.task import Identity
from plugins.errors import NadirError, Refused
from plugins.registry import load_plugins, load_working
from store import registry
from store.dicom.equipment import device_uid
from store.model_tables import ModelVersion, Promotion
from store.provenance import Provenance

SHIPPED = "shipped"
"""Stands for the number of the model that comes with the release."""
DONE = {registry.APPROVE: "approved", registry.ROLLBACK: "rolled back"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model of a family."""

    family: str
    """Which model by its purpose."""
    number: int | str
    """Its number, or `shipped`."""
    version: str
    """As its manifest says it; empty when that cannot be read."""
    state: str
    """A `store.registry.Standing`; of the shipped one `active` or `replaced`."""
    manifest_sha256: str
    """What vouches for every file of it."""
    made_at: datetime | None = None
    """When it was registered."""
    decided_at: datetime | None = None
    """When a person last let it count."""
    decided: str = ""
    """`approved` or `rolled back`: how."""
    by: str = ""
    """Who."""
    why: str = ""
    """The note with which that person approved it; without one what the gate said. Of a rollback the history tells."""


def entries(session: Session, family: str | None = None) -> tuple[Entry, ...]:
    """Return the models of one family or of all: the shipped one first, then those made here. Refuses `no-family`."""
    made = registry.versions(session)
    found: list[Entry] = []
    for name in families(session) if family is None else [require_family(session, family)]:
        past = registry.history(session, name)
        if name in VOUCHED:
            found.append(_shipped(name, past))
        found += [_made_here(one, past) for one in made if one.family == name]
    return tuple(found)


def families(session: Session) -> list[str]:
    """Return the names of all families of which there is a model."""
    return sorted({*VOUCHED, *(one.family for one in registry.versions(session))})


def require_family(session: Session, family: str) -> str:
    """Return the name of a family of which there is a model. Refuses `no-family`."""
    known = families(session)
    if family not in known:
        raise Refused("no-family", f"there is no model of '{family}'; there are {', '.join(known)}")
    return family


def _shipped(family: str, past: Sequence[Promotion]) -> Entry:
    try:
        said, why = open_shipped(family).manifest.version, ""
    except BadModel as bad:
        said, why = "", bad.sentence
    counts = registry.stack(past)[-1] == registry.RELEASE
    return Entry(
        family=family,
        number=SHIPPED,
        version=said,
        state="active" if counts else "replaced",
        manifest_sha256=VOUCHED[family],
        **{"why": why, **_decided(registry.RELEASE, past)},
    )


def _made_here(one: ModelVersion, past: Sequence[Promotion]) -> Entry:
    return Entry(
        family=one.family,
        number=one.number,
        version=one.version,
        state=registry.standing(one, past),
        manifest_sha256=one.manifest_sha256,
        made_at=one.made_at,
        **{"why": one.because, **_decided(one.manifest_sha256, past)},
    )


def _decided(sha256: str, past: Sequence[Promotion]) -> dict[str, Any]:
    """Return the newest decision that let a model count; nothing when there was none.

    The note of a rollback is about the model that it took away, so it stands in the history alone.
    """
    own = [promotion for promotion in past if promotion.manifest_sha256 == sha256]
    if not own:
        return {}
    last = own[-1]
    note = {"why": last.note} if last.kind == registry.APPROVE and last.note else {}
    return {"decided_at": last.at, "decided": DONE[last.kind], "by": last.author, **note}


def decisions(session: Session, family: str, known: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return every approval and rollback of a family, oldest first, as plain data; `known` are its models."""
    past = registry.history(session, family)
    return [
        {
            "at": p.at,
            "done": DONE[p.kind],
            "to": _named(p.manifest_sha256, known),
            "instead_of": _named(registry.stack(past[:place])[-1], known),
            "by": p.author,
            "note": p.note,
        }
        for place, p in enumerate(past)
    ]


def plain(entry: Entry) -> dict[str, Any]:
    """Return an entry as plain data."""
    return asdict(entry)


def details(session: Session, settings: Settings, family: str, number: int | str) -> dict[str, Any]:
    """Return everything that is known of one model, as plain data. Refuses `no-family` and `no-such-model`."""
    known = entries(session, family)
    entry = next((one for one in known if one.number == number), None)
    if entry is None:
        there = ", ".join(str(one.number) for one in known)
        raise Refused("no-such-model", f"there is no {family} {number}; there are {there}")
    place = None
    told: dict[str, Any] = plain(entry)
    if isinstance(number, int):
        one = registry.version_of(session, family, number)
        place = ModelPlace(folder=str((settings.home / one.folder).absolute()), sha256=one.manifest_sha256)
        told |= _as_registered(one, known)
    told |= _of_files(family, place)
    told["history"] = decisions(session, family, known)
    others = {name: at for name, at in registry.active(session, settings.home).items() if name != family}
    told["devices"] = devices(settings, family, {**others, **({} if place is None else {family: place})})
    return told


def _as_registered(one: ModelVersion, known: Sequence[Entry]) -> dict[str, Any]:
    return {
        "is_proposed": one.is_proposed,
        "because": one.because,
        "judged_against": _named(one.champion_sha256, known),
        "champion_sha256": one.champion_sha256,
        "data_sha256": one.data_sha256,
        "judged_sha256": one.judged_sha256,
        "run": one.run_pk,
        "folder": one.folder,
        **_how_made(one.model_dump()),
        "figures": json.loads(one.figures, parse_constant=lambda _: None),
    }


def _named(sha256: str, known: Sequence[Entry]) -> str:
    """Return the number of a model by its hash; the hash of one that is no longer known."""
    if sha256 == registry.RELEASE:
        return SHIPPED
    return next((str(one.number) for one in known if one.manifest_sha256 == sha256), sha256)


def _of_files(family: str, place: ModelPlace | None) -> dict[str, Any]:
    """Return what the card says, and whether every file is as the manifest says."""
    try:
        model = open_current(family, {} if place is None else {family: place})
    except BadModel as bad:
        return {"files": bad.sentence, "is_usable": False}
    told = model.manifest
    said: dict[str, Any] = {"training_data": told.training_data, "input": told.input, "licence": told.licence}
    said |= {key: model.card.get(key) for key in ("intended_use", "limits")}
    if place is None:
        said |= _how_made(registry.made_with(model)) | {"data_sha256": model.card.get("data_sha256")}
    return {**said, "files": f"{len(told.files)} files as the manifest says", "is_usable": True}


def _how_made(said: Mapping[str, str]) -> dict[str, Any]:
    """Return commit, environments and seeds as plain data, from the columns of `ModelVersion`."""
    return {
        "source_commit": said["source_commit"],
        "environment": [json.loads(line) for line in said["environment"].splitlines()],
        "seeds": json.loads(said["seeds"] or "{}"),
    }


def devices(settings: Settings, family: str, places: Mapping[str, ModelPlace]) -> list[dict[str, str]]:
    """Return who each analysis of this node is with these models, as its results say it; those that use the family."""
    found = []
    for plugin in load_working(settings.plugins, settings.enabled).plugins:
        if family not in getattr(plugin, "families", ()):
            continue
        try:
            (made,) = load_plugins(settings.plugins, (plugin.name,), places)
        except NadirError as error:
            found.append({"analysis": plugin.name, "error": str(error)})
            continue
        identity = Identity.of(made)
        provenance = Provenance(
            **asdict(identity),
            manifest_sha256="",
            job_key="",
            software_version=version("nadir"),
            started_at="",
        )
        found.append(
            {
                "analysis": f"{plugin.name} {plugin.version}",
                "device_uid": device_uid(provenance),
                "model": f"{identity.model_name} {identity.model_version}",
                "model_sha256": identity.model_sha256,
                "settings_sha256": identity.config_sha256,
            }
        )
    return found


__all__ = [
    "DONE",
    "SHIPPED",
    "Entry",
    "decisions",
    "details",
    "devices",
    "entries",
    "families",
    "plain",
    "require_family",
]
