"""The viewer: OHIF at `/viewer`, its images from `/dicom-web` of the same origin."""

from __future__ import annotations

import gzip
from html import escape

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from node.web.access import allow
from node.web.site import Site
from node.web.viewer_files import ROOT, File, find_pages, how_to_bring, read_file, read_index

FOR_LONG = "private, max-age=604800"
MISSING = (
    f"The viewer (the npm package @ohif/app 3.13.2) is not installed on this node: {how_to_bring()}; "
    "then start the node again."
)
# OHIF sets styles from scripts, decodes images by WebAssembly in workers, makes functions from text where it reads
# segmentations (the library ndarray), and shows documents from memory. Nothing else is let in, and no other host.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' 'unsafe-eval' {scripts}; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'self' blob:; frame-src 'self' blob:; "
    "manifest-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
# A worker has the policy of its own script; the decoders make functions from text too.
WORKER_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' 'unsafe-eval'; connect-src 'self' data: blob:"
)
ISOLATED = {"Cross-Origin-Embedder-Policy": "require-corp"}


def router(site: Site) -> APIRouter:
    """Return the routes below `/viewer`."""
    made = APIRouter(include_in_schema=False)
    pages = find_pages(site.settings)

    @made.get("/viewer")
    @allow("viewer")
    def begin(request: Request) -> Response:
        """Send a person to the list of studies, or to the study that is asked for as OHIF's own address asks."""
        query = f"?{request.url.query}" if request.url.query else ""
        asks_for_study = any(name.lower() == "studyinstanceuids" for name in request.query_params)
        return RedirectResponse(ROOT + ("viewer" if asks_for_study else "") + query, 307)

    @made.get("/viewer/{path:path}")
    @allow("viewer")
    def viewer(request: Request, path: str) -> Response:
        """Give a file of OHIF, or for every other address the page that begins it."""
        if pages is None:
            raise HTTPException(404, MISSING)
        if "." not in path.rpartition("/")[2]:
            index = read_index(pages)
            html = index.html.replace("{csrf_token}", escape(request.state.identity.csrf_token))
            policy = PAGE_POLICY.format(scripts=" ".join(index.script_hashes))
            return HTMLResponse(html, headers={"Content-Security-Policy": policy, **ISOLATED})
        file = read_file(pages, path)
        if file is None:
            raise HTTPException(404, "there is no such file")
        return _answer(request, file)

    return made


def _answer(request: Request, file: File) -> Response:
    tag = f'"{file.digest}"'
    headers = {
        "Cache-Control": FOR_LONG if file.for_long else "private, no-cache",
        "ETag": tag,
        "Vary": "Accept-Encoding",
        "Content-Security-Policy": WORKER_POLICY,
        **ISOLATED,
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    content = file.content
    if file.is_packed and "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
    elif file.is_packed:
        content = gzip.decompress(content)
    return Response(content, media_type=file.kind, headers=headers)


__all__ = ["router"]
