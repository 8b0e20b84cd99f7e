"""One document of a plan: JSON for programs, a page and a PDF for people, as the report of a judgement is made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import escape

from training.evaluate import report
from training.evaluate.section import Headline, Section

if TYPE_CHECKING:
    from reportlab.platypus import Flowable

FORMAT = 1
NOTICE = "For research use only; no clearance is claimed."
FACTS = "Names and hashes"
ABOUT = (
    "Laid out like one of the three documents of a predetermined change control plan (description of modifications, "
    "modification protocol, impact assessment; FDA, December 2024). The program wrote it from the settings and results "
    "that it uses itself."
)
Kind = Literal["modification", "protocol", "impact"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Document:
    """One of the three documents."""

    kind: Kind
    """Which one; its files are called so."""
    title: str
    """The heading."""
    family: str
    """Which model by its purpose."""
    made_at: datetime
    """When it was written."""
    headlines: tuple[Headline, ...] = ()
    """Figures at the top."""
    sections: tuple[Section, ...]
    """What it says."""
    facts: Mapping[str, str]
    """Names and hashes of what it speaks of."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What programs may want of it, as JSON has it."""

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it; charts and pictures by their words."""
        return {
            "format": FORMAT,
            "notice": NOTICE,
            "kind": self.kind,
            "title": self.title,
            "family": self.family,
            "made_at": self.made_at.astimezone(UTC).isoformat(timespec="seconds"),
            "facts": dict(self.facts),
            "headlines": [asdict(one) for one in self.headlines],
            "sections": [_plain(section) for section in self.sections],
            **self.figures,
        }


def _plain(section: Section) -> dict[str, Any]:
    return {
        "title": section.title,
        "text": section.text,
        "points": list(section.points),
        "tables": [asdict(table) for table in section.tables],
        "shown": [*(one.caption for one in section.charts), *(one.caption for one in section.pictures)],
    }


def write_document(document: Document, folder: Path) -> tuple[Path, Path, Path]:
    """Write JSON, page and PDF into a folder and return their paths; an earlier document of the kind is replaced."""
    from training.evaluate.paper import document_pdf

    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{document.kind}.{ending}" for ending in ("json", "html", "pdf"))
    paths[0].write_text(json.dumps(document.plain(), indent=1, allow_nan=False) + "\n")
    paths[1].write_text(_page(document))
    paths[2].write_bytes(document_pdf(document.title, NOTICE, lambda: _story(document)))
    return paths[0], paths[1], paths[2]


def _sub(document: Document) -> str:
    return document.made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _page(document: Document) -> str:
    folder = Path(report.__file__).parent
    return (
        report.pages(folder)
        .get_template("document.html")
        .render(
            document=document,
            title=document.title,
            sub=_sub(document),
            notice=NOTICE,
            about=ABOUT,
            facts_title=FACTS,
        )
    )


def _story(document: Document) -> Iterator[Flowable]:
    from reportlab.platypus import Spacer

    from training.evaluate import paper
    from training.evaluate.paragraph import Paragraph

    yield Paragraph(escape(document.title), paper.TITLE)
    yield Paragraph(escape(f"{_sub(document)}. {NOTICE} {ABOUT}"), paper.TEXT)
    if document.headlines:
        yield Spacer(1, 4)
        yield paper.tops(document.headlines)
    for section in document.sections:
        yield from paper.section_story(section)
    yield Paragraph(FACTS, paper.HEADING)
    yield from paper.facts(document.facts)


__all__ = ["NOTICE", "Document", "Kind", "write_document"]
