"""What is installed, reachable and writable, and whether a GPU is used. Looks, and changes nothing."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, entry_points, version
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from sqlalchemy import inspect
from sqlalchemy.engine import make_url
from sqlmodel import Session

from models.extras import how_to_install
from models.place import Places
from models.runtime import default_cache, kept_trials
from node.audit import pseudonym_key, sinks_of
from node.callers import Callers
from node.committer import callers_of
from node.deliveries import key_of
from node.doctor_home import home, mending
from node.doctor_peers import peers
from node.examined import Line
from node.objects_place import are_gone, none_in
from node.rows_place import require_own_place
from node.settings import Settings
from node.tls import SOON_DAYS, certificate_files, days_left, https_context, server_context
from node.variables import foreign
from node.web.access import require_keys
from node.web.viewer_files import find_pages, how_to_bring
from plugins.errors import NadirError, Refused
from plugins.registry import GROUP, load_plugins
from store import accounts, outbox
from store.access_tables import Account
from store.database import Database, place_of
from store.dicom.decode import can_decode
from store.registry import active

T = TypeVar("T")

NEEDED = ("pydicom", "pynetdicom", "highdicom", "imagecodecs")
RUNTIMES = ("torch", "openvino", "onnxruntime")
LEARNING = ("torch", "monai", "scikit-learn", "lifelines", "apscheduler")
SYNTAXES = {
    "JPEG": "1.2.840.10008.1.2.4.50",
    "JPEG Lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "RLE": "1.2.840.10008.1.2.5",
}


def examine(settings: Settings) -> list[Line]:
    """Return what was found, one line a thing; never raises for a thing that is missing."""
    return [
        *_software(),
        *_decoders(),
        *_plugins(settings),
        *home(settings),
        _database(settings),
        *_objects(settings),
        *_variables(),
        *_unserved(settings),
        *_not_served(settings),
        *_same_ports(settings),
        *_audit_file(settings),
        *([_port("DICOM port", settings.dicom_host, settings.dicom_port)] if settings.plain_dicom else []),
        *_tls(settings),
        _port("HTTP port", settings.http_host, settings.http_port),
        *(
            [_port("metrics port", settings.metrics_host, settings.metrics_port)]
            if settings.metrics_port
            else []
        ),
        *_commitment_callers(settings),
        *peers(settings),
        _viewer(settings),
        _gpu(),
        *_runtimes(),
    ]


def _software() -> Iterator[Line]:
    python = f"{sys.version.split()[0]} ({sys.executable})"
    yield Line(what="python", ok=sys.version_info >= (3, 11), says=python)
    for name in ("nadir", *NEEDED, *LEARNING):
        needed = name not in LEARNING
        try:
            yield Line(what=name, ok=True, says=version(name), needed=needed)
        except PackageNotFoundError:
            how = how_to_install("" if needed else "learn")
            yield Line(what=name, ok=False, says=f"not installed: {how}", needed=needed)


def _decoders() -> Iterator[Line]:
    for name, uid in SYNTAXES.items():
        ok = can_decode(uid)
        yield Line(what=f"{name} decoder", ok=ok, says="installed" if ok else "missing: reinstall nadir")


def _plugins(settings: Settings) -> Iterator[Line]:
    offered, places = {entry.name for entry in entry_points(group=GROUP)}, _places(settings)
    for name in sorted({*(offered if settings.enabled is None else settings.enabled), *settings.plugins}):
        try:
            values: Mapping[str, Mapping[str, object]] = {name: settings.plugins.get(name, {})}
            (plugin,) = load_plugins(values, [name], places)
        except NadirError as error:
            yield Line(what=f"analysis {name}", ok=False, says=str(error))
        else:
            card = plugin.model
            by = "" if card is None else f", by {card.name} {card.version} ({card.kind})"
            yield Line(what=f"analysis {name}", ok=True, says=f"{plugin.version}, {plugin.title}{by}")


def has_people(settings: Settings) -> bool:
    """Return True when somebody may sign in to the pages."""
    return _asked(settings, lambda session: bool(accounts.list_accounts(session)), False)


def _places(settings: Settings) -> Places:
    """Return the models made here that count; none without a database that tells it."""
    nothing: Places = {}
    return _asked(settings, lambda session: active(session, settings.home), nothing)


def _asked(settings: Settings, question: Callable[[Session], T], otherwise: T) -> T:
    """Return what the database answers; `otherwise` without one, or where it fails: that has a line of its own."""
    if not _is_made(settings):
        return otherwise
    try:
        database = Database(settings.sql_url)
        try:
            with database.reading() as session:
                return question(session)
        finally:
            database.dispose()
    except NadirError:
        return otherwise


def _is_made(settings: Settings) -> bool:
    """Return True unless the database is a file that is not there yet."""
    return bool(settings.database_url) or (settings.home / "nadir.sqlite").is_file()


def _database(settings: Settings) -> Line:
    try:
        url = make_url(settings.sql_url)
        file = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
        if file is not None and not file.is_file():
            require_own_place(settings, place_of(settings.sql_url))
            return Line(what="database", ok=True, says=f"SQLite, made in {file} when the node first starts")
        if file is not None and not os.access(file, os.R_OK | os.W_OK):
            return Line(what="database", ok=False, says=f"{file} cannot be written or read; {mending(file)}")
        database = Database(settings.sql_url)
        try:
            is_current, is_read_only = database.is_current(), database.is_read_only()
            if not is_current and database.is_empty():
                require_own_place(settings, database.where)
            database.require_unicode()
        finally:
            database.dispose()
    except Exception as error:  # a driver that is not installed, a URL that is none: each has its own error
        says = str(error) if isinstance(error, NadirError) else f"{type(error).__name__}: check database_url"
        return Line(what="database", ok=False, says=says)
    if is_read_only:
        says = "answers and takes no writes, as a standby: name the server that does in database_url"
        return Line(what="database", ok=False, says=says)
    state = "up to date" if is_current else "its tables are made or upgraded when the node starts"
    return Line(what="database", ok=True, says=f"{url.get_backend_name()} answers, {state}")


def _objects(settings: Settings) -> Iterator[Line]:
    """Tell that rows name objects and none is there: no node starts so."""
    if _asked(settings, lambda session: are_gone(session, settings.home), False):
        yield Line(what="object store", ok=False, says=none_in(settings.home))


def _unserved(settings: Settings) -> Iterator[Line]:
    """Tell of results that wait for a destination that was taken out of the settings."""
    nothing: dict[str, int] = {}
    waiting = _asked(settings, lambda s: outbox.unserved(s, map(key_of, settings.destinations)), nothing)
    for destination, count in waiting.items():
        says = f"{count} results wait for it, but it is no destination of the settings: name or abandon it"
        yield Line(what=f"destination {destination}", ok=False, says=says)


def _variables() -> Iterator[Line]:
    """Tell of variables that begin as settings do and are none."""
    for name in foreign():
        says = "is no setting and changes nothing"
        yield Line(what=f"variable {name}", ok=False, says=says, needed=False)


def _not_served(settings: Settings) -> Iterator[Line]:
    """Tell what `nadir serve` would refuse of the settings, in its words; no port is opened and no file is made."""
    accept_any, certificates = settings.accept_any, settings.caller_certificates
    asked: dict[str, Callable[[], object]] = {
        "callers": lambda: Callers.parse(settings.callers, accept_any=accept_any, certificates=certificates),
        "commitment callers": lambda: callers_of(settings.commitment_callers),
        "audit trail": lambda: sinks_of(settings),
        "audit key": lambda: _audit_key(settings),
        "HTTPS": lambda: https_context(settings),
        "sign-in": lambda: require_keys(settings, has_any=_asked(settings, _may_enter, _is_made(settings))),
    }
    for what, ask in asked.items():
        try:
            ask()
        except NadirError as error:
            yield Line(what=what, ok=False, says=str(error))


def _audit_key(settings: Settings) -> None:
    """Read the key of the pseudonyms where it is made already. Refuses and raises as `pseudonym_key`."""
    if os.path.exists(settings.home / "audit.key"):
        pseudonym_key(settings)


def _commitment_callers(settings: Settings) -> Iterator[Line]:
    """Tell of callers that may ask for storage commitment, and are rejected because they may not send."""
    try:
        callers = Callers.parse(settings.callers, accept_any=settings.accept_any)
        asking = callers_of(settings.commitment_callers)
    except Refused:
        return  # told in a line of its own
    for text, known in asking.items():
        (entry,) = known.entries
        addresses = [str(network.network_address) for network in entry.networks or ()]
        if not any(callers.admits(entry.ae_title or "", address) for address in addresses):
            caller = text.rpartition(":")[0]
            says = f"is rejected (calling-ae), as it is none of the callers: name {caller} there too"
            yield Line(what=f"commitment caller {text}", ok=False, says=says, needed=False)


def _may_enter(session: Session) -> bool:
    """Return True once there was an account or a token; a database that has no tables yet knows of none."""
    return inspect(session.connection()).has_table(str(Account.__tablename__)) and accounts.has_any(session)


def _same_ports(settings: Settings) -> Iterator[Line]:
    """Tell of ports that only one of two can have."""
    s = settings
    doors = [
        ("dicom_port", s.dicom_host, s.dicom_port if s.plain_dicom else 0),
        ("tls_port", s.dicom_host, s.tls_port),
        ("http_port", s.http_host, s.http_port),
        ("metrics_port", s.metrics_host, s.metrics_port),
    ]
    for (first, here, port), (second, there, other) in combinations(doors, 2):
        if port and port == other and _meet(here, there):
            says = f"{first} is {port} too: give one of them another"
            yield Line(what=second, ok=False, says=says)


def _meet(here: str, there: str) -> bool:
    """Return True when two hosts have an address in common."""
    ours, theirs = _addresses(here), _addresses(there)
    return bool(ours & theirs) or not ours or not theirs


def _addresses(host: str) -> set[str]:
    """Return the addresses of a host; none for all that this machine has."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return {host}
    return set() if found & {"0.0.0.0", "::"} else found  # noqa: S104


