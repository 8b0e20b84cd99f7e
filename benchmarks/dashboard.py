"""How long until the pages are seen, with a hundred thousand findings in SQL: Chromium's first contentful paint.

    python benchmarks/dashboard.py [--findings 100000] [--rounds 5] [--peer-studies 500] [--json out.json]

Every page is opened in a window without a cache, in turn on three sites, so that what else the machine does meets all
alike: a node with many findings, an empty node, and Orthanc's own explorer. The server's time is that from the request
to the first byte. Beside it the worklist as JSON and Orthanc's answer to the same question (forty studies with their
patients, out of `--peer-studies`, since uploading thousands takes longer than it tells). Medians, and the ratio of many
to none. Exit status 1 when a page of many findings is first seen after a second or more.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, sync_playwright
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from rich.console import Console
from rich.table import Table

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / "support"), str(Path(__file__).parents[1])]

from browser import FLAGS, LAPTOP  # noqa: E402
from many_findings import fill  # noqa: E402
from orthanc_server import OrthancServer, orthanc  # noqa: E402
from web_site import WebSite  # noqa: E402

LIMIT_MS = 1000.0
SHOWN = 40
PAGES = ("/worklist", "/cohort", "/models", "/system", "/system/audit", "/system/events", "/upload")
OF_ROWS = ("/studies/2.25.1000007", "/patients/8")
"""Pages of one study and one patient, which an empty node has not."""
PAINT = """() => new Promise(done => {
  const seen = () => performance.getEntriesByName('first-contentful-paint')[0];
  const tell = () => {
    const page = performance.getEntriesByType('navigation')[0];
    done([seen().startTime, page.responseStart - page.requestStart]);
  };
  const wait = new PerformanceObserver(() => { if (seen()) tell(); });
  if (seen()) tell(); else wait.observe({type: 'paint', buffered: true});
})"""


def seen(browser: Browser, url: str) -> tuple[float, float]:
    """Return the first contentful paint of a page and the server's time for it, ms; nothing of it is cached."""
    context = browser.new_context(viewport={"width": LAPTOP[0], "height": LAPTOP[1]})
    try:
        page = context.new_page()
        answer = page.goto(url, wait_until="load")
        if answer is None or answer.status >= 400:
            raise SystemExit(f"{url} answers {answer and answer.status}")
        paint, server = page.evaluate(PAINT)
        return float(paint), float(server)
    finally:
        context.close()


def seconds_of(ask: Callable[[], httpx.Response]) -> float:
    """Return how long an answer takes, ms."""
    began = time.perf_counter()
    ask().raise_for_status()
    return 1000 * (time.perf_counter() - began)


def fill_orthanc(server: OrthancServer, studies: int) -> None:
    """Give Orthanc so many studies of one small object."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        for number in range(studies):
            client.post("/instances", content=_object(number)).raise_for_status()


def _object(number: int) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.SOPInstanceUID = f"2.25.9{number}3"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"2.25.9{number}1", f"2.25.9{number}2"
    dataset.PatientID, dataset.PatientName = f"MANY-{number:05d}", f"Made^Up {number}"
    dataset.StudyDate, dataset.Modality, dataset.StudyDescription = "20260301", "CT", "CT chest"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def measure(
    browser: Browser, many: WebSite, none: WebSite, peer: OrthancServer, rounds: int
) -> dict[str, Any]:
    """Return the medians of all pages and answers, ms; the first round of each is not counted."""
    times: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    find = {"Level": "Study", "Query": {}, "Expand": True, "Limit": SHOWN}
    asked: dict[str, Callable[[], httpx.Response]] = {
        "worklist as JSON, many": lambda: many.client().get("/api/worklist", params={"limit": SHOWN}),
        "worklist as JSON, empty": lambda: none.client().get("/api/worklist", params={"limit": SHOWN}),
        "Orthanc /tools/find": lambda: httpx.post(f"{peer.url}/tools/find", json=find, trust_env=False),
    }
    answers: defaultdict[str, list[float]] = defaultdict(list)
    for turn in range(rounds + 1):
        sites = [("many", many.url, (*PAGES, *OF_ROWS)), ("empty", none.url, PAGES)]
        opened = [(name, path, url + path) for name, url, paths in sites for path in paths]
        opened.append(("Orthanc", "/app/explorer.html", f"{peer.url}/app/explorer.html"))
        for name, path, url in opened:
            found = seen(browser, url)
            if turn:
                times[name, path].append(found)
        for name, ask in asked.items():
            took = seconds_of(ask)
            if turn:
                answers[name].append(took)
    pages = {
        f"{name} {path}": {
            "first_paint_ms": round(statistics.median(paint for paint, _ in of), 1),
            "server_ms": round(statistics.median(server for _, server in of), 1),
            "worst_paint_ms": round(max(paint for paint, _ in of), 1),
        }
        for (name, path), of in times.items()
    }
    return {
        "pages": pages,
        "answers_ms": {name: round(statistics.median(of), 1) for name, of in answers.items()},
    }


def show(told: dict[str, Any]) -> None:
    """Print the tables."""
    pages = told["pages"]
    table = Table(
        "page", "first paint, ms", "server, ms", "empty node, ms", "ratio", title="First contentful paint"
    )
    for path in (*PAGES, *OF_ROWS):
        many, none = pages[f"many {path}"], pages.get(f"empty {path}")
        cells = (
            (f"{none['first_paint_ms']:.0f}", f"{many['first_paint_ms'] / none['first_paint_ms']:.2f}")
            if none
            else ("–", "–")
        )
        table.add_row(path, f"{many['first_paint_ms']:.0f}", f"{many['server_ms']:.0f}", *cells)
    peer = pages["Orthanc /app/explorer.html"]
    table.add_row(
        "Orthanc /app/explorer.html", f"{peer['first_paint_ms']:.0f}", f"{peer['server_ms']:.0f}", "", ""
    )
    console = Console(width=120)
    console.print(table)
    for name, took in told["answers_ms"].items():
        console.print(f"{name}: {took:.0f} ms")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--findings", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-studies", type=int, default=500)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, orthanc() as peer, sync_playwright() as play:
        homes = [Path(folder) / name for name in ("many", "none")]
        for home in homes:
            home.mkdir()
        many, none = (WebSite(home) for home in homes)
        filled = fill(many.database, findings=given.findings, now=many.database.now())
        fill_orthanc(peer, given.peer_studies)
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), headless=True, args=FLAGS)
        told = {"findings": filled.findings, "studies": filled.studies, "peer_studies": given.peer_studies}
        told |= measure(browser, many, none, peer, given.rounds)
        browser.close()
        many.stop()
        none.stop()
    show(told)
    if given.json:
        given.json.write_text(json.dumps(told, indent=1) + "\n")
    slow = [p for p, of in told["pages"].items() if p.startswith("many") and of["first_paint_ms"] >= LIMIT_MS]
    for page in slow:
        sys.stderr.write(f"first seen after a second or more: {page.removeprefix('many ')}\n")
    return 1 if slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
