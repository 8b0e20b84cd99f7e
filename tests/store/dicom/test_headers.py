"""The quick reader of headers says what pydicom's reader says, or nothing."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import make_series, write
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from plugins.errors import Refused
from store.dicom.files import File, read_file
from store.dicom.headers import Headers
from store.dicom.values import PLAIN, integer, number, numbers, quiet, text, texts

CT = np.rint(np.random.default_rng(5).normal(40, 300, (12, 9, 10)))
QUICK = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGLSLossless, RLELossless]


def told(path: Path, headers: Headers | None) -> Any:
    """Return all that is known of a file, or why it was refused; without `headers` by pydicom's reader."""
    try:
        file = read_file(path, headers) if headers else slow(path)
    except Refused as reason:
        return reason.code
    if file is None:
        return None
    where = file.transfer_syntax, file.pixel_kind, file.pixel_offset, file.pixel_length
    return where, file.header.original_encoding, file.header.original_character_set, elements(file.header)


def elements(header: Dataset) -> list[Any]:
    found: list[Any] = []
    for tag in sorted(header.keys()):
        try:
            found.append((tag, header[tag].VR, header[tag].is_undefined_length, header[tag].value))
        except Exception as error:
            found.append((tag, type(error)))
    return found


class _Blind(Headers):
    def read(self, file: object) -> None:
        """Leave every file to pydicom."""


def slow(path: Path) -> File | None:
    return read_file(path, _Blind())


def sequences(dataset: Dataset, *, undefined: bool) -> None:
    """Give a data set nested sequences, private elements and an element in its character set."""
    inner, item = Dataset(), Dataset()
    inner.CodeValue, inner.CodeMeaning = "T-1", "Größe"
    item.ConceptCodeSequence = [inner]
    item.is_undefined_length_sequence_item = undefined
    inner.is_undefined_length_sequence_item = undefined
    dataset.ProcedureCodeSequence = Items([item, Dataset()])
    dataset["ProcedureCodeSequence"].is_undefined_length = undefined
    dataset.ReferencedStudySequence = []
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.StudyDescription = "Übersicht"
    private = dataset.private_block(0x0029, "MAKER", create=True)
    private.add_new(0x10, "LO", "x")
    private.add_new(0x11, "SQ", [Dataset()])


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", QUICK)
def test_the_quick_reader_reads_what_pydicom_reads(syntax: str, undefined: bool, tmp_path: Path) -> None:
    headers = Headers()
    for path in make_series(tmp_path, CT, transfer_syntax=syntax):
        dataset = dcmread(path)
        sequences(dataset, undefined=undefined)
        dcmwrite(path, dataset, enforce_file_format=True)
        with quiet(), path.open("rb") as file:
            assert headers.read(file) is not None
            assert told(path, headers) == told(path, None)


def test_what_is_unusual_is_left_to_pydicom(tmp_path: Path) -> None:
    sound = make_series(tmp_path / "s", CT[:1])[0].read_bytes()
    big = make_series(tmp_path / "b", CT[:1], transfer_syntax=ExplicitVRBigEndian)[0].read_bytes()
    modality = sound.index(b"\x08\x00\x60\x00CS")
    changed = {
        "big endian": big,
        "no preamble": sound[132:],
        "no pixel data": sound[: sound.index(b"\xe0\x7f\x10\x00")],
        "cut in an element": sound[: modality + 9],
        "an element twice": sound[:modality] + sound[modality : modality + 10] * 2 + sound[modality + 10 :],
        "an unknown representation": sound[: modality + 4] + b"ZQ" + sound[modality + 6 :],
        "a UID that is none": sound.replace(b"\x08\x00\x18\x00UI\x2c\x00", b"\x08\x00\x18\x00LO\x2c\x00"),
    }
    headers = Headers()
    for name, data in changed.items():
        path = tmp_path / "changed.dcm"
        path.write_bytes(data)
        with quiet():
            assert told(path, headers) == told(path, None), name


