"""Reading of coded items and content trees that other people wrote: what is missing reads as empty, nothing raises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from store.dicom.values import tag_of

DEEPEST = 24
"""Levels of content that are read; below that lies no report of this world."""


def value_of(dataset: Dataset, keyword: str) -> Any:
    """Return a value as pydicom gives it; None when it is missing, which costs next to nothing, or of no known VR."""
    element = dataset._dict.get(tag_of(keyword))
    if element is None:
        return None
    try:
        return element.value if type(element) is DataElement else dataset[element.tag].value
    except NotImplementedError:
        return None


def items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """Return the items of a sequence; none when it is missing, empty or no sequence."""
    value = value_of(dataset, keyword)
    return (
        [i for i in value if isinstance(i, Dataset)]
        if isinstance(value, Sequence) and not isinstance(value, str)
        else []
    )


def text(dataset: Dataset, keyword: str) -> str:
    """Return a value as plain text; empty when it is missing."""
    value = value_of(dataset, keyword)
    return "" if value is None else str(value).strip()


def code_of(dataset: Dataset, keyword: str) -> Code | None:
    """Return the first code of a code sequence; None when there is none or it lacks its value or scheme."""
    for item in items(dataset, keyword)[:1]:
        value = text(item, "CodeValue") or text(item, "LongCodeValue") or text(item, "URNCodeValue")
        scheme = text(item, "CodingSchemeDesignator")
        if value and scheme:
            return Code(value, scheme, text(item, "CodeMeaning"))
    return None


def same(found: Code | None, wanted: Code) -> bool:
    """Return whether two codes mean the same; SNOMED's retired identifiers are known to pydicom."""
    return found is not None and (found == wanted or (found.value, found.scheme_designator) == wanted[:2])


def name_of(item: Dataset) -> Code | None:
    """Return the concept name of a content item."""
    return code_of(item, "ConceptNameCodeSequence")


def children(item: Dataset, name: Code | None = None, value_type: str | None = None) -> list[Dataset]:
    """Return the content items directly under an item, of one concept name and one value type where these are given."""
    found = items(item, "ContentSequence")
    if name is not None:
        found = [child for child in found if same(name_of(child), name)]
    return [child for child in found if value_type is None or text(child, "ValueType") == value_type]


def walk(item: Dataset, path: str = "1", depth: int = 0) -> Iterator[tuple[str, Dataset, Dataset | None]]:
    """Yield every content item under and with `item` as (position, item, parent); positions as dsrdump counts them."""
    yield path, item, None
    if depth < DEEPEST:
        for i, child in enumerate(items(item, "ContentSequence"), start=1):
            for where, inner, parent in walk(child, f"{path}.{i}", depth + 1):
                yield where, inner, item if parent is None else parent


def template_of(item: Dataset) -> str:
    """Return the template identifier of a container; empty when it names none."""
    for template in items(item, "ContentTemplateSequence")[:1]:
        return text(template, "TemplateIdentifier")
    return ""


def numeric(item: Dataset) -> tuple[float | None, str]:
    """Return (value, UCUM unit) of a NUM item; (None, "") when it has no finite value."""
    for measured in items(item, "MeasuredValueSequence")[:1]:
        unit = code_of(measured, "MeasurementUnitsCodeSequence")
        try:
            return float(text(measured, "NumericValue").split("\\")[0]), "" if unit is None else unit.value
        except ValueError:
            return None, "" if unit is None else unit.value
    return None, ""


def references(item: Dataset) -> Iterator[Dataset]:
    """Yield the items of ReferencedSOPSequence."""
    yield from items(item, "ReferencedSOPSequence")


def predecessors(header: Dataset) -> Iterator[str]:
    """Yield the SOP Instance UIDs of the documents whose place a document takes (PS3.3 C.17.2)."""
    for study in items(header, "PredecessorDocumentsSequence"):
        for series in items(study, "ReferencedSeriesSequence"):
            for one in references(series):
                yield text(one, "ReferencedSOPInstanceUID")
