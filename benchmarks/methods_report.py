"""A methods report (A4) and a short deck of slides (16:9), made of results that are there: no figure in them is typed.

    python benchmarks/methods_report.py --demo demo-out --bench bench --out dist

Of a demo: what was measured beside what is true. Of the models' cards: their figures with intervals. Of `bench`: what
the fault tests and the benchmarks wrote. What is not there is named as not measured, with the command that measures it.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from reportlab.graphics.shapes import Circle, Drawing, Line, Rect, String
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    Flowable,
    Image,
    PageBreak,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from node.report.longitudinal.axes import Axes, ticks
from node.report.pdf import BOLD, FAINT, INK, PLAIN, RULE, register_typefaces
from training.evaluate.card_rows import CardRow, card_rows

ROOT = Path(__file__).parents[1]
ACCENT = colors.HexColor("#0b5c7f")
WIDE = (960.0, 540.0)
USUAL = " (the crop alone)"
AS_A_NODE = " (segmenter's mask)"
"""How a node rates; how readers' masks are rated is on the card beside it."""
PICTURE = str(ROOT / "docs" / "result.png")
STAGES = (
    ("received", "C-STORE, STOW"),
    ("settled", "a revision"),
    ("analysed", "child process"),
    ("followed", "same or new"),
    ("delivered", "SEG, SR, PDF"),
    ("confirmed", "kept, or again"),
)
RESEARCH = "For research use only. Not a medical device."
COMPARED = {
    "long_axis": ("Long axis", "mm"),
    "short_axis": ("Short axis", "mm"),
    "volume": ("Volume", "ml"),
    "suv_max": ("SUVmax", "g/ml"),
    "laa_950": ("LAA-950", "%"),
}
FAULTS = (
    "kill -9",
    "mutated",
    "disk",
    "PACS down",
    "state machine",
    "bombs",
    "canary",
    "TLS matrix",
    "model-file",
)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A number of the phantom."""

    name: str
    truth: float
    measured: float


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was found of results."""

    pairs: tuple[Pair, ...]
    cards: tuple[CardRow, ...]
    faults: Mapping[str, Mapping[str, Any]]
    benches: Mapping[str, Any]
    made_at: datetime


def gather(demo: Path, bench: Path, now: datetime) -> Evidence:
    """Return what lies in the folders; nothing where there is nothing."""
    table = demo / "measurements.csv"
    pairs: list[Pair] = []
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as stream:
            told = [row for row in csv.DictReader(stream) if row["truth"] and _is_compared(row)]
        pairs = [
            Pair(name=row["name"], truth=float(row["truth"]), measured=float(row["value"])) for row in told
        ]
    found = {path.stem: json.loads(path.read_text()) for path in sorted(bench.glob("*.json"))}
    known = found.pop("reliability", {})
    largest = {key for key in known if "(long)" in key or key.replace("(quick)", "(long)") not in known}
    told = sorted((FAULTS.index(word), key) for key in largest for word in FAULTS if key.startswith(word))
    faults = {key: known[key] for _, key in told}
    cards = card_rows(ROOT / "models" / "weights")
    return Evidence(pairs=tuple(pairs), cards=cards, faults=faults, benches=found, made_at=now)


def _is_compared(row: Mapping[str, str]) -> bool:
    """Return True for what a chart can hold: volumes of lesions, not those of whole lungs."""
    return row["name"] in COMPARED and not (row["name"] == "volume" and row["plugin"] == "emphysema")


def report(evidence: Evidence) -> bytes:
    """Return the methods report, A4."""
    return _document(_story(evidence, 1.0), A4, evidence)


def slides(evidence: Evidence) -> bytes:
    """Return the deck, one slide a section."""
    story: list[Flowable] = []
    for part in _parts(evidence, 1.5):
        story += [*part, PageBreak()]
    return _document(story[:-1], WIDE, evidence)


def _story(evidence: Evidence, scale: float) -> list[Flowable]:
    return [flowable for part in _parts(evidence, scale) for flowable in (*part, Spacer(1, 10))]


