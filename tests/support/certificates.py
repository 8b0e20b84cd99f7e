"""Certificates made with the openssl program: an authority, what it signs, and what nodes, peers and attackers hold."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from node.settings import Settings
from node.tls import client_context

HOST = "127.0.0.1"


class Authority:
    """A certificate authority in a folder of its own; `ca` is its certificate."""

    def __init__(self, folder: Path, name: str = "Nadir Test CA") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca, self._key = folder / "ca.pem", folder / "ca.key"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", self._key, "-out", self.ca, "-subj", f"/CN={name}", "-days", "30"),
        )

    def issue(
        self, name: str, *, hosts: tuple[str, ...] = (), days: int = 30, passphrase: str = "", bits: int = 0
    ) -> tuple[Path, Path]:
        """Return certificate and key for a common name and DNS names or IP addresses; RSA when `bits` are given.

        With 0 days, the certificate has expired a second later.
        """
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        kind = ("rsa:" + str(bits),) if bits else ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
        secret = ("-passout", f"pass:{passphrase}") if passphrase else ("-nodes",)
        _openssl(*("req", "-newkey", *kind, *secret, "-keyout", key, "-out", request, "-subj", f"/CN={name}"))
        names = [f"{'IP' if host[0].isdigit() else 'DNS'}:{host}" for host in hosts or (f"{name}.test",)]
        extensions.write_text(f"subjectAltName={','.join(names)}\n")
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._key, "-CAcreateserial"),
            *("-out", certificate, "-days", str(days), "-extfile", extensions),
        )
        return certificate, key


class Certificates:
    """One authority, and what a node, a peer and an attacker hold."""

    def __init__(self, folder: Path) -> None:
        self.ours = Authority(folder / "ours")
        self.theirs = Authority(folder / "theirs", "Another CA")
        self.node = self.ours.issue("node", hosts=(HOST, "localhost"))
        self.peer = self.ours.issue("peer", hosts=("peer.test", HOST, "localhost"))
        self.elsewhere = self.ours.issue("elsewhere", hosts=("elsewhere.test",))
        self.expired = self.ours.issue("expired", hosts=(HOST,), days=0)
        self.stranger = self.theirs.issue("stranger", hosts=(HOST,))

    def settings(self, pair: tuple[Path, Path] | None = None, **changes: object) -> dict[str, object]:
        """Return the TLS settings of whoever holds this pair."""
        certificate, key = pair or self.node
        files = {"tls_certificate": certificate, "tls_key": key, "tls_ca": self.ours.ca}
        return {name: str(value) for name, value in {**files, **changes}.items()}

    def caller(self, pair: tuple[Path, Path] | None = None, **changes: object) -> ssl.SSLContext:
        """Return a context to call with."""
        return client_context(Settings(**self.settings(pair or self.peer, **changes)))  # type: ignore[arg-type]


def _openssl(*arguments: str | Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("the openssl program is not installed")
    subprocess.run([program, *map(str, arguments)], check=True, capture_output=True, timeout=60)
