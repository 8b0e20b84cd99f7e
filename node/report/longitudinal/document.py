"""The longitudinal report as a PDF document on A4: the same content as the page, for whoever shows nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from io import BytesIO
from zoneinfo import ZoneInfo

from PIL import Image as Pictures
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import (
    CondPageBreak,
    Flowable,
    Image,
    KeepTogether,
    Spacer,
    Table,
    TableStyle,
)

from node.report.longitudinal import words
from node.report.longitudinal.charts import curve, spider
from node.report.longitudinal.sheet import (
    BANNER,
    BULLET,
    CAPTION,
    built,
    cut_to,
    lined,
    listed,
    padding,
    table,
    text_of,
)
from node.report.longitudinal.view import (
    Cell,
    Correction,
    LesionCourse,
    LongitudinalReport,
    Picture,
    SumCourse,
    Who,
)
from node.report.pdf import (
    BOLD,
    HEAD,
    HEADING,
    INK,
    SMALL,
    TEXT,
    TITLE,
    WIDTH,
    register_typefaces,
)
from node.report.scripts import BORROWED, is_borrowed
from node.report.shown import RESEARCH_USE
from node.zone import UTC
from store.reading_order import APART
from store.response.verdict import Response, TimePoint
from training.evaluate.paragraph import Paragraph

MOST_VISITS = 6
PICTURES_IN_ROW = 4
LONGEST_NAME = 120
SUBJECT = "course of disease"
WORD = ParagraphStyle("word", fontName=BOLD, fontSize=24, leading=28, textColor=INK)
SUBHEADING = ParagraphStyle(
    "subheading", parent=HEADING, fontSize=9.5, leading=12, spaceBefore=8, keepWithNext=0
)


def write_pdf(report: LongitudinalReport, zone: ZoneInfo = UTC) -> bytes:
    """Return the report as PDF; equal input gives equal bytes. Nothing in it is active: no script, no link, no form.

    Times of corrections are those of the zone.
    """
    register_typefaces()
    return built(
        list(_story(report, zone)), header_of(report.patient), SUBJECT, report.software, report.made_at
    )


def _story(report: LongitudinalReport, zone: ZoneInfo) -> Iterator[Flowable]:
    response = report.response
    yield Paragraph("Course of disease", TITLE)
    yield Spacer(1, 2 * mm)
    days = [visit.date for visit in report.visits]
    yield identity(report.patient, words.criteria_name(response), days)
    named = (
        words.called(report.patient),
        _identifier(report.patient),
        *(lesion.name for lesion in report.lesions),
    )
    if any(map(is_borrowed, named)):
        yield Paragraph(BORROWED, CAPTION)
    yield Paragraph(f"{RESEARCH_USE}. {words.UNVERIFIED}", BANNER)
    yield _verdict(report)
    for course, judged, growth in zip(report.sums, report.responses, report.growth, strict=True):
        yield from _judged(course, judged, response.time_points[-1])
        if growth:
            yield Spacer(1, 2 * mm)
            yield Paragraph(text_of(words.growth_of(growth, judged), 1000), TEXT)
        if growth and growth.chosen and growth.points > 2:
            yield Paragraph(words.GROWTH, CAPTION)
    yield from _at_a_glance(report)
    yield Paragraph("New, gone, joined, parted and not evaluable lesions", HEADING)
    yield from listed([f"<b>{day.isoformat()}</b> {text_of(said, 1000)}" for day, said in report.events])
    for number, lesion in enumerate(report.lesions):
        story = [] if number else [Paragraph("Each lesion", HEADING), Paragraph(words.PICTURES, CAPTION)]
        story += _lesion(report, lesion)
        yield from [KeepTogether(story)] if len(report.visits) <= PICTURES_IN_ROW else story
    if report.densities:
        yield CondPageBreak(40 * mm)
        yield Paragraph("Density of the lungs", HEADING)
        heads = ("Region", "Number", "By date", "First to last")
        yield table(
            heads, [words.density_row(one) for one in report.densities], [26, 52, 0, 20], numbers=(3,)
        )
        yield Paragraph(words.DENSITY, CAPTION)
    yield Paragraph("What was corrected", HEADING)
    yield from corrected(report.corrections, zone)
    yield Paragraph("Where the numbers come from", HEADING)
    yield from _made(report)
    if response.doubts or report.missing:
        yield Paragraph("Notes", HEADING)
        yield from listed([text_of(said, 1000) for said in (*response.doubts, *report.missing)])


def header_of(who: Who) -> str:
    """Return what stands above each page."""
    return f"ID {_identifier(who)},{APART} {words.called(who, alphabetic=True)}"


def _identifier(who: Who) -> str:
    return f"{who.patient_id or 'unknown'} ({who.issuer})" if who.issuer else who.patient_id or "unknown"


def identity(who: Who, criteria: str, days: Sequence[date]) -> Table:
    """Return whom a report is of, by which criteria, and of which visits."""
    rows = (
        ("Patient", words.called(who, alphabetic=True)),
        ("Patient ID", _identifier(who)),
        (
            "Born, sex",
            ", ".join(filter(None, [who.birth_date.isoformat() if who.birth_date else "", who.sex])) or "–",
        ),
        ("Criteria", criteria),
        ("Visits", ", ".join(day.isoformat() for day in days)),
    )
    cells = [[Paragraph(name, HEAD), Paragraph(text_of(value, 400), SMALL)] for name, value in rows]
    return lined(cells, [34 * mm, WIDTH - 34 * mm], head=False)


def _verdict(report: LongitudinalReport) -> Table:
    response = report.response
    last = response.time_points[-1]
    word, meaning = words.headline(response)
    left = [
        Paragraph(
            text_of(word),
            WORD if len(word) < 5 else ParagraphStyle("long", parent=WORD, fontSize=13, leading=16),
        ),
        Paragraph(f"<b>{text_of(meaning)}</b>", TEXT),
        Paragraph(last.date.isoformat(), SMALL),
    ]
    right = [Paragraph(f"<b>Why:</b> {text_of(words.why(last, doubts=False), 3000)}", TEXT)]
    if report.margins:
        right.append(Paragraph("<b>How near to another verdict:</b>", TEXT))
        right += [Paragraph(f"{text_of(said)}.", BULLET, bulletText="•") for said in report.margins[:6]]
    right += [Paragraph(f"<b>Note:</b> {text_of(doubt, 1000)}", TEXT) for doubt in last.doubts]
    if response.best_overall:
        best = f"<b>Best overall response:</b> {text_of(response.best_overall)}"
        if response.best_overall_confirmed:
            best += f"; when confirmation is required: {text_of(response.best_overall_confirmed)}"
        right.append(Paragraph(f"{best}.", TEXT))
    table = Table([[left, right]], colWidths=[42 * mm, WIDTH - 42 * mm], splitInRow=1)
    table.setStyle(TableStyle([("BOX", (0, 0), (-1, -1), 1.2, INK), ("VALIGN", (0, 0), (-1, -1), "TOP")]))
    return table


def _judged(course: SumCourse, response: Response, told_above: TimePoint) -> Iterator[Flowable]:
    yield CondPageBreak(95 * mm)
    quantity = words.sentence(course.quantity)
    yield Paragraph(f"{text_of(quantity)} and verdicts, {text_of(words.criteria_name(response))}", HEADING)
    if any(point.sum is not None for point in course.points):
        yield curve(course)
        yield Paragraph(text_of(words.curve_caption(course), 1000), CAPTION)
    else:
        yield Paragraph("There is no sum to draw: nothing that could be added up was measured.", TEXT)
    heads = (
        "Date",
        "Day",
        f"Sum {course.unit}".strip(),
        "To baseline",
        "Nadir",
        "To nadir",
        "Targets",
        "Non-targets",
        "New",
        "Verdict",
    )
    first = response.baseline
    rows = [
        [
            point.date.isoformat(), str((point.date - first.date).days), words.millimetres(point.sum),
            "" if point is first else words.change_of(point, first.sum), words.millimetres(point.nadir),
            words.change_of(point, point.nadir), point.target or "–", point.non_target or "–",
            "yes" if point.new else "no", response.verdict_of(point),
        ]
        for point in response.time_points
    ]  # fmt: skip
    yield table(heads, rows, [19, 9, 15, 18, 13, 17, 15, 26, 10, 0], numbers=range(1, 6))
    yield Spacer(1, 2 * mm)
    told = [
        f"<b>{p.date.isoformat()}, {text_of(response.verdict_of(p))}:</b> "
        + text_of(words.why(p, doubts=p is not told_above), 2000)
        for p in response.time_points
    ]
    yield from listed(told)


def _at_a_glance(report: LongitudinalReport) -> Iterator[Flowable]:
    chart = spider(report.lesions, report.visits) if words.changes(report) else None
    yield CondPageBreak(chart.height + 24 * mm if chart else 30 * mm)
    yield Paragraph("Lesions at a glance", HEADING)
    if not report.lesions:
        yield Paragraph("No lesion was seen.", TEXT)
        return
    if chart:
        yield chart
        yield Paragraph(words.spider_caption(report), CAPTION)
    for group in words.chunks(range(len(report.visits)), MOST_VISITS):
        heads = ("Lesion", "Role", *(report.visits[i].date.isoformat() for i in group))
        rows = [[cut_to(words.title_of(one), LONGEST_NAME), words.role_of(one), *(_glance(one, i) for i in group)]
                for one in report.lesions]  # fmt: skip
        each = min(22.0, 112.0 / len(group))
        role = 28.0
        first = WIDTH / mm - role - each * len(group)
        yield table(heads, rows, [first, role, *([each] * len(group))], numbers=range(2, 2 + len(group)))
        yield Spacer(1, 2 * mm)
    yield Paragraph(words.GLANCE, CAPTION)


def _glance(lesion: LesionCourse, number: int) -> str:
    return "\n".join(filter(None, words.glance(lesion.cells[number])))


def _lesion(report: LongitudinalReport, lesion: LesionCourse) -> Iterator[Flowable]:
    shown = [
        (c, p) for c in lesion.cells if (p := report.pictures.get((lesion.tracking_uid, c.date))) is not None
    ]
    yield CondPageBreak(35 * mm)
    yield Paragraph(
        f"{text_of(cut_to(words.title_of(lesion), LONGEST_NAME))}: {text_of(words.role_of(lesion))}",
        SUBHEADING,
    )
    lines = [words.line_of(cell) for cell in lesion.cells if cell.status]
    keep = [n for n in range(len(words.LINE_HEADS)) if n != 5 or words.has_uptake(lesion)]
    widths = [18.5, 0, 16, 16, 14.5, 16, 16, 15.5, 19, 20]
    heads = [words.LINE_HEADS[n] for n in keep]
    yield table(
        heads, [[line[n] for n in keep] for line in lines], [widths[n] for n in keep],
        numbers=[place for place, n in enumerate(keep) if 2 <= n <= 8],
    )  # fmt: skip
    yield Spacer(1, 1 * mm)
    if lesion.pace:
        yield Paragraph(text_of(words.pace_of(lesion)), SMALL)
    if why := words.reasons_of(lesion):
        yield Paragraph(text_of(why, 6000), CAPTION)
    for at in range(0, len(shown), PICTURES_IN_ROW):
        yield _pictures(shown[at : at + PICTURES_IN_ROW])
    yield Paragraph(f"Tracking UID {text_of(lesion.tracking_uid)}", CAPTION)


def _pictures(shown: Sequence[tuple[Cell, Picture]]) -> Table:
    side = WIDTH / PICTURES_IN_ROW
    cells = []
    for cell, picture in shown:
        told = [f"<b>{cell.date.isoformat()}</b>", text_of(words.caption(cell)), text_of(picture.words, 300)]
        below = Paragraph("<br/>".join(filter(None, told)), SMALL)
        cells.append([below] if picture.image is None else [_picture(picture.image, side - 5), below])
    table = Table([cells], colWidths=[side] * len(cells), hAlign="LEFT")
    table.setStyle(TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *padding(0, 5)]))
    return table


def _picture(image: Pictures.Image, side: float) -> Image:
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=1)  # the document compresses it again
    buffer.seek(0)
    return Image(buffer, width=side, height=side)


def corrected(corrections: Sequence[Correction], zone: ZoneInfo) -> Iterator[Flowable]:
    """Yield a table of what people decided, with the times of the zone."""
    if not corrections:
        yield Paragraph("Nobody has corrected anything.", TEXT)
        return
    rows = [[words.when(c.at, zone), c.author, c.lesion or "–", c.words] for c in corrections]
    yield table((f"When, {zone.key}", "Who", "Lesion", "What"), rows, [26, 35, 20, 0])


def _made(report: LongitudinalReport) -> Iterator[Flowable]:
    rows = [
        [m.plugin, m.version, ", ".join(day.isoformat() for day in m.dates), m.model_sha256 or "–"]
        for m in report.made
    ]
    rows.append([report.software, "", "this report", ""])
    yield table(("Analysis", "Version", "Visits", "Hash of the model"), rows, [32, 18, 50, 0])
    yield Spacer(1, 2 * mm)
    for visit in report.visits:
        yield Paragraph(
            text_of(f"{visit.date.isoformat()}  {', '.join(visit.study_instance_uids)}", 500), CAPTION
        )


__all__ = ["SUBJECT", "corrected", "header_of", "identity", "write_pdf"]
