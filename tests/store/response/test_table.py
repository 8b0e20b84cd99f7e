"""Tables of measurements as people and programs write them, and what is refused of them."""

from __future__ import annotations

import contextlib
import json
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_tables import HEADER, refusal, table

from plugins.errors import Refused
from store.response.history import History, Reference, Role, Seen, Status, Visit
from store.response.table import plain, read_table
from store.response.verdict import Margin, Response, TimePoint

TWO_VISITS = """P1,T1,2024-01-02,target,liver,0,100,60,measured
P1,N1,2024-01-02,target,neck,1,20,15.5,
P1,NT1,2024-01-02,non-target,bone,0,,,present
P1,T1,2024-03-01,target,liver,0,70.1,,measured
P1,N1,2024-03-01,target,neck,1,,,NE
P1,NT1,2024-03-01,non-target,bone,0,,,unequivocal-progression
P1,NEW1,2024-03-01,new,lung,0,12,,present
"""


def read_one(text: str | bytes) -> History:
    data = text if isinstance(text, bytes) else text.encode()
    (history,) = read_table(data).histories
    return history


PLAIN = table(*TWO_VISITS.splitlines())


@pytest.mark.parametrize(("start", "told"), [("2024-03-01", 0), ("2024-03-02", 1)])
def test_a_treatment_that_starts_after_every_visit_is_doubted(start: str, told: int) -> None:
    header = HEADER + ",treatment_start"
    rows = [f"{row},{start}" for row in TWO_VISITS.splitlines()]
    said = [one for one in read_table(table(*rows, header=header)).doubts["P1"] if "last visit" in one]
    assert (
        said
        == ["the treatment starts on 2024-03-02, after the last visit, 2024-03-01: is that date right?"][
            :told
        ]
    )


@pytest.mark.parametrize(
    ("start", "later", "lies"),
    [
        ("2026-01-29", "01-29", ""),
        ("2026-01-01", "03-01", ""),
        ("2026-01-30", "03-01", "29 days before the start of treatment, 2026-01-30; RECIST 1.1 takes 28 at most"),
        ("2025-12-31", "03-01", "1 day after the start of treatment, 2025-12-31: what changed before it is not seen"),
    ],
)  # fmt: skip
def test_a_baseline_that_does_not_fit_the_start_of_treatment_is_told(
    start: str, later: str, lies: str
) -> None:
    assert doubts_of(start, (later,)) == ((f"the baseline, 2026-01-01, lies {lies}",) if lies else ())


def test_visits_before_the_start_of_treatment_are_told() -> None:
    assert doubts_of("2026-01-28", ("01-20", "01-27", "01-28")) == (
        "visits before the start of treatment, 2026-01-28, judged as follow-up: 2, first 2026-01-20; "
        "the baseline should be the last before it",
    )


def doubts_of(start: str, later: tuple[str, ...]) -> tuple[str, ...]:
    rows = [f"P1,T1,2026-{day},target,liver,0,50,20,measured,{start}" for day in ("01-01", *later)]
    return read_table(table(*rows, header=HEADER + ",treatment_start")).doubts["P1"]


def test_a_table_is_a_history_by_date_with_lengths_in_tenths() -> None:
    def seen(lesion: str, role: Role, status: Status, site: str, *axes: int, node: bool = False) -> Seen:
        long_axis, short_axis = (*axes, None, None)[:2]
        return Seen(
            lesion=lesion,
            role=role,
            status=status,
            site=site,
            node=node,
            long_axis_tenths=long_axis,
            short_axis_tenths=short_axis,
        )

    first = (
        seen("T1", Role.TARGET, Status.MEASURED, "liver", 1000, 600),
        seen("N1", Role.TARGET, Status.MEASURED, "neck", 200, 155, node=True),
        seen("NT1", Role.NON_TARGET, Status.PRESENT, "bone"),
    )
    second = (
        seen("T1", Role.TARGET, Status.MEASURED, "liver", 701),
        seen("N1", Role.TARGET, Status.NOT_EVALUABLE, "neck", node=True),
        seen("NT1", Role.NON_TARGET, Status.PROGRESSED, "bone"),
        seen("NEW1", Role.NEW, Status.PRESENT, "lung", 120),
    )
    visits = (Visit(date=date(2024, 1, 2), seen=first), Visit(date=date(2024, 3, 1), seen=second))
    assert read_one(PLAIN) == History(patient="P1", visits=visits)
    assert read_table(PLAIN).notes == ()


