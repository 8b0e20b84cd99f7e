"""Items of structured reports as others write them, value by value, without what highdicom would insist on."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code


def item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def coded(code: Code) -> Dataset:
    return item(CodeValue=code.value, CodingSchemeDesignator=code.scheme_designator, CodeMeaning=code.meaning)


def content(name: Code, **values: object) -> Dataset:
    return item(ConceptNameCodeSequence=[coded(name)], **values)
