from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from dicom_checkers import dcmqi_report, dsrdump, iod_errors
from pydicom.dataset import Dataset
from small_results import PROVENANCE, Case, make_case, saved, with_finding

from plugins import codes
from plugins.contract import Finding, Flag, Mask, Measurement
from plugins.errors import Broken
from store.dicom.drawing import axis_line, drawn_slice, region
from store.dicom.groups import method_code
from store.dicom.rules import check

KINDS = ("volumetric", "planar", "nothing")
UNEVEN = Flag(code="uneven-slices", sentence="The slices are not quite evenly spaced.")
LOST = Flag(code="missing-slices", sentence="Two slices are missing; send the missing slices.")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def written(case: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Dataset, Path]]:
    """Every kind of report, read back from its file."""
    folder = tmp_path_factory.mktemp("sr")
    seg = case.seg()
    made = {"volumetric": case.volumetric(seg), "planar": case.planar(seg), "nothing": case.nothing()}
    return {kind: (saved(sr, folder / f"{kind}.dcm"), folder / f"{kind}.dcm") for kind, sr in made.items()}


def _container(sr: Dataset, value: str) -> list[Dataset]:
    return [i for i in sr.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == value]


def _groups(sr: Dataset) -> list[Dataset]:
    return [g for c in _container(sr, "126010") for g in c.ContentSequence]


def _item(group: Dataset, code: str) -> Dataset:
    (found,) = [i for i in group.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == code]
    return found


def _evidence(sr: Dataset) -> set[str]:
    return {
        i.ReferencedSOPInstanceUID
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for i in series.ReferencedSOPSequence
    }


@pytest.mark.parametrize("kind", KINDS)
def test_other_readers_take_every_report_without_an_error(
    written: dict[str, tuple[Dataset, Path]], kind: str, tmp_path: Path
) -> None:
    _, path = written[kind]
    assert iod_errors(path) == []
    assert f"{'Oncology' if kind == 'nothing' else 'Imaging'} Measurement Report" in dsrdump(path)
    dcmqi_report(path, tmp_path / "report.json")
    highdicom.sr.srread(path)


def test_dcmqi_reads_the_values_segments_and_identities_back(
    written: dict[str, tuple[Dataset, Path]], case: Case, tmp_path: Path
) -> None:
    report = json.loads(dcmqi_report(written["volumetric"][1], tmp_path / "report.json"))
    for group, identified in zip(report["Measurements"], case.findings, strict=True):
        assert group["ReferencedSegment"] == identified.segment_number
        assert group["TrackingIdentifier"] == identified.tracking_identifier
        assert group["TrackingUniqueIdentifier"] == identified.tracking_uid
        assert group["SourceSeriesForImageSegmentation"] == case.volume.series_instance_uid
        for read, measured in zip(group["measurementItems"], identified.finding.measurements, strict=False):
            assert read["quantity"]["CodeValue"] == measured.concept.value
            assert float(read["value"]) == pytest.approx(measured.value, rel=1e-9)
            assert read["units"]["CodeValue"] == measured.unit.value


@pytest.mark.parametrize("kind", KINDS)
def test_every_report_is_unverified_and_says_research_use(
    written: dict[str, tuple[Dataset, Path]], kind: str
) -> None:
    sr, _ = written[kind]
    assert (sr.VerificationFlag, sr.CompletionFlag, sr.PreliminaryFlag) == (
        "UNVERIFIED",
        "COMPLETE",
        "PRELIMINARY",
    )
    (said,) = _container(sr, "C0034375")
    assert any("For research use only" in i.get("TextValue", "") for i in said.ContentSequence)
    assert _container(sr, "121012")[0].UID.startswith("2.25.")
    assert _container(sr, "121058")[0].ConceptCodeSequence[0].CodeMeaning == "CT unspecified body region"
    assert _container(sr, "121049")[0].ConceptCodeSequence[0].CodeValue == "en-US"


def test_the_reports_have_their_classes_and_their_own_series(
    written: dict[str, tuple[Dataset, Path]], case: Case
) -> None:
    volumetric, planar = written["volumetric"][0], written["planar"][0]
    assert volumetric.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"
    assert planar.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.33"
    assert len({volumetric.SeriesInstanceUID, planar.SeriesInstanceUID, case.seg().SeriesInstanceUID}) == 3
    assert volumetric.StudyInstanceUID == planar.StudyInstanceUID == case.seg().StudyInstanceUID