def _parts(evidence: Evidence, scale: float) -> list[list[Flowable]]:
    register_typefaces()
    text = ParagraphStyle("t", fontName=PLAIN, fontSize=9 * scale, leading=12.5 * scale, textColor=INK)
    head = ParagraphStyle(
        "h",
        fontName=BOLD,
        fontSize=14 * scale,
        leading=19 * scale,
        textColor=INK,
        spaceAfter=5 * scale,
        keepWithNext=1,
    )
    small = ParagraphStyle("s", parent=text, fontSize=7.5 * scale, leading=9.5 * scale)

    def say(words: str) -> Paragraph:
        return Paragraph(words, text)

    def titled(words: str, *rest: Flowable) -> list[Flowable]:
        return [Paragraph(escape(words), head), *rest]

    return [
        titled(
            f"Nadir {version('nadir')}: methods and results",
            say("A DICOM network node that measures tumours and follows them over time."),
            say(
                f"Made on {evidence.made_at:%Y-%m-%d %H:%M} UTC of the results named in each section. {RESEARCH}"
            ),
            Spacer(1, 8 * scale),
            Image(PICTURE, width=350 * scale, height=350 * scale * 704 / 1182, hAlign="LEFT"),
        ),
        titled(
            "The one path",
            _path(scale),
            say(
                "Success is answered to a scanner when bytes, name and row are on disk. A revision is named by the "
                "hashes of its instances; jobs and the UIDs of results derive from it, so that nothing is done or "
                "written twice. Identity of lesions is decided before SEG and SR are written."
            ),
        ),
        titled("What was measured beside what is true", *_phantom(evidence, scale, text, small)),
        titled("Learned models, on patients that they had not seen", *_models(evidence, scale, text, small)),
        titled("What was done to it", *_faults(evidence, scale, text, small)),
        titled("Beside its peers", *_peers(evidence, scale, text, small)),
        titled(
            "What it is not",
            say(
                "The phantom is computed and has no disease. The models learned from LIDC-IDRI and one sarcoma "
                "collection; their cards name what was not shown. Ratings of malignancy are opinions of readers, "
                "not pathology; the survival figures rest on simulated outcomes. " + RESEARCH
            ),
        ),
    ]


def _path(scale: float) -> Drawing:
    """Return the stages of a study as boxes, from left to right."""
    width, height = 80.0 * scale, 30.0 * scale
    drawing = Drawing(6 * width, height + 14 * scale)
    for number, (upper, lower) in enumerate(STAGES):
        left = number * width
        drawing.add(Rect(left, 8, width - 10 * scale, height, rx=4, ry=4, strokeColor=ACCENT, fillColor=None))
        middle = left + (width - 10 * scale) / 2
        for words, font, y in ((upper, BOLD, 0.58), (lower, PLAIN, 0.24)):
            at = (middle, 8 + y * height)
            look = {"fontName": font, "fontSize": 6.4 * scale, "fillColor": INK}
            drawing.add(String(*at, words, textAnchor="middle", **look))
        if number:
            drawing.add(
                Line(left - 9 * scale, 8 + height / 2, left - scale, 8 + height / 2, strokeColor=ACCENT)
            )
    return drawing


def _phantom(e: Evidence, scale: float, text: ParagraphStyle, small: ParagraphStyle) -> list[Flowable]:
    if not e.pairs:
        return [Paragraph("Not measured here: nadir demo --out demo-out", text)]
    rows: list[list[str]] = [["", "n", "mean error", "largest error", "unit"]]
    drawings = []
    for name, (words, unit) in COMPARED.items():
        pairs = [pair for pair in e.pairs if pair.name == name]
        if pairs:
            errors = [pair.measured - pair.truth for pair in pairs]
            worst = max(errors, key=abs)
            rows.append([words, str(len(pairs)), f"{sum(errors) / len(errors):+.2f}", f"{worst:+.2f}", unit])
            drawings.append(_scatter(f"{words}, {unit}", pairs, 118 * scale))
    shown = Table([drawings[:3]], hAlign="LEFT")
    return [_table(rows, scale), Spacer(1, 6 * scale), shown]


def _scatter(title: str, pairs: Sequence[Pair], size: float) -> Drawing:
    """Return measured against true, with the line on which they are equal."""
    drawing = Drawing(size + 24, size + 16)
    top = max(max(pair.truth, pair.measured) for pair in pairs) * 1.08
    axes = Axes(
        left=30, bottom=22, width=size - 24, height=size - 30, lowest=0, highest=top, first=0, last=top
    )
    drawing.add(Rect(axes.left, axes.bottom, axes.width, axes.height, strokeColor=RULE, fillColor=None))
    drawing.add(Line(axes.left, axes.bottom, axes.right, axes.top, strokeColor=FAINT, strokeDashArray=(3, 2)))
    for tick in ticks(0, top, 4):
        label = {"fontName": PLAIN, "fontSize": 6.5, "fillColor": FAINT}
        drawing.add(String(axes.x(tick), axes.bottom - 9, f"{tick:g}", textAnchor="middle", **label))
        drawing.add(String(axes.left - 3, axes.y(tick) - 2, f"{tick:g}", textAnchor="end", **label))
    for pair in pairs:
        at = (axes.x(pair.truth), axes.y(pair.measured))
        drawing.add(Circle(*at, 2.6, fillColor=ACCENT, strokeColor=colors.white, strokeWidth=0.5))
    drawing.add(String(axes.left, axes.top + 4, title, fontName=BOLD, fontSize=8, fillColor=INK))
    drawing.add(
        String(axes.right, 3, "true →", fontName=PLAIN, fontSize=6.5, fillColor=FAINT, textAnchor="end")
    )
    return drawing


