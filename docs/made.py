"""What the documentation shows and nobody types: the routes of the API, and the figures on the models' cards.

MkDocs calls `on_page_markdown` for each page (`hooks` in mkdocs.yml).
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from node.settings import Settings
from node.web import dashboard, openapi
from node.web.app import create_app
from node.web.frame import frame_of
from node.web.site import Site
from store.database import Database
from store.objects import ObjectStore
from training.evaluate.card_rows import card_rows

WEIGHTS = Path(__file__).parents[1] / "models" / "weights"


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
    for row in card_rows(WEIGHTS):
        judged = f"{row.cases} cases, {row.patients} patients"
        interval = f"{row.low:.3f} to {row.high:.3f}"
        rows.append(f"| {row.model} | {judged} | {row.name} | {row.value:.3f} | {interval} |")
    return "\n".join(rows)


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
