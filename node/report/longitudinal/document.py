"""The longitudinal report as a PDF document on A4: the same content as the page, for whoever shows nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from PIL import Image as Pictures
from reportlab.graphics.shapes import Drawing
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    CondPageBreak,
    Flowable,
    Image,
    KeepTogether,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from node.report.longitudinal import words
from node.report.longitudinal.charts import curve, spider
from node.report.longitudinal.cohort import Cohort
from node.report.longitudinal.cohort_charts import MOST_BARS, MOST_LANES, parts, swimmer, waterfall
from node.report.longitudinal.course_view import verdict_of
from node.report.longitudinal.scripts import marked_up, writable
from node.report.longitudinal.view import Cell, LesionCourse, LongitudinalReport, Picture, SumCourse
from node.report.pdf import (
    BOLD,
    FAINT,
    HEAD,
    HEAD_NUMBER,
    HEADING,
    INK,
    NUMBER,
    PLAIN,
    RULE,
    SMALL,
    TEXT,
    TITLE,
    WIDTH,
    register_typefaces,
)
from node.report.shown import RESEARCH_USE
from store.response.verdict import Response, TimePoint

MOST_VISITS = 6
PICTURES_IN_ROW = 4
LONGEST_NAME = 120
WORD = ParagraphStyle("word", fontName=BOLD, fontSize=24, leading=28, textColor=INK)
SUBHEADING = ParagraphStyle(
    "subheading", parent=HEADING, fontSize=9.5, leading=12, spaceBefore=8, keepWithNext=0
)
CAPTION = ParagraphStyle("caption", parent=SMALL, textColor=FAINT, spaceAfter=4)
BANNER = ParagraphStyle(
    "banner",
    parent=TEXT,
    fontName=BOLD,
    borderColor=INK,
    borderWidth=0.8,
    borderPadding=4,
    spaceBefore=8,
    spaceAfter=10,
)
BULLET = ParagraphStyle("bullet", parent=TEXT, leftIndent=9, bulletIndent=0)


def write_pdf(report: LongitudinalReport) -> bytes:
    """Return the report as PDF; equal input gives equal bytes. Nothing in it is active: no script, no link, no form."""
    register_typefaces()
    header = f"ID {_identifier(report)}, {words.called(report.patient, alphabetic=True)}"
    return _built(list(_story(report)), header, "course of disease", report.software, report.made_at)


def write_cohort_pdf(cohort: Cohort) -> bytes:
    """Return the charts and the table of a cohort as PDF; equal input gives equal bytes."""
    register_typefaces()
    return _built(list(_cohort_story(cohort)), "", "cohort", cohort.software, cohort.made_at)


def _built(story: list[Flowable], header: str, subject: str, software: str, made_at: datetime) -> bytes:
    buffer = BytesIO()
    document = SimpleDocTemplate(
        buffer, pagesize=A4, leftMargin=18 * mm, rightMargin=18 * mm, topMargin=18 * mm, bottomMargin=18 * mm,
        title=f"{software}: {subject}", author=software, invariant=1,
    )  # fmt: skip
    when = f"{made_at.astimezone(UTC):%Y-%m-%d %H:%M UTC}"
    foot = f"{RESEARCH_USE}. {words.UNVERIFIED} Computed by {software} on {when}."
    document.build(story, canvasmaker=_numbered(_cut(header, 100), foot))
    return buffer.getvalue()


def _numbered(header: str, foot: str) -> Callable[..., Canvas]:
    """Return a maker of canvases that write header, foot and `page of pages` once the number of pages is known."""

    class Numbered(Canvas):  # type: ignore[misc]
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802
            self._pages.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for page in self._pages:
                self.__dict__.update(page)
                self._margins(len(self._pages))
                super().showPage()
            super().save()

        def _margins(self, pages: int) -> None:
            self.saveState()
            self.setFont(PLAIN, 7)
            self.setFillColor(FAINT)
            self.drawString(18 * mm, A4[1] - 12 * mm, writable(header))
            self.drawString(18 * mm, 10 * mm, foot)
            self.drawRightString(A4[0] - 18 * mm, 10 * mm, f"{self.getPageNumber()} / {pages}")
            self.restoreState()

    return Numbered


def _story(report: LongitudinalReport) -> Iterator[Flowable]:
    response = report.response
    yield Paragraph("Course of disease", TITLE)
    yield Spacer(1, 2 * mm)
    yield _identity(report)
    yield Paragraph(f"{RESEARCH_USE}. {words.UNVERIFIED}", BANNER)
    yield _verdict(report)
    for course, judged in zip(report.sums, report.responses, strict=True):
        yield from _judged(course, judged, response.time_points[-1])
    yield from _at_a_glance(report)
    yield Paragraph("New, gone, joined, parted and not evaluable lesions", HEADING)
    yield from _list([f"<b>{day.isoformat()}</b> {_text(said, 1000)}" for day, said in report.events])
    if report.lesions:
        yield Paragraph("Each lesion", HEADING)
        yield Paragraph(words.PICTURES, CAPTION)
    for lesion in report.lesions:
        story = list(_lesion(report, lesion))
        yield from [KeepTogether(story)] if len(report.visits) <= PICTURES_IN_ROW else story
    yield Paragraph("What was corrected", HEADING)
    yield from _corrections(report)
    yield Paragraph("Where the numbers come from", HEADING)
    yield from _made(report)
    if response.doubts or report.missing:
        yield Paragraph("Notes", HEADING)
        yield from _list([_text(said, 1000) for said in (*response.doubts, *report.missing)])


def _identifier(report: LongitudinalReport) -> str:
    who = report.patient
    return f"{who.patient_id or 'unknown'} ({who.issuer})" if who.issuer else who.patient_id or "unknown"


def _identity(report: LongitudinalReport) -> Table:
    who = report.patient
    rows = (
        ("Patient", words.called(who, alphabetic=True)),
        ("Patient ID", _identifier(report)),
        (
            "Born, sex",
            ", ".join(filter(None, [who.birth_date.isoformat() if who.birth_date else "", who.sex])) or "–",
        ),
        ("Criteria", words.criteria_name(report.response)),
        ("Visits", ", ".join(visit.date.isoformat() for visit in report.visits)),
    )
    cells = [[Paragraph(name, HEAD), Paragraph(_text(value, 400), SMALL)] for name, value in rows]
    return _lined(cells, [34 * mm, WIDTH - 34 * mm], head=False)


def _verdict(report: LongitudinalReport) -> Table:
    response = report.response
    last = response.time_points[-1]
    word, meaning = words.headline(response)
    left = [
        Paragraph(
            _text(word),
            WORD if len(word) < 5 else ParagraphStyle("long", parent=WORD, fontSize=13, leading=16),
        ),
        Paragraph(f"<b>{_text(meaning)}</b>", TEXT),
        Paragraph(last.date.isoformat(), SMALL),
    ]
    right = [Paragraph(f"<b>Why:</b> {_text(words.why(last, doubts=False), 3000)}", TEXT)]
    if report.margins:
        right.append(Paragraph("<b>How near to another verdict:</b>", TEXT))
        right += [Paragraph(f"{_text(said)}.", BULLET, bulletText="•") for said in report.margins[:6]]
    right += [Paragraph(f"<b>Note:</b> {_text(doubt, 1000)}", TEXT) for doubt in last.doubts]
    if response.best_overall:
        best = f"<b>Best overall response:</b> {_text(response.best_overall)}"
        if response.best_overall_confirmed:
            best += f"; when confirmation is required: {_text(response.best_overall_confirmed)}"
        right.append(Paragraph(f"{best}.", TEXT))
    table = Table([[left, right]], colWidths=[42 * mm, WIDTH - 42 * mm], splitInRow=1)
    table.setStyle(TableStyle([("BOX", (0, 0), (-1, -1), 1.2, INK), ("VALIGN", (0, 0), (-1, -1), "TOP")]))
    return table


def _judged(course: SumCourse, response: Response, told_above: TimePoint) -> Iterator[Flowable]:
    yield CondPageBreak(95 * mm)
    quantity = words.sentence(course.quantity)
    yield Paragraph(f"{_text(quantity)} and verdicts, {_text(words.criteria_name(response))}", HEADING)
    if any(point.sum is not None for point in course.points):
        yield curve(course)
        yield Paragraph(_text(words.curve_caption(course), 1000), CAPTION)
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
    first = response.time_points[0]
    rows = [
        [
            point.date.isoformat(), str((point.date - first.date).days), words.millimetres(point.sum),
            "" if point is first else words.change_of(point, first.sum), words.millimetres(point.nadir),
            words.change_of(point, point.nadir), point.target or "–", point.non_target or "–",
            "yes" if point.new else "no", verdict_of(response, point),
        ]
        for point in response.time_points
    ]  # fmt: skip
    yield _table(heads, rows, [19, 9, 15, 18, 13, 17, 15, 26, 10, 0], numbers=range(1, 6))
    yield Spacer(1, 2 * mm)
    told = [
        f"<b>{p.date.isoformat()}{f', {_text(p.overall)}' if p.overall else ''}:</b> "
        + _text(words.why(p, doubts=p is not told_above), 2000)
        for p in response.time_points
    ]
    yield from _list(told)


def _at_a_glance(report: LongitudinalReport) -> Iterator[Flowable]:
    changing = words.changes(report)
    yield CondPageBreak(105 * mm if changing else 30 * mm)
    yield Paragraph("Lesions at a glance", HEADING)
    if not report.lesions:
        yield Paragraph("No lesion was seen.", TEXT)
        return
    if changing:
        yield spider(report.lesions, report.visits)
        yield Paragraph(words.SPIDER, CAPTION)
    for group in words.chunks(range(len(report.visits)), MOST_VISITS):
        heads = ("Lesion", "Role", *(report.visits[i].date.isoformat() for i in group))
        rows = [[_cut(words.title_of(one), LONGEST_NAME), words.role_of(one), *(_glance(one, i) for i in group)]
                for one in report.lesions]  # fmt: skip
        each = min(22.0, 112.0 / len(group))
        role = 28.0
        first = WIDTH / mm - role - each * len(group)
        yield _table(heads, rows, [first, role, *([each] * len(group))], numbers=range(2, 2 + len(group)))
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
        f"{_text(_cut(words.title_of(lesion), LONGEST_NAME))}: {_text(words.role_of(lesion))}", SUBHEADING
    )
    lines = [words.line_of(cell) for cell in lesion.cells if cell.status]
    keep = [n for n in range(len(words.LINE_HEADS)) if n != 5 or words.has_uptake(lesion)]
    widths = [18.5, 0, 16, 16, 14.5, 16, 16, 15.5, 19, 17]
    heads = [words.LINE_HEADS[n] for n in keep]
    yield _table(
        heads, [[line[n] for n in keep] for line in lines], [widths[n] for n in keep],
        numbers=[place for place, n in enumerate(keep) if 2 <= n <= 8],
    )  # fmt: skip
    yield Spacer(1, 1 * mm)
    if why := words.reasons_of(lesion):
        yield Paragraph(_text(why, 6000), CAPTION)
    for at in range(0, len(shown), PICTURES_IN_ROW):
        yield _pictures(shown[at : at + PICTURES_IN_ROW])
    yield Paragraph(f"Tracking UID {_text(lesion.tracking_uid)}", CAPTION)


def _pictures(shown: Sequence[tuple[Cell, Picture]]) -> Table:
    side = WIDTH / PICTURES_IN_ROW
    cells = []
    for cell, picture in shown:
        told = [f"<b>{cell.date.isoformat()}</b>", _text(words.caption(cell)), _text(picture.words, 300)]
        below = Paragraph("<br/>".join(filter(None, told)), SMALL)
        cells.append([below] if picture.image is None else [_picture(picture.image, side - 5), below])
    table = Table([cells], colWidths=[side] * len(cells), hAlign="LEFT")
    table.setStyle(TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *_padding(0, 5)]))
    return table


def _picture(image: Pictures.Image, side: float) -> Image:
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    buffer.seek(0)
    return Image(buffer, width=side, height=side)


def _corrections(report: LongitudinalReport) -> Iterator[Flowable]:
    if not report.corrections:
        yield Paragraph("Nobody has corrected anything.", TEXT)
        return
    rows = [[f"{c.at:%Y-%m-%d %H:%M}", c.author, c.lesion, c.words] for c in report.corrections]
    yield _table(("When", "Who", "Lesion", "What"), rows, [26, 35, 20, 0])


def _made(report: LongitudinalReport) -> Iterator[Flowable]:
    rows = [
        [m.plugin, m.version, ", ".join(day.isoformat() for day in m.dates), m.model_sha256 or "–"]
        for m in report.made
    ]
    rows.append([report.software, "", "this report", ""])
    yield _table(("Analysis", "Version", "Visits", "Hash of the model"), rows, [32, 18, 50, 0])
    yield Spacer(1, 2 * mm)
    for visit in report.visits:
        yield Paragraph(
            _text(f"{visit.date.isoformat()}  {', '.join(visit.study_instance_uids)}", 500), CAPTION
        )


def _cohort_story(cohort: Cohort) -> Iterator[Flowable]:
    yield Paragraph("Cohort", TITLE)
    yield Spacer(1, 2 * mm)
    name = words.CRITERIA.get(cohort.criteria, cohort.criteria)
    yield Paragraph(f"{_text(name)}: {len(cohort.followed)} patients with a visit after the baseline", TEXT)
    yield Paragraph(f"{RESEARCH_USE}. {words.UNVERIFIED}", BANNER)
    yield Paragraph(f"Best change of the {_text(cohort.quantity or 'sum')}", HEADING)
    yield from _charts([waterfall(group) for group in parts(cohort.by_change, MOST_BARS)], words.WATERFALL,
                       "No patient has a sum at the baseline and later.")  # fmt: skip
    yield Paragraph("Time under observation", HEADING)
    last = max((one.days for one in cohort.followed), default=0)
    yield from _charts([swimmer(group, last) for group in parts(cohort.by_time, MOST_LANES)], words.SWIMMER,
                       "No patient has a visit after the baseline.")  # fmt: skip
    yield Paragraph("Patients", HEADING)
    rows = [
        [
            one.patient, one.baseline.isoformat(), str(one.days), words.percent(one.best_percent), one.best_overall,
            one.best_overall_confirmed, ", ".join(f"{day} {verdict}" for day, verdict in one.verdicts),
        ]
        for one in cohort.followed
    ]  # fmt: skip
    heads = ("Patient", "Baseline", "Days", "Best change", "Best response", "Confirmed", "Verdicts by day")
    yield _table(heads, rows, [32, 19, 11, 21, 23, 19, 0], numbers=(2, 3))
    if cohort.left_out:
        yield Paragraph(
            _text(f"Without a visit after the baseline: {', '.join(cohort.left_out)}.", 4000), CAPTION
        )


def _charts(drawings: Sequence[Drawing], caption: str, nothing: str) -> Iterator[Flowable]:
    if not drawings:
        yield Paragraph(nothing, TEXT)
        return
    yield from drawings
    yield Paragraph(caption, CAPTION)


def _list(told: Sequence[str]) -> Iterator[Flowable]:
    yield from (Paragraph(one, BULLET, bulletText="•") for one in told)
    if not told:
        yield Paragraph("None.", TEXT)


def _table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths_mm: Sequence[float],
    *,
    numbers: Sequence[int] = (),
) -> Table:
    """Return a table; the column of width 0 takes what is left."""
    left = WIDTH / mm - sum(widths_mm)
    right = set(numbers)
    cells = [
        [Paragraph(_text(head), HEAD_NUMBER if n in right else HEAD) for n, head in enumerate(heads)],
        *(
            [
                Paragraph(_text(cell, 1200).replace("\n", "<br/>"), NUMBER if n in right else SMALL)
                for n, cell in enumerate(row)
            ]
            for row in rows
        ),
    ]
    return _lined(cells, [(width or left) * mm for width in widths_mm], head=True)


def _lined(cells: list[list[Any]], widths: Sequence[float], *, head: bool) -> Table:
    table = Table(cells, colWidths=widths, repeatRows=1 if head else 0, hAlign="LEFT", splitInRow=1)
    rules: list[tuple[Any, ...]] = [("LINEBELOW", (0, 0), (-1, -1), 0.25, RULE)]
    if head:
        rules.append(("LINEBELOW", (0, 0), (-1, 0), 0.6, INK))
    table.setStyle(TableStyle([*rules, ("VALIGN", (0, 0), (-1, -1), "TOP"), *_padding(1.5, 4)]))
    return table


def _padding(above: float, right: float) -> list[tuple[Any, ...]]:
    whole = ((0, 0), (-1, -1))
    return [
        ("TOPPADDING", *whole, above),
        ("BOTTOMPADDING", *whole, 2.5),
        ("LEFTPADDING", *whole, 0),
        ("RIGHTPADDING", *whole, right),
    ]


def _text(text: str, longest: int = 400) -> str:
    return marked_up(_cut(text, longest))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


__all__ = ["write_cohort_pdf", "write_pdf"]
