"""What is installed, reachable and writable, and whether a GPU is used."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx

from node.scu import Timeouts, echo
from node.settings import Settings, parse_destination
from plugins.errors import NadirError
from plugins.registry import load_plugins
from store.database import Database

SYNTAXES = {
    "JPEG Lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "RLE": "1.2.840.10008.1.2.5",
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing that was examined."""

    what: str
    """What was looked at."""
    ok: bool
    """True when it is as it should be."""
    says: str
    """What was found, or what to do."""
    needed: bool = True
    """False for what the node can do without."""


def examine(settings: Settings) -> list[Line]:
    """Return what was found, one line a thing; never raises for a thing that is missing."""
    return [
        *_software(),
        *_plugins(settings),
        _home(settings.home),
        _database(settings),
        *(_destination(text, settings.ae_title) for text in settings.destinations),
        *([_pacs(settings.pacs_url)] if settings.pacs_url else []),
        _gpu(),
    ]


def _software() -> Iterator[Line]:
    yield Line(
        what="python", ok=sys.version_info >= (3, 11), says=sys.version.split()[0] + f" ({sys.executable})"
    )
    yield Line(what="nadir", ok=True, says=version("nadir"))
    for name in ("pydicom", "pynetdicom", "highdicom", "SimpleITK"):
        yield Line(what=name, ok=True, says=version(name))
    for name in ("torch", "monai", "scikit-learn", "lifelines", "apscheduler"):
        try:
            yield Line(what=name, ok=True, says=version(name), needed=False)
        except PackageNotFoundError:
            yield Line(what=name, ok=False, says="not installed: pip install 'nadir[learn]'", needed=False)
    from store.dicom.decode import can_decode

    for name, uid in SYNTAXES.items():
        ok = can_decode(uid)
        yield Line(what=f"{name} decoder", ok=ok, says="installed" if ok else "missing; reinstall nadir")


def _plugins(settings: Settings) -> Iterator[Line]:
    try:
        for plugin in load_plugins(settings.plugins, settings.enabled):
            yield Line(what=f"plugin {plugin.name}", ok=True, says=f"{plugin.version}: {plugin.title}")
    except NadirError as error:
        yield Line(what="plugins", ok=False, says=str(error))


def _home(home: Path) -> Line:
    there = home
    while not there.exists():
        there = there.parent
    try:
        with tempfile.NamedTemporaryFile(dir=there) as file:
            os.fsync(file.fileno())
    except OSError as error:
        return Line(what="home folder", ok=False, says=f"{home} cannot be written: {error.strerror}")
    free = shutil.disk_usage(there).free / 1e9
    state = "writable" if there == home else "can be made"
    return Line(what="home folder", ok=free > 1, says=f"{home} {state}, {free:.0f} GB free")


def _database(settings: Settings) -> Line:
    if not settings.database_url and not (settings.home / "nadir.sqlite").exists():
        return Line(what="database", ok=True, says="SQLite, made when the node first starts")
    try:
        database = Database(settings.sql_url)
        try:
            database.now()
            return Line(what="database", ok=True, says=f"{settings.sql_url.split(':')[0]} answers")
        finally:
            database.dispose()
    except NadirError as error:
        return Line(what="database", ok=False, says=str(error))


def _destination(text: str, calling_ae: str) -> Line:
    target = parse_destination(text)
    if isinstance(target, str):
        return _pacs(target)
    ae_title, host, port = target
    try:
        echo(
            ae_title=ae_title,
            host=host,
            port=port,
            calling_ae=calling_ae,
            timeouts=Timeouts(connect=3, associate=3, answer=3),
        )
    except NadirError as error:
        return Line(what=f"destination {text}", ok=False, says=str(error))
    return Line(what=f"destination {text}", ok=True, says="answers C-ECHO")


def _pacs(url: str) -> Line:
    try:
        status = httpx.get(f"{url}/studies", params={"limit": 1}, timeout=5).status_code
    except httpx.HTTPError as error:
        return Line(what=f"DICOMweb {url}", ok=False, says=f"does not answer: {type(error).__name__}")
    return Line(what=f"DICOMweb {url}", ok=status < 400, says=f"answers with HTTP {status}")


def _gpu() -> Line:
    if importlib.util.find_spec("torch") is None:
        return Line(what="GPU", ok=False, says="none: torch is not installed", needed=False)
    import torch

    if torch.cuda.is_available():
        return Line(
            what="GPU",
            ok=True,
            says=f"{torch.cuda.get_device_name(0)}; the analyses of this version run on the CPU",
            needed=False,
        )
    return Line(what="GPU", ok=False, says=f"none; torch {torch.__version__} runs on the CPU", needed=False)
