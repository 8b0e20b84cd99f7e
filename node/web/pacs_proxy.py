"""Requests for images passed on to the PACS, and its answers passed back as they stream in.

Nothing of the browser's goes there but what is asked and in which form; nothing of the PACS comes back but DICOM in the
forms of DICOMweb, its own address replaced by ours.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping

import httpx
from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException

from node.deliveries import without_credentials
from node.paced_http import is_packed_twice
from node.tls import distrust

TIMEOUT = httpx.Timeout(60.0, connect=5.0, pool=10.0)
LIMITS = httpx.Limits(max_connections=64, max_keepalive_connections=16)
BLOCK_BYTES = 1 << 18
GOES = ("accept", "range", "if-none-match")
COMES = ("content-type", "content-length", "content-range", "accept-ranges", "etag", "warning")
# No HTML and no SVG: they would be pages of this origin.
FORMS = re.compile(
    r"(application/(dicom|dicom\+json|dicom\+xml|json|octet-stream|pdf|zip)|multipart/related"
    r"|image/(jpeg|jp2|jpx|jph|jls|jphc|dicom-rle|dicom\+jpeg|dicom\+jp2|dicom\+rle|gif|png)|video/(mp4|mpeg|mpeg2|h265))"
    r"(\s*;.*)?",
    re.IGNORECASE,
)
# Addresses in DICOM JSON (BulkDataURI, RetrieveURL): whatever the PACS calls itself, what follows is DICOMweb.
ADDRESS = re.compile(rb'"https?:\\?/\\?/[^"\s]{1,1500}?((?:\\?/)studies\\?/[0-9.]{1,64}[^"\s]{0,500})"')
LONGEST_ADDRESS = 4096
MOST_ANSWER_BYTES = 8 << 20
REFUSED = frozenset({400, 404, 406, 410, 413, 414, 416})


class PacsProxy:
    """Passes requests on to one PACS.

    Parameters
    ----------
    pacs_url
        DICOMweb root; its user and password, when given, are shown to the PACS only.
    tls
        How the PACS is judged (`node.tls.context_to`); by public authorities when None.
    transport
        What speaks HTTP, for tests.

    """

    def __init__(
        self,
        pacs_url: str,
        *,
        tls: ssl.SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._root = without_credentials(pacs_url).rstrip("/")
        url = httpx.URL(pacs_url)
        auth = httpx.BasicAuth(url.username, url.password) if url.userinfo else None
        # No redirects and no environment: requests go to the configured address or nowhere.
        self._client = httpx.AsyncClient(
            auth=auth,
            verify=tls or True,
            timeout=TIMEOUT,
            limits=LIMITS,
            trust_env=False,
            follow_redirects=False,
            transport=transport,
        )

    async def get(self, request: Request, path: str) -> Response:
        """Return the PACS's answer to a query or a retrieve. Raises 502 and 504, and what the PACS refuses."""
        headers = {name: request.headers[name] for name in GOES if name in request.headers}
        headers.setdefault("accept", "*/*")
        query = f"?{request.url.query}" if request.url.query else ""
        answer = await self._ask("GET", f"/{path}{query}", headers)
        kind = answer.headers.get("content-type", "")
        if answer.status_code in (204, 304):
            await answer.aclose()
            return Response(status_code=answer.status_code)
        if not FORMS.fullmatch(kind):
            await answer.aclose()
            raise HTTPException(502, "the PACS answered with something that is not DICOM")
        passed = {name: answer.headers[name] for name in COMES if name in answer.headers}
        body, is_json = _blocks(answer), "json" in kind
        if is_json or "content-encoding" in answer.headers:
            passed.pop("content-length", None)
        if is_json:
            body = _rewritten(body, own_root(request))
        return StreamingResponse(body, status_code=answer.status_code, headers=passed)

    async def store(self, request: Request, path: str) -> Response:
        """Return the PACS's answer to instances that a person stores (STOW-RS), sent on as they come."""
        names = ("accept", "content-type", "content-length")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        answer = await self._ask("POST", f"/{path}", headers, request.stream(), accept=frozenset({409}))
        body = bytearray()
        async for block in _rewritten(_blocks(answer), own_root(request)):
            body += block
            if len(body) > MOST_ANSWER_BYTES:
                raise HTTPException(502, "the answer of the PACS is too long")
        kind = answer.headers.get("content-type", "")
        if not FORMS.fullmatch(kind):  # a bare 200 says that all is stored
            return Response(status_code=answer.status_code)
        return Response(bytes(body), status_code=answer.status_code, headers={"content-type": kind})

    async def _ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        content: AsyncIterator[bytes] | None = None,
        accept: frozenset[int] = frozenset({304}),
    ) -> httpx.Response:
        sent = {**headers, "accept-encoding": "identity"}
        try:
            made = self._client.build_request(method, self._root + target, headers=sent, content=content)
            answer = await self._client.send(made, stream=True)
        except httpx.TimeoutException:
            raise HTTPException(504, "the PACS did not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = distrust(error)
            says = f"the PACS is not spoken to: {why}" if why else "the PACS does not answer"
            raise HTTPException(502, says) from None
        is_taken = answer.is_success or answer.status_code in accept
        if is_taken and not is_packed_twice(answer):
            return answer
        await answer.aclose()
        if is_taken:
            raise HTTPException(502, "the PACS answered with something that is packed more than once")
        raise _problem(answer.status_code)


def _problem(status: int) -> HTTPException:
    if status == 404:
        return HTTPException(404, "the PACS does not know what was asked for")
    if status in (401, 403):
        return HTTPException(502, "the PACS denies this node access: check the credentials of pacs_url")
    if status in REFUSED:
        return HTTPException(status, f"the PACS refused the request (HTTP {status})")
    return HTTPException(502, f"the PACS failed to answer (HTTP {status})")


def own_root(request: Request) -> str:
    """Return the address of `/dicom-web` as the one who asks knows it."""
    scheme = "https" if request.state.is_https else "http"
    return f"{scheme}://{request.headers.get('host', '')}/dicom-web"


async def _blocks(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for block in answer.aiter_bytes(BLOCK_BYTES):
            yield block
    finally:
        await answer.aclose()


async def _rewritten(blocks: AsyncIterator[bytes], own_root: str) -> AsyncIterator[bytes]:
    addresses = Addresses(own_root)
    async for block in blocks:
        yield addresses.feed(block)
    yield addresses.rest()


class Addresses:
    """Replaces the root of DICOMweb addresses in JSON that comes in blocks.

    Parameters
    ----------
    own_root
        What stands before `/studies/...` from now on.

    """

    def __init__(self, own_root: str) -> None:
        self._root = own_root.encode("ascii", "replace")
        self._kept = b""

    def feed(self, block: bytes) -> bytes:
        """Return what is certain now; an address that may not be whole yet is kept back."""
        data = self._kept + block
        cut = max(0, len(data) - LONGEST_ADDRESS)
        cut = next((m.start() for m in self._across(data, cut)), cut)
        self._kept = data[cut:]
        return self._replaced(data[:cut])

    def rest(self) -> bytes:
        """Return what was kept back."""
        return self._replaced(self._kept)

    def _across(self, data: bytes, cut: int) -> Iterator[re.Match[bytes]]:
        around = max(0, cut - LONGEST_ADDRESS)
        return (m for m in ADDRESS.finditer(data, around) if m.start() < cut < m.end())

    def _replaced(self, data: bytes) -> bytes:
        return ADDRESS.sub(lambda m: b'"' + self._root + m[1] + b'"', data)


__all__ = ["Addresses", "PacsProxy", "own_root"]