def other(*changes: tuple[str, str]) -> bytes:
    """Return the plain table with some of its text replaced."""
    text = PLAIN.decode()
    for old, new in changes:
        text = text.replace(old, new)
    return text.encode()


IN_CAPITALS = PLAIN.upper()
for place in (b"liver", b"neck", b"bone", b"lung"):
    IN_CAPITALS = IN_CAPITALS.replace(place.upper(), place)
LINES = PLAIN.splitlines()
WRITTEN = {
    "byte order mark": b"\xef\xbb\xbf" + PLAIN,
    "UTF-16, as Excel writes Unicode text": PLAIN.decode().encode("utf-16"),
    "CRLF": other(("\n", "\r\n")),
    "CR alone": other(("\n", "\r")),
    "semicolons and decimal commas": other((",", ";"), (".", ",")),
    "tabs": other((",", "\t")),
    "blanks around cells": other((",", " ,  "), ("\n", " \n")),
    "empty lines": b"\n \n" + other(("\n", "\n,,,,,,,,\n\n")),
    "quotes": other(("P1", '"P1"'), ("70.1", '"70,1"'), ("15.5", '"15,5"')),
    "dates": other(("2024-01-02", "20240102"), ("2024-03-01", "2024-03-01T09:30:00")),
    "upper case": IN_CAPITALS,
    "other spelling": other(("non-target", "Non Target"), ("long_axis_mm", "Long axis (mm)")),
    "status of a number": other((",measured", ",")),
    "NA, as R writes it": other((",,", ",NA,"), (",,", ",NA,")),
    "order": b"\n".join([LINES[0], *sorted(LINES[4:]), *LINES[1:4]]),
    "numbers": other(("70.1", "70.10"), ("100,60", "1e2,60.0")),
    "site and node said once": other(("neck,1,,,NE", ",,,,ne")),
}


@pytest.mark.parametrize("data", WRITTEN.values(), ids=WRITTEN.keys())
def test_what_programs_write_differently_means_the_same(data: bytes) -> None:
    def sorted_visits(history: History) -> list[tuple[date, list[Seen]]]:
        return [(visit.date, sorted(visit.seen, key=lambda seen: seen.lesion)) for visit in history.visits]

    assert sorted_visits(read_one(data)) == sorted_visits(read_one(PLAIN))
    assert read_table(data).notes == ()


def test_columns_may_miss_stand_elsewhere_or_be_unknown() -> None:
    read = read_table(b"date,Comment,role,lesion,patient,long_axis_mm\n2024-01-02,hi,target,T1,007,12\n")
    assert read.histories[0].patient == "007"
    assert read.histories[0].visits[0].seen == (
        Seen(lesion="T1", role=Role.TARGET, status=Status.MEASURED, long_axis_tenths=120),
    )
    assert read.notes == ("columns that are not known were ignored: Comment",)
    assert read.columns == {"date", "role", "lesion", "patient", "long_axis_mm"}


