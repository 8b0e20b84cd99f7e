"""What a slice says of itself, told once for all slices that say it with the same bytes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import make_series
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from plugins.errors import Refused
from store.dicom.decode import _stated_format
from store.dicom.files import read_file
from store.dicom.slices import _stated_alike, slices_of
from store.dicom.values import quiet, text, told_once
from store.dicom.volumes import read_volume

WORDS = st.text("0123456789.-+eE\\ ", max_size=12).map(str.encode)
SHORT = st.integers(0, 70).map(lambda n: n.to_bytes(2, "little"))
SAID = {
    "PixelSpacing": ("DS", st.one_of(WORDS, st.just(b"0.5\\0.5 "))),
    "ImageOrientationPatient": ("DS", st.one_of(WORDS, st.just(b"1\\0\\0\\0\\1\\0 "))),
    "SliceThickness": ("DS", WORDS),
    "ImageType": ("CS", st.sampled_from([b"ORIGINAL\\PRIMARY", b"DERIVED\\localizer ", b""])),
    "Rows": ("US", SHORT),
    "Columns": ("US", SHORT),
    "BitsAllocated": ("US", st.sampled_from([b"\x10\0", b"\x08\0", b"\x0c\0", b"\x10\0\x10\0"])),
    "BitsStored": ("US", SHORT),
    "HighBit": ("US", SHORT),
    "PixelRepresentation": ("US", st.sampled_from([b"\0\0", b"\1\0"])),
    "SamplesPerPixel": ("US", st.sampled_from([b"\1\0", b"\3\0"])),
    "PhotometricInterpretation": ("CS", st.sampled_from([b"MONOCHROME2 ", b"RGB "])),
    "NumberOfFrames": ("IS", st.sampled_from([b"1 ", b"3 ", b"x "])),
}


def answer(tell: Any, header: Dataset) -> Any:
    """Return what is told, or the code of the refusal; NaN equals itself here."""
    try:
        return repr(tell(header))
    except Refused as reason:
        return reason.code, reason.sentence


@settings(max_examples=300, deadline=None)
@example({}, False)
@given(
    octets=st.fixed_dictionaries({}, optional={name: values for name, (_, values) in SAID.items()}),
    implicit=st.booleans(),
)
def test_what_is_told_of_bytes_is_what_is_told_of_the_values_that_they_mean(
    octets: dict[str, bytes], implicit: bool
) -> None:
    raws = {
        Tag(name): RawDataElement(
            Tag(name), None if implicit else SAID[name][0], len(value), value or None, 0, implicit, True
        )
        for name, value in octets.items()
    }
    with quiet():
        converted = Dataset(dict(raws))
        for tag in raws:
            try:
                converted[tag]
            except Exception:
                return
        for tell in (_stated_alike, _stated_format):
            told = answer(tell, Dataset(dict(raws)))
            assert told == answer(tell, Dataset(dict(raws))) == answer(tell, converted)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_slices_that_differ_in_one_attribute_are_told_apart(syntax: str, tmp_path: Path) -> None:
    scales = [(1.0, -1024.0), (2.0, -1024.0), (1.0, -1000.0), (1.0, -1024.0)]
    paths = make_series(
        tmp_path,
        np.zeros((4, 3, 4)),
        rescale=scales,
        transfer_syntax=syntax,
        SliceThickness=lambda k: str(k % 2 + 1),
        PixelSpacing=lambda k: ["1", "1"] if k < 3 else ["0.5", "0.5"],
        ImageType=lambda k: ["ORIGINAL", "PRIMARY", "LOCALIZER" if k == 1 else "AXIAL"],
    )
    with quiet():
        found = [one for path in paths if (file := read_file(path)) is not None for one in slices_of(file)]
    assert [(s.slope, s.intercept) for s in found] == scales
    assert [s.plane.thickness_mm for s in found] == [1, 2, 1, 2]
    assert [s.plane.spacing_mm for s in found] == [(1, 1)] * 3 + [(0.5, 0.5)]
    assert [s.image_type[2] for s in found] == ["AXIAL", "LOCALIZER", "AXIAL", "AXIAL"]
    assert [s.plane.position_mm[2] for s in found] == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("image_type", "is_reformatted"),
    [
        (["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"], True),
        (["ORIGINAL", "PRIMARY", "AXIAL", "MPR"], True),
        (["DERIVED", "SECONDARY", "MIP"], True),
        (["DERIVED", "SECONDARY", "AXIAL"], False),
        (["DERIVED", "SECONDARY"], False),
        (["DERIVED", "MPR"], False),
        (["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 MPR"], False),
        (None, False),
    ],
)
def test_an_image_is_a_reformat_where_its_type_says_so_and_not_where_it_says_derived(
    image_type: list[str] | None, is_reformatted: bool, tmp_path: Path
) -> None:
    paths = make_series(tmp_path, np.arange(24.0).reshape(2, 3, 4), ImageType=image_type)
    with quiet():
        files = [file for path in paths if (file := read_file(path)) is not None]
        assert read_volume(files).is_reformatted is is_reformatted


def test_a_rescale_that_is_no_number_is_told_for_each_slice_that_has_it(tmp_path: Path) -> None:
    paths = make_series(
        tmp_path, np.zeros((3, 2, 2)), RescaleSlope=lambda k: None if k == 1 else "1", RescaleIntercept="0"
    )
    data = paths[2].read_bytes()
    at = data.index(b"\x28\x00\x53\x10DS")
    paths[2].write_bytes(data[: at + 8] + b"x " + data[at + 10 :])
    with quiet():
        slopes = [slices_of(file)[0].slope for path in paths if (file := read_file(path)) is not None]
    assert slopes[:2] == [1.0, None]
    assert slopes[2] is not None
    assert math.isnan(slopes[2])


def test_what_is_told_once_is_told_of_the_named_attributes_alone() -> None:
    told: list[str] = []

    @told_once("Modality", "StationName")
    def tell(header: Dataset) -> str:
        told.append(text(header, "PatientName"))
        return f"{text(header, 'Modality')} {text(header, 'StationName')}"

    def header(modality: bytes, name: bytes) -> Dataset:
        values = {Tag("Modality"): ("CS", modality), Tag("PatientName"): ("PN", name)}
        return Dataset({t: RawDataElement(t, vr, len(v), v, 0, False, True) for t, (vr, v) in values.items()})

    assert [tell(header(m, n)) for m, n in ((b"CT", b"A"), (b"CT", b"B"), (b"MR", b"A"))] == [
        "CT ",
        "CT ",
        "MR ",
    ]
    assert told == ["", ""]
    changed = header(b"CT", b"A")
    changed.Modality = "PT"
    assert tell(changed) == "PT "
