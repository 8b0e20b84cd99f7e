"""HTTP towards public archives whose connections break: asked again with patience, resumed where that is safe.

Errors: `Refused` when asking again will not help, `Unavailable` when the server did not manage in all attempts,
`Halted` when nothing more can be fetched at all. A token goes to the origin it was given for and nowhere else.
"""

from __future__ import annotations

import errno
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx

from plugins.errors import Refused, Unavailable

TIMEOUT = httpx.Timeout(60.0, connect=15.0, pool=None)
BLOCK_BYTES = 1 << 18
MAX_JSON_BYTES = 256 << 20
MAX_REDIRECTS = 5
LONG_PAUSE_S = 5.0
TRANSIENT = frozenset({408, 425, 429})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

Answer = TypeVar("Answer")
Query = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often a server is asked again, and how long is waited in between."""

    attempts: int = 6
    """Times that one thing is asked for."""
    first_wait_s: float = 1.0
    """Longest wait after the first failure; it doubles each time, and what is waited is drawn below it."""
    longest_wait_s: float = 60.0
    """Where the doubling ends."""
    longest_retry_after_s: float = 900.0
    """A server that asks for a longer pause than this (`Retry-After`) is given up."""


class Halted(Unavailable):
    """Nothing more can be fetched: the disk is full, or somebody stopped it."""


class Busy(Unavailable):
    """The server, or the way to it, did not manage this time."""

    def __init__(self, sentence: str, retry_after_s: float = 0.0) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, kw_only=True)
class Remote:
    """One file of a server, and what is known of it before it is fetched."""

    url: str
    """Where it is."""
    query: Query | None = None
    """Parameters of the request."""
    size_bytes: int | None = None
    """Its length, when the source lists it."""
    etag: str = ""
    """Its entity tag with quotes, when the source lists it."""
    at_most_bytes: int | None = None
    """A longer one is refused."""


class Wire:
    """Connections to one origin.

    Parameters
    ----------
    base_url
        What paths are relative to.
    friends
        Domains besides the origin's own host that it may redirect to, by https only.
    token
        Sent as `Authorization: Bearer` to this origin.
    connections
        Most connections at one time.
    tell
        Called with the number of bytes as they come; negative when they are thrown away again.

    `say` may be set to what is called with a sentence before a pause that a person would notice.
    """

    def __init__(
        self,
        base_url: str,
        *,
        friends: tuple[str, ...] = (),
        token: str = "",
        connections: int = 4,
        patience: Patience | None = None,
        sleep: Callable[[float], object] | None = None,
        tell: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.origin = _url(base_url)
        self.base_url = str(self.origin).rstrip("/")
        self.connections = connections
        self.tell = tell
        self.say: Callable[[str], None] = lambda _: None
        self.stop = threading.Event()
        self._friends = friends
        self._token = token
        self._patience = patience or Patience()
        self._sleep = sleep or self.stop.wait
        self._client = httpx.Client(
            timeout=TIMEOUT,
            follow_redirects=False,
            # The proxy of a hospital is in its environment; nothing on this machine lies behind it.
            trust_env=self.origin.host not in LOOPBACK,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def json(self, path: str, query: Query) -> Any:
        """Return the JSON value at a path; None for an empty answer."""
        body = self.body(f"{self.base_url}/{path}", query)
        try:
            return json.loads(body) if body.strip() else None
        except (ValueError, RecursionError) as error:
            raise Unavailable(f"{self.base_url}/{path} answered with something that is not JSON") from error

    def body(self, url: str, query: Query) -> bytes:
        """Return the bytes of an answer."""

        def once() -> bytes:
            found = bytearray()
            with self._answer(url, query, {}) as response:
                for block in response.iter_bytes(BLOCK_BYTES):
                    found += block
                    if len(found) > MAX_JSON_BYTES:
                        raise Refused(
                            "source-too-large", f"{url} answers with more than {MAX_JSON_BYTES} bytes"
                        )
            return bytes(found)

        return self._again(once)

    def file(self, remote: Remote, part: Path, judge: Callable[[Path], Answer]) -> Answer:
        """Return what `judge` says of a file that was fetched to `part`; raised `Busy`, it is fetched anew.

        What an earlier call left in `part` is gone on with when the server says by its entity tag that the file is
        the same. `judge` takes the file away, or leaves it to be removed.
        """

        def once() -> Answer:
            self._receive(remote, part)
            try:
                return judge(part)
            finally:
                part.unlink(missing_ok=True)
                _tag(part).unlink(missing_ok=True)

        return self._again(once)

    def _again(self, once: Callable[[], Answer]) -> Answer:
        for attempt in range(self._patience.attempts):
            if self.stop.is_set():
                raise Halted("stopped")
            try:
                return once()
            except Busy as busy:
                last = busy
            except OSError as error:
                self.stop.set()
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                why = "the disk is full" if full else f"{error.filename}: {error.strerror}"
                raise Halted(why) from error
            if last.retry_after_s > self._patience.longest_retry_after_s:
                break
            if attempt + 1 < self._patience.attempts:
                ceiling = min(self._patience.longest_wait_s, self._patience.first_wait_s * 2**attempt)
                pause_s = last.retry_after_s + random.uniform(0.0, ceiling)
                if pause_s >= LONG_PAUSE_S:
                    self.say(f"{last}; asked again in {pause_s:.0f} s")
                self._sleep(pause_s)
        raise Unavailable(f"{last} (asked {attempt + 1} times)") from last

    def _receive(self, remote: Remote, part: Path) -> None:
        """Append to `part` what is missing, or write it anew. Raises `Busy` when it did not come whole."""
        have, tag = _resumable(part, remote.etag)
        if have and have == remote.size_bytes:
            return
        headers = {"Range": f"bytes={have}-", "If-Range": tag} if have else {}
        with self._answer(remote.url, remote.query, headers, accept=(416,)) as response:
            if response.status_code == 206 and _begins_at(response, have):
                self.tell(have)
            elif response.status_code == 200:
                have = 0
                _tag(part).write_text(_strong(response.headers.get("ETag", "")))
            else:
                _tag(part).unlink(missing_ok=True)
                raise Busy(f"{_shown(response)} gave another part of the file than was asked for")
            length = _length(response)
            total = None if length is None else have + length
            if remote.size_bytes not in (None, total):
                raise Busy(f"{_shown(response)} gives {total} bytes, {remote.size_bytes} were listed")
            self._write(response, part, have, total, remote)

    def _write(
        self, response: httpx.Response, part: Path, have: int, total: int | None, remote: Remote
    ) -> None:
        limit = remote.at_most_bytes
        with part.open("ab" if have else "wb") as file:
            try:
                # Pieces as they come: one that is filled up first would be lost with a cut.
                for block in response.iter_raw():
                    if self.stop.is_set():
                        raise Halted("stopped")
                    file.write(block)
                    file.flush()  # a killed process leaves all that came
                    have += len(block)
                    self.tell(len(block))
                    if limit is not None and have > limit:
                        raise Refused("source-too-large", f"{_shown(response)} is longer than {limit} bytes")
            except (httpx.HTTPError, Refused):
                self.tell(-have)
                raise
        if total is not None and have != total:
            self.tell(-have)
            raise Busy(f"{_shown(response)} broke off after {have} of {total} bytes")

    @contextmanager
    def _answer(
        self, url: str, query: Query | None, headers: Mapping[str, str], accept: tuple[int, ...] = ()
    ) -> Iterator[httpx.Response]:
        """Give the open answer that the last of all allowed redirects leads to."""
        response = None
        try:
            target = httpx.URL(url, params=query) if query else httpx.URL(url)
            for _ in range(MAX_REDIRECTS + 1):
                response = self._send(target, headers)
                if not response.has_redirect_location:
                    break
                target = self._allowed(response)
                response.close()
            if response is None or response.is_redirect:
                raise Refused("source-redirect", f"{self.origin.host} redirects without an end")
            if response.status_code not in accept and not response.is_success:
                raise _error(response)
            yield response
        except httpx.HTTPError as error:
            raise Busy(f"{self.origin.host} does not answer ({type(error).__name__})") from error
        except httpx.InvalidURL as error:
            raise Refused("bad-url", f"'{url}' is not a URL that can be asked") from error
        finally:
            if response is not None:
                response.close()

    def _send(self, target: httpx.URL, headers: Mapping[str, str]) -> httpx.Response:
        sent = {"Accept-Encoding": "identity", **headers}
        if self._token and _origin(target) == _origin(self.origin):
            sent["Authorization"] = f"Bearer {self._token}"
        return self._client.send(self._client.build_request("GET", target, headers=sent), stream=True)

    def _allowed(self, response: httpx.Response) -> httpx.URL:
        """Return where an answer redirects to. Refuses `source-redirect`: elsewhere than the source's own domains."""
        target = response.url.join(response.headers["Location"])
        host = target.host.lower()
        known = any(host == friend or host.endswith(f".{friend}") for friend in self._friends)
        if target.userinfo or not (
            _origin(target) == _origin(response.url)
            or (target.scheme == "https" and (known or host == self.origin.host))
        ):
            text = f"{_shown(response)} redirects to {target.scheme}://{target.host}, which is not its own"
            raise Refused("source-redirect", text)
        return target


