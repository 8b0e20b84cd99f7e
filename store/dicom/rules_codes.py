"""The rule that the codes of a SEG or SR are no longer than their attributes take; archives refuse or cut them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pydicom.dataset import Dataset

from store.dicom.items import items, text, walk
from store.dicom.violation import Violation

CODES: Final = (
    "ConceptNameCodeSequence",
    "ConceptCodeSequence",
    "MeasurementUnitsCodeSequence",
    "SegmentedPropertyCategoryCodeSequence",
    "SegmentedPropertyTypeCodeSequence",
    "SegmentedPropertyTypeModifierCodeSequence",
    "AnatomicRegionSequence",
    "AnatomicRegionModifierSequence",
)
"""Sequences of codes in an item of content or in a segment."""
HOLDERS: Final = ("MeasuredValueSequence", "SegmentSequence")
"""Sequences whose items hold such sequences."""
LONGEST: Final = {"CodeValue": 16, "CodingSchemeDesignator": 16, "CodeMeaning": 64}


def code_lengths(dataset: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """Value and coding scheme of a code have 16 characters at most, its meaning 64; a longer value is a long one."""
    for where, item, _ in walk(dataset):
        for keyword, code in _codes(item):
            for part, longest in LONGEST.items():
                if (length := len(text(code, part))) > longest:
                    sentence = f"the {part} of a code has {length} characters, more than {longest}"
                    yield Violation(rule="code-length", where=f"{where} {keyword}", sentence=sentence)


def _codes(item: Dataset) -> Iterator[tuple[str, Dataset]]:
    """Yield every code in an item, with the name of its sequence; a code may have modifiers."""
    for keyword in CODES:
        for code in items(item, keyword):
            yield keyword, code
            yield from _codes(code)
    for keyword in HOLDERS:
        for holder in items(item, keyword):
            yield from _codes(holder)


__all__ = ["code_lengths"]
