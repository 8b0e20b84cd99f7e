"""Words from the network that somebody might take for SQL, HTML, a formula, a log line or a path: they stay text."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from empty_database import empty_database
from figures import write_figure
from injections import FORMULAS, LINES, PATHS, SQL, XSS
from node_process import nadir
from pydicom import dcmread
from small_results import make_case, saved, with_finding
from sqlalchemy import text
from sqlmodel import select
from whole_node import START, WholeNode, encoded, image

from node.logs import line
from node.report.folder import write_report
from node.report.shown import ShownFinding, StudyReport
from plugins.contract import Flag
from plugins.errors import Refused
from store.charset import decode_text
from store.dicom.rules import check
from store.dicom.series import read_study
from store.findings import save
from store.fsck.check import check as fsck
from store.jobs import DONE, finish
from store.objects import ObjectStore
from store.tables import Event, Patient, Study

pytestmark = pytest.mark.sec
WORDS = (*SQL, *XSS, *FORMULAS, *LINES)
TEXTS = (
    "PatientName",
    "StudyDescription",
    "SeriesDescription",
    "AccessionNumber",
    "Manufacturer",
    "StationName",
)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d")


@pytest.fixture
def node(tmp_path: Path) -> WholeNode:
    database = empty_database(tmp_path / "home")
    return WholeNode(database=database, objects=ObjectStore(tmp_path / "home" / "store", sync=False))


def with_words(number: int, word: str) -> bytes:
    """Return an image of a study of its own, with the word in every text that a node keeps."""
    dataset = dcmread(BytesIO(image(number, 1)))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    data = word.encode()
    for keyword in (*TEXTS, "PatientID", "IssuerOfPatientID"):
        value = (
            data if keyword not in ("PatientID", "IssuerOfPatientID") else data[:60] + str(number).encode()
        )
        dataset.add_new(keyword, "OB", value + b" " * (len(value) % 2))
    block = dataset.private_block(0x0011, re.sub(r"[^ -~]", "?", word)[:60] or "x", create=True)
    block.add_new(0x01, "LO", "private")
    written = encoded(dataset)
    # Written as bytes, so that no writer has an opinion; the representations are those of the standard again here.
    for keyword, vr in {
        **dict.fromkeys(TEXTS, b"LO"),
        "PatientID": b"LO",
        "IssuerOfPatientID": b"LO",
    }.items():
        element = dataset[keyword]
        length = len(element.value)
        tag = element.tag.group.to_bytes(2, "little") + element.tag.element.to_bytes(2, "little")
        old = tag + b"OB\0\0" + length.to_bytes(4, "little")
        assert written.count(old) == 1
        vr = (
            b"PN"
            if keyword == "PatientName"
            else b"SH"
            if keyword in ("AccessionNumber", "StationName")
            else vr
        )
        written = written.replace(old, tag + vr + length.to_bytes(2, "little"))
    return written


def test_sqli_words_in_every_text_are_kept_as_text_and_nothing_else_changes(node: WholeNode) -> None:
    for number, word in enumerate(WORDS, start=1):
        node.take(with_words(number, word))
    with node.database.reading() as session:
        patients = session.exec(select(Patient).order_by(Patient.id)).all()  # type: ignore[arg-type]
        studies = session.exec(select(Study).order_by(Study.id)).all()  # type: ignore[arg-type]
        tables = session.execute(text("SELECT count(*) FROM sqlite_master WHERE type = 'table'")).scalar_one()
    expected = [decode_text(word.encode(), "utf-8") for word in WORDS]
    assert [patient.patient_name.rstrip("=") for patient in patients] == [
        word.rstrip("=") for word in expected
    ]
    assert [study.study_description for study in studies] == expected
    assert [study.accession_number for study in studies] == expected
    fresh = empty_database(node.objects.root.parent / "fresh")
    with fresh.reading() as session:
        assert (
            session.execute(text("SELECT count(*) FROM sqlite_master WHERE type = 'table'")).scalar_one()
            == tables
        )
    fresh.dispose()
    assert fsck(node.database, node.objects, now=START) == []
    write_figure("SQL words in every text", payloads=len(SQL), got_through=0)


def test_csv_formula_words_reach_no_cell_and_json_gives_them_back_as_they_are(node: WholeNode) -> None:
    words = [word for word in WORDS if "\x00" not in word]
    node.take(image(1, 1))
    node.settle(START.replace(hour=9))
    job = node.claim(START.replace(hour=9))
    assert job is not None
    found, kept = node.write(job)
    one = found.found[0]
    many = tuple(
        replace(
            one,
            label=word,
            tracking_identifier=word,
            tracking_uid=f"2.25.{number}",
            measurements=(replace(one.measurements[0], method=word, derivation_meaning=word),),
        )
        for number, word in enumerate(words)
    )
    with node.database.transaction() as session:
        save(session, job, replace(found, found=many), kept, START)  # type: ignore[arg-type]
        finish(session, int(job.id or 0), job.attempt, DONE, START)
    home = ["--home", str(node.objects.root.parent)]
    done = nadir("findings", "--csv", *home)
    assert done.returncode == 0
    header, *rows = csv.reader(StringIO(done.stdout, newline=""))
    assert len(rows) == len(words)
    numbers = {name for name in header if name.endswith(("_mm", "value", "confidence", "number", "revision"))}
    for row in rows:
        for name, cell in zip(header, row, strict=True):
            assert name in numbers or not cell.startswith(FORMULA_STARTS), (name, cell)
    as_json = json.loads(nadir("findings", "--json", *home).stdout)
    assert [row["label"] for row in as_json] == words
    write_figure("CSV formula words", payloads=len(FORMULAS), got_through=0)


class Tags(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_xss_words_in_every_text_of_the_page_are_shown_as_text(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    study = read_study(sorted((tmp_path / "ct").glob("*.dcm"))).study
    shown = ShownFinding.of(case.findings[2].finding, plugin="contours", tracking_uid="2.25.1")
    plain = StudyReport(study=study, findings=(shown,), patient_name="A", description="B")
    tags = []
    for name, words in (("plain", ("x",)), ("evil", XSS)):
        report = replace(
            plain,
            findings=tuple(
                replace(
                    shown,
                    label=word,
                    plugin=word,
                    tracking_uid=f"2.25.{number}",
                    mask=None,
                    centroid_mm=(0.0, 0.0, 0.0),
                    flags=(Flag(code="odd", sentence=word),),
                )
                for number, word in enumerate(words)
            ),
            patient_name=" ".join(words),
            description=" ".join(words),
            refused=tuple(Flag(code="odd", sentence=word) for word in words),
            flags=tuple(Flag(code="odd", sentence=word) for word in words),
        )
        write_report(tmp_path / name, [report], made_at=datetime(2026, 3, 1, tzinfo=UTC))
        page = Tags()
        page.feed((tmp_path / name / "report.html").read_text(encoding="utf-8"))
        tags.append(page)
    sound, evil = tags
    assert evil.tags <= sound.tags
    assert "script" not in evil.tags
    assert not any(name.startswith("on") for name, _ in evil.attributes)
    assert not any(re.match(r"\s*(javascript|vbscript|data:text)", v, re.I) for _, v in evil.attributes)
    shown_words = " ".join(evil.words.split())
    assert all(" ".join(re.sub(r"[\x00-\x1f]", " ", word).split()) in shown_words for word in XSS)
    write_figure("HTML and script words", payloads=len(XSS), got_through=0)


def test_log_lines_stay_one_line_of_plain_characters_whatever_they_tell() -> None:
    for word in (*WORDS, *PATHS):
        said = line("told", text=word, caller=word)
        assert re.fullmatch(r"[\x20-\x7e]+", said)
        assert said.startswith("action=told ")


def test_xss_and_csv_words_as_labels_end_in_sound_seg_and_sr_objects(tmp_path: Path) -> None:
    for number, (first, second) in enumerate(zip(XSS[:4] + SQL[:2], FORMULAS[:4] + LINES[:2], strict=True)):
        case = with_finding(make_case(tmp_path / str(number)), 1, label=first, tracking_identifier=first)
        case = with_finding(case, 2, label=second.replace("\x00", " "))
        seg = case.seg()
        written = saved(seg, tmp_path / f"seg-{number}.dcm")
        assert check(written) == ()
        labels = [item.SegmentLabel for item in written.SegmentSequence]
        assert all(re.fullmatch(r"[^\x00-\x1f\\]+", label) for label in labels)
        assert check(saved(case.volumetric(seg), tmp_path / f"sr-{number}.dcm"), [written]) == ()


@pytest.mark.parametrize(
    "keyword", ["SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
def test_uid_paths_in_every_uid_end_in_quarantine_and_make_no_file_outside(
    node: WholeNode, tmp_path: Path, keyword: str
) -> None:
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(node.objects.root)}
    for word in PATHS:
        data = image(1, 1)
        dataset = dcmread(BytesIO(data))
        element = dataset[keyword]
        tag = element.tag.group.to_bytes(2, "little") + element.tag.element.to_bytes(2, "little") + b"UI"
        at = data.index(tag, 132)
        old = 8 + int.from_bytes(data[at + 6 : at + 8], "little")
        value = word.encode() + b"\0" * (len(word.encode()) % 2)
        changed = data[:at] + tag + len(value).to_bytes(2, "little") + value + data[at + old :]
        with pytest.raises(Refused) as caught:
            node.take(changed)
        assert caught.value.code == "invalid-uid"
        assert caught.value.sentence.isprintable()
    with node.database.reading() as session:
        events = session.exec(select(Event.text)).all()
    assert set(events) == {"invalid-uid from CT1@127.0.0.1"}
    after = {path for path in tmp_path.rglob("*") if not path.is_relative_to(node.objects.root)}
    assert {path.name for path in after - before} <= {"nadir.sqlite-wal", "nadir.sqlite-shm"}
    assert fsck(node.database, node.objects, now=START) == []
    write_figure(f"paths as {keyword}", payloads=len(PATHS), got_through=0)