def test_what_the_other_criteria_need_is_read_with_its_unit() -> None:
    header = (
        "patient,lesion,date,role,volume_ml,volume_sd_ml,suv_peak,suv_peak_sd,tlg,deauville,"
        "liver_mean,liver_sd,blood_pool_mean,blood_pool_sd,mediastinum,uptake_minutes,injected_mbq,scanner,"
        "treatment_start,long_axis_sd_mm,short_axis_sd_mm"
    )
    one = "P1,T1,2024-01-02,target,1.5,0.25,4.25,0.5,30,4,2.0,0.2,1.5,0.1,1.4,60,370,A,2024-01-10,0.7,0.4"
    two = "P1,T2,2024-01-02,target,2,,,,,,2,,,,,,,,20240110,,"
    read = read_table(table(one, two, header=header))
    (visit,) = read.histories[0].visits
    assert visit.seen[0] == Seen(
        lesion="T1",
        role=Role.TARGET,
        status=Status.MEASURED,
        volume_mm3=1500.0,
        volume_sd_mm3=250.0,
        suv_peak=4.25,
        suv_peak_sd=0.5,
        tlg=30.0,
        deauville=4,
        long_axis_sd_mm=0.7,
        short_axis_sd_mm=0.4,
    )
    assert visit.seen[1].volume_mm3 == 2000.0
    assert visit.reference == Reference(
        liver_mean=2.0,
        liver_sd=0.2,
        blood_pool_mean=1.5,
        blood_pool_sd=0.1,
        mediastinum=1.4,
        uptake_minutes=60.0,
        injected_mbq=370.0,
        scanner="A",
    )
    assert read.histories[0].treatment_start == date(2024, 1, 10)


def test_patients_come_in_the_order_of_the_table() -> None:
    rows = [f"{patient},T1,2024-01-0{day},target,liver,0,20,," for day in (2, 1) for patient in ("B", "A")]
    read = read_table(table(*rows))
    assert [history.patient for history in read.histories] == ["B", "A"]
    assert [len(history.visits) for history in read.histories] == [2, 2]


@given(st.integers(0, 20_000))
def test_every_tenth_of_a_millimetre_is_kept(tenths: int) -> None:
    history = read_one(table(f"P1,T1,2024-01-02,target,,0,{tenths // 10}.{tenths % 10},,"))
    assert history.visits[0].seen[0].long_axis_tenths == tenths


@pytest.mark.parametrize(("text", "tenths"), [("70.05", 701), ("70.049", 700), ("70.95", 710), ("0.04", 0)])
def test_more_digits_are_rounded_half_up_and_told(text: str, tenths: int) -> None:
    read = read_table(table(f"P1,T1,2024-01-02,target,,0,{text},,"))
    assert read.histories[0].visits[0].seen[0].long_axis_tenths == tenths
    assert read.doubts["P1"] == (f"lengths rounded to tenths of a millimetre: 1, first {text} on line 2",)


def test_a_short_axis_that_is_the_longer_one_is_told() -> None:
    read = read_table(table("P1,T1,2024-01-02,target,,0,20,30,"))
    assert read.doubts["P1"] == ("lines with a short axis above the long one: 1, first line 2",)


def test_a_length_of_a_lesion_too_small_to_measure_is_told_as_what_it_counts() -> None:
    read = read_table(
        table("P1,T1,2024-01-02,target,,0,8,,too-small", "P1,T2,2024-01-02,target,,0,5,,too-small")
    )
    told = "lengths of lesions too small to measure, which RECIST counts as 5 mm: 1, first 8 on line 2"
    assert read.doubts["P1"] == (told,)
    node = read_table(table("P1,N,2024-01-02,target,,1,35,8,too-small"))
    assert (node.histories[0].visits[0].seen[0].short_axis_tenths, node.doubts["P1"]) == (80, ())


