from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.callers import Callers, plain_address
from plugins.errors import Refused


def test_nobody_is_admitted_by_an_empty_list() -> None:
    nobody = Callers.parse(())
    assert not nobody.knows_address("127.0.0.1")
    assert not nobody.admits("CT", "127.0.0.1")


def test_accept_any_admits_everybody() -> None:
    everybody = Callers.parse((), accept_any=True)
    assert everybody.knows_address("203.0.113.9")
    assert everybody.admits("ANY", "203.0.113.9")


@pytest.mark.parametrize(
    ("entry", "ae_title", "address", "admitted"),
    [
        ("CT1", "CT1", "10.0.0.1", True),
        ("CT1", "CT1 ", "10.0.0.1", True),
        ("CT1", "ct1", "10.0.0.1", False),
        ("CT1@10.0.0.1", "CT1", "10.0.0.1", True),
        ("CT1@10.0.0.1", "CT1", "10.0.0.2", False),
        ("CT1@10.0.0.1", "CT2", "10.0.0.1", False),
        ("*@10.0.0.1", "WHOEVER", "10.0.0.1", True),
        ("*@10.0.0.0/24", "WHOEVER", "10.0.0.77", True),
        ("*@10.0.0.0/24", "WHOEVER", "10.0.1.77", False),
        ("*@10.0.0.1", "WHOEVER", "::ffff:10.0.0.1", True),
        ("*@[fe80::1]", "WHOEVER", "fe80::1%eth0", True),
        ("*@localhost", "WHOEVER", "127.0.0.1", True),
        ("*@10.0.0.1", "WHOEVER", "no address", False),
    ],
)
def test_an_entry_admits_its_ae_title_from_its_addresses(
    entry: str, ae_title: str, address: str, admitted: bool
) -> None:
    assert Callers.parse((entry,)).admits(ae_title, address) is admitted


def test_an_address_is_known_when_any_entry_lets_it_speak() -> None:
    callers = Callers.parse(("CT1@10.0.0.1", "CT2@10.0.0.2"))
    assert callers.knows_address("10.0.0.2")
    assert not callers.knows_address("10.0.0.3")
    assert not callers.admits("CT1", "10.0.0.2")
    assert Callers.parse(("CT1",)).knows_address("203.0.113.9")


@given(text=st.text(max_size=30))
def test_any_text_is_an_entry_or_is_refused(text: str) -> None:
    if "@" in text:  # a host name would be looked up
        text = text.replace("@", "")
    try:
        callers = Callers.parse((text,))
    except Refused as refused:
        assert refused.code == "bad-caller"
    else:
        assert callers.admits(text, "10.0.0.1")


@given(address=st.text(max_size=40))
def test_any_text_for_an_address_is_borne(address: str) -> None:
    assert isinstance(plain_address(address), str)
    assert not Callers.parse(("CT1@10.0.0.1",)).admits("CT1", f"x{address}")
