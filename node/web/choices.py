"""Choices of people by page and JSON: the rules of `nadir lesions`, the account as author, the trail told of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlmodel import Session
from starlette.exceptions import HTTPException

from node.decisions import decided
from node.web.access import CSRF_FIELD
from node.web.api.form import MOST_PK
from node.web.problem import first_problem
from node.web.site import Site
from plugins.errors import Refused
from store import choices
from store.finding_view import FindingView, finding_view, findings_of
from store.objects import ObjectStore
from store.patients import hold
from store.sighting import Decision
from store.study_head import study_head

Kind = Literal["outline", "confirm", "reject", "relink", "role", "node", "site", "status"]
OF_VISIT = frozenset({"outline", "relink", "status"})
"""Kinds that always speak of the study at hand."""
OF_EITHER = frozenset({"confirm", "reject"})
"""Kinds that speak of the study at hand or of all."""


class Said(BaseModel):
    """What a person decides of a lesion."""

    model_config = ConfigDict(extra="forbid")

    lesion: str = Field(max_length=64, description="Any Tracking UID that the lesion has now")
    finding: int | None = Field(
        default=None,
        ge=1,
        le=MOST_PK,
        description="The finding that was looked at; refused when it is another lesion",
    )
    seen: str | None = Field(
        default=None,
        max_length=2000,
        pattern=r"^(\d{1,18}(,\d{1,18})*)?$",
        description="Numbers of the choices that were shown of the finding, or without one of what was looked for and "
        "not drawn, joined by commas; refused when others count by now",
    )
    kind: Kind = Field(description="What is decided; outline speaks of what Nadir drew")
    value: str = Field(
        max_length=200,
        description="outline: approved, not-approved; confirm, reject, node: true, false; relink: the Tracking UID of "
        "the lesion that it is, or new; role: target, non-target, new, ignore; site: words; status: measured, absent, "
        "NE, present, too-small, unequivocal-progression",
    )
    only_here: bool = Field(
        default=False, description="Of confirm and reject: at this study alone, not at every date"
    )
    is_fragment: bool = Field(default=False, description="Of relink: both are fragments of one lesion")
    note: str = Field(default="", max_length=2000, description="Why, in words")


def said(fields: Mapping[str, str]) -> Said:
    """Return what a form says. Raises 422 with the first problem."""
    try:
        return Said.model_validate({name: value for name, value in fields.items() if name != CSRF_FIELD})
    except ValidationError as error:
        raise HTTPException(422, first_problem(error.errors())) from None


def choose(site: Site, request: Request, study_instance_uid: str, said: Said) -> Decision:
    """Keep a choice and return it.

    Refuses `no-such-study`, `overtaken` for a finding that is not what was looked at, and as `store.choices.choose`.
    """
    now = site.database.now()
    here = said.kind in OF_VISIT or (said.kind in OF_EITHER and said.only_here)
    with site.database.transaction() as session:
        head, one = study_head(session, study_instance_uid), None
        patient_pk = head.patient_pk
        hold(session, patient_pk)
        if said.finding is not None:
            one = _as_seen(session, site.objects, study_instance_uid, said.finding, said.lesion)
        if said.seen is not None:
            _require_no_newer(session, site.objects, head.study_pk, said, one)
        made = choices.choose(
            session,
            patient_pk,
            said.kind,
            said.lesion,
            said.value,
            author=request.state.identity.name,
            now=now,
            study_instance_uid=study_instance_uid if here else "",
            source=choices.PAGE,
            note=said.note,
            split=said.is_fragment,
            objects=site.objects,
        )
        message = decided(session, site.settings, patient_pk, [made], now, address=request.state.address)
    site.record(message)
    return made


def _as_seen(
    session: Session, objects: ObjectStore, study_instance_uid: str, finding_pk: int, lesion: str
) -> FindingView:
    """Return a finding. Refuses (`overtaken`) one that was measured anew or relinked since somebody looked at it."""
    one = finding_view(session, finding_pk, objects)
    if one.study_instance_uid != study_instance_uid:
        raise Refused("no-such-finding", "the study has no such finding")
    known = one.identity
    if one.is_superseded or known is None or lesion not in (known.tracking_uid, known.lesion_uid):
        sentence = "the finding was measured anew or relinked meanwhile; load the page again"
        raise Refused("overtaken", sentence)
    return one


def _require_no_newer(
    session: Session, objects: ObjectStore, study_pk: int, said: Said, one: FindingView | None
) -> None:
    """Refuse (`overtaken`) when other choices count by now than those that were shown."""
    if one is not None:
        counting = [one.decisions]
    else:
        page = findings_of(session, study_pk, objects, limit=1)
        counting = [missed.decisions for missed in page.missed if missed.tracking_uid == said.lesion]
    if not any(shown_numbers(decisions) == said.seen for decisions in counting):
        raise Refused("overtaken", "somebody decided of it meanwhile; load the page again and look what")


def shown_numbers(decisions: Sequence[Decision]) -> str:
    """Return what `Said.seen` says of choices that were shown."""
    return ",".join(str(one.number) for one in decisions)


def undo(site: Site, request: Request, study_instance_uid: str, number: int, note: str = "") -> Decision:
    """Take a choice of the study's patient back and return what does. Refuses as `store.choices.undo`."""
    now = site.database.now()
    with site.database.transaction() as session:
        patient_pk = study_head(session, study_instance_uid).patient_pk
        made = choices.undo(
            session,
            patient_pk,
            number,
            author=request.state.identity.name,
            now=now,
            source=choices.PAGE,
            note=note,
        )
        message = decided(session, site.settings, patient_pk, [made], now, address=request.state.address)
    site.record(message)
    return made


__all__ = ["Kind", "Said", "choose", "said", "shown_numbers", "undo"]