def _audit_file(settings: Settings) -> Iterator[Line]:
    """Tell that the audit file cannot be appended to; SQL keeps the trail until then."""
    path = settings.audit_file
    if path is None:
        return
    says = ""
    if not path.parent.is_dir():
        says = f"the folder {path.parent} does not exist: make it, or change audit_file"
    elif path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        says = "cannot be written: change its rights, or audit_file"
    if says:
        yield Line(what=f"audit file {path}", ok=False, says=says, needed=False)


def _port(what: str, host: str, port: int) -> Line:
    """Tell whether a port can be bound; one in use is no fault, for it may be this very node that runs."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        says = "in use: the node runs, or another program has it" if in_use else f"{error.strerror or error}"
        return Line(what=what, ok=False, says=f"{host}:{port} {says}", needed=not in_use)
    return Line(what=what, ok=True, says=f"{host}:{port} is free")


def _tls(settings: Settings) -> Iterator[Line]:
    """Tell of the TLS port, and of every certificate and key; a key that everybody may read is nobody's secret."""
    try:
        if settings.tls_port:
            yield _port("DICOM TLS port", settings.dicom_host, settings.tls_port)
            server_context(settings)
    except Refused as refused:
        yield Line(what="TLS", ok=False, says=str(refused))
    for path in certificate_files(settings):
        try:
            days = days_left(path, datetime.now(UTC))
        except Refused as refused:
            yield Line(what=f"TLS certificate {path}", ok=False, says=str(refused))
            continue
        says = f"expired {-days:.0f} days ago" if days < 0 else f"expires {days:.0f} days from now"
        yield Line(what=f"TLS certificate {path}", ok=days > SOON_DAYS, says=says, needed=days < 0)
    keys = {
        "TLS key": settings.tls_key or settings.tls_certificate,
        "HTTPS key": settings.http_tls_key or settings.http_tls_certificate,
    }
    for what, key in keys.items():
        if key is not None and key.is_file() and key.stat().st_mode & 0o007:
            says = f"{key} is open to everybody on this machine: chmod o-rwx {key}"
            yield Line(what=what, ok=False, says=says, needed=False)


