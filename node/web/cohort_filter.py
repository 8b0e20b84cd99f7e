"""What a person or a program chooses of a cohort, as it stands in an address."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Query
from pydantic import BeforeValidator, Field

from node.web.patient import CriteriaName
from store.measured import Chosen

EMPTY = BeforeValidator(lambda value: None if value == "" else value)
"""A field of a form that nobody filled in is sent as nothing."""
Day = Annotated[date | None, EMPTY, Query()]
Count = Annotated[Annotated[int, Field(ge=0, le=1_000_000)] | None, EMPTY, Query()]


def _chosen(
    criteria: Annotated[CriteriaName, Query(description="Whose verdicts are shown")] = "recist1.1",
    response: Annotated[
        str, Query(max_length=32, description="Best overall response; `none` for who has none yet")
    ] = "",
    analysis: Annotated[str, Query(max_length=64, description="Name of the analysis")] = "",
    made_by: Annotated[str, Query(max_length=200, description="Analysis, version, model")] = "",
    modality: Annotated[str, Query(max_length=16, description="Of the series that was measured")] = "",
    site: Annotated[str, Query(max_length=200, description="Organ")] = "",
    since: Annotated[Day, Query(description="First Study Date")] = None,
    until: Annotated[Day, Query(description="Last Study Date")] = None,
    least: Annotated[Count, Query(description="Fewest lesions of a patient")] = None,
    most: Annotated[Count, Query(description="Most lesions of a patient")] = None,
    name: Annotated[str, Query(max_length=64, description="Name of the number")] = "",
) -> Chosen:
    return Chosen(
        criteria=criteria, response=response, analysis=analysis, made_by=made_by, modality=modality, site=site,
        since=since, until=until, least=least, most=most, name=name,
    )  # fmt: skip


Asked = Annotated[Chosen, Depends(_chosen)]
"""What a route of the cohort takes."""


def query_of(chosen: Chosen, **more: Any) -> str:
    """Return the same as the query of an address, without what is not asked."""
    asked = {name: getattr(chosen, name) for name in Chosen.__dataclass_fields__} | more
    return urlencode({name: value for name, value in asked.items() if value not in (None, "")})


__all__ = ["Asked", "query_of"]
