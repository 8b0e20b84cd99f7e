"""SpecificCharacterSet: what the standard defines, and the rule that an object keeps to it (PS3.3 C.12.1.1.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

from store.dicom.values import implicit_vr, texts
from store.dicom.violation import Violation

UTF8: Final = "ISO_IR 192"
PAGES: Final = ("100", "101", "109", "110", "144", "127", "126", "138", "148", "203", "13", "166")
ALONE: Final = {*(f"ISO_IR {page}" for page in PAGES), UTF8, "GB18030", "GBK"}
EXTENDED: Final = {f"ISO 2022 IR {page}" for page in (*PAGES, "6", "87", "159", "149", "58")}
TEXT_VRS: Final = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")
KEYWORD: Final = "SpecificCharacterSet"


def is_defined(terms: Sequence[str]) -> bool:
    """Return whether the values of SpecificCharacterSet are defined terms that may stand together; none are."""
    if len(terms) == 1:
        return terms[0] in ALONE or terms[0] in EXTENDED
    return all(term in EXTENDED or (at == 0 and not term) for at, term in enumerate(terms))


def character_set(dataset: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """SpecificCharacterSet is a defined term; without one the texts are ASCII."""
    terms = texts(dataset, KEYWORD)
    if not is_defined(terms):
        stated = "\\".join(terms)
        yield _broken(KEYWORD, f"'{stated}' is no defined term; state {UTF8} and write the texts in UTF-8")
    if terms:
        return
    for tag, element in dataset._dict.items():
        if (element.VR or implicit_vr(tag)) in TEXT_VRS and not "".join(
            texts(dataset, (tag.group, tag.element))
        ).isascii():
            where = keyword_for_tag(tag) or str(tag)
            yield _broken(
                where, f"is not ASCII, and {KEYWORD} is absent; state {UTF8} and write the texts in UTF-8"
            )


def _broken(where: str, sentence: str) -> Violation:
    return Violation(rule="character-set", where=where, sentence=sentence)
