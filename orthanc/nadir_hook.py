"""Tell Nadir that a study in this Orthanc became stable.

Orthanc's Python plugin loads this one file (standard library only, plugin versions 4.0 to 7.1). The change
callback only queues; one daemon thread posts, with back-off, so neither Orthanc nor a sender ever waits for
Nadir. What is queued is lost when Orthanc dies, so at start the thread looks through Orthanc's own log of changes
and tells once more the studies that changed since three days before everything was told last: Nadir ignores what it
holds already. Where an instance that was told
before is stored anew (a corrected patient, other pixels), Nadir is asked to fetch the whole study.

Configuration, in orthanc.json (or NADIR_URL, and NADIR_TOKEN or NADIR_TOKEN_FILE, in the environment, which win)::

    "Nadir": {"Url": "http://127.0.0.1:8080", "Token": ""}
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

DEFAULT_URL = "http://127.0.0.1:8080"
TIMEOUT_SECONDS = 10.0
DELAYS_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
MAX_PENDING = 100000
CATCH_UP_DAYS = 3
CHANGES_PER_PAGE = 1000

# The hook's own global properties in Orthanc's database: when nothing waited last, and what was told of each study,
# in pages by its hash.
ALL_TOLD = 0x4E414400
FIRST_PAGE = 0x4E414401
MEMORY_PAGES = 1024

# Number of the error that Orthanc raises for what it does not hold (OrthancPluginErrorCode_UnknownResource).
UNKNOWN_RESOURCE = 17

# What the node says of this study and will say again: bad request, no JSON, not valid. Everything else, 404 too, may be
# a wrong address or a proxy in its place.
HOPELESS = (400, 415, 422)
NOT_LET_IN = (
    ': "Token" of the hook is not what the node asks for: its hook_token, or a token of the scope hook'
)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the token is for one address only."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Refuse."""
        return