def _url(text: str) -> httpx.URL:
    """Return a URL that can be asked. Refuses `bad-url`."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise Refused("bad-url", f"'{text}' is not a URL") from error
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise Refused("bad-url", "a server is named by http(s)://host without user or password")
    return url


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _shown(response: httpx.Response) -> str:
    return f"{response.url.host}{response.url.path}"


def _tag(part: Path) -> Path:
    """Return the file beside a part that holds its entity tag."""
    return part.with_name(part.name + ".etag")


def _strong(etag: str) -> str:
    return "" if etag.startswith("W/") else etag


def _resumable(part: Path, listed_etag: str) -> tuple[int, str]:
    """Return how many bytes of a part may be gone on with, and the entity tag that they belong to."""
    try:
        tag = _tag(part).read_text()
        have = part.stat().st_size
    except OSError:
        return 0, ""
    return (have, tag) if tag and listed_etag in ("", tag) else (0, "")


def _begins_at(response: httpx.Response, have: int) -> bool:
    return bool(have) and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _length(response: httpx.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _error(response: httpx.Response) -> Refused | Unavailable:
    status, shown = response.status_code, _shown(response)
    if status >= 500 or status in TRANSIENT:
        return Busy(f"{shown} answered HTTP {status}", retry_after_s(response.headers.get("Retry-After", "")))
    if status in (404, 410):
        return Refused("source-unknown", f"{shown} does not know it (HTTP {status})")
    if status in (401, 403):
        return Refused("source-denied", f"{shown} denies access (HTTP {status})")
    return Refused("source-refused", f"{shown} refused the request (HTTP {status})")


def retry_after_s(text: str, now: datetime | None = None) -> float:
    """Return what `Retry-After` says, a number or a date (RFC 9110 section 10.2.3); 0 when it says nothing."""
    if text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        return max(0.0, (parsedate_to_datetime(text) - (now or datetime.now(UTC))).total_seconds())
    except (TypeError, ValueError):
        return 0.0


__all__ = ["Busy", "Halted", "Patience", "Remote", "Wire", "retry_after_s"]
