"""The built pages of OHIF (npm `@ohif/app`): where they lie, and what is changed so that they work below `/viewer`.

OHIF is built to stand at the root of a host. Nothing on disk is changed: its few absolute addresses are rewritten when
a file is given, and the result is kept packed in memory.
"""

from __future__ import annotations

import gzip
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path

from node.settings import Settings

ROOT = "/viewer/"
SOURCE = Path(__file__).parents[2]
BUILT = Path("node_modules", "@ohif", "app", "dist")
INSTALLED = Path("/usr/share/nadir/viewer")
PLACES = (SOURCE / BUILT, INSTALLED)
CONFIG, CONFIG_FILE = "app-config.js", Path(__file__).with_name("static") / "ohif-config.js"
NAME = re.compile(r"[A-Za-z0-9_@.-]+(/[A-Za-z0-9_@.-]+)*")
KINDS: Mapping[str, str] = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ico": "image/x-icon",
}
PACKED = frozenset({".js", ".css", ".json", ".wasm", ".svg"})
MOST_BYTES = 32 << 20
# Files that speak of other hosts, or sign in elsewhere.
NOT_GIVEN = frozenset({"sw.js", "google.js", "oidc-client.min.js"})
NAMED_BY_CONTENT = re.compile(r"(^|\.)[0-9a-f]{16}\.[a-z0-9]+$")
PUBLIC_PATH = b'__webpack_require__.p = "/";'
# How files name others outside of that: styles their fonts, one script the microscopy viewer.
ABSOLUTE = re.compile(rb"(url\(|['\"])/(?=[0-9a-f]{16}\.woff2|dicom-microscopy-viewer/|assets/)")
ATTRIBUTE = re.compile(r'="/(?!viewer/)')
INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)
HEAD = "<head>"


@dataclass(frozen=True, kw_only=True)
class File:
    """One file as browsers get it."""

    kind: str
    """Content type."""
    content: bytes
    """What it holds, packed with gzip when `is_packed`."""
    is_packed: bool
    """Whether it is."""
    digest: str
    """Changes with the content."""
    for_long: bool
    """Whether its name changes with its content."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """The page that begins the viewer."""

    html: str
    """With `{csrf_token}` where the token of the session goes."""
    script_hashes: tuple[str, ...]
    """Its scripts that stand in the page itself, as sources of a Content-Security-Policy."""


def find_pages(settings: Settings) -> Path | None:
    """Return the folder of OHIF's built pages: that of the settings, or where they are usually put; None without."""
    places = (settings.viewer_pages,) if settings.viewer_pages else PLACES
    return next((place for place in places if (place / "index.html").is_file()), None)


def how_to_bring(source: Path = SOURCE) -> str:
    """Return how the pages are brought to where they are looked for; `source` is the folder that our code lies in.

    Of an installed node that is no folder of sources, where `make viewer` could be given and would be found.
    """
    if (source / "Makefile").is_file():
        return "make viewer, or name the folder of OHIF's pages in viewer_pages"
    return f"make viewer in Nadir's folder, and copy {BUILT} from there to {INSTALLED}, or name it in viewer_pages"


@cache
def read_index(pages: Path) -> Index:
    """Return the page that begins the viewer, its addresses below `/viewer`."""
    html = ATTRIBUTE.sub(f'="{ROOT}', (pages / "index.html").read_text("utf-8"))
    hashes = tuple(
        f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in INLINE.findall(html)
    )
    marked = html.replace(HEAD, HEAD + '<meta name="csrf-token" content="{csrf_token}">', 1)
    return Index(html=marked, script_hashes=hashes)


@lru_cache(maxsize=256)
def read_file(pages: Path, name: str) -> File | None:
    """Return a file by its path below the pages; None for what is not there, or not given to anybody."""
    if name == CONFIG:
        return _made(CONFIG_FILE.read_bytes(), name)
    if not NAME.fullmatch(name) or name in NOT_GIVEN:
        return None
    path = (pages / name).resolve()
    if path.suffix not in KINDS or not path.is_relative_to(pages.resolve()):
        return None
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        return None
    content = path.read_bytes()
    if path.suffix in (".js", ".css"):
        content = content.replace(PUBLIC_PATH, PUBLIC_PATH.replace(b'"/"', f'"{ROOT}"'.encode()))
        content = ABSOLUTE.sub(rb"\1" + ROOT.encode(), content)
    return _made(content, name)


def _made(content: bytes, name: str) -> File:
    suffix = Path(name).suffix
    is_packed = suffix in PACKED
    return File(
        kind=KINDS[suffix],
        content=gzip.compress(content, 6, mtime=0) if is_packed else content,
        is_packed=is_packed,
        digest=sha256(content).hexdigest()[:32],
        for_long=bool(NAMED_BY_CONTENT.search(name)),
    )


__all__ = ["CONFIG", "ROOT", "File", "Index", "find_pages", "how_to_bring", "read_file", "read_index"]
