"""Drawn regions are measured, kept as they are and coded honestly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom.sr.coding import Code
from shapes import around, grid

from plugins import codes
from plugins.contours import Contours, kind_of
from plugins.contract import Drawn, Flag, Mask, Patient, Plugin, Study, Volume, parted
from plugins.errors import Refused
from plugins.measure.lesion import measure_lesion
from plugins.registry import config_sha256


def drawn(label: str, mask: Mask, volume: Volume, number: int = 1, **more: object) -> Drawn:
    return Drawn(
        label=label,
        mask=mask,
        series_instance_uid=volume.series_instance_uid,
        source="RTSTRUCT",
        source_sop_instance_uid="1.2.9",
        number=number,
        **more,  # type: ignore[arg-type]
    )


def study(volumes: tuple[Volume, ...], *regions: Drawn) -> Study:
    return Study(
        study_instance_uid="1.2.1",
        patient=Patient(patient_id="P"),
        study_date=None,
        volumes=volumes,
        drawn=regions,
    )


def test_every_region_is_measured_once_and_keeps_its_names() -> None:
    volume, mask, _ = around((10.0, 8.0, 6.0), (2.0, 0.9, 0.9))
    regions = (
        drawn("Tumor_c40", mask, volume, 3, tracking_identifier="T-1", tracking_uid="1.2.77"),
        drawn("Carina_c40", mask, volume, 4),
        drawn("", mask, volume, 5),
    )
    plugin = Contours()
    assert isinstance(plugin, Plugin)
    assert plugin.accepts(study((volume,), *regions))
    findings = parted(plugin.run(study((volume,), *regions)))[0]
    assert [f.label for f in findings] == ["Tumor_c40", "Carina_c40", "Region 5"]
    assert [f.key for f in findings] == ["1.2.9:3", "1.2.9:4", "1.2.9:5"]
    assert findings[0].tracking_identifier == "T-1"
    assert findings[0].tracking_uid == "1.2.77"
    assert all(f.mask is mask and not f.automatic and f.confidence is None for f in findings)
    expected = [(m.name, m.value) for m in measure_lesion(mask, volume)]
    assert all([(m.name, m.value) for m in f.measurements] == expected for f in findings)


def test_a_study_without_regions_is_not_accepted() -> None:
    assert not Contours().accepts(study((grid((2, 2, 2), (1, 1, 1)),)))


@pytest.mark.parametrize(
    ("label", "interpreted", "category", "kind", "site", "side"),
    [
        ("Tumor_c40", None, codes.MORPHOLOGICALLY_ABNORMAL, codes.NEOPLASM, None, None),
        ("GTV_Mass", "GTV", codes.MORPHOLOGICALLY_ABNORMAL, codes.NEOPLASM, None, None),
        ("GTV_Edema", "GTV", codes.MORPHOLOGICALLY_ABNORMAL, codes.EDEMA, None, None),
        ("anything", "GTV", codes.MORPHOLOGICALLY_ABNORMAL, codes.NEOPLASM, None, None),
        ("GTVp", None, codes.MORPHOLOGICALLY_ABNORMAL, codes.NEOPLASM, None, None),
        ("LN_c40", None, codes.ANATOMICAL_STRUCTURE, codes.LYMPH_NODE, None, None),
        ("lymphNode 4R", None, codes.ANATOMICAL_STRUCTURE, codes.LYMPH_NODE, None, None),
        ("Liver met 2", None, codes.MORPHOLOGICALLY_ABNORMAL, codes.NEOPLASM_SECONDARY, codes.LIVER, None),
        ("nodule left lung", None, codes.MORPHOLOGICALLY_ABNORMAL, codes.NODULE, codes.LUNG, codes.LEFT),
        ("Lung_R", "ORGAN", codes.ANATOMICAL_STRUCTURE, codes.LUNG, None, codes.RIGHT),
        ("Tumor_c40", "ORGAN", codes.MORPHOLOGICALLY_ABNORMAL, codes.NEOPLASM, None, None),
        ("LN_c40", "ORGAN", codes.ANATOMICAL_STRUCTURE, codes.LYMPH_NODE, None, None),
        ("Lungs-GTV", "ORGAN", codes.ANATOMICAL_STRUCTURE, codes.LUNG, None, None),
        ("Lung_L - GTV", None, codes.ANATOMICAL_STRUCTURE, codes.LUNG, None, codes.LEFT),
        ("lung tumour", None, codes.MORPHOLOGICALLY_ABNORMAL, codes.NEOPLASM, codes.LUNG, None),
        ("Carina_c40", None, codes.ANATOMICAL_STRUCTURE, codes.CARINA, None, None),
        ("Vertebra_c40", None, codes.ANATOMICAL_STRUCTURE, codes.VERTEBRA, None, None),
        ("spleen", "ORGAN", codes.ANATOMICAL_STRUCTURE, codes.ORGAN, None, None),
        ("PTV tumour", "PTV", codes.SPATIAL_CONCEPT, codes.REGION_OF_INTEREST, None, None),
        ("ROI-1", None, codes.SPATIAL_CONCEPT, codes.REGION_OF_INTEREST, None, None),
        ("malignant", None, codes.SPATIAL_CONCEPT, codes.REGION_OF_INTEREST, None, None),
    ],
)
def test_a_region_without_a_code_is_coded_from_its_type_and_name_or_not_at_all(
    label: str, interpreted: str | None, category: Code, kind: Code, site: Code | None, side: Code | None
) -> None:
    volume, mask, _ = around((3.0, 3.0, 3.0), (1.0, 1.0, 1.0))
    found = kind_of(drawn(label, mask, volume, interpreted_type=interpreted))
    assert (found.category, found.type, found.site, found.laterality) == (category, kind, site, side)


def test_a_code_that_was_read_from_the_name_is_told_and_a_given_one_is_kept() -> None:
    volume, mask, _ = around((3.0, 3.0, 3.0), (1.0, 1.0, 1.0))
    (guessed,) = parted(Contours().run(study((volume,), drawn("LN_c40", mask, volume))))[0]
    assert [f.code for f in guessed.flags] == ["kind-from-name"]
    assert "LN_c40" in guessed.flags[0].sentence
    given = drawn("LN", mask, volume, type_code=codes.MASS, category_code=codes.TISSUE, site_code=codes.BRAIN)
    (kept,) = parted(Contours().run(study((volume,), given)))[0]
    assert (kept.category, kept.type, kept.site, kept.flags) == (codes.TISSUE, codes.MASS, codes.BRAIN, ())
    (uncategorised,) = parted(Contours().run(study((volume,), replace(given, category_code=None))))[0]
    assert uncategorised.category == codes.MORPHOLOGICALLY_ABNORMAL


def test_a_region_of_several_pieces_is_told() -> None:
    full = np.zeros((3, 9, 9), dtype=bool)
    full[1, 1:4, 1:4] = full[1, 7, 7] = True
    volume = grid(full.shape, (1, 1, 1))  # type: ignore[arg-type]
    (finding,) = parted(Contours().run(study((volume,), drawn("x", Mask.from_full(full), volume))))[0]
    assert [f.code for f in finding.flags] == ["several-pieces"]
    assert finding.measurement("volume").value == pytest.approx(0.010)


def test_regions_that_cannot_be_measured_are_told_and_not_lost() -> None:
    volume, mask, _ = around((3.0, 3.0, 3.0), (1.0, 1.0, 1.0))
    empty = drawn("tiny", Mask.from_full(np.zeros(mask.shape, dtype=bool)), volume, 2)
    away = replace(drawn("away", mask, volume, 3), series_instance_uid="9.9")
    findings, flags = parted(Contours().run(study((volume,), empty, away, drawn("x", mask, volume))))
    assert [f.label for f in findings] == ["x"]
    assert [f.code for f in flags] == ["empty-region", "region-without-series"]
    with pytest.raises(Refused) as none_left:
        Contours().run(study((volume,), empty, away))
    assert none_left.value.code == "no-measurable-region"
    assert "tiny" in none_left.value.sentence
    assert "away" in none_left.value.sentence


def test_a_drawn_tumour_on_pet_is_measured_with_the_threshold_of_the_settings(data: Path) -> None:
    folder = data / "sts_petct" / "STS_001"
    image = nibabel.load(folder / "STS_001_pet_suv.nii.gz")
    full = np.asarray(nibabel.load(folder / "STS_001_pet_mask.nii.gz").dataobj).transpose(2, 1, 0) > 0
    spacing = tuple(float(s) for s in image.header.get_zooms()[::-1])
    array = np.asarray(image.dataobj).transpose(2, 1, 0)
    volume = grid(full.shape, spacing, role="pet_suv", array=array)  # type: ignore[arg-type]
    region = study((volume,), drawn("GTV_Mass", Mask.from_full(full), volume, interpreted_type="GTV"))
    (fixed,) = parted(Contours().run(region))[0]
    (percent,) = parted(Contours(percent_of_maximum=41.0).run(region))[0]
    assert fixed.measurement("mtv").value == pytest.approx(55.9, abs=0.05)
    assert percent.measurement("mtv").value == pytest.approx(113.0, abs=0.05)
    assert percent.measurement("suv_max").value == pytest.approx(7.91, abs=0.005)
    assert fixed.measurement("volume").value == pytest.approx(366.1, abs=0.05)
    assert config_sha256(Contours()) != config_sha256(Contours(percent_of_maximum=41.0))


def tailed(thickness: int = 14) -> tuple[Volume, Mask]:
    """Return a region that is 36 x 3 mm in its first slice, and 16 mm x `thickness` in its second."""
    full = np.zeros((2, 20, 40), dtype=bool)
    full[0, 8:11, 2:38] = full[1, 3 : 3 + thickness, 10:26] = True
    volume = grid(full.shape, (1, 1, 1))  # type: ignore[arg-type]
    return volume, Mask.from_full(full)


def test_the_node_rule_is_a_setting_for_nodes_only() -> None:
    volume, mask = tailed()
    inside = drawn("met", mask, volume, 3, type_code=codes.NEOPLASM_SECONDARY, site_code=codes.LYMPH_NODE)
    regions = study((volume,), drawn("LN", mask, volume), drawn("tumour", mask, volume, 2), inside)
    node, tumour, by_site = parted(Contours(node_rule=True).run(regions))[0]
    slices = [one.measurement("short_axis").slice_index for one in (node, tumour, by_site)]
    assert slices == [1, 0, 1]
    assert "largest short axis" in node.measurement("long_axis").method
    assert "node-short-axis" not in {flag.code for flag in node.flags}


def test_a_node_whose_short_axis_is_larger_in_another_slice_is_measured_as_ever_and_told() -> None:
    volume, mask = tailed()
    regions = study((volume,), drawn("LN", mask, volume), drawn("tumour", mask, volume, 2))
    node, tumour = parted(Contours().run(regions))[0]
    assert node.measurement("short_axis").value == tumour.measurement("short_axis").value < 4.0
    (doubt,) = [flag for flag in node.flags if flag.code == "node-short-axis"]
    largest = parted(Contours(node_rule=True).run(regions))[0][0].measurement("short_axis").value
    assert f"{largest:.1f} mm in another slice (the setting node_rule" in doubt.sentence
    assert "node-short-axis" not in {flag.code for flag in tumour.flags}


def test_a_node_whose_short_axis_differs_by_less_than_readers_do_is_no_doubt() -> None:
    volume, mask = tailed(thickness=4)
    (node,) = parted(Contours().run(study((volume,), drawn("LN", mask, volume))))[0]
    assert "node-short-axis" not in {flag.code for flag in node.flags}


def test_wrong_settings_are_not_taken() -> None:
    with pytest.raises(ValueError, match="convention"):
        Contours(convention="caliper")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="peak"):
        Contours(peak="max")  # type: ignore[arg-type]


def test_a_doubt_about_the_drawing_is_told_with_the_finding() -> None:
    volume, mask, _ = around((3.0, 3.0, 3.0), (1.0, 1.0, 1.0))
    doubt = Flag(code="contour-clipped", sentence="A contour leaves the image.")
    region = drawn("ROI", mask, volume, type_code=codes.MASS, flags=(doubt,))
    (finding,) = parted(Contours().run(study((volume,), region)))[0]
    assert [(flag.code, flag.plugin) for flag in finding.flags] == [("contour-clipped", "contours")]
