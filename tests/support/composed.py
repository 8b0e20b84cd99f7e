"""`compose.yaml` as docker-compose reads it, the secrets it is given, and its services started without an engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from node_process import NADIR
from orthanc_server import HOOK, NOBODY, PATH, PLUGINS
from ports import free_port
from postgres_server import PostgresServer
from programs import ROOT, program

from node.serve import ROLES


def composed(file: Path, *flags: str, group: str | None = "1000") -> subprocess.CompletedProcess[str]:
    """Return what docker-compose makes of a file."""
    environment = {"PATH": os.environ["PATH"]} | ({"NADIR_SECRETS_GROUP": group} if group else {})
    command = [program("docker-compose", "docker-compose"), "--project-directory", ROOT, "-f", file, *flags]
    return subprocess.run(
        [*command, "config"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        cwd="/",
    )


def make_secrets(folder: Path) -> Path:
    """Return the folder that `make secrets` fills."""
    made = folder / "secrets"
    done = subprocess.run(
        [ROOT / ".ci" / "secrets", made], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return made


@dataclass
class Composed:
    """The services of `compose.yaml`, each with its own environment and secrets, on the loopback."""

    folder: Path
    secrets: Path
    ports: Mapping[str, int]
    logs: dict[str, Path]

    def pacs(self) -> httpx.Client:
        """Return a client of Orthanc with the password that was made."""
        users = json.loads((self.secrets / "orthanc_users.json").read_text())["RegisteredUsers"]
        url = f"http://127.0.0.1:{self.ports['orthanc']}"
        return httpx.Client(base_url=url, auth=("nadir", users["nadir"]), trust_env=False, timeout=30)

    def told(self) -> str:
        """Return the metrics as Prometheus would be given them."""
        token = (self.secrets / "metrics_token").read_text().strip()
        answer = httpx.get(
            f"http://127.0.0.1:{self.ports['web']}/metrics",
            headers={"Authorization": f"Bearer {token}", "X-Forwarded-For": "10.0.0.1"},
            trust_env=False,
        )
        return answer.raise_for_status().text


@contextmanager
def running(folder: Path, postgres: PostgresServer, **settings: str) -> Iterator[Composed]:
    """Start what `docker compose up` would, with names and mounts exchanged for ports and folders of this machine."""
    services = yaml.safe_load(composed(ROOT / "compose.yaml").stdout)["services"]
    secrets = make_secrets(folder)
    ports = {name: free_port() for name in (*ROLES, "orthanc", "orthanc-dicom", "dicom")}
    metrics = {name: free_port() for name in ROLES}
    database = postgres.create()
    changed = {
        "http://web:8080": f"http://127.0.0.1:{ports['web']}",
        "orthanc:8042": f"127.0.0.1:{ports['orthanc']}",
        "/run/secrets": str(secrets),
        "0.0.0.0": "127.0.0.1",
    }
    for name in ("database_url", "pacs_url"):
        text = _exchanged((secrets / name).read_text(), changed)
        (secrets / name).chmod(0o600)
        (secrets / name).write_text(postgres.url(database) if name == "database_url" else text)
    made = Composed(folder=folder, secrets=secrets, ports=ports, logs={})
    with ExitStack() as last:
        last.callback(postgres.drop, database)
        last.enter_context(_orthanc(made, services["orthanc"], changed))
        for role in ROLES:
            own = {
                **_environment(services[role], changed),
                "NADIR_HOME": str(folder / "home"),
                "NADIR_DICOM_PORT": str(ports["dicom"]),
                "NADIR_HTTP_PORT": str(ports["web"]),
                "NADIR_METRICS_PORT": str(metrics[role]),
                **settings,
            }
            last.enter_context(_process(made, role, [NADIR, *services[role]["command"]], own))
        for role, port in metrics.items():
            _await(f"http://127.0.0.1:{port}/health", made.logs[role])
        yield made


def _environment(service: Mapping[str, Any], changed: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NADIR_")}
    return kept | {n: _exchanged(str(v), changed) for n, v in service["environment"].items()}


def _exchanged(text: str, changed: Mapping[str, str]) -> str:
    for old, new in changed.items():
        text = text.replace(old, new)
    return text


@contextmanager
def _process(
    made: Composed, name: str, command: list[Any], environment: dict[str, str], **how: Any
) -> Iterator[None]:
    made.logs[name] = made.folder / f"{name}.log"
    with made.logs[name].open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, **how)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextmanager
def _orthanc(made: Composed, service: Mapping[str, Any], changed: Mapping[str, str]) -> Iterator[None]:
    """Start Orthanc with the folder of its image: the configuration, the hook, and the users as a secret."""
    base = Path(tempfile.mkdtemp(prefix="nadir-orthanc-"))  # nobody else may enter pytest's own folder
    (base / "compose").mkdir()
    (base / "db").mkdir()
    shutil.copy(HOOK, base)
    config = json.loads((ROOT / "orthanc" / "compose.json").read_text())
    for name in ("StorageDirectory", "IndexDirectory"):
        assert config[name] == "/var/lib/orthanc/db"
        config[name] = str(base / "db")
    config |= {"PythonScript": str(base / HOOK.name), "StableAge": 1, "HttpBindAddresses": ["127.0.0.1"]}
    config |= {"HttpPort": made.ports["orthanc"], "DicomPort": made.ports["orthanc-dicom"]}
    config["TemporaryDirectory"] = str(base / "db")
    config["Plugins"] = [str(PLUGINS / Path(plugin).name) for plugin in config["Plugins"]]
    (base / "compose" / "pacs.json").write_text(json.dumps(config))
    shutil.copy(made.secrets / "orthanc_users.json", base / "compose" / "users.json")
    shutil.copy(made.secrets / "hook_token", base)
    changed = {"/run/secrets": str(base)} | {old: new for old, new in changed.items() if "secrets" not in old}
    environment = {**_environment(service, changed), "PATH": PATH}
    how: dict[str, Any] = {}
    if os.getuid() == 0:
        for path in (base, *base.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        how = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    with _process(made, "orthanc", ["Orthanc", base / "compose"], environment, cwd=base, **how):
        deadline = time.monotonic() + 30
        while True:
            try:
                with made.pacs() as client:
                    client.get("/system").raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline, made.logs["orthanc"].read_text()[-2000:]
                time.sleep(0.1)
        yield
    shutil.rmtree(base, ignore_errors=True)


def _await(url: str, log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.2)
