"""What the documentation shows and nobody types: the routes of the API, and the figures on the models' cards.

MkDocs calls `on_page_markdown` for each page (`hooks` in mkdocs.yml).
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from node.settings import Settings
from node.web import dashboard, openapi
from node.web.app import create_app
from node.web.frame import frame_of
from node.web.site import Site
from store.database import Database
from store.objects import ObjectStore

WEIGHTS = Path(__file__).parents[1] / "models" / "weights"
SHOWN = {
    "dice": "Dice",
    "surface_dice_1mm": "surface Dice, 1 mm",
    "hd95_median_mm": "HD95, median, mm",
    "long_axis_error_median_mm": "long axis, median error, mm",
    "ece": "ECE",
    "auc": "AUC",
    "f1": "F1",
    "specificity": "specificity",
    "c_index": "C-index on simulated outcomes",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with its marks filled in."""
    for mark, make in (("<!-- routes -->", routes_table), ("<!-- figures -->", figures_table)):
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    # In the repository that page lies one folder above.
    return re.sub(r"\((\.\./)?SECURITY\.md", "(security.md", markdown)


def figures_table() -> str:
    """Return what the cards of the shipped models say, with 95 % intervals."""
    rows = ["| model | judged on | figure | value | 95 % interval |", "|---|---|---|---|---|"]
    for family in sorted(path.parent.name for path in WEIGHTS.glob("*/card.json")):
        card = json.loads((WEIGHTS / family / "card.json").read_text())
        for name, said in _figures(card["figures"]):
            judged = f"{said['cases']} cases, {said['patients']} patients"
            interval = f"{said['low']:.3f} to {said['high']:.3f}"
            rows.append(
                f"| {family} {card['version']} | {judged} | {name} | {said['value']:.3f} | {interval} |"
            )
    return "\n".join(rows)


def _figures(figures: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for where, said in figures.get("segmentation", {}).get("settings", {}).items():
        yield from ((f"{SHOWN[name]} ({where})", said[name]) for name in SHOWN if _is_told(said.get(name)))
    for kind in ("classification", "survival"):
        said = figures.get(kind, {}).get("figures", {})
        yield from ((SHOWN[name], said[name]) for name in SHOWN if _is_told(said.get(name)))
    found = figures.get("detection", {}).get("sensitivity_at_false_positives_per_scan", {})
    for rate, value in found.items():
        yield f"sensitivity at {rate} false positives a scan", value


def _is_told(said: object) -> bool:
    return isinstance(said, Mapping) and {"value", "low", "high", "cases", "patients"} <= set(said)


def routes_table() -> str:
    """Return every route of the JSON, with what it does."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        database = Database(settings.sql_url)
        objects = ObjectStore(Path(home) / "store")
        site = Site(settings=settings, database=database, objects=objects, frame=frame_of(settings))
        app = create_app(settings, database, routers=dashboard.routers(site), frame=site.frame)
        document = openapi.document(app.router.routes)
        database.dispose()
    rows = ["| route | what it does |", "|---|---|"]
    for path, methods in sorted(document["paths"].items()):
        rows += [f"| `{method.upper()} {path}` | {told['summary']} |" for method, told in methods.items()]
    return "\n".join(rows)
