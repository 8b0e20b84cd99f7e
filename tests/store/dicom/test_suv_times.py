"""The times of an SUV factor by hand: to when decay is corrected, when was injected, and in which time zone."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pet_headers import AN_HOUR, DOSE, LAMBDA, factor, flags, header
from pydicom.dataset import Dataset

from plugins.errors import Refused
from store.dicom.comparable import comparable
from store.dicom.suv import suv_scale


def test_decay_to_the_series_start_is_by_hand() -> None:
    assert factor(header()) == pytest.approx(AN_HOUR, rel=1e-12)


def test_correction_to_the_injection_needs_no_times() -> None:
    bare = header(
        {"RadiopharmaceuticalStartTime": None}, DecayCorrection="ADMIN", SeriesTime=None, AcquisitionTime=None
    )
    assert factor(bare) == pytest.approx(70000 / DOSE, rel=1e-12)


def test_no_correction_takes_each_slice_at_its_own_time_and_duration() -> None:
    slices = [
        header(DecayCorrection="NONE", CorrectedImage=["ATTN"], AcquisitionTime=t, ActualFrameDuration=600000)
        for t in ("110000", "111000")
    ]
    scale = suv_scale(slices)
    x = LAMBDA * 600
    first = 70000 / DOSE * x / (1 - math.exp(-x)) * math.exp(LAMBDA * 3600)
    assert scale.factors[0] == pytest.approx(first, rel=1e-12)
    assert scale.factors[1] == pytest.approx(first * math.exp(LAMBDA * 600), rel=1e-12)


def test_an_injection_before_midnight_is_on_the_day_before() -> None:
    late = header({"RadiopharmaceuticalStartTime": "233000"}, SeriesTime="003000", AcquisitionTime="003000")
    assert factor(late) == pytest.approx(AN_HOUR, rel=1e-12)


def test_date_and_time_of_injection_come_before_the_time_alone() -> None:
    both = header({"RadiopharmaceuticalStartDateTime": "20250101100000.000000+0100"})
    assert factor(both) == pytest.approx(AN_HOUR, rel=1e-12)
    other = header({"RadiopharmaceuticalStartDateTime": "20250101103000"})
    assert factor(other) == pytest.approx(AN_HOUR * math.exp(-LAMBDA * 1800), rel=1e-12)
    assert "suv-injection-times-differ" in flags(other)


@pytest.mark.parametrize("words", ["20250101000000", "20250101000000.00", "20250101000000+0100"])
def test_a_date_and_time_of_injection_at_midnight_is_a_day_alone_where_the_time_says_otherwise(
    words: str,
) -> None:
    for half_life, scan in (("6586.2", "20250101"), ("282240", "20250104")):
        day_alone = header(
            {"RadiopharmaceuticalStartDateTime": words, "RadionuclideHalfLife": half_life},
            SeriesDate=scan,
            AcquisitionDate=scan,
            TimezoneOffsetFromUTC="+0100",
        )
        scale = suv_scale([day_alone])
        assert scale.provenance["injected_at"] == "2025-01-01T10:00:00"
        assert {flag.code for flag in scale.flags} == {"suv-injection-times-differ"}
        assert "10:00:00 of RadiopharmaceuticalStartTime" in scale.flags[0].sentence


@pytest.mark.parametrize(
    ("clock", "words", "zone"),
    [
        ("000000", "20250101000000", None),
        ("000030", "20250101000000", None),
        ("", "20250101000000", None),
        ("010000", "20250101000000+0000", "+0100"),
    ],
)
def test_an_injection_at_midnight_by_both_times_is_at_midnight(
    clock: str, words: str, zone: str | None
) -> None:
    night = header(
        {"RadiopharmaceuticalStartTime": clock, "RadiopharmaceuticalStartDateTime": words},
        SeriesTime="013000",
        AcquisitionTime="013000",
        TimezoneOffsetFromUTC=zone,
    )
    scale = suv_scale([night])
    assert scale.provenance["injected_at"] == f"2025-01-01T0{1 if zone else 0}:00:00"
    assert scale.flags == ()


def test_an_injection_date_after_the_scan_is_ignored_with_a_flag() -> None:
    shifted = header({"RadiopharmaceuticalStartDateTime": "20250102100000"})
    assert factor(shifted) == pytest.approx(AN_HOUR, rel=1e-12)
    assert flags(shifted) == ["suv-injection-date-ignored"]


@pytest.mark.parametrize("half_life_h", [12.7, 14.74, 78.41, 100.22])
def test_a_tracer_that_is_imaged_for_days_needs_the_day_of_its_injection(half_life_h: float) -> None:
    days = {"RadionuclideHalfLife": f"{half_life_h * 3600:g}", "RadiopharmaceuticalStartDateTime": ""}
    with pytest.raises(Refused, match=r"suv-injection-day-unknown.*RadiopharmaceuticalStartDateTime"):
        suv_scale([header(days)])
    assert "uptake_minutes" not in comparable([header(days)])


def test_a_stated_date_that_does_not_fit_is_no_day_for_a_tracer_that_is_imaged_for_days() -> None:
    after = {"RadionuclideHalfLife": "282240", "RadiopharmaceuticalStartDateTime": "20250102100000"}
    with pytest.raises(Refused, match="suv-bad-injection-time"):
        suv_scale([header(after)])


@pytest.mark.parametrize("half_life_h", [1.83, 1.13, 0.34, 0.87, 3.97])
def test_a_time_of_day_tells_the_injection_of_a_tracer_that_is_imaged_on_its_day(half_life_h: float) -> None:
    scale = suv_scale([header({"RadionuclideHalfLife": f"{half_life_h * 3600:g}"})])
    assert (scale.provenance["injected_at"], scale.flags) == ("2025-01-01T10:00:00", ())


def test_a_date_and_a_time_of_an_injection_days_before_are_one_when_they_tell_one_time_of_day() -> None:
    long = {"RadionuclideHalfLife": "282240", "RadiopharmaceuticalStartDateTime": "20241227100000"}
    scale = suv_scale([header(long)])
    decayed = DOSE * math.exp(-math.log(2) / 282240 * (5 * 86400 + 3600))
    assert scale.factors[0] == pytest.approx(70000 / decayed, rel=1e-12)
    assert scale.flags == ()


TEN_PAST = {"RadiopharmaceuticalStartTime": "101000", "RadiopharmaceuticalStartDateTime": "20250101101000"}


@pytest.mark.parametrize(
    ("half_life_s", "told"),
    [
        (45720.0, TEN_PAST),
        (6586.2, TEN_PAST),
        (6586.2, TEN_PAST | {"RadiopharmaceuticalStartDateTime": None}),
        (12000.0, TEN_PAST | {"RadiopharmaceuticalStartDateTime": None}),
    ],
)
def test_an_injection_between_the_reference_and_the_acquisition_is_of_that_day(
    half_life_s: float, told: dict[str, Any]
) -> None:
    early = header(told | {"RadionuclideHalfLife": str(half_life_s)}, SeriesTime="100000")
    scale = suv_scale([early])
    brought_back = DOSE * math.exp(math.log(2) / half_life_s * 600)
    assert scale.factors[0] == pytest.approx(70000 / brought_back, rel=1e-12)
    assert scale.provenance["seconds_after_injection"] == -600
    assert [flag.code for flag in scale.flags] == ["suv-injection-after-reference"]
    assert "10:10:00 is after 10:00:00" in scale.flags[0].sentence


@pytest.mark.parametrize(
    ("tracer", "scan"),
    [
        (TEN_PAST, {"SeriesTime": "070000"}),
        (TEN_PAST | {"RadionuclideHalfLife": "45720"}, {"SeriesTime": "100000", "AcquisitionTime": "100500"}),
    ],
    ids=["hours after the reference", "after the acquisition"],
)
def test_an_injection_that_no_rule_places_is_refused_and_not_put_on_the_day_before(
    tracer: dict[str, Any], scan: dict[str, Any]
) -> None:
    with pytest.raises(Refused, match="suv-bad-injection-time"):
        suv_scale([header(tracer, **scan)])


def test_a_date_and_time_in_utc_that_say_no_offset_give_way_to_the_time_of_the_scanners_clock() -> None:
    west = header({"RadiopharmaceuticalStartDateTime": "20250101150000"})
    assert factor(west) == pytest.approx(AN_HOUR, rel=1e-12)
    assert flags(west) == ["suv-injection-date-ignored"]


def test_an_injection_before_midnight_with_the_date_of_the_scan_after_it_is_on_the_day_before() -> None:
    late = {"RadiopharmaceuticalStartTime": "233000", "RadiopharmaceuticalStartDateTime": "20250101233000"}
    scan = header(late, SeriesTime="003000", AcquisitionTime="003000")
    assert factor(scan) == pytest.approx(AN_HOUR, rel=1e-12)
    assert flags(scan) == ["suv-injection-date-ignored"]


def test_ges_scan_time_is_used_when_the_series_time_is_after_the_acquisition() -> None:
    late = header(SeriesTime="120000")
    block = late.private_block(0x0009, "GEMS_PETD_01", create=True)
    block.add_new(0x0D, "DT", "20250101110000.00")
    scale = suv_scale([late])
    assert scale.factors[0] == pytest.approx(AN_HOUR, rel=1e-12)
    assert scale.provenance["reference_rule"] == "GE scan time"


def test_a_private_tag_of_another_vendor_is_not_ges_scan_time() -> None:
    late = header(SeriesTime="120000")
    late.private_block(0x0009, "SOMEONE ELSE", create=True).add_new(0x0D, "DT", "20250101090000.00")
    assert suv_scale([late]).provenance["reference_rule"] == "earliest acquisition time"


def test_the_reference_time_is_computed_back_from_a_later_bed() -> None:
    frame_s, x = 300.0, LAMBDA * 300
    mean_s = math.log(x / (1 - math.exp(-x))) / LAMBDA
    bed = header(
        SeriesTime="120000",
        AcquisitionTime="110500",
        ActualFrameDuration=int(frame_s * 1000),
        FrameReferenceTime=str(round((300 + mean_s) * 1000, 6)),
    )
    scale = suv_scale([bed])
    assert scale.provenance["reference_rule"] == "frame reference time"
    assert scale.factors[0] == pytest.approx(AN_HOUR, rel=1e-9)


def test_a_frame_reference_time_left_at_zero_does_not_move_the_reference_after_the_scan() -> None:
    bed = header(SeriesTime="120000", ActualFrameDuration=300000, FrameReferenceTime="0")
    scale = suv_scale([bed])
    assert scale.provenance["reference_rule"] == "earliest acquisition time"
    assert scale.factors[0] == pytest.approx(AN_HOUR, rel=1e-12)


def test_the_earliest_of_many_beds_counts() -> None:
    beds = [header(SeriesTime="105959", AcquisitionTime=t) for t in ("112000", "110000", "111000")]
    assert suv_scale(beds).provenance["corrected_to"] == "2025-01-01T10:59:59"


def test_more_than_one_per_cent_between_the_reference_times_is_flagged() -> None:
    off = header(ActualFrameDuration=300000, FrameReferenceTime="600000")
    assert flags(off) == ["suv-reference-times-differ"]


def test_series_times_that_differ_between_slices_are_no_reference_time() -> None:
    later = header(SeriesTime="105000", AcquisitionTime="110500")
    for slices in ([header(), later], [later, header()]):
        assert suv_scale(slices).provenance["reference_rule"] == "earliest acquisition time"


def test_an_injection_in_another_time_zone_than_the_scan_is_taken_in_that_of_the_scan() -> None:
    moved = {"RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": "20250101090000+0000"}
    assert factor(header(moved, TimezoneOffsetFromUTC="+0100")) == pytest.approx(AN_HOUR, rel=1e-12)


@pytest.mark.parametrize(
    ("tracer", "scan"),
    [
        ({"RadiopharmaceuticalStartDateTime": "20250101090000+0000"}, {}),
        ({"RadiopharmaceuticalStartDateTime": "20250101143000.00+0530"}, {}),
        (
            {"RadiopharmaceuticalStartDateTime": "20250101220000+0000"},
            {"SeriesDate": "20250102", "AcquisitionDate": "20250102"},
        ),
        (
            {
                "RadiopharmaceuticalStartDateTime": "20250101043000+0000",
                "RadiopharmaceuticalStartTime": "233000",
            },
            {"SeriesTime": "003000", "AcquisitionTime": "003000"},
        ),
    ],
    ids=["UTC", "another zone", "UTC of the day before", "injected before midnight"],
)
def test_an_injection_with_an_offset_that_the_scan_lacks_is_at_the_time_of_day_that_both_tell(
    tracer: dict[str, Any], scan: dict[str, Any]
) -> None:
    moved = header(tracer, **scan)
    scale = suv_scale([moved])
    assert scale.factors[0] == pytest.approx(AN_HOUR, rel=1e-12)
    assert [flag.code for flag in scale.flags] == ["suv-injection-times-differ"]
    assert "RadiopharmaceuticalStartTime" in scale.flags[0].sentence


def test_an_offset_that_the_scan_lacks_still_tells_the_day_of_an_injection_days_before() -> None:
    long = {
        "RadionuclideHalfLife": "282240",
        "RadiopharmaceuticalStartDateTime": "20241228090000+0000",
    }
    scale = suv_scale([header(long)])
    assert scale.provenance["injected_at"] == "2024-12-28T10:00:00"


def test_an_injection_in_utc_alone_is_refused_when_the_zone_of_the_scan_is_unknown() -> None:
    alone = {"RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": "20250101090000+0000"}
    for zone in (None, "CET"):
        with pytest.raises(Refused, match=r"suv-injection-zone-unknown.*TimezoneOffsetFromUTC"):
            suv_scale([header(alone, TimezoneOffsetFromUTC=zone)])


def test_an_injection_in_the_zone_of_some_place_is_on_the_clock_of_a_scan_that_states_none() -> None:
    local = {"RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": "20250101100000-0500"}
    scale = suv_scale([header(local)])
    assert scale.factors[0] == pytest.approx(AN_HOUR, rel=1e-12)
    assert [flag.code for flag in scale.flags] == ["suv-injection-zone-taken"]


SCANNED = [
    ("20250101100000.00+0000", "+0100"),
    ("20250101110000+0100", "+0100"),
    ("20250101160000+0000", "-0500"),
    ("20250101110000", "-0500"),
    ("20250101110000+0100", None),
]


@pytest.mark.parametrize(("words", "zone"), SCANNED)
def test_a_date_and_time_of_acquisition_is_taken_in_the_zone_of_the_scan(
    words: str, zone: str | None
) -> None:
    moved = header(
        AcquisitionTime="", AcquisitionDateTime=words, TimezoneOffsetFromUTC=zone, SeriesTime="113000"
    )
    scale = suv_scale([moved])
    assert scale.factors[0] == pytest.approx(AN_HOUR, rel=1e-12)
    assert scale.provenance["corrected_to"] == "2025-01-01T11:00:00"
    assert comparable([moved])["uptake_minutes"] == 60.0


@pytest.mark.parametrize(("words", "zone"), SCANNED)
def test_ges_scan_time_is_taken_in_the_zone_of_the_scan(words: str, zone: str | None) -> None:
    late = header(SeriesTime="120000", TimezoneOffsetFromUTC=zone)
    late.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", words)
    scale = suv_scale([late])
    assert scale.provenance["reference_rule"] == "GE scan time"
    assert scale.factors[0] == pytest.approx(AN_HOUR, rel=1e-12)


def test_a_scan_time_in_utc_alone_is_refused_when_the_zone_of_the_scan_is_unknown() -> None:
    moved = header(AcquisitionTime="", AcquisitionDateTime="20250101100000+0000")
    with pytest.raises(Refused, match=r"suv-scan-zone-unknown.*AcquisitionDateTime.*TimezoneOffsetFromUTC"):
        suv_scale([moved])
    told = comparable([moved])
    assert "uptake_minutes" not in told and told["injected_mbq"] == pytest.approx(368.08)
    late = header(SeriesTime="120000")
    late.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20250101100000.00+0000")
    with pytest.raises(Refused, match=r"suv-scan-zone-unknown.*0009,100D.*TimezoneOffsetFromUTC"):
        suv_scale([late])


def _around_midnight(series: str, *acquired: str, **changes: Any) -> list[Dataset]:
    """Slices without AcquisitionDate, of a tracer given an hour before 23:55."""
    return [
        header(
            {"RadiopharmaceuticalStartTime": "225500"},
            SeriesTime=series,
            AcquisitionTime=time,
            AcquisitionDate="",
            **changes,
        )
        for time in acquired
    ]


def test_slices_after_midnight_without_a_date_are_of_the_day_after_the_series() -> None:
    scale = suv_scale(_around_midnight("235500", "235500", "000100"))
    assert scale.factors == pytest.approx([AN_HOUR] * 2, rel=1e-12)
    assert scale.provenance["reference_rule"] == "series time"
    undecayed = _around_midnight(
        "235500",
        "235500",
        "000100",
        DecayCorrection="NONE",
        CorrectedImage=["ATTN"],
        ActualFrameDuration=600000,
    )
    x = LAMBDA * 600
    first = AN_HOUR * x / (1 - math.exp(-x))
    assert suv_scale(undecayed).factors == pytest.approx([first, first * math.exp(LAMBDA * 360)], rel=1e-12)


def test_slices_before_midnight_without_a_date_are_of_the_day_before_a_series_made_after_it() -> None:
    scale = suv_scale(_around_midnight("001000", "235500", "235800"))
    assert scale.factors == pytest.approx([AN_HOUR] * 2, rel=1e-12)
    assert scale.provenance["corrected_to"] == "2024-12-31T23:55:00"


def test_a_series_made_in_the_evening_of_a_scan_in_the_morning_leaves_it_on_its_day() -> None:
    late = header(SeriesTime="233000", AcquisitionDate="")
    scale = suv_scale([late])
    assert scale.factors[0] == pytest.approx(AN_HOUR, rel=1e-12)
    assert scale.provenance["reference_rule"] == "earliest acquisition time"


def test_a_slice_without_decay_correction_many_half_lives_after_the_injection_is_refused() -> None:
    days = [
        header(DecayCorrection="NONE", CorrectedImage=["ATTN"], AcquisitionDate=d, ActualFrameDuration=600000)
        for d in ("20250101", "20250102")
    ]
    with pytest.raises(Refused, match=r"suv-bad-injection-time.*2025-01-02T11:00:00"):
        suv_scale(days)
