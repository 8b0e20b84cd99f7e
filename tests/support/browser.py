"""Debian's Chromium, driven by Playwright, on this node's pages: what it complains of and whom it asks is noted."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from demo_run import DemoRun
from patience import PATIENCE_SECONDS
from playwright.sync_api import Browser, Page, expect, sync_playwright
from web_site import PASSWORD, WebSite

REFUSAL = re.compile(r"Failed to load resource|Response Status Error Code 4\d\d")
# A poll whose place a later one took; a fault says htmx:sendError.
OVERTAKEN = re.compile(r"htmx:(afterRequest|sendAbort), ")
LAPTOP, TABLET = (1366, 768), (820, 1180)
# Without the first lines its start asks for hosts of its maker; the rest draws WebGL without a graphics card.
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--use-gl=angle",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]


@dataclass
class Sight:
    """One page in a window of its own, and what went wrong on it."""

    page: Page
    base: str
    problems: list[str] = field(default_factory=list)
    """What the browser complained of: scripts that failed, what a policy forbade, answers of 500 and more."""
    outside: list[str] = field(default_factory=list)
    """Hosts other than the node that were asked."""

    def open(self, path: str) -> Page:
        """Go to a path of the node and return the page, its scripts run."""
        self.page.goto(self.base + path, wait_until="load")
        return self.page

    def serious_faults(self) -> list[str]:
        """Return what axe-core calls serious or critical on the page as it stands."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{fault['id']}: {node['target']} {node['failureSummary']}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]

    def require_clean(self) -> None:
        """Fail when anything was complained of, anybody else asked, or axe-core finds a serious fault."""
        assert self.problems == []
        assert self.outside == []
        assert self.serious_faults() == []


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Return a running browser; fail in CI when there is none, skip elsewhere."""
    path = shutil.which("chromium")
    if path is None:
        reason = "missing: chromium; apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    expect.set_options(timeout=1000 * PATIENCE_SECONDS)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def look(chromium: Browser) -> Iterator[Callable[..., Sight]]:
    """Return a function that opens a window on a site: `look(site.url, size=TABLET, dark=True)`."""
    contexts = []

    def open_window(
        base: str, size: tuple[int, int] = LAPTOP, *, dark: bool = False, **options: Any
    ) -> Sight:
        context = chromium.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            **options,
        )
        contexts.append(context)
        context.set_default_timeout(1000 * PATIENCE_SECONDS)
        sight = Sight(context.new_page(), base)
        host = urlsplit(base).netloc

        def asked(request: Any) -> None:
            parts = urlsplit(request.url)
            if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != host:
                sight.outside.append(parts.netloc)

        def answered(response: Any) -> None:
            if response.status >= 500:
                sight.problems.append(f"{response.status} {response.url}")

        def said(message: Any) -> None:
            # Refusals of the node appear as failed resources; tests judge those by the page itself.
            if message.type == "error" and not (
                REFUSAL.search(message.text) or OVERTAKEN.match(message.text)
            ):
                sight.problems.append(message.text)

        sight.page.on("request", asked)
        sight.page.on("response", answered)
        sight.page.on("console", said)
        sight.page.on("pageerror", lambda error: sight.problems.append(str(error)))
        return sight

    yield open_window
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def demo_site(demo: DemoRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    """Return the pages of a node whose home is a copy of the demo's; nothing else of the node runs."""
    home = tmp_path_factory.mktemp("site") / "home"
    shutil.copytree(demo.home, home)
    site = WebSite(home)
    yield site
    site.stop()


def sign_in(sight: Sight, name: str) -> Page:
    """Sign a person in whose password is `web_site.PASSWORD`, by the page."""
    page = sight.open("/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/worklist")
    return page


def picture(page: Page, name: str) -> Path:
    """Write a picture of the whole page below the machine's temporary folder and return its path."""
    folder = Path(tempfile.gettempdir()) / "nadir-pictures"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path
