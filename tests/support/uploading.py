"""A site to upload to, and what who uploads does: begin, send files and pieces, ask what became of them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from web_site import WebSite

from node.intake import Intake
from node.settle import Settler
from node.uploads import Uploads
from store import accounts
from store.objects import ObjectStore


@contextmanager
def uploading(home: Path) -> Iterator[WebSite]:
    """Give a site with a physicist, pia, and a viewer, vic."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "SCRYPT_N", 1 << 10)
        made = WebSite(home, reserve_bytes=0)
        made.account("pia", "physicist")
        made.account("vic", "viewer")
        yield made
        made.stop()


def desk_of(site: WebSite) -> Uploads:
    """Return the uploads of a site."""
    return Uploads(site.settings, Intake(site.database, ObjectStore(site.settings.home / "store")))


def work_off(site: WebSite) -> None:
    """Deal with all that was uploaded and waits for it."""
    desk = desk_of(site)
    while desk.tick(site.database.now()):
        pass


def begin(client: httpx.Client, **said: Any) -> str:
    """Begin an upload; return its address."""
    return f"/api/uploads/{client.post('/api/uploads', json=said).json()['id']}"


def put(
    client: httpx.Client, upload: str, number: int, data: bytes, name: str = "a.dcm", **headers: str
) -> httpx.Response:
    """Send a file, or a piece of one."""
    named = {"X-File-Name": name, **{key.replace("_", "-"): value for key, value in headers.items()}}
    return client.put(f"{upload}/files/{number}", content=data, headers=named)


def zipped(members: dict[str, bytes]) -> bytes:
    """Return a zip file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def counts(client: httpx.Client, upload: str) -> dict[str, int]:
    """Return how many files of an upload are in each state."""
    return dict(client.get(upload).json()["counts"])


def settle(site: WebSite) -> list[int]:
    """Return the studies that settle now, with a quiet time that nobody waits for."""
    settler = Settler(site.database, [], quiet_seconds=3600, hard_cap_seconds=36000)
    return [one.study_pk for one in settler.tick(site.database.now())]