GOOD = "P1,T1,2024-01-02,target,liver,0,20,10,measured"


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        ("P1,T2,2024-01-02,target,liver,0,-20,,", "negative", "line 3, column long_axis_mm: found '-20'"),
        ("P1,T2,2024-01-02,target,liver,0,NaN,,", "bad-number", "found 'NaN'"),
        ("P1,T2,2024-01-02,target,liver,0,inf,,", "bad-number", "found 'inf'"),
        ("P1,T2,2024-01-02,target,liver,0,20 mm,,", "bad-number", "found '20 mm'"),
        ("P1,T2,2024-01-02,target,liver,0,1.234.5,,", "bad-number", "found '1.234.5'"),
        ('P1,T2,2024-01-02,target,liver,0,"1,234",,', "bad-number", "thousands or decimals"),
        ("P1,T2,2024-01-02,target,liver,0,1e99,,", "bad-number", "too large"),
        ("P1,T2,2024-01-02,target,liver,0,20,9000,", "bad-number", "column short_axis_mm: found '9000'"),
        ("P1,T2,01.02.2024,target,liver,0,20,,", "bad-date", "column date: found '01.02.2024'"),
        ("P1,T2,2024-02-30,target,liver,0,20,,", "bad-date", "no day of the calendar"),
        ("P1,T2,,target,liver,0,20,,", "missing-value", "column date: found nothing"),
        (",T2,2024-01-02,target,liver,0,20,,", "missing-value", "line 3, column patient"),
        ("P1,,2024-01-02,target,liver,0,20,,", "missing-value", "line 3, column lesion"),
        ("P1,T2,2024-01-02,tumour,liver,0,20,,", "bad-role", "one of target, non-target, new"),
        ("P1,T2,2024-01-02,target,liver,0,20,,gone", "bad-status", "measured, absent, too-small"),
        ("P1,T2,2024-01-02,target,liver,2,20,,", "bad-flag", "column node: found '2'"),
        ("P1,T2,2024-01-02,target,liver,0,,,", "no-status", "line 3, column status: found nothing"),
        ("P1,T2,2024-01-02,target,liver,0,,,measured", "no-number", "column status: found 'measured'"),
        ("P1,T2,2024-01-02,target,liver,0,20,,absent", "contradiction", "found '20'"),
        ("P1,T2,2024-01-02,target,liver,0,35,,too-small", "contradiction", "column long_axis_mm: found '35'"),
        ("P1,T1,20240102,target,liver,0,20,,", "lesion-twice", "line 3, column lesion: found 'T1'"),
        ("P1,T1,2024-03-01,non-target,liver,0,20,,", "role-changes", "is target on line 2"),
        ("P1,T1,2024-03-01,target,liver,1,20,,", "contradiction", "column node: found '1', but '0' on line 2"),
        ("P1,T2,2024-03-01,target,liver,0,20,,", "no-baseline", "line 3: lesion T2 of patient P1"),
        ("P1,T1,2023-03-01,new,liver,0,20,,", "role-changes", "is target on line 2"),
        ("P1,T2,2023-03-01,new,liver,0,20,,", "no-baseline", "first visit, 2023-03-01"),
        ("P1,T2,2024-01-02,new,liver,0,20,,", "new-at-baseline", "2024-01-02 is the first visit"),
        ("P1,T2,2024-01-02,target,liver,0,70,1,,", "uneven-row", "line 3: 10 cells under 9 names"),
        ("P1,T2,2024-01-02,target,liver,0,7", "uneven-row", "line 3: 7 cells under 9 names"),
        ('P1,T2,2024-01-02,target,liver,0,20.5,"7,5",', "mixed-decimals", "found '20.5', and a comma on line 3"),
        ("P1,T\x1b[2J,2024-01-02,target,liver,0,20,,", "bad-character", "line 3, column lesion"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_meant_is_refused_by_line_and_column(row: str, code: str, said: str) -> None:
    error = refusal(table(GOOD, row))
    assert error.code == code
    assert said in error.sentence


def test_a_quote_that_is_left_open_is_refused() -> None:
    assert refusal(table(GOOD, 'P1,"T2,2024-01-02,target,liver,0,20,,', GOOD)).code in (
        "uneven-row",
        "bad-character",
    )


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (b"", "empty-table", "empty"),
        (b" \n\r\n", "empty-table", "empty"),
        (b"\xef\xbb\xbf", "empty-table", "empty"),
        (b"\xff\xfe", "empty-table", "empty"),
        (HEADER.encode(), "empty-table", "no row"),
        (b"PK\x03\x04\x00\x00workbook", "not-text", "save the sheet as CSV"),
        (table(GOOD).replace(b"liver", b"Geb\xe4rmutter"), "not-text", "line 2"),
        (b"\xff\xfea", "not-text", "save as CSV"),
        (b"a,b,c\n1,2,3\n", "no-header", "line 1"),
        (table(GOOD, header=HEADER.replace("role", "rolle")), "missing-column", "no column role"),
        (table(GOOD, header=HEADER.replace("site", "Long axis")), "column-twice", "long_axis_mm"),
    ],
)
def test_a_file_that_is_no_table_is_refused(data: bytes, code: str, said: str) -> None:
    error = refusal(data)
    assert error.code == code
    assert said in error.sentence


