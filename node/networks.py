"""Addresses and networks that a setting names, and whether a peer is among them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from node.words import Words

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def network_of(text: str) -> Network:
    """Return the network that a text names; an address is one of itself alone. Raises ValueError."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"'{text}' is no IP address, as 10.0.0.5, and no network, as 10.0.0.0/8") from error


def is_among(peer: str, networks: Sequence[Network]) -> bool:
    """Return True for an address in one of the networks; a name is in none."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    # a socket for both versions tells a peer of version 4 so
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(address in network or mapped in network for network in networks)


def _checked(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        network_of(text)
    return value


Networks = Annotated[Words, AfterValidator(_checked)]


__all__ = ["Network", "Networks", "is_among", "network_of"]
