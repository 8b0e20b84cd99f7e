"""DICOM TLS as BCP 195 wants it (RFC 8996, RFC 9325; PS3.15 Annex B): at least 1.2, both ends known by certificate.

There is no way back to plain DICOM: a handshake that fails ends the connection. HTTPS, to the node and from it to
DICOMweb servers, has its contexts here too.
"""

from __future__ import annotations

import hashlib
import logging
import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from node.logs import line
from node.settings import Settings
from plugins.errors import Refused

log = logging.getLogger(__name__)

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: ephemeral keys and authenticated encryption only (RFC 9325 4.2); TLS 1.3 has no others."""
SOON_DAYS = 30
PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
UTC_TIME = 0x17

REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no-certificate",
    "UNSUPPORTED_PROTOCOL": "version",
    "VERSION_TOO_LOW": "version",
    "NO_PROTOCOLS_AVAILABLE": "version",
    "NO_SHARED_CIPHER": "cipher",
    "WRONG_VERSION_NUMBER": "not-tls",
    "HTTP_REQUEST": "not-tls",
    "HTTPS_PROXY_REQUEST": "not-tls",
}
VERIFY_REASONS = {9: "not-yet-valid", 10: "expired", 18: "unknown-ca", 19: "unknown-ca", 20: "unknown-ca"}

UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
"""What OpenSSL says of a chain that ends in nobody it knows."""
WEB_BY_TLS = ("https:", "wss:")


def server_context(settings: Settings) -> ssl.SSLContext:
    """Return what the TLS port shows and asks for: our certificate, and one of `tls_ca` from every caller.

    Refuses `bad-tls` when a file is missing, broken or does not belong to the others.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, settings)
    if settings.tls_certificate is None:
        raise Refused("bad-tls", "the TLS port needs a certificate: set tls_certificate")
    # A ticket would bring a caller back in without its certificate being looked at again.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.verify_mode = ssl.CERT_REQUIRED if settings.tls_mutual else ssl.CERT_NONE
    if settings.tls_mutual and settings.tls_ca is None:
        raise Refused("bad-tls", "callers are known by a certificate: set tls_ca, or tls_mutual = false")
    return context


def client_context(settings: Settings) -> ssl.SSLContext:
    """Return how we call by TLS: our certificate shown, the peer's judged by `tls_ca` and the name of its host.

    Refuses `bad-tls` when a file is missing, broken or does not belong to the others.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, settings)
    if settings.tls_ca is None:
        raise Refused("bad-tls", "the certificate of a peer is judged by those of tls_ca: set it")
    context.check_hostname = settings.tls_hostnames
    return context


def context_to(settings: Settings, url: str) -> ssl.SSLContext | None:
    """Return how a DICOMweb server of the settings is judged; None for one without TLS. Refuses `bad-tls`."""
    return web_context(settings.tls_ca) if url.lower().startswith(WEB_BY_TLS) else None


@cache
def web_context(tls_ca: Path | None) -> ssl.SSLContext:
    """Return how DICOMweb servers are judged: by public authorities, the system's, and those of `tls_ca`.

    SSL_CERT_FILE and SSL_CERT_DIR name the system's as they do elsewhere. Refuses `bad-tls`.
    """
    import httpx

    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    if tls_ca is not None:
        _load_authorities(context, tls_ca)
    return context


def distrust(error: BaseException) -> str:
    """Return what is wrong with a server's certificate when that is why it could not be called; empty when not."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return ""
    advice = "; name its authority in tls_ca" if cause.verify_code in UNKNOWN_AUTHORITY else ""
    return f"its certificate is not trusted ({cause.verify_message}){advice}"


def https_context(settings: Settings) -> ssl.SSLContext | None:
    """Return how the HTTP port answers by TLS; None without certificate and key. Refuses `bad-tls`."""
    if settings.http_tls_certificate is None:
        if settings.http_tls_key is not None:
            sentence = "http_tls_key is set and http_tls_certificate is not: HTTP would be plain; set both"
            raise Refused("bad-tls", sentence)
        return None
    context = _bare(ssl.PROTOCOL_TLS_SERVER)
    passphrase = settings.http_tls_key_passphrase
    _load_own(context, settings.http_tls_certificate, settings.http_tls_key, passphrase, prefix="http_")
    return context