@pytest.mark.parametrize(
    ("rows", "column", "code"),
    [
        (("1,2.0,2024-01-01", "1,2.1,2024-01-01"), "liver_mean", "contradiction"),
        (("1,2,2024-01-01", "1,2,2024-01-02"), "treatment_start", "contradiction"),
        (("6,2,2024-01-01", "1,2,2024-01-01"), "deauville", "bad-deauville"),
    ],
)
def test_what_a_visit_has_once_is_said_once(rows: tuple[str, str], column: str, code: str) -> None:
    header = "patient,lesion,date,role,deauville,liver_mean,treatment_start"
    error = refusal(table(*(f"P1,T{n},2024-01-02,target,{row}" for n, row in enumerate(rows)), header=header))
    assert error.code == code
    assert f"column {column}" in error.sentence


def test_a_target_that_is_present_with_a_number_is_measured() -> None:
    rows = ("P1,T1,2024-01-02,target,,0,20,,present", "P1,NT1,2024-01-02,non-target,,0,20,,present")
    target, other_one = read_one(table(*rows)).visits[0].seen
    assert (target.status, other_one.status) == (Status.MEASURED, Status.PRESENT)


@given(st.binary(max_size=60), st.integers(0, len(PLAIN)), st.integers(0, 40))
def test_a_damaged_table_is_read_or_refused(put: bytes, at: int, instead_of: int) -> None:
    with contextlib.suppress(Refused):
        assert read_table(PLAIN[:at] + put + PLAIN[at + instead_of :]).histories


def test_a_response_is_plain_data_under_its_own_names() -> None:
    margin = Margin(lesion="T1", quantity="long_axis", value=70.1, change=-0.1, unit="mm", verdict="PR")
    point = TimePoint(
        date=date(2024, 3, 1),
        sum=70.1,
        nadir=100.0,
        target="SD",
        non_target=None,
        new=False,
        overall="SD",
        because="neither",
        margins=(margin,),
        doubts=("one",),
    )
    response = Response(
        patient="P1",
        criteria="recist1.1",
        quantity="sum of diameters",
        unit="mm",
        time_points=(point,),
        best_overall="SD",
        best_overall_confirmed="SD",
    )
    said = json.loads(json.dumps(plain(response)))
    assert said["patient"] == "P1" and said["unit"] == "mm" and said["best_overall_confirmed"] == "SD"
    (told,) = said["time_points"]
    assert told == {
        "date": "2024-03-01",
        "sum": 70.1,
        "nadir": 100.0,
        "target": "SD",
        "non_target": None,
        "new": False,
        "overall": "SD",
        "because": "neither",
        "margins": [
            {
                "lesion": "T1",
                "quantity": "long_axis",
                "value": 70.1,
                "change": -0.1,
                "unit": "mm",
                "verdict": "PR",
                "standard_deviations": None,
            }
        ],
        "doubts": ["one"],
    }
