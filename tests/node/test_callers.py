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


FINGERPRINT = "AB" * 32


@pytest.mark.parametrize(
    ("bound", "ae_title", "names", "trusted"),
    [
        ((), "CT1", set(), True),
        (("CT1=ct1.test",), "CT1", {"ct1.test"}, True),
        (("CT1=ct1.test",), "CT1 ", {"ct1.test"}, True),
        (("CT1=ct1.test",), "CT1", set(), False),
        (("CT1=ct1.test",), "CT1", {"ct2.test"}, False),
        (("CT1=ct1.test",), "CT2", set(), True),
        (("CT1=ct1.test", "CT1=spare.test"), "CT1", {"spare.test"}, True),
        (("*=any.test",), "CT1", set(), False),
        (("*=any.test", "CT1=ct1.test"), "CT1", {"ct1.test"}, True),
        ((f"CT1=sha256:{FINGERPRINT}",), "CT1", {f"sha256:{FINGERPRINT.lower()}"}, True),
        ((f"CT1=SHA256:{':'.join(['AB'] * 32)}",), "CT1", {f"sha256:{FINGERPRINT.lower()}"}, True),
        ((f"CT1=sha256:{FINGERPRINT}",), "CT1", {f"sha256:{'cd' * 32}"}, False),
    ],
)
def test_an_ae_title_that_is_bound_to_a_certificate_needs_it(
    bound: tuple[str, ...], ae_title: str, names: set[str], trusted: bool
) -> None:
    callers = Callers.parse((), accept_any=True, certificates=bound)
    assert callers.trusts(ae_title, frozenset(names)) is trusted


@pytest.mark.parametrize("text", ["CT1", "CT1=", "=name", "CT1=sha256:12", "A" * 17 + "=name", "CT1\n=name"])
def test_what_binds_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        Callers.parse((), certificates=(text,))
    assert refused.value.code == "bad-caller"
