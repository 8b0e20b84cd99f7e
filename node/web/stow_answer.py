"""The answer to a STOW-RS request: what became of each instance, as DICOM JSON or XML (PS3.18 10.5.3, PS3.19 A.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from fastapi.responses import Response

from node.status import OUT_OF_RESOURCES, PROCESSING_FAILURE, SUCCESS

JSON, XML = "application/dicom+json", "application/dicom+xml"
FORMS = {
    JSON: JSON,
    "application/json": JSON,
    "application/*": JSON,
    "*/*": JSON,
    XML: XML,
    "application/xml": XML,
    "text/xml": XML,
}
NATIVE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
TRANSIENT = frozenset({OUT_OF_RESOURCES, PROCESSING_FAILURE})
RETRY_SECONDS = "30"
FAILED, REFERENCED, OTHER = "00081198", "00081199", "0008119A"
SOP_CLASS, SOP_INSTANCE, REASON = "00081150", "00081155", "00081197"
KEYWORDS = {
    FAILED: "FailedSOPSequence",
    REFERENCED: "ReferencedSOPSequence",
    OTHER: "OtherFailuresSequence",
    SOP_CLASS: "ReferencedSOPClassUID",
    SOP_INSTANCE: "ReferencedSOPInstanceUID",
    REASON: "FailureReason",
}
Model = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What became of one part of a request."""

    sop_class_uid: str = ""
    """SOP Class UID; empty when nobody can tell."""
    sop_instance_uid: str = ""
    """SOP Instance UID; empty when nobody can tell."""
    status: int = SUCCESS
    """0 when it is on disk for good, else the failure reason."""


def form_of(accept: str) -> str | None:
    """Return the best form that an Accept field allows, JSON when it says nothing; None when it allows neither."""
    best, best_quality = (JSON if not accept.strip() else None), 0.0
    for option in accept.split(","):
        name, *parameters = (word.strip().lower() for word in option.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            weight = float(quality)
        except ValueError:
            weight = 0.0
        if name in FORMS and weight > best_quality:
            best, best_quality = FORMS[name], weight
    return best


def answer(stored: Sequence[Stored], form: str) -> Response:
    """Return 200 when everything is stored, 202 when some is, 409 when nothing is, 503 when trying again may help."""
    failures = [one.status for one in stored if one.status != SUCCESS]
    headers = {}
    if not failures:
        status = 200
    elif len(failures) < len(stored):
        status = 202
    else:
        status = 503 if TRANSIENT.issuperset(failures) else 409
        headers = {"Retry-After": RETRY_SECONDS} if status == 503 else {}
    model = _model(stored)
    content = json.dumps(model) if form == JSON else _xml(model)
    return Response(content, status_code=status, headers=headers, media_type=form)


def _model(stored: Sequence[Stored]) -> dict[str, Any]:
    """Return the Store Instances Response Module as the DICOM JSON model."""
    items: dict[str, list[Model]] = {REFERENCED: [], FAILED: [], OTHER: []}
    for one in stored:
        item: dict[str, Any] = {}
        if one.sop_instance_uid:
            item[SOP_CLASS] = {"vr": "UI", "Value": [one.sop_class_uid]}
            item[SOP_INSTANCE] = {"vr": "UI", "Value": [one.sop_instance_uid]}
        if one.status != SUCCESS:
            item[REASON] = {"vr": "US", "Value": [one.status]}
        where = REFERENCED if one.status == SUCCESS else FAILED if one.sop_instance_uid else OTHER
        items[where].append(item)
    return {tag: {"vr": "SQ", "Value": values} for tag, values in sorted(items.items()) if values}


def _xml(model: Model) -> bytes:
    root = ElementTree.Element("NativeDicomModel", {"xmlns": NATIVE})
    _add_attributes(root, model)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _add_attributes(parent: ElementTree.Element, model: Model) -> None:
    for tag, element in model.items():
        named = {"tag": tag, "vr": element["vr"], "keyword": KEYWORDS[tag]}
        attribute = ElementTree.SubElement(parent, "DicomAttribute", named)
        for number, value in enumerate(element["Value"], start=1):
            if element["vr"] == "SQ":
                item = ElementTree.SubElement(attribute, "Item", {"number": str(number)})
                _add_attributes(item, value)
            else:
                ElementTree.SubElement(attribute, "Value", {"number": str(number)}).text = str(value)


__all__ = ["Stored", "answer", "form_of"]
