"""Who may open an association: a list of AE titles and addresses, empty at first, so that nobody is let in by default.

AE titles are no authentication; the list keeps mistakes and strangers out, not an attacker inside the network.
An AE title that is bound to a certificate is one: it is let in by TLS with that certificate only.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from plugins.errors import Refused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")
FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """One entry of the list."""

    ae_title: str | None
    """Calling AE title; None for any."""
    networks: tuple[Network, ...] | None
    """Addresses that it may come from; None for any."""


@dataclass(frozen=True, kw_only=True)
class Callers:
    """The list of those who may send."""

    entries: tuple[Caller, ...]
    """The entries; none lets nobody in."""
    accept_any: bool = False
    """True lets everybody in, under every AE title."""
    certificates: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Names of the certificates, one of which an AE title, or `*` for each of them, has to show."""

    @classmethod
    def parse(
        cls, texts: Sequence[str], *, accept_any: bool = False, certificates: Sequence[str] = ()
    ) -> Callers:
        """Return the list written as `AE`, `AE@address` and `*@address`, and certificates as `AE=name`.

        An address is an IP address, a network such as `10.1.0.0/16`, or a host name, which is looked up once.
        The name of a certificate is its common name, one of its DNS names, or `sha256:` and the digits of its
        fingerprint. Refuses (`bad-caller`).
        """
        bound: dict[str, frozenset[str]] = {}
        for text in certificates:
            ae_title, name = _parse_certificate(text)
            bound[ae_title] = bound.get(ae_title, frozenset()) | {name}
        return cls(entries=tuple(_parse(text) for text in texts), accept_any=accept_any, certificates=bound)

    def knows_address(self, address: str) -> bool:
        """Return True when at least one entry lets this address speak."""
        return self.accept_any or any(_holds(entry.networks, address) for entry in self.entries)

    def trusts(self, ae_title: str, names: Set[str]) -> bool:
        """Return True when this AE title needs no certificate, or one of these names is of one that it needs."""
        needed = [self.certificates[key] for key in (ae_title.strip(" "), "*") if key in self.certificates]
        return not needed or any(names & one for one in needed)

    def admits(self, ae_title: str, address: str) -> bool:
        """Return True when this AE title may call from this address."""
        return self.accept_any or any(
            entry.ae_title in (None, ae_title.strip(" ")) and _holds(entry.networks, address)
            for entry in self.entries
        )


def _parse_certificate(text: str) -> tuple[str, str]:
    ae_title, _, name = (part.strip(" ") for part in text.partition("="))
    is_fingerprint = name.lower().startswith("sha256:")
    if is_fingerprint:
        name = name.lower().replace(":", "").replace("sha256", "sha256:")
    if not name or not AE_TITLE.fullmatch(ae_title) or (is_fingerprint and not FINGERPRINT.fullmatch(name)):
        says = f"'{text}' binds no AE title to a certificate: write AE=name or AE=sha256:64 digits"
        raise Refused("bad-caller", says)
    return ae_title, name


def _parse(text: str) -> Caller:
    ae_title, at, host = text.partition("@")
    ae_title = ae_title.strip(" ")
    if not AE_TITLE.fullmatch(ae_title) or (at and not host) or (ae_title == "*" and not at):
        raise Refused("bad-caller", f"'{text}' is not a caller: write AE, AE@address or *@address")
    return Caller(ae_title=None if ae_title == "*" else ae_title, networks=_networks(host) if at else None)


def _networks(host: str) -> tuple[Network, ...]:
    try:
        return (ipaddress.ip_network(host.strip("[]"), strict=False),)
    except ValueError:
        pass
    try:
        found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise Refused("bad-caller", f"the host '{host}' of a caller cannot be found: {error}") from error
    return tuple(ipaddress.ip_network(address) for address in sorted(found))


def plain_address(address: str) -> str:
    """Return an address without scope, IPv4 also when it came mapped into IPv6."""
    parsed = _address(address)
    return str(parsed) if parsed else address


def _address(address: str) -> Address | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        return parsed.ipv4_mapped
    return parsed


def _holds(networks: tuple[Network, ...] | None, address: str) -> bool:
    if networks is None:
        return True
    parsed = _address(address)
    return parsed is not None and any(parsed in network for network in networks)
