"""The HTTP port: liveness, metrics, the door for Orthanc's hook, and jobs as JSON.

Each route declares beside it who may ask (`node.web.access`); `node.web.guard` stands before all. `/health` answers
everybody and says nothing more than that the node lives; every error is one JSON object with one sentence.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence

import anyio
from fastapi import APIRouter, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from node import metrics, pull
from node.audit import Record, unheard
from node.settings import Settings
from node.vitals import Vitals
from node.web import guard, login, problem
from node.web.access import Gate, allow
from node.web.api import ledger
from node.web.frame import Frame, frame_of
from store import jobs
from store.database import Database

log = logging.getLogger(__name__)

UID_PATTERN = r"^[0-9]+(\.[0-9]+)+$"
"""Of a UID that may stand in a URL; with leading zeros, which are wrong and exist."""


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


def create_app(
    settings: Settings,
    database: Database,
    *,
    told: Callable[[], None] | None = None,
    routers: Sequence[APIRouter] = (),
    record: Record = unheard,
    frame: Frame | None = None,
    vitals: Vitals | None = None,
) -> FastAPI:
    """Return the web application.

    Parameters
    ----------
    settings, database
        Who may ask, and `pacs_url`; where everything is read from, and where a told study is written down before it
        is acknowledged.
    told
        Called when a study was told, to wake who pulls; not called for anything that could fail.
    routers
        Further routes, each with its rule.
    record
        Takes what the audit trail is told.
    frame
        Makes pages; one for the settings' time zone when None.
    vitals
        Counts the requests, and is told beside the ledger by `/metrics`.

    """
    frame = frame or frame_of(settings)
    app = FastAPI(title="Nadir", docs_url=None, redoc_url=None, openapi_url=None)
    for router in (
        _open(settings, database, vitals),
        ledger.router(database),
        _hook(settings, database, told),
        login.router(settings, database, frame, record),
        *routers,
    ):
        app.router.routes.extend(router.routes)  # flat: what the guard matches is what answers
    app.add_middleware(
        guard.Guard,
        routes=app.router.routes,
        gate=Gate(settings, database),
        upload_bytes=settings.max_request_bytes,
        record=record,
        frame=frame,
        served=None if vitals is None else vitals.served,
    )
    _tell_problems(app, frame)
    return app


def _tell_problems(app: FastAPI, frame: Frame) -> None:
    """Let an application answer what cannot be answered with one sentence, on a page or as JSON."""

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return problem.answer(request, frame, error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def bad_query(request: Request, error: RequestValidationError) -> Response:
        return problem.answer(request, frame, 422, problem.first_problem(error.errors()))


def _open(settings: Settings, database: Database, vitals: Vitals | None) -> APIRouter:
    """Return what is asked of a node by those that watch it."""
    router = APIRouter()
    registry = metrics.registry(database, settings)
    # Threads of its own: a node whose other threads all wait still says that it lives.
    threads = anyio.CapacityLimiter(2)

    def ask() -> None:
        with database.reading() as session:
            jobs.list_jobs(session, state="running")

    @router.get("/health")
    @allow(is_open=True, always=True)
    async def health() -> dict[str, str]:
        """Say that the node lives and its database answers; 503 when not."""
        await anyio.to_thread.run_sync(ask, limiter=threads)
        return {"status": "ok"}

    @router.get("/metrics")
    @allow("administrator", scopes=("metrics",), from_loopback=True)
    def prometheus() -> Response:
        """Give the counts in Prometheus' text format."""
        own = b"" if vitals is None else vitals.text()
        return Response(metrics.text(registry) + own, media_type=metrics.CONTENT_TYPE)

    return router


def _hook(settings: Settings, database: Database, told: Callable[[], None] | None) -> APIRouter:
    """Return the door for Orthanc's hook."""
    router = APIRouter()

    @router.post("/intake/study", status_code=202)
    @allow(scopes=("hook",))
    async def study(request: Request) -> dict[str, str]:
        """Write down that a study is to be pulled, and only then say so."""
        if not settings.pacs_url:
            raise HTTPException(409, "this node has no PACS to pull from: set pacs_url")
        said = await _said(request)
        await run_in_threadpool(_write_down, database, said)
        if told is not None:
            told()
        return {"status": "accepted"}

    return router


async def _said(request: Request) -> ToldStudy:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send application/json")
    try:
        return ToldStudy.model_validate(json.loads(await request.body()))
    except ValidationError as error:
        raise HTTPException(422, problem.first_problem(error.errors())) from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None


def _write_down(database: Database, said: ToldStudy) -> None:
    with database.transaction() as session:
        pull.request(session, said.study_instance_uid, now=database.now(), everything=said.everything)


__all__ = ["ToldStudy", "create_app"]