def test_a_volumetric_group_names_its_segment_and_source_series(
    written: dict[str, tuple[Dataset, Path]], case: Case
) -> None:
    sr, seg = written["volumetric"][0], case.seg()
    for number, group in enumerate(_groups(sr), start=1):
        reference = _item(group, "121191").ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert reference.ReferencedSegmentNumber == number
        assert group.ContentTemplateSequence[0].TemplateIdentifier == "1411"
        assert case.volume.series_instance_uid == _item(group, "121232").UID
        segment = seg.SegmentSequence[number - 1]
        assert segment.TrackingUID == _item(group, "112040").UID
        assert _item(group, "112039").TextValue == segment.TrackingID
    listed = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert _evidence(sr) == {seg.SOPInstanceUID, *(i.ReferencedSOPInstanceUID for i in listed)}


def test_a_planar_group_draws_both_axes_on_the_image_of_the_long_axis(
    written: dict[str, tuple[Dataset, Path]], case: Case
) -> None:
    sr = written["planar"][0]
    for group, identified in zip(_groups(sr)[:2], case.findings, strict=False):
        finding = identified.finding
        k = finding.measurement("long_axis").slice_index
        (drawn,) = [i for i in group.ContentSequence if i.ValueType == "SCOORD"]
        image = drawn.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        assert k is not None
        assert image == case.volume.sop_instance_uids[k]
        assert group.ContentTemplateSequence[0].TemplateIdentifier == "1410"
        points = np.array(drawn.GraphicData).reshape(-1, 2)
        for name, code, ends in (
            ("long_axis", "103339001", points[:2]),
            ("short_axis", "103340004", points[-2:]),
        ):
            measured = finding.measurement(name)
            number = _item(group, code)
            own = np.array(next(i for i in number.ContentSequence if i.ValueType == "SCOORD").GraphicData)
            assert np.allclose(own.reshape(2, 2), ends, atol=1e-3)
            truth = case.volume.to_index(np.array(measured.end_points_mm))
            assert np.allclose(ends[:, ::-1] - 0.5, truth[:, 1:], atol=1e-3)
            assert np.allclose(truth[:, 0], k)
            length = np.linalg.norm((ends[1] - ends[0]) * case.volume.spacing_mm[:0:-1])
            assert length == pytest.approx(float(number.MeasuredValueSequence[0].NumericValue), abs=2e-3)
    assert case.seg().SOPInstanceUID in _evidence(sr)


def test_a_region_without_axes_is_drawn_as_a_closed_outline_where_it_is_largest(
    written: dict[str, tuple[Dataset, Path]], case: Case
) -> None:
    group = _groups(written["planar"][0])[2]
    (drawn,) = [i for i in group.ContentSequence if i.ValueType == "SCOORD"]
    points = np.array(drawn.GraphicData).reshape(-1, 2)
    assert np.array_equal(points[0], points[-1])
    assert points.min(axis=0) == pytest.approx([3, 4])
    assert points.max(axis=0) == pytest.approx([36 - 3, 40 - 4])
    assert _item(group, "130400").ConceptCodeSequence[0].CodeMeaning == "Outline"


def test_viewers_read_the_derivation_in_the_planar_report(written: dict[str, tuple[Dataset, Path]]) -> None:
    def names(kind: str) -> list[str]:
        group = _groups(written[kind][0])[0]
        return [
            i.ConceptNameCodeSequence[0].CodeMeaning for i in group.ContentSequence if i.ValueType == "NUM"
        ]

    assert names("planar")[:4] == ["Long Axis", "Short Axis", "Volume", "Attenuation Coefficient (Mean)"]
    assert names("volumetric")[:4] == ["Long Axis", "Short Axis", "Volume", "Attenuation Coefficient"]
    assert names("planar")[-1] == "Certainty of Finding"


def test_a_measurement_keeps_its_method_in_full(case: Case) -> None:
    words = "0.5-level contour of the mask, longest perpendicular chord inside the region in the slice of the long axis"
    said = tuple(
        replace(m, method=words if m.name == "short_axis" else m.method)
        for m in case.findings[0].finding.measurements
    )
    told = with_finding(case, 1, measurements=said)
    group = _groups(told.volumetric(told.seg()))[0]
    short, long, volume = (_item(group, code) for code in ("103340004", "103339001", "118565006"))
    method = _item(short, "370129005").ConceptCodeSequence[0]
    assert method.CodeMeaning == words[:61] + "..."
    assert method.CodingSchemeDesignator == "99NADIR"
    assert _item(short, "121106").TextValue == words
    assert _item(long, "370129005").ConceptCodeSequence[0].CodeMeaning == said[0].method
    assert "Comment" not in {i.ConceptNameCodeSequence[0].CodeMeaning for i in long.ContentSequence}
    assert _item(volume, "370129005").ConceptCodeSequence[0].CodeValue == "126030"


