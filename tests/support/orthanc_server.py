"""A real Orthanc on loopback, unprivileged, on free ports: started, killed and started again as a test needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from ports import free_port

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
PLUGINS = Path("/usr/share/orthanc/plugins")
NEEDED = ("libOrthancPython.so", "libOrthancDicomWeb.so")
HOOK = Path(__file__).parents[2] / "orthanc" / "nadir_hook.py"
NOBODY = 65534


def require_orthanc() -> None:
    """Fail in continuous integration when Orthanc is missing; skip with the reason elsewhere."""
    missing = [name for name in NEEDED if not (PLUGINS / name).is_file()]
    if shutil.which("Orthanc", path=PATH) is None:
        missing.insert(0, "Orthanc")
    if not missing:
        return
    reason = f"missing: {', '.join(missing)} (apt-get install orthanc orthanc-python orthanc-dicomweb)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class OrthancServer:
    """One Orthanc with DICOMweb, and with the hook when it is told where the node is.

    Its data stay in one folder over `kill` and `start`; the ports stay the same, too.
    """

    def __init__(
        self,
        *,
        node_url: str | None = None,
        token: str = "",
        modalities: Mapping[str, Any] | None = None,
        stable_seconds: int = 1,
        extra: Mapping[str, Any] | None = None,
        user: tuple[str, str] | None = None,
    ) -> None:
        # Not pytest's own folder: nobody else may enter that one, and Orthanc runs as nobody.
        self.folder = Path(tempfile.mkdtemp(prefix="nadir-orthanc-"))
        self.http_port, self.dicom_port = free_port(), free_port()
        self.ae_title = "ORTHANC"
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.dicomweb = self.url + "/dicom-web"
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        config: dict[str, Any] = {
            "Name": "PACS",
            "StorageDirectory": str(self.folder / "db"),
            "IndexDirectory": str(self.folder / "db"),
            "TemporaryDirectory": str(self.folder / "tmp"),
            "HttpPort": self.http_port,
            "HttpBindAddresses": ["127.0.0.1"],
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomPort": self.dicom_port,
            "DicomAet": self.ae_title,
            "DicomAlwaysAllowStore": True,
            "DicomModalities": dict(modalities or {}),
            "UnknownSopClassAccepted": True,
            "OverwriteInstances": True,
            "StableAge": stable_seconds,
            "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")],
            "DicomWeb": {
                "Enable": True,
                "Root": "/dicom-web/",
                "StudiesMetadata": "Full",
                "SeriesMetadata": "Full",
            },
        }
        if node_url is not None:
            shutil.copy(HOOK, self.folder / HOOK.name)
            config["Plugins"].insert(0, str(PLUGINS / "libOrthancPython.so"))
            config["PythonScript"] = str(self.folder / HOOK.name)
            config["Nadir"] = {"Url": node_url, "Token": token}
        config.update(extra or {})
        for name in ("db", "tmp"):
            (self.folder / name).mkdir()
        (self.folder / "orthanc.json").write_text(json.dumps(config, indent=1))
        if os.getuid() == 0:
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)

    def start(self) -> None:
        """Start it; returns once it answers."""
        as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NADIR_")}
        with (self.folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["Orthanc", str(self.folder / "orthanc.json")],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**environment, "PATH": PATH},
                **as_nobody,
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                httpx.get(
                    self.url + "/system", timeout=30, trust_env=False, auth=self._user
                ).raise_for_status()
                return
            except httpx.HTTPError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(self.log()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Let it end by itself."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """SIGKILL: what it held in memory is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def remove(self) -> None:
        """Kill it and delete its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """Return what it wrote."""
        return (self.folder / "orthanc.log").read_text(errors="replace")

    def get(self, path: str) -> Any:
        """Return the JSON that its REST API answers."""
        response = httpx.get(self.url + path, timeout=60, trust_env=False, auth=self._user)
        response.raise_for_status()
        return response.json()

    def file(self, instance: str) -> bytes:
        """Return the DICOM file of an instance, by Orthanc's own identifier."""
        url = f"{self.url}/instances/{instance}/file"
        response = httpx.get(url, timeout=60, trust_env=False, auth=self._user)
        return response.raise_for_status().content

    def upload(self, path: Path) -> dict[str, Any]:
        """Store one file by REST."""
        response = httpx.post(
            self.url + "/instances", content=path.read_bytes(), timeout=60, trust_env=False, auth=self._user
        )
        response.raise_for_status()
        return dict(response.json())


@contextmanager
def orthanc(**settings: Any) -> Iterator[OrthancServer]:
    """Give a running Orthanc that is gone afterwards; see `OrthancServer` for the settings."""
    require_orthanc()
    server = OrthancServer(**settings)
    try:
        server.start()
        yield server
    finally:
        server.remove()
