"""What a STOW-RS server says of the instances that were sent to it (PS3.18 10.5.3)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from node.dicom_json import number, text, values

FAILED, REFERENCED, OTHER = "00081198", "00081199", "0008119A"
REFERENCED_SOP_UID, FAILURE_REASON, WARNING_REASON = "00081155", "00081197", "00081196"
TAG = re.compile(r"[0-9A-Fa-f]{8}")
NATIVE_XML = b"NativeDicomModel"
OF_FAILURE = (FAILED.encode(), OTHER.encode())


@dataclass(frozen=True, kw_only=True)
class StowAnswer:
    """What the PACS said of one instance that was sent to it."""

    sop_instance_uid: str
    """SOP Instance UID; empty for a failure that names none."""
    status: int | None
    """DICOM status: 0 stored, a warning, or the failure reason; None when the answer does not speak of it."""

    @property
    def speaks(self) -> bool:
        """Whether it tells anything: of which instance, or why."""
        return bool(self.sop_instance_uid) or self.status is not None


def read_response(body: bytes) -> tuple[StowAnswer, ...] | None:
    """Return what a response says of instances; empty when it tells of none and of no failure, None for no response.

    Of XML, which was not asked for, only whether something failed is read: then it is None.
    """
    if not body.strip():
        return ()
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return () if NATIVE_XML in body and not any(tag in body.upper() for tag in OF_FAILURE) else None
    if isinstance(said, list) and len(said) < 2:  # as a query is answered
        said = said[0] if said else {}
    if not isinstance(said, dict):
        return None
    dataset = {tag.upper(): element for tag, element in said.items()}
    answers = tuple(_answers(dataset))
    is_dicom = all(TAG.fullmatch(tag) and _is_element(element) for tag, element in dataset.items())
    return answers if answers or is_dicom else None


def _is_element(found: object) -> bool:
    return isinstance(found, dict) and isinstance(found.get("Value") or [], list)


def _answers(dataset: Mapping[str, Any]) -> Iterator[StowAnswer]:
    for item in values(dataset, REFERENCED):
        if isinstance(item, dict) and (uid := text(item, REFERENCED_SOP_UID)):
            yield StowAnswer(sop_instance_uid=uid, status=number(item, WARNING_REASON) or 0x0000)
    for item in (*values(dataset, FAILED), *values(dataset, OTHER)):
        row = item if isinstance(item, dict) else {}
        reason = number(row, FAILURE_REASON) or None
        yield StowAnswer(sop_instance_uid=text(row, REFERENCED_SOP_UID), status=reason)


__all__ = ["StowAnswer", "read_response"]