def test_a_header_longer_than_the_first_read_is_read(tmp_path: Path) -> None:
    (path,) = make_series(tmp_path, CT[:1])
    dataset = dcmread(path)
    dataset.add_new((0x0029, 0x0010), "LO", "MAKER")
    dataset.add_new((0x0029, 0x1010), "OB", bytes(40_000))
    write(dataset, path)
    with quiet(), path.open("rb") as file:
        assert Headers().read(file) is not None
        assert told(path, Headers()) == told(path, None)


@pytest.mark.parametrize("syntax", QUICK)
def test_a_header_is_read_wherever_the_first_read_ends(
    syntax: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = make_series(tmp_path, CT[:1], transfer_syntax=syntax)
    with quiet(), path.open("rb") as file:
        whole = Headers().read(file)
        assert whole is not None
        for first in range(whole.pixel_offset // 2, whole.pixel_offset):
            monkeypatch.setattr("store.dicom.headers.READ_BYTES", (first, 1 << 20))
            file.seek(0)
            found = Headers().read(file)
            assert found is not None, first
            assert (found.header, found.pixel_offset) == (whole.header, whole.pixel_offset)


def test_a_change_of_character_set_within_a_study_changes_the_texts(tmp_path: Path) -> None:
    headers = Headers()
    paths = make_series(tmp_path, CT[:4])
    for path, charset in zip(paths, ("ISO_IR 100", "ISO_IR 144", "ISO_IR 100", "ISO_IR 144"), strict=True):
        dataset = dcmread(path)
        dataset.SpecificCharacterSet, dataset.StudyDescription = "ISO_IR 100", "äöü"
        dcmwrite(path, dataset, enforce_file_format=True)
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", charset.encode()))
        with quiet():
            assert told(path, headers) == told(path, None)
    with quiet():
        assert len({text(read_file(p, headers).header, "StudyDescription") for p in paths}) == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("syntax", QUICK[:2])
def test_a_file_with_changed_bytes_is_told_of_as_pydicom_tells_of_it(syntax: str, tmp_path: Path) -> None:
    path = make_series(tmp_path, CT[:1], transfer_syntax=syntax)[0]
    dataset = dcmread(path)
    sequences(dataset, undefined=True)
    dcmwrite(path, dataset, enforce_file_format=True)
    sound = path.read_bytes()
    end = sound.index(b"\xe0\x7f\x10\x00")
    headers, read = Headers(), 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        data = bytearray(sound)
        for at in rng.integers(132, end + 12, rng.integers(1, 3)):
            data[at] = rng.integers(0, 256)
        path.write_bytes(bytes(data))
        with quiet():
            assert told(path, headers) == told(path, None), seed
            read += headers.read(path.open("rb")) is not None
    assert read > 25


VARYING = {
    "SpecificCharacterSet": st.sampled_from(["ISO_IR 100", "ISO_IR 144"]),
    "SOPInstanceUID": st.sampled_from(["1.2.3", "1.2.34", "1.2.345.6"]),
    "Modality": st.sampled_from(["CT", "MR"]),
    "StudyDescription": st.sampled_from(["", "Thorax", "äöü"]),
    "InstanceNumber": st.integers(1, 1200).map(str),
    "ImagePositionPatient": st.integers(-20, 20).map(lambda z: ["0", "0", str(z / 2)]),
    "PixelPaddingValue": st.sampled_from([0, -2000]),
    "LongCodeValue": st.text("ab", max_size=40),
    "PresentationLUTShape": st.just("IDENTITY"),
}


@settings(max_examples=60, deadline=None)
@given(
    files=st.lists(st.fixed_dictionaries({}, optional=VARYING), min_size=3, max_size=9),
    nested=st.lists(st.tuples(st.booleans(), st.text("ab", max_size=5)), min_size=1, max_size=3),
    syntax=st.sampled_from(QUICK[:2]),
)
def test_elements_that_vary_from_file_to_file_are_read_as_pydicom_reads_them(
    files: list[dict[str, Any]], nested: list[tuple[bool, str]], syntax: str, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("vary")
    (path,) = make_series(folder, CT[:1], transfer_syntax=syntax)
    sound, headers = dcmread(path), Headers()
    with quiet():
        for number, values in enumerate(files):
            dataset = deepcopy(sound)
            for keyword, value in {"SpecificCharacterSet": "ISO_IR 100", **values}.items():
                setattr(dataset, keyword, value)
            undefined, meaning = nested[number % len(nested)]
            sequences(dataset, undefined=undefined)
            dataset.ProcedureCodeSequence[0].ConceptCodeSequence[0].CodeValue = meaning
            dataset.SpecificCharacterSet = values.get("SpecificCharacterSet", "ISO_IR 100")
            dataset.StudyDescription = "" if meaning else "Thorax"
            dataset[0x00291010].value = meaning
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            if undefined:
                dataset.file_meta.SourceApplicationEntityTitle = "SCANNER"
            dcmwrite(path, dataset, enforce_file_format=True)
            with path.open("rb") as file:
                assert headers.read(file) is not None
            assert told(path, headers) == told(path, None)


@pytest.mark.parametrize("syntax", QUICK[:2])
def test_a_damaged_file_of_a_known_series_is_told_of_as_pydicom_tells_of_it(
    syntax: str, tmp_path: Path
) -> None:
    paths, headers = make_series(tmp_path, CT, transfer_syntax=syntax), Headers()
    with quiet():
        for path in paths:
            assert told(path, headers) == told(path, None)
        sound = paths[5].read_bytes()
        end = sound.index(b"\xe0\x7f\x10\x00")
        read = 0
        for seed in range(200):
            rng = np.random.default_rng(seed)
            data, at = bytearray(sound), int(rng.integers(132, end + 12))
            data[at] = data[at] ^ 1 << rng.integers(8)
            cut = len(data) if seed % 4 else int(rng.integers(at, end + 20))
            paths[5].write_bytes(bytes(data[:cut]))
            assert told(paths[5], headers) == told(paths[5], None), seed
            with paths[5].open("rb") as file:
                read += headers.read(file) is not None
        assert read > 80


def test_what_a_header_is_changed_to_is_not_in_the_next(tmp_path: Path) -> None:
    paths, headers = make_series(tmp_path, CT[:4]), Headers()
    with quiet():
        for path in paths:
            file = read_file(path, headers)
            assert file is not None
            assert file.header.PatientID == "P1"
            assert file.header.ImagePositionPatient[2] == dcmread(path).ImagePositionPatient[2]
            file.header.PatientID = "changed"
            del file.header.Modality
            file.header.AccessionNumber = "added"


def test_real_files_are_told_of_as_pydicom_tells_of_them(data: Path) -> None:
    paths = sorted(data.rglob("*.dcm"))
    chosen = [p for p in paths if p.stat().st_size < 3 << 20][::12]
    headers = Headers()
    assert len(chosen) > 60
    with quiet():
        for path in chosen:
            assert told(path, headers) == told(path, None), path


@settings(max_examples=400, deadline=None)
@given(
    vr=st.sampled_from([*PLAIN, "US"]),
    octets=st.one_of(
        st.text("0123456789.+-eE\\ \0", max_size=12).map(str.encode),
        st.text("AZaz09 _^=.\\\0~,:/\n", max_size=12).map(str.encode),
        st.binary(max_size=6),
    ),
)
def test_values_are_the_same_with_and_without_conversion(vr: str, octets: bytes) -> None:
    octets += b" " * (len(octets) % 2)
    keyword = "SeriesDescription"
    raw = RawDataElement(Tag(keyword), vr, len(octets), octets or None, 0, False, True)
    with quiet():
        converted = Dataset({Tag(keyword): raw})
        try:
            converted[keyword]
        except Exception:
            return
        for of in (text, texts, number, numbers, integer):
            quick, known = of(Dataset({Tag(keyword): raw}), keyword), of(converted, keyword)
            assert quick == known or (quick != quick and known != known), (of, quick, known)
