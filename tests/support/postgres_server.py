"""A real PostgreSQL for tests: Debian's binaries, an unprivileged user, a free port, thrown away afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ports import free_port

USER = "nadir"


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    """A running server."""

    port: int
    """Loopback port."""
    folder: Path
    """Its data."""

    def url(self, name: str) -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def create(self, template: str = "template0", options: str = "") -> str:
        """Return the name of a new database, made with these options of CREATE DATABASE."""
        name = f"t{uuid.uuid4().hex}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" {options}')
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            dbname="postgres",
            autocommit=True,
            connect_timeout=60,
        ) as connection:
            connection.execute(statement)


def find_binaries() -> Path:
    """Return the folder of `initdb` and `postgres`; fail in CI when there is none, skip elsewhere."""
    on_path = shutil.which("initdb")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    reason = "no PostgreSQL server binaries; install the package postgresql"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Give a server that ends with the block."""
    binaries = find_binaries()
    folder = Path(tempfile.mkdtemp(prefix="nadir-pg-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        identity = _identity(folder)
        data = folder / "data"
        subprocess.run(
            [
                binaries / "initdb",
                "-D",
                data,
                "-U",
                USER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ],
            check=True,
            capture_output=True,
            cwd=folder,
            **identity,
        )
        for _ in range(5):
            port = free_port()
            process = _start(binaries, data, port, folder, identity)
            if _is_up(process, port):
                break
        else:
            pytest.fail(f"PostgreSQL did not start: {(folder / 'log').read_text()[-2000:]}")
        yield PostgresServer(port=port, folder=data)
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _identity(folder: Path) -> dict[str, Any]:
    """Return who runs the server: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    try:
        who = pwd.getpwnam("postgres")
    except KeyError:
        who = pwd.getpwnam("nobody")
    os.chown(folder, who.pw_uid, who.pw_gid)
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}


def _start(
    binaries: Path, data: Path, port: int, folder: Path, identity: dict[str, Any]
) -> subprocess.Popen[bytes]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "off",
        "full_page_writes": "off",
        "max_connections": "100",
        "shared_buffers": "32MB",
    }
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [binaries / "postgres", "-D", data, *arguments],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            **identity,
        )


def _is_up(process: subprocess.Popen[bytes], port: int) -> bool:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            psycopg.connect(
                host="127.0.0.1", port=port, user=USER, dbname="postgres", connect_timeout=60
            ).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return True
    return False
