from __future__ import annotations

from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from plugins import codes

NOT_IN_PYDICOM = {
    ("126010", "DCM"),
    ("C0034375", "UMLS"),
    ("Newcode1", "99IHE"),
    ("en-US", "RFC5646"),
    ("g", "UCUM"),
    ("ml", "UCUM"),
}
IN_OTHER_LETTERS = {"Long Axis", "Short Axis"}


def _named() -> dict[str, Code]:
    return {name: value for name, value in vars(codes).items() if isinstance(value, Code)}


def _standard() -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for scheme, entries in concepts.items():
        for meanings in entries.values():
            for value, (meaning, _) in meanings.items():
                found.setdefault((value, scheme), set()).add(meaning)
    return found


def test_every_code_has_the_value_and_meaning_of_the_standard() -> None:
    standard = _standard()
    for name, code in _named().items():
        key = (code.value, code.scheme_designator)
        if code.scheme_designator == codes.PRIVATE_SCHEME or key in NOT_IN_PYDICOM:
            continue
        assert key in standard, name
        if code.meaning in IN_OTHER_LETTERS:
            assert code.meaning.lower() in {meaning.lower() for meaning in standard[key]}
        else:
            assert code.meaning in standard[key], name


def test_a_code_has_one_name_and_fits_its_value_representation() -> None:
    named = _named()
    keys = [(code.value, code.scheme_designator) for code in named.values()]
    assert len(keys) == len(set(keys))
    for name, code in named.items():
        # Long Code Value (0008,0119) holds what is longer, which CID 85 has one of.
        assert len(code.value) <= 16 or name == "SUV_LBM_JANMA_UNIT"
        assert len(code.scheme_designator) <= 16
        assert 0 < len(code.meaning) <= 64


def test_no_private_code_stands_for_a_concept_that_the_standard_names() -> None:
    meanings = {meaning.lower() for found in _standard().values() for meaning in found}
    for code in _named().values():
        if code.scheme_designator == codes.PRIVATE_SCHEME:
            assert code.meaning.lower() not in meanings
