"""A query for studies as QIDO-RS writes it (PS3.18 section 10.6.1.2), read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime

from pydicom.datadict import keyword_for_tag
from starlette.exceptions import HTTPException

from store.held import StudyQuery


def study_query(query: Mapping[str, str]) -> StudyQuery:
    """Return what studies have to match; other attributes match everything. Raises 400 for a date that is none."""
    named = by_keyword(query)
    since, until = _dates(named.get("StudyDate", ""))
    return StudyQuery(
        study_instance_uids=_several(named.get("StudyInstanceUID", "")),
        patient_id=named.get("PatientID", ""),
        patient_name=named.get("PatientName", ""),
        accession_number=named.get("AccessionNumber", ""),
        study_description=named.get("StudyDescription", ""),
        modalities=_several(named.get("ModalitiesInStudy", "").replace("\\", ",")),
        since=since,
        until=until,
    )


def by_keyword(query: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters by keyword, also those that were named by their tag."""
    return {
        keyword_for_tag(name) or name if len(name) == 8 and _is_hex(name) else name: value
        for name, value in query.items()
        if value
    }


def _is_hex(text: str) -> bool:
    return all(c in "0123456789abcdefABCDEF" for c in text)


def _several(text: str) -> tuple[str, ...]:
    return tuple(one for one in text.split(",") if one)


def _dates(text: str) -> tuple[date | None, date | None]:
    first, dash, last = text.partition("-")
    since = _date(first)
    return since, _date(last) if dash else since


def _date(text: str) -> date | None:
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007
    except ValueError:
        raise HTTPException(400, "StudyDate is YYYYMMDD, or two of them with a hyphen between") from None


__all__ = ["by_keyword", "study_query"]