def read_settings(configuration: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Return (URL, token) of Orthanc's configuration (JSON) and the environment, which wins. Raises ValueError."""
    section = json.loads(configuration).get("Nadir", {}) if configuration else {}
    if not isinstance(section, dict):
        raise ValueError('the section "Nadir" of the configuration must be an object')
    url = environment.get("NADIR_URL") or section.get("Url") or DEFAULT_URL
    token = environment.get("NADIR_TOKEN") or _file_of(environment) or section.get("Token") or ""
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise ValueError('"Nadir": "Url" must begin with http:// or https://')
    if not isinstance(token, str) or any(ord(c) < 33 or ord(c) > 126 for c in token):
        raise ValueError('"Nadir": "Token" must be printable ASCII without blanks')
    return url.rstrip("/"), token


def _file_of(environment: Mapping[str, str]) -> str:
    """Return what the file NADIR_TOKEN_FILE holds; empty when none is named. Raises ValueError."""
    path = environment.get("NADIR_TOKEN_FILE", "")
    try:
        with open(path or os.devnull, encoding="utf-8-sig") as file:
            return file.read(4096).strip()
    except (OSError, UnicodeError) as error:
        raise ValueError("the file NADIR_TOKEN_FILE of the environment cannot be read") from error


def post(url: str, token: str, body: Mapping[str, Any]) -> int:
    """Return the HTTP status that the node answers to `body`. Raises OSError when nothing answers."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = "Bearer " + token
    data = json.dumps(body).encode("ascii")
    request = urllib.request.Request(url + "/intake/study", data, headers)  # noqa: S310 - read_settings saw the scheme
    # No proxy: the node is a neighbour, and which studies exist is nobody else's business.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            answer.read(4096)
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)


def changed_studies(orthanc: Any, since: datetime.datetime) -> list[str]:
    """Return the Orthanc identifiers of the studies that changed after `since` (UTC), newest first."""
    found: dict[str, None] = {}
    newest = json.loads(orthanc.RestApiGet("/changes?last")).get("Last", 0)
    limit = since.strftime("%Y%m%dT%H%M%S")
    while newest > 0:
        first = max(newest - CHANGES_PER_PAGE, 0)
        page = json.loads(orthanc.RestApiGet(f"/changes?since={first}&limit={CHANGES_PER_PAGE}"))
        changes = [c for c in page["Changes"] if first < c["Seq"] <= newest]
        for change in reversed(changes):
            if change.get("ResourceType") == "Study" and change.get("Date", "") >= limit:
                found[change["ID"]] = None
        if any(change.get("Date", "") < limit for change in changes):
            break
        newest = first
    return list(found)


def stored_files(orthanc: Any, uid: str) -> list[tuple[str, str]]:
    """Return when each instance of a study was stored (UTC, whole seconds) and as which file, oldest first.

    Two patients in the images of one Study Instance UID are two studies of Orthanc and one of Nadir. Of an instance
    that is in both, what was stored last counts.
    """
    same = [
        found["ID"]
        for found in json.loads(orthanc.RestApiPost("/tools/lookup", uid))
        if found["Type"] == "Study"
    ]
    query = {"Resources": same, "Level": "Instance", "Metadata": True}
    found = json.loads(orthanc.RestApiPost("/tools/bulk-content", json.dumps(query)))
    files = sorted((one["Metadata"]["ReceptionDate"], one["FileUuid"], _sop_uid(one)) for one in found)
    newest = {sop_uid: (at, name) for at, name, sop_uid in files}
    return sorted(newest.values())


def _sop_uid(instance: dict[str, Any]) -> str:
    return str(instance["MainDicomTags"]["SOPInstanceUID"])


class Memory:
    """What was told of each study, in Orthanc's database: it outlives Orthanc, and a study that gets another patient.

    Of a study it keeps when its newest instance was stored, and a hash of the files until then. Instances that come
    later leave that hash as it is; one that is stored anew under its old UID changes it.
    """

    def __init__(self, orthanc: Any) -> None:
        self._orthanc = orthanc

    def has_changed(self, uid: str, files: list[tuple[str, str]]) -> bool:
        """Return whether something that was told before is no longer what it was."""
        known = self._page(uid).get(uid)
        return known is not None and known[1] != _hash_until(files, known[0])

    def remember(self, uid: str, files: list[tuple[str, str]]) -> None:
        """Keep what was told of a study."""
        newest = files[-1][0] if files else ""
        page = {**self._page(uid), uid: [newest, _hash_until(files, newest)]}
        self._orthanc.SetGlobalProperty(_page_of(uid), json.dumps(page))

    def all_told(self, now: float) -> None:
        """Keep that nothing waits at `now` (seconds since 1970)."""
        self._orthanc.SetGlobalProperty(ALL_TOLD, str(int(now)))

    def look_from(self, now: float) -> datetime.datetime:
        """Return since when studies may be untold: some days before all were told last, as they need time to settle."""
        kept = self._orthanc.GetGlobalProperty(ALL_TOLD, "")
        if not kept:
            self.all_told(now)
        return _days_before(min(float(kept or now), now))

    def _page(self, uid: str) -> dict[str, list[str]]:
        page: dict[str, list[str]] = json.loads(self._orthanc.GetGlobalProperty(_page_of(uid), "{}"))
        return page


def _days_before(now: float) -> datetime.datetime:
    utc = datetime.timezone.utc  # noqa: UP017 - also Python 3.9
    return datetime.datetime.fromtimestamp(now - CATCH_UP_DAYS * 86400, utc)


def _page_of(uid: str) -> int:
    return FIRST_PAGE + int(hashlib.sha256(uid.encode()).hexdigest()[:8], 16) % MEMORY_PAGES


def _hash_until(files: list[tuple[str, str]], newest: str) -> str:
    names = sorted(name for at, name in files if at <= newest)
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]


class Teller:
    """Queues studies and tells the node of each, in one thread, until it answers.

    Parameters
    ----------
    orthanc
        Orthanc's module.
    url, token
        Where the node is, and what it asks for.
    send
        `post`, or another function of the same shape.
    delays
        Seconds to wait after each failure in a row; the last one repeats.

    """

    def __init__(
        self,
        orthanc: Any,
        url: str,
        token: str,
        send: Callable[[str, str, Mapping[str, Any]], int] = post,
        delays: tuple[float, ...] = DELAYS_SECONDS,
    ) -> None:
        self.orthanc = orthanc
        self.url = url
        self.token = token
        self.send = send
        self.delays = delays
        self.told = 0
        self.failures = 0
        self.last_error = ""
        self._memory = Memory(orthanc)
        self._is_forgetful = False
        self._is_complete = True
        self._pending: dict[str, int] = {}
        self._serial = 0
        self._condition = threading.Condition()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="nadir", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; waits two seconds at most."""
        self._stopped.set()
        with self._condition:
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(2.0)

    def queue(self, orthanc_id: str) -> None:
        """Remember a study; returns at once. One that waits already is told once."""
        with self._condition:
            if orthanc_id not in self._pending and len(self._pending) >= MAX_PENDING:
                self.last_error = (
                    f"more than {MAX_PENDING} studies wait; the node must find the rest by itself"
                )
                self._is_complete = False
                return
            self._serial += 1
            self._pending[orthanc_id] = self._serial
            self._condition.notify_all()

    def status(self) -> dict[str, Any]:
        """Return what an administrator may ask for; no patient data."""
        with self._condition:
            return {
                "url": self.url,
                "waiting": len(self._pending),
                "told": self.told,
                "failures_in_a_row": self.failures,
                "last_error": self.last_error,
            }

    def _catch_up(self) -> None:
        """Queue what may not have been told before Orthanc started."""
        now = time.time()
        try:
            since = self._remembering(lambda: self._memory.look_from(now)) or _days_before(now)
            for orthanc_id in changed_studies(self.orthanc, since):
                self.queue(orthanc_id)
        except Exception as error:  # whatever Orthanc raises, the thread must live
            self._is_complete = False
            self._log(f"could not look for missed studies: {type(error).__name__}")

    def _run(self) -> None:
        self._catch_up()
        while not self._stopped.is_set():
            with self._condition:
                while not self._pending and not self._stopped.is_set():
                    self._condition.wait()
                if self._stopped.is_set():
                    return
                orthanc_id, serial = next(iter(self._pending.items()))
            done = self._tell(orthanc_id)
            with self._condition:
                if not done:  # to the end, so that one study the node stumbles over does not hold the others
                    self._pending[orthanc_id] = self._pending.pop(orthanc_id)
                elif (
                    self._pending[orthanc_id] == serial
                ):  # else it became stable again meanwhile: tell it again
                    del self._pending[orthanc_id]
                is_all = not self._pending and self._is_complete
            if is_all:
                self._remembering(lambda: self._memory.all_told(time.time()))
            if not done:
                self._stopped.wait(self.delays[min(self.failures, len(self.delays)) - 1])

    def _tell(self, orthanc_id: str) -> bool:
        """Return True when nothing is left to do for this study."""
        try:
            tags = json.loads(self.orthanc.RestApiGet("/studies/" + orthanc_id))["MainDicomTags"]
            uid = tags["StudyInstanceUID"]
        except (KeyError, TypeError, ValueError):
            self._log(f"Orthanc's study {orthanc_id} has no Study Instance UID; it is not told")
            return True
        except Exception as error:  # Orthanc's own class of exceptions is not importable everywhere
            if error.args[:1] == (UNKNOWN_RESOURCE,):  # the study was deleted
                return True
            return self._failed(f"Orthanc does not say which study {orthanc_id} is ({type(error).__name__})")
        body: dict[str, Any] = {"study_instance_uid": uid, "orthanc_id": orthanc_id}
        files = self._remembering(lambda: stored_files(self.orthanc, uid))
        if files and self._remembering(lambda: self._memory.has_changed(uid, files)):
            body["everything"] = True
        try:
            status = self.send(self.url, self.token, body)
        except Exception as error:  # URLError, OSError, http.client errors, ...
            return self._failed(f"{self.url} does not answer ({type(error).__name__})")
        if 200 <= status < 300:
            if self.failures:
                self._log(f"{self.url} answers again")
            self.failures = 0
            self.last_error = ""
            if files:
                self._remembering(lambda: self._memory.remember(uid, files))
            self.told += 1
            return True
        if status in HOPELESS:
            self._failed(f"{self.url} refuses a study with HTTP {status}; it is not told again")
            self.failures = 0
            return True
        why = NOT_LET_IN if status == 401 else ""
        return self._failed(f"{self.url} answers HTTP {status}{why}")

    def _remembering(self, act: Callable[[], Any]) -> Any:
        """Return what `act` returns, or None: without a memory a study is told all the same."""
        try:
            return act()
        except Exception as error:  # whatever Orthanc raises
            if not self._is_forgetful:
                what = "Orthanc does not keep what was told: a corrected study may not be told as that"
                self._log(f"{what} ({type(error).__name__})")
            self._is_forgetful = True
            return None

    def _failed(self, text: str) -> bool:
        self.failures += 1
        if text != self.last_error or self.failures == 1:
            self._log(text)
        self.last_error = text
        return False

    def _log(self, text: str) -> None:
        self.orthanc.LogWarning("Nadir: " + text)


def install(orthanc: Any, environment: Mapping[str, str]) -> Teller | None:
    """Register the callbacks with Orthanc's module; returns the teller, or None when the configuration is wrong."""
    try:
        url, token = read_settings(orthanc.GetConfiguration(), environment)
    except ValueError as error:
        orthanc.LogError(f"Nadir: {error}; no study will be told")
        return None
    teller = Teller(orthanc, url, token)

    def on_change(change: int, level: int, resource: str) -> None:
        if change == orthanc.ChangeType.STABLE_STUDY:
            teller.queue(resource)
        elif change == orthanc.ChangeType.ORTHANC_STARTED:
            teller.start()
        elif change == orthanc.ChangeType.ORTHANC_STOPPED:
            teller.stop()

    def on_status(output: Any, uri: str, **request: Any) -> None:
        # AnswerBuffer and SendMethodNotAllowed kept their shape over all versions; SendHttpStatus did not.
        if request.get("method") != "GET":
            output.SendMethodNotAllowed("GET")
        else:
            output.AnswerBuffer(json.dumps(teller.status(), indent=1), "application/json")

    orthanc.RegisterOnChangeCallback(on_change)
    orthanc.RegisterRestCallback("/nadir/status", on_status)
    return teller


try:
    import orthanc as _module
except ImportError:
    pass
else:
    # Outside Orthanc a folder of this name may have been imported as an empty package: ask for what is needed.
    if hasattr(_module, "RegisterOnChangeCallback"):
        TELLER = install(_module, os.environ)
