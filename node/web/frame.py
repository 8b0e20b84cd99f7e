"""What all pages share: the templates, the head with its links, and how times, sizes and numbers are written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from node.markup import bdi, isolated
from node.settings import Settings
from node.web.access import NOBODY, Rule
from node.web.viewer_files import find_pages

TEMPLATES = Path(__file__).with_name("templates")
STATIC = Path(__file__).with_name("static")
THEME_COOKIE = "nadir_theme"
PLOTLY = "plotly.min.js"
"""The plotting library, which comes with the package of that name."""
NAVIGATION = (
    ("worklist", "/worklist", "Worklist", "viewer"),
    ("cohort", "/cohort", "Cohort", "viewer"),
    ("upload", "/upload", "Upload", "physicist"),
    ("models", "/models", "Models", "viewer"),
    ("system", "/system", "System", "administrator"),
)
"""Name, path, words and lowest role of each page that the head links to."""


class Frame:
    """Makes pages of templates.

    Parameters
    ----------
    zone
        The site's time zone, in which every time is written.
    has_viewer
        Whether `/viewer` is there to be linked to.

    """

    def __init__(self, zone: ZoneInfo, *, has_viewer: bool = False) -> None:
        self.zone = zone
        self.has_viewer = has_viewer
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(when=self.when, size=size, span=span, number=number)
        self._environment.filters.update(bdi=bdi, isolated=isolated)
        self._environment.globals.update(static=static_url, version=version("nadir"))

    def page(self, request: Request, template: str, /, status: int = 200, **values: Any) -> Response:
        """Return a page, or the part of one that a script asked for."""
        return HTMLResponse(self.text(request, template, **values), status_code=status)

    def text(self, request: Request, template: str, /, **values: Any) -> str:
        """Return the HTML of a page."""
        identity = request.scope.get("state", {}).get("identity", NOBODY)
        shared = {
            "identity": identity,
            "navigation": [entry for entry in NAVIGATION if identity.may(Rule(role=entry[3]))],
            "theme": _theme(request),
            "zone": self.zone.key,
            "has_viewer": self.has_viewer,
            "may": lambda role: identity.may(Rule(role=role)),
            "path": request.url.path,
        }
        return self._environment.get_template(template).render({**shared, **values})

    def when(self, moment: datetime | None, form: str = "%Y-%m-%d %H:%M") -> str:
        """Return a time in the site's zone; an en dash when there is none."""
        if moment is None:
            return "–"
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return aware.astimezone(self.zone).strftime(form)


def frame_of(settings: Settings) -> Frame:
    """Return what makes the pages of a node with these settings."""
    return Frame(ZoneInfo(settings.time_zone), has_viewer=find_pages(settings) is not None)


def _theme(request: Request) -> str:
    theme = request.cookies.get(THEME_COOKIE, "")
    return theme if theme in ("dark", "light") else ""


def static_url(name: str) -> str:
    """Return the address of a file in `static`, which changes with its content so that browsers may keep it."""
    return f"/static/{name}?v={version('plotly') if name == PLOTLY else _digests()[name]}"


@cache
def _digests() -> Mapping[str, str]:
    files = (path for path in STATIC.iterdir() if path.is_file())
    return {path.name: sha256(path.read_bytes()).hexdigest()[:12] for path in files}


def size(count: float) -> str:
    """Return bytes in words: 3.2 GB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def span(seconds: float | timedelta) -> str:
    """Return a length of time in words, its two largest units: 2 h 5 min."""
    whole = int(seconds.total_seconds() if isinstance(seconds, timedelta) else seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if whole >= length or (unit == "s" and not parts):
            parts.append(f"{whole // length} {unit}")
            whole %= length
    return " ".join(parts[:2])


def number(value: float | None, digits: int = 1) -> str:
    """Return a number with so many decimals and a true minus sign; an en dash when there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


__all__ = [
    "NAVIGATION",
    "PLOTLY",
    "STATIC",
    "THEME_COOKIE",
    "Frame",
    "frame_of",
    "number",
    "size",
    "span",
    "static_url",
]
