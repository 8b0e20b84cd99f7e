"""Addresses and networks that a setting names."""

from __future__ import annotations

import re

import pytest

from node.networks import is_among, network_of

NAMED = tuple(map(network_of, ("10.0.0.0/8", "192.168.1.7", "fd00::/8", "::ffff:172.16.0.1")))


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("192.168.1.7", True),
        ("192.168.1.8", False),
        ("fd12::1", True),
        ("fe80::1", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:172.16.0.1", True),
        ("::ffff:11.0.0.1", False),
        ("nginx", False),
        ("", False),
    ],
)
def test_a_peer_is_among_networks_by_its_address(peer: str, expected: bool) -> None:
    assert is_among(peer, NAMED) is expected


@pytest.mark.parametrize("text", ["nginx", "not_an_ip", "10.0.0.1:80", "10.0.0.5/8", "10.0.0.0/33", "*", ""])
def test_what_is_neither_an_address_nor_a_network_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=f"^'{re.escape(text)}' is no IP address, as 10"):
        network_of(text)
