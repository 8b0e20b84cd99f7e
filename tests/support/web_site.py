"""A running HTTP port with accounts and tokens, and clients for it."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import httpx
from empty_database import place_database
from fastapi import FastAPI

from node.audit import Audit
from node.audit_message import AuditMessage
from node.intake import Intake
from node.settings import Settings
from node.web import dashboard, dicom_web, stow
from node.web.app import create_app
from node.web.frame import frame_of
from node.web.server import WebServer
from node.web.site import Site
from store import accounts
from store.database import Database
from store.objects import ObjectStore

PASSWORD = "seven tall green tables"


class WebSite:
    """One HTTP port on a free port of the loopback."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.settings = Settings(home=home, **settings)
        place_database(home)
        self.database = Database(self.settings.sql_url, sync=False)
        objects = ObjectStore(home / "store", sync=False)
        intake = Intake(self.database, objects)
        self.heard: list[AuditMessage] = []
        self.trail: Audit | None = None
        site = Site(
            settings=self.settings,
            database=self.database,
            objects=objects,
            frame=frame_of(self.settings),
            record=self._hear,
        )
        routers = [
            stow.router(self.settings, intake, to_pacs=dicom_web.to_pacs(site)),
            *dashboard.routers(site),
        ]
        self.app: FastAPI = create_app(
            self.settings, self.database, routers=routers, frame=site.frame, record=self._hear
        )
        self.server = WebServer(self.app, "127.0.0.1", 0)
        self.server.start()
        self._clients: list[httpx.Client] = []

    def _hear(self, message: AuditMessage, *, once: Hashable = None) -> bool:
        """Take a message; where a test has put a trail, those alone that it takes."""
        if self.trail is not None and not self.trail.record(message, once=once):
            return False
        self.heard.append(message)
        return True

    @property
    def url(self) -> str:
        """Return where it answers."""
        return f"http://127.0.0.1:{self.server.port}"

    def client(self, **headers: str) -> httpx.Client:
        """Return a client with a cookie jar of its own."""
        made = httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60)
        self._clients.append(made)
        return made

    def account(self, name: str, role: str) -> None:
        """Add a person whose password is `PASSWORD`."""
        with self.database.transaction() as session:
            accounts.add_account(session, name, role, PASSWORD, self.database.now())

    def token(self, name: str, *scopes: str, days: float | None = None) -> str:
        """Return a new token."""
        with self.database.transaction() as session:
            return accounts.add_token(session, name, scopes, self.database.now(), days)

    def signed_in(self, name: str) -> httpx.Client:
        """Return a client that is signed in and sends the token of its session."""
        client = self.client()
        answer = client.post("/login", json={"name": name, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        page = client.get("/login").text
        client.headers["X-CSRF-Token"] = page.partition('name="csrf_token" value="')[2].partition('"')[0]
        return client

    def stop(self) -> None:
        """End it."""
        for client in self._clients:
            client.close()
        assert self.server.stop()
        self.database.dispose()
