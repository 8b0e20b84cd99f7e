"""A query as QIDO-RS writes it (PS3.18 section 10.6.1.2), read: what studies, series and instances have to match."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime

from pydicom.datadict import keyword_for_tag
from starlette.exceptions import HTTPException

from store.held import StudyQuery

STUDY_KEYS = (
    "StudyInstanceUID", "PatientID", "IssuerOfPatientID", "PatientName", "AccessionNumber", "StudyDescription",
    "ModalitiesInStudy", "StudyDate",
)  # fmt: skip
SERIES_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber")
INSTANCE_KEYS = (*SERIES_KEYS, "SOPInstanceUID", "SOPClassUID", "InstanceNumber")
NO_KEYS = frozenset({
    "limit", "offset", "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching", "accept",
    "charset", "_",
})  # fmt: skip
"""Parameters that say how to answer; `_` is what scripts add against caches."""
MAY_REPEAT = NO_KEYS - {"limit", "offset"}


def keys_once(parameters: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the parameters of a query by keyword. Raises 400 for a key, a limit or an offset that stands twice.

    Whichever of the two was passed over, more or others would be found than were asked for.
    """
    found: dict[str, str] = {}
    for name, value in parameters:
        key = _keyword(name)
        if key in found and key not in MAY_REPEAT:
            sentence = f"{key[:64]} stands twice in this query; name it once, by its keyword or by its tag"
            raise HTTPException(400, sentence)
        found[key] = value
    return found


def study_query(query: Mapping[str, str]) -> StudyQuery:
    """Return what studies have to match. Raises 400 for a key that is not matched, and a date that is none."""
    named = match_keys(query, STUDY_KEYS, of="studies")
    since, until = _dates(named.get("StudyDate", ""))
    return StudyQuery(
        study_instance_uids=_several(named.get("StudyInstanceUID", "")),
        patient_id=named.get("PatientID", ""),
        issuer=named.get("IssuerOfPatientID", ""),
        patient_name=named.get("PatientName", ""),
        accession_number=named.get("AccessionNumber", ""),
        study_description=named.get("StudyDescription", ""),
        modalities=_several(named.get("ModalitiesInStudy", "")),
        since=since,
        until=until,
    )


def match_keys(query: Mapping[str, str], known: Collection[str], of: str) -> dict[str, str]:
    """Return the keys to match by keyword, also those that were named by their tag, save what matches everything.

    Raises 400 for one that is not among `known`: without it more would be found than was asked for, other patients too.
    """
    named = {
        _keyword(name): value for name, value in query.items() if value.strip("*") and name not in NO_KEYS
    }
    for name in named:
        if name not in known:
            raise HTTPException(400, f"{of} cannot be searched by {name[:64]}; by: {', '.join(known)}")
    return named


def _keyword(name: str) -> str:
    return keyword_for_tag(name) or name if len(name) == 8 and _is_hex(name) else name


def _is_hex(text: str) -> bool:
    return all(c in "0123456789abcdefABCDEF" for c in text)


def _several(text: str) -> tuple[str, ...]:
    """Return the values of a list: by PS3.18 with commas between, by OHIF with backslashes."""
    return tuple(one for one in text.replace("\\", ",").split(",") if one)


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


__all__ = ["INSTANCE_KEYS", "SERIES_KEYS", "keys_once", "match_keys", "study_query"]