def test_the_code_of_a_method_belongs_to_its_words() -> None:
    def measured(method: str) -> Measurement:
        return Measurement(name="x", concept=codes.LENGTH, value=1.0, unit=codes.MM, method=method)

    assert method_code(measured("a")) == method_code(measured("a"))
    assert method_code(measured("a")) != method_code(measured("b"))
    assert method_code(measured("a")).meaning == "a"


def test_the_uncertainty_of_a_value_is_told(case: Case) -> None:
    first = case.findings[0].finding
    known = tuple(replace(m, uncertainty=0.25) for m in first.measurements)
    unsure = with_finding(case, 1, measurements=known)
    number = _item(_groups(unsure.volumetric(unsure.seg()))[0], "103339001")
    assert _item(number, "UNCERTAINTY").TextValue == "one standard deviation: 0.25 mm"


def test_nothing_found_is_said_and_what_was_refused_too(case: Case) -> None:
    sr = case.nothing(flags=[UNEVEN], refused=[LOST])
    assert _container(sr, "126010") == []
    (said,) = _container(sr, "C0034375")
    values = {i.ConceptNameCodeSequence[0].CodeValue: i for i in said.ContentSequence}
    assert values["111017"].ConceptCodeSequence[0].CodeValue == "111243"
    assert values["REFUSED"].TextValue == "missing-slices: Two slices are missing; send the missing slices."
    assert values["DOUBT"].TextValue.startswith("uneven-slices: ")
    assert _evidence(sr) == set(case.volume.sop_instance_uids)


@pytest.mark.parametrize("code", ["interval", "malignancy-interval", "marked-by"])
def test_what_only_informs_is_a_comment_and_no_doubt(case: Case, tmp_path: Path, code: str) -> None:
    seg, note = case.seg(), Flag(code=code, sentence="'Nodule 1': this is told.")
    for number, sr in enumerate(
        (case.volumetric(seg, flags=[UNEVEN, note]), case.nothing(flags=[UNEVEN, note]))
    ):
        file = tmp_path / str(number)
        (said,) = _container(saved(sr, file), "C0034375")
        assert _item(said, "121106").TextValue == f"{code}: 'Nodule 1': this is told."
        assert _item(said, "DOUBT").TextValue == "uneven-slices: The slices are not quite evenly spaced."
        assert iod_errors(file) == []
        assert check(sr, [seg]) == ()


@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        (lambda c: c.nothing(), "111241"),
        (lambda c: c.nothing(refused=[LOST]), "111243"),
        (lambda c: c.volumetric(c.seg()), "111242"),
        (lambda c: c.planar(c.seg(), refused=[LOST]), "111244"),
    ],
)
def test_the_summary_says_what_came_out(case: Case, make: Callable[[Case], Dataset], outcome: str) -> None:
    (said,) = _container(make(case), "C0034375")
    assert said.ContentSequence[0].ConceptCodeSequence[0].CodeValue == outcome


def test_an_analysis_of_nothing_says_that_it_did_not_succeed(case: Case) -> None:
    from store.dicom.sr import encode_nothing_found

    sr = encode_nothing_found([], case.report(802, refused=[LOST]))
    (said,) = _container(sr, "C0034375")
    assert said.ContentSequence[0].ConceptCodeSequence[0].CodeValue == "111245"
    assert _evidence(sr) == set(case.headers)


def test_a_newer_report_names_the_one_it_supersedes(case: Case) -> None:
    old = case.planar(case.seg())
    newer = replace(case, provenance=replace(PROVENANCE, job_key="f" * 64))
    sr = newer.planar(newer.seg(), predecessors=[old])
    series = sr.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == old.SeriesInstanceUID != sr.SeriesInstanceUID
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_input_gives_the_same_bytes(
    written: dict[str, tuple[Dataset, Path]], case: Case, kind: str, tmp_path: Path
) -> None:
    seg = case.seg()
    make = {
        "volumetric": lambda: case.volumetric(seg),
        "planar": lambda: case.planar(seg),
        "nothing": case.nothing,
    }
    saved(make[kind](), tmp_path / "again.dcm")
    assert (tmp_path / "again.dcm").read_bytes() == written[kind][1].read_bytes()