def _bare(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


def _context(protocol: int, settings: Settings) -> ssl.SSLContext:
    context = _bare(protocol)
    if settings.tls_certificate is not None:
        _load_own(context, settings.tls_certificate, settings.tls_key, settings.tls_key_passphrase)
    if settings.tls_ca is not None:
        _load_authorities(context, settings.tls_ca)
    return context


def _load_authorities(context: ssl.SSLContext, tls_ca: Path) -> None:
    _read(tls_ca, "tls_ca")
    try:
        context.load_verify_locations(cafile=tls_ca)
    except ssl.SSLError as error:
        raise Refused("bad-tls", f"tls_ca {tls_ca} holds no PEM certificate") from error


def _load_own(
    context: ssl.SSLContext, certificate: Path, key: Path | None, passphrase: str, *, prefix: str = ""
) -> None:
    if not PEM.search(_read(certificate, f"{prefix}tls_certificate")):
        raise Refused("bad-tls", f"{prefix}tls_certificate {certificate} holds no PEM certificate")
    if key is not None:
        _read(key, f"{prefix}tls_key")
    if (key or certificate).stat().st_mode & 0o007:
        log.warning(line("key-open-to-everybody", setting=f"{prefix}tls_key", text="chmod o-rwx"))
    try:
        # Always a function, or OpenSSL would ask for the passphrase on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: passphrase)
    except (ssl.SSLError, ValueError) as error:
        mismatched = getattr(error, "reason", "") == "KEY_VALUES_MISMATCH"
        fault = "is no PEM key, or the passphrase is wrong"
        says = "does not belong to the certificate" if mismatched else fault
        raise Refused(
            "bad-tls", f"the key of {prefix}tls_certificate, {key or certificate}, {says}"
        ) from error


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused("bad-tls", f"{name} {path} cannot be read ({error.strerror})") from error


def tls_files(settings: Settings) -> tuple[Path, ...]:
    """Return the files of certificates and keys that the settings name."""
    named = (settings.tls_certificate, settings.tls_key, settings.tls_ca)
    return tuple(path for path in named if path is not None)


def https_files(settings: Settings) -> tuple[Path, ...]:
    """Return the files of HTTPS that the settings name, its certificate and its key."""
    named = (settings.http_tls_certificate, settings.http_tls_key)
    return tuple(path for path in named if path is not None)


def certificate_names(connection: object) -> frozenset[str]:
    """Return by what a peer's certificate may be named: its common name, DNS names, and `sha256:` with 64 digits.

    Empty for plain connections, and where no certificate was asked for.
    """
    if not isinstance(connection, ssl.SSLSocket):
        return frozenset()
    try:
        encoded, shown = connection.getpeercert(binary_form=True), connection.getpeercert()
    except (OSError, ValueError):  # it has gone already
        return frozenset()
    if not encoded or not shown:
        return frozenset()
    subject: Any = shown.get("subject", ())
    alternatives: Any = shown.get("subjectAltName", ())
    names = {str(value) for part in subject for key, value in part if key == "commonName"}
    names |= {str(value) for kind, value in alternatives if kind == "DNS"}
    return frozenset({*names, f"sha256:{hashlib.sha256(encoded).hexdigest()}"})


def failure_reason(error: Exception) -> str:
    """Return in one word why a handshake failed: `tls-expired`, `tls-unknown-ca`, `tls-no-certificate`, ..."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls-{VERIFY_REASONS.get(error.verify_code, 'certificate')}"
    reason = getattr(error, "reason", None) or ""
    if "ALERT" in reason:
        return "tls-refused-by-peer"
    if reason in REASONS:
        return f"tls-{REASONS[reason]}"
    if isinstance(error, (ssl.SSLEOFError, ConnectionError)):
        return "tls-broken-off"
    return "tls-handshake"


def expires_at(path: Path) -> datetime:
    """Return when the first of the certificates in a PEM file to expire does so, aware UTC. Refuses `bad-tls`."""
    found = [ssl.PEM_cert_to_DER_cert(pem.decode()) for pem in PEM.findall(_read(path, "certificate"))]
    if not found:
        raise Refused("bad-tls", f"{path} holds no PEM certificate")
    try:
        return min(_not_after(encoded) for encoded in found)
    except (ValueError, StopIteration, IndexError) as error:
        raise Refused("bad-tls", f"{path} holds a certificate that cannot be read") from error


def certificate_files(settings: Settings) -> tuple[Path, ...]:
    """Return the files of certificates that the settings name, for DICOM and for HTTPS, each once."""
    named = (settings.tls_certificate, settings.tls_ca, settings.http_tls_certificate)
    return tuple(dict.fromkeys(path for path in named if path is not None))


def days_left(path: Path, now: datetime) -> float:
    """Return the days that are left to a certificate file; negative once it has expired. Refuses `bad-tls`."""
    return (expires_at(path) - now).total_seconds() / 86400


def _not_after(certificate: bytes) -> datetime:
    """Return notAfter of a certificate (RFC 5280 4.1): version [0], serial, algorithm, issuer, validity, ..."""
    ((_, whole),) = _elements(certificate)
    _, to_be_signed = next(_elements(whole))
    fields = [(kind, body) for kind, body in _elements(to_be_signed) if kind != 0xA0]
    _, (kind, text) = _elements(fields[3][1])
    form = "%y%m%d%H%M%SZ" if kind == UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give tag and content of each DER element."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length >= 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        yield tag, data[at : at + length]
        at += length
