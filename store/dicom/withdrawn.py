"""Objects of a study that count no longer: a later document took their place, or a Key Object rejects them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from store.dicom.files import File
from store.dicom.items import name_of, predecessors, references, same, text, walk

KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"
REJECTED = (
    Code("113001", "DCM", "Rejected for Quality Reasons"),
    Code("113037", "DCM", "Rejected for Patient Safety Reasons"),
    Code("113038", "DCM", "Incorrect Modality Worklist Entry"),
    Code("113039", "DCM", "Data Retention Policy Expired"),
)
"""Titles by which a Key Object takes back what it names (IHE RAD, Imaging Object Change Management)."""


def withdrawn(files: Sequence[File]) -> dict[str, str]:
    """Return why objects count no longer, in words, by SOP Instance UID.

    A document takes the place of those of its study that it names as predecessors (PS3.3 C.17.2), never its own.
    """
    found: dict[str, str] = {}
    for file in files:
        if file.sop_class_uid == KEY_OBJECT:
            title = next((code for code in REJECTED if same(name_of(file.header), code)), None)
            why = f"rejected by the key object {file.sop_instance_uid}"
            gone = {} if title is None else dict.fromkeys(_named(file.header), f"{why} ({title.meaning})")
        else:
            why = f"the document {file.sop_instance_uid} took its place"
            gone = dict.fromkeys(predecessors(file.header), why)
            gone.pop(file.sop_instance_uid, None)
        found = gone | found
    return found


def _named(header: Dataset) -> Iterator[str]:
    for _, item, _ in walk(header):
        for one in references(item):
            yield text(one, "ReferencedSOPInstanceUID")


__all__ = ["REJECTED", "withdrawn"]