def test_the_procedure_of_the_source_is_reported_where_it_names_one(tmp_path: Path) -> None:
    procedure = Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator = "CTTHOR", "99HOSP"
    procedure.CodeMeaning = "CT Thorax"
    case = make_case(tmp_path, ProcedureCodeSequence=[procedure])
    (reported,) = _container(case.nothing(), "121058")
    assert reported.ConceptCodeSequence[0].CodeValue == "CTTHOR"


def test_a_report_of_no_finding_or_without_its_seg_is_our_fault(case: Case) -> None:
    with pytest.raises(Broken, match="needs a finding"):
        replace(case, findings=()).volumetric(case.seg())
    other = case.seg()
    other.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"
    with pytest.raises(Broken, match="was not given"):
        case.volumetric(other)


def _finding(mask: np.ndarray, *ends: tuple[tuple[float, float, float], ...]) -> Finding:
    names = ("long_axis", "short_axis")
    return Finding(
        key="x",
        label="x",
        series_instance_uid="1",
        mask=Mask.from_full(mask),
        category=codes.TISSUE,
        type=codes.LESION,
        measurements=tuple(
            Measurement(
                name=name,
                concept=codes.LENGTH,
                value=1.0,
                unit=codes.MM,
                method="",
                end_points_mm=(pair[0], pair[1]),
                slice_index=5,
            )
            for name, pair in zip(names, ends, strict=False)
        ),
    )


def test_axes_that_cross_are_one_line_through_their_crossing(case: Case) -> None:
    mask = np.zeros(case.volume.array.shape, dtype=np.bool_)
    mask[5, 10:20, 10:20] = True
    finding = _finding(mask, ((10, 15, 10), (20, 15, 10)), ((14, 12, 10), (14, 18, 10)))
    line, closed = region(finding, case.volume)
    assert not closed
    assert line.tolist() == [[10.5, 15.5], [20.5, 15.5], [14.5, 15.5], [14.5, 12.5], [14.5, 18.5]]


def test_axes_that_do_not_cross_are_joined_at_their_nearest_ends(case: Case) -> None:
    mask = np.zeros(case.volume.array.shape, dtype=np.bool_)
    mask[5, 10:20, 10:20] = True
    finding = _finding(mask, ((10, 15, 10), (20, 15, 10)), ((12, 24, 10), (12, 18, 10)))
    line, _ = region(finding, case.volume)
    assert line.tolist() == [[20.5, 15.5], [10.5, 15.5], [12.5, 18.5], [12.5, 24.5]]


def test_a_long_axis_alone_is_a_line(case: Case) -> None:
    mask = np.zeros(case.volume.array.shape, dtype=np.bool_)
    mask[5, 10:20, 10:20] = True
    finding = _finding(mask, ((10, 15, 10), (20, 15, 10)))
    line, _ = region(finding, case.volume)
    assert np.array_equal(line, axis_line(finding.measurements[0], case.volume))
    assert drawn_slice(finding) == 5


def test_an_outline_is_that_of_the_largest_piece_without_its_hole(case: Case) -> None:
    mask = np.zeros(case.volume.array.shape, dtype=np.bool_)
    mask[4, 2:5, 2:5] = True
    mask[6, 10:30, 8:28] = True
    mask[6, 15:20, 15:20] = False
    mask[6, 2:5, 30:34] = True
    finding = _finding(mask)
    line, closed = region(finding, case.volume)
    assert closed
    assert drawn_slice(finding) == 6
    assert line.min(axis=0).tolist() == [8, 10]
    assert line.max(axis=0).tolist() == [28, 30]


def test_many_findings_are_written_in_reasonable_time(case: Case) -> None:
    import time

    first = case.findings[0]
    many = tuple(
        replace(first, segment_number=i + 1, tracking_uid=f"2.25.{i + 1}", tracking_identifier=f"L{i}")
        for i in range(100)
    )
    crowd = replace(case, findings=many)
    seg = crowd.seg()
    begun = time.process_time()
    sr = crowd.volumetric(seg)
    assert time.process_time() - begun < 10
    assert len(_groups(sr)) == 100