def _viewer(settings: Settings) -> Line:
    found, named = find_pages(settings), settings.viewer_pages
    why = how_to_bring()
    if named is not None:
        lacks = "holds no index.html of OHIF" if named.is_dir() else "is not there"
        why = f"{named}, which viewer_pages names, {lacks}"
    says = str(found or f"not installed: {why}")
    return Line(what="viewer", ok=found is not None, says=says, needed=False)


def _gpu() -> Line:
    if importlib.util.find_spec("torch") is None:
        return Line(what="GPU", ok=False, says="not used: torch is not installed", needed=False)
    try:
        import torch

        name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    except (
        Exception
    ) as error:  # a broken driver or build shows itself in many ways, none of which stops the node
        says = f"not used: torch cannot be loaded ({type(error).__name__})"
        return Line(what="GPU", ok=False, says=says, needed=False)
    if not name:
        says = f"none; everything runs on the CPU (torch {torch.__version__})"
        return Line(what="GPU", ok=False, says=says, needed=False)
    by_trial = sorted(
        {trial.model for trial in kept_trials(default_cache()) if trial.kind.startswith("cuda")}
    )
    trials = (
        f"{', '.join(by_trial)} by their trials" if by_trial else "no other network's trial chose it so far"
    )
    says = f"{name}; computes petct_multitask whenever that is asked for, {trials}; all else runs on the CPU"
    return Line(what="GPU", ok=True, says=says, needed=False)


def _runtimes() -> Iterator[Line]:
    """Tell what computes each network: the fastest of a trial made here when it was first asked."""
    fastest = {trial.model: trial for trial in kept_trials(default_cache())}
    for model, trial in sorted(fastest.items()):
        others = ", ".join(f"{kind} {ms:.1f}" for kind, ms in trial.ms.items() if kind != trial.kind)
        says = f"{trial.kind}, {trial.ms[trial.kind]:.1f} ms a patch ({others})"
        yield Line(what=f"runtime of {model}", ok=True, says=says, needed=False)
    if not fastest:
        there = ", ".join(name for name in RUNTIMES if importlib.util.find_spec(name) is not None)
        says = f"{there or 'none'}; the fastest is found by a trial when a network first runs"
        yield Line(what="runtime", ok=bool(there), says=says, needed=False)


__all__ = ["Line", "examine", "has_people"]
