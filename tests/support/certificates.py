"""Certificates made with the openssl program: an authority, and what it signs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


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


def _openssl(*arguments: str | Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("the openssl program is not installed")
    subprocess.run([program, *map(str, arguments)], check=True, capture_output=True, timeout=60)
