from __future__ import annotations

import re

import pydicom.uid
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.dicom.uids import derive_uid, is_legal


def test_the_same_key_and_parts_always_give_the_same_uid() -> None:
    assert derive_uid("job", "seg", "1.2.3") == derive_uid("job", "seg", "1.2.3")
    assert derive_uid("job", "seg") == "2.25.235661445753448178089993925169118913162"


def test_parts_are_kept_apart() -> None:
    assert derive_uid("a", "bc") != derive_uid("ab", "c")
    assert derive_uid("a", "b", "c") != derive_uid("a", "bc")
    assert derive_uid("a", 'b", "c') != derive_uid("a", "b", "c")


@given(st.text(), st.lists(st.text(), max_size=4))
def test_every_key_gives_a_valid_uid(key: str, parts: list[str]) -> None:
    uid = derive_uid(key, *parts)
    assert re.fullmatch(r"2\.25\.(0|[1-9]\d*)", uid)
    assert pydicom.uid.UID(uid).is_valid
    assert len(uid) <= 64
    assert is_legal(uid)


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2", "0.0", "2.25.0", "1." + "2" * 62])
def test_digits_and_dots_are_a_legal_uid(uid: str) -> None:
    assert is_legal(uid)


@pytest.mark.parametrize(
    "uid", ["", "not a uid!", "1.2.", ".1", "1..2", "1.02", "01.2", "1.2\n", "1.٣", "1." + "2" * 63]
)
def test_anything_else_is_none(uid: str) -> None:
    assert not is_legal(uid)
