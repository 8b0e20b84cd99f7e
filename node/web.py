"""The HTTP port: liveness, metrics, the door for Orthanc's hook, and jobs and findings as JSON.

Who may ask: with `hook_token` set, who presents it (``Authorization: Bearer``); else only this machine. `/health` and
`/metrics` answer everybody and hold no patient data. Every error is one JSON object with one sentence.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from node import metrics, pull
from node.settings import Settings
from plugins.errors import Refused, Unavailable
from store import findings, jobs
from store.database import Database

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 14
BODY_SECONDS = 10.0
UID_PATTERN = r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+$"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
LOCAL_NAMES = re.compile(r"^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$")


class ToldStudy(BaseModel):
    """What the hook says: this study is stable."""

    model_config = ConfigDict(extra="forbid", strict=True)

    study_instance_uid: str = Field(max_length=64, pattern=UID_PATTERN, description="Study Instance UID")
    orthanc_id: str = Field(
        default="", max_length=64, pattern=r"^[0-9a-f-]*$", description="Orthanc's identifier"
    )
    everything: bool = Field(
        default=False, description="Fetch also what is held, because its content changed"
    )


def create_app(settings: Settings, database: Database, *, told: Callable[[], None] | None = None) -> FastAPI:
    """Return the web application.

    Parameters
    ----------
    settings
        Of them: `hook_token` and `pacs_url`.
    database
        Where everything is read from, and where a told study is written down before it is acknowledged.
    told
        Called when a study was told, to wake who pulls; not called for anything that could fail.

    """
    app = FastAPI(title="Nadir", docs_url=None, redoc_url=None, openapi_url=None)
    registry = metrics.registry(database)

    @app.middleware("http")
    async def _guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            if request.url.path not in ("/health", "/metrics"):
                _authorise(request, settings.hook_token)
            response = await call_next(request)
        except HTTPException as error:
            response = _error(error.status_code, str(error.detail))
        except Refused as error:
            response = _error(400, error.sentence, error.code)
        except Unavailable as error:
            response = _error(503, str(error), "unavailable", {"Retry-After": "10"})
        except Exception:  # the border of the web: a caller sees one sentence, the log the rest
            log.exception("a request failed")
            response = _error(500, "the node failed to answer; its log says why", "broken")
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(HTTPException)
    async def _http_error(_: Request, error: HTTPException) -> Response:
        return _error(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def _bad_query(_: Request, error: RequestValidationError) -> Response:
        return _error(422, _first_problem(error.errors()))

    @app.get("/health")
    def health() -> dict[str, str]:
        """Say that the node lives and its database answers; 503 when not."""
        with database.reading() as session:
            jobs.list_jobs(session, state="running")
        return {"status": "ok"}

    @app.get("/metrics")
    def prometheus() -> Response:
        """Give the counts in Prometheus' text format."""
        return Response(metrics.text(registry), media_type=metrics.CONTENT_TYPE)

    @app.post("/intake/study", status_code=202)
    async def study(request: Request) -> dict[str, str]:
        """Write down that a study is to be pulled, and only then say so."""
        if not settings.pacs_url:
            raise HTTPException(409, "this node has no PACS to pull from: set pacs_url")
        said = await _said(request)
        await run_in_threadpool(_write_down, database, said)
        if told is not None:
            told()
        return {"status": "accepted"}

    @app.get("/api/jobs")
    def list_jobs(state: str | None = None) -> Response:
        """Give the jobs, all or those in one state."""
        with database.reading() as session:
            return JSONResponse(jsonable_encoder({"jobs": jobs.list_jobs(session, state=state)}))

    @app.get("/api/findings")
    def list_findings(patient_id: str | None = None, superseded: bool = False) -> Response:
        """Give one row per measurement."""
        with database.reading() as session:
            rows = findings.list_findings(session, patient_id=patient_id, superseded=superseded)
        return JSONResponse(jsonable_encoder({"findings": rows}))

    return app


class WebServer:
    """Serves an application in a thread of its own.

    Parameters
    ----------
    app
        The application.
    host, port
        Where to listen; port 0 takes a free one, see `port` after `start`.

    """

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        self._host = host
        self.port = port
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=64,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=10,
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen; returns once requests are answered. Raises `Unavailable` when the address is taken or not ours."""
        try:
            family = socket.getaddrinfo(self._host, self.port, type=socket.SOCK_STREAM)[0][0]
            self._socket = socket.create_server((self._host, self.port), family=family, backlog=128)
        except OSError as error:
            reason = error.strerror or error
            raise Unavailable(f"HTTP cannot listen on {self._host}:{self.port} ({reason})") from error
        self.port = self._socket.getsockname()[1]
        run = {"sockets": [self._socket]}
        self._thread = threading.Thread(target=self._server.run, kwargs=run, name="web", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 15
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise Unavailable("the web server did not start; its log says why")
            time.sleep(0.01)

    def stop(self, timeout_seconds: float = 15.0) -> bool:
        """Let running requests end; returns whether they did in time."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        if self._socket is not None:
            self._socket.close()
        return self._thread is None or not self._thread.is_alive()


def _authorise(request: Request, token: str) -> None:
    if token:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), token.encode("utf-8")):
            raise HTTPException(401, "present the hook_token of this node as a bearer token")
        return
    # What a proxy forwards comes from elsewhere; a foreign Host is a page in a browser on this machine.
    host = request.client.host if request.client else ""
    is_forwarded = any(name in request.headers for name in FORWARDED)
    if is_forwarded or not _is_loopback(host) or not LOCAL_NAMES.match(request.headers.get("host", "")):
        raise HTTPException(403, "only this machine may ask while no hook_token is set")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _said(request: Request) -> ToldStudy:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for block in request.stream():
                body += block
                if len(body) > MAX_BODY_BYTES:
                    raise HTTPException(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
    except TimeoutError:
        raise HTTPException(408, "the body did not come in time") from None
    try:
        return ToldStudy.model_validate(json.loads(bytes(body)))
    except ValidationError as error:
        raise HTTPException(422, _first_problem(error.errors())) from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None


def _write_down(database: Database, said: ToldStudy) -> None:
    with database.transaction() as session:
        pull.request(session, said.study_instance_uid, now=database.now(), everything=said.everything)


def _first_problem(errors: Any) -> str:
    first: Mapping[str, Any] = errors[0] if errors else {}
    where = ".".join(str(part) for part in first.get("loc", ()))
    return f"{where}: {first.get('msg', 'not valid')}" if where else str(first.get("msg", "not valid"))


def _error(
    status: int, sentence: str, code: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    content = {"error": " ".join(sentence.split()), **({"code": code} if code else {})}
    return JSONResponse(content, status_code=status, headers=dict(headers or {}))


__all__ = ["ToldStudy", "WebServer", "create_app"]