def _models(e: Evidence, scale: float, text: ParagraphStyle, small: ParagraphStyle) -> list[Flowable]:
    rows = [["model", "figure", "value", "95 % interval", "patients"]]
    rows += [
        [
            *(row.model, row.name.replace(USUAL, ""), f"{row.value:.3f}"),
            *(f"{row.low:.3f} to {row.high:.3f}", str(row.patients)),
        ]
        for row in e.cards
        if "(" not in row.name or row.name.endswith((USUAL, AS_A_NODE))
    ]
    return [_table(rows, scale * 0.82)]


def _faults(e: Evidence, scale: float, text: ParagraphStyle, small: ParagraphStyle) -> list[Flowable]:
    if not e.faults:
        return [Paragraph("Not measured here: pytest -m fault, pytest -m sec", text)]
    rows = [["fault", "what came of it"]]
    for name, said in e.faults.items():
        told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in said.items() if key != "at")
        rows.append([name, Paragraph(escape(told), small)])  # type: ignore[list-item]
    return [_table(rows[: 18 if scale > 1 else None], scale * 0.9, widths=(190 * scale, 290 * scale))]


def _peers(e: Evidence, scale: float, text: ParagraphStyle, small: ParagraphStyle) -> list[Flowable]:
    if not e.benches:
        return [Paragraph("Not measured here: make bench", text)]
    rows = [["benchmark", "who", "median"]]
    for said in e.benches.values():
        for row in said.get("rows", ()):
            for receiver in row.get("receivers", ()):
                values = sorted(receiver["values"])
                rows.append([row["row"], receiver["name"], f"{values[len(values) // 2]:.4g} {row['unit']}"])
        for step in said.get("steps", ()):
            for side, taken in step["sides"].items():
                rows.append([step["step"], side, f"{taken['wall_s']:.4g} s"])
    return [_table(rows, scale * 0.85)]


def _table(rows: Sequence[Sequence[Any]], scale: float, widths: Sequence[float] | None = None) -> Table:
    style = [
        ("FONT", (0, 0), (-1, -1), PLAIN, 8 * scale),
        ("FONT", (0, 0), (-1, 0), BOLD, 8 * scale),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, RULE),
        ("TOPPADDING", (0, 0), (-1, -1), 1.6 * scale),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.2 * scale),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
    ]
    return Table(rows, colWidths=widths, style=TableStyle(style), repeatRows=1, hAlign="LEFT")


def _document(story: Sequence[Flowable], size: tuple[float, float], evidence: Evidence) -> bytes:
    out = BytesIO()

    def foot(canvas: Canvas, document: SimpleDocTemplate) -> None:
        canvas.setFont(PLAIN, 7)
        canvas.setFillColor(FAINT)
        canvas.drawString(18 * mm, 9 * mm, f"Nadir {version('nadir')} · {RESEARCH}")
        canvas.drawRightString(size[0] - 18 * mm, 9 * mm, str(document.page))

    made = SimpleDocTemplate(
        out,
        pagesize=size,
        leftMargin=18 * mm,
        rightMargin=18 * mm,
        topMargin=16 * mm,
        bottomMargin=18 * mm,
        title=f"Nadir {version('nadir')}: methods and results",
        author="Nadir",
        invariant=1,
    )
    made.build(list(story), onFirstPage=foot, onLaterPages=foot)
    return out.getvalue()


def main() -> None:
    """Write both documents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo-out"), help="what nadir demo left")
    parser.add_argument("--bench", type=Path, default=Path("bench"), help="figures of tests and benchmarks")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="where both documents go")
    given = parser.parse_args()
    evidence = gather(given.demo, given.bench, datetime.now(UTC))
    given.out.mkdir(parents=True, exist_ok=True)
    for name, content in (("nadir-methods.pdf", report(evidence)), ("nadir-slides.pdf", slides(evidence))):
        (given.out / name).write_bytes(content)
        sys.stdout.write(f"{given.out / name}\n")


if __name__ == "__main__":
    main()
