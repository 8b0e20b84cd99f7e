from __future__ import annotations

import random
import struct
import tracemalloc
import unicodedata
import warnings
import zlib
from datetime import date
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_charset_files, get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from plugins.errors import Refused
from store.part10 import Header, normalise, scan_header, scan_whole, split, write_preamble

CT = "1.2.840.10008.5.1.4.1.1.2"
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


def image(**changes: object) -> Dataset:
    dataset = Dataset()
    values: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": CT,
        "SOPInstanceUID": "1.2.3.4",
        "StudyDate": "20260301",
        "StudyTime": "091530.25",
        "AccessionNumber": "A1",
        "Modality": "CT",
        "Manufacturer": "Maker",
        "StudyDescription": "Thorax",
        "SeriesDescription": "lung",
        "ManufacturerModelName": "Model",
        "PatientName": "Müller^Zoë",
        "PatientID": "P1",
        "IssuerOfPatientID": "H",
        "PatientBirthDate": "19600229",
        "PatientSex": "F",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.1",
        "SeriesNumber": 5,
        "FrameOfReferenceUID": "1.2.3.9",
    }
    for keyword, value in {**values, **changes}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def write(path: Path, dataset: Dataset, syntax: str = ExplicitVRLittleEndian, **meta: object) -> Path:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CT)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2")
    for keyword, value in meta.items():
        setattr(dataset.file_meta, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def code_of(path: Path) -> str:
    with pytest.raises(Refused) as caught:
        scan_header(path)
    return caught.value.code


def raw(path: Path, *elements: bytes, syntax: str = ExplicitVRLittleEndian) -> Path:
    path.write_bytes(write_preamble(CT, "1.2.3.4", syntax) + b"".join(elements))
    return path


def element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    value += b"\0" * (len(value) % 2)
    size = len(value) if length is None else length
    if vr in (b"SQ", b"UN", b"OB", b"OW", b"UT"):
        return struct.pack("<HH", group, number) + vr + struct.pack("<HL", 0, size) + value
    return struct.pack("<HH", group, number) + vr + struct.pack("<H", size) + value


UIDS = (
    element(8, 0x16, b"UI", CT.encode()),
    element(8, 0x18, b"UI", b"1.2.3.4"),
    element(0x20, 0xD, b"UI", b"1.2.3"),
    element(0x20, 0xE, b"UI", b"1.2.3.1"),
)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_header_says_what_was_written_in_every_native_syntax(tmp_path: Path, syntax: str) -> None:
    assert scan_header(write(tmp_path / "x.dcm", image(), syntax)) == Header(
        sop_instance_uid="1.2.3.4",
        sop_class_uid=CT,
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.1",
        transfer_syntax_uid=str(syntax),
        patient_id="P1",
        issuer="H",
        patient_name="Müller^Zoë",
        patient_sex="F",
        patient_birth_date=date(1960, 2, 29),
        modality="CT",
        study_date=date(2026, 3, 1),
        study_time="091530",
        study_description="Thorax",
        accession_number="A1",
        series_number=5,
        series_description="lung",
        frame_of_reference_uid="1.2.3.9",
        manufacturer="Maker",
        manufacturer_model_name="Model",
        own=False,
    )


def test_the_scan_agrees_with_pydicom_on_every_sample_that_both_can_read() -> None:
    read = 0
    for path in sorted(Path(str(get_testdata_file("CT_small.dcm"))).parent.glob("*.dcm")):
        try:
            header = scan_header(path)
        except Refused:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            assert header.sop_instance_uid == dataset.SOPInstanceUID
            assert header.series_instance_uid == dataset.SeriesInstanceUID
            assert header.patient_id == str(dataset.get("PatientID", "") or "").strip()
            assert header.modality == dataset.get("Modality", "")
        read += 1
    assert read >= 60


@pytest.mark.parametrize("path", get_charset_files("*.dcm"), ids=lambda path: Path(path).stem)
def test_names_in_foreign_scripts_are_read_as_pydicom_reads_them(path: str) -> None:
    try:
        header = scan_header(Path(path))
    except Refused as refused:
        assert refused.code == "missing-uid"
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        dataset.decode()
        expected = str(dataset.PatientName)
    assert header.patient_name == expected.strip()


@given(
    name=st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\\"), max_size=40
    )
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_name_in_utf8_comes_back(tmp_path: Path, name: str) -> None:
    path = raw(
        tmp_path / "x",
        UIDS[0],
        UIDS[1],
        element(8, 5, b"CS", b"ISO_IR 192"),
        element(0x10, 0x10, b"PN", name.encode()),
        *UIDS[2:],
    )
    assert scan_header(path).patient_name == unicodedata.normalize("NFC", name).strip().rstrip("=")


@given(value=st.binary(max_size=60), charset=st.binary(max_size=30))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_as_name_give_clean_text_and_no_warning(
    tmp_path: Path, value: bytes, charset: bytes
) -> None:
    path = raw(
        tmp_path / "x", element(8, 5, b"CS", charset), *UIDS[:2], element(0x10, 0x10, b"PN", value), *UIDS[2:]
    )
    name = scan_header(path).patient_name
    assert not any(ord(character) < 32 for character in name)
    name.encode()


def test_a_value_without_sense_is_absent_and_stops_nothing(tmp_path: Path) -> None:
    path = raw(
        tmp_path / "x",
        *UIDS[:2],
        element(8, 0x20, b"DA", b"20261399"),
        element(8, 0x30, b"TM", b"9 o'clock"),
        element(0x10, 0x20, b"LO", b"A\0B\n"),
        element(0x10, 0x30, b"DA", b"1960.02.29"),
        *UIDS[2:],
        element(0x20, 0x11, b"IS", b"99999999999"),
        element(0x20, 0x52, b"UI", b"not a uid"),
    )
    header = scan_header(path)
    assert (header.study_date, header.study_time, header.patient_birth_date) == (None, "", date(1960, 2, 29))
    assert (header.series_number, header.frame_of_reference_uid, header.patient_id) == (None, "", "A B")


@pytest.mark.parametrize(
    "uid",
    [
        b"../evil",
        b"/etc/passwd",
        b"..",
        b"1..2",
        b"1.2.",
        b"1" * 65,
        b"1.2\0.3",
        b"CON",
        b"1.2\n3",
        b"1.2\\1.3",
        "１.２".encode(),
    ],
)
@pytest.mark.parametrize("place", range(4))
def test_what_is_no_uid_is_refused(tmp_path: Path, uid: bytes, place: int) -> None:
    elements = list(UIDS)
    tags = [(8, 0x16), (8, 0x18), (0x20, 0xD), (0x20, 0xE)]
    elements[place] = element(*tags[place], b"UI", uid)
    assert code_of(raw(tmp_path / "x", *elements)) == "invalid-uid"


@pytest.mark.parametrize("place", range(4))
def test_a_missing_uid_is_refused(tmp_path: Path, place: int) -> None:
    assert code_of(raw(tmp_path / "x", *UIDS[:place], *UIDS[place + 1 :])) == "missing-uid"


def test_a_uid_with_leading_zeros_and_blank_padding_is_taken(tmp_path: Path) -> None:
    path = raw(tmp_path / "x", UIDS[0], element(8, 0x18, b"UI", b"1.02.003 "), *UIDS[2:])
    assert scan_header(path).sop_instance_uid == "1.02.003"


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(63, None), (64, None), (65, "nested-too-deep"), (400, "nested-too-deep"), (5000, "nested-too-deep")],
)
@pytest.mark.parametrize("defined", [True, False])
def test_sequences_deeper_than_64_are_refused(
    tmp_path: Path, depth: int, expected: str | None, defined: bool
) -> None:
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    nested = b""
    for _ in range(depth):
        if defined:
            nested = element(0x40, 0xA730, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(nested)) + nested)
        else:
            nested = element(0x40, 0xA730, b"SQ", item, 0xFFFFFFFF) + nested + ends
    path = raw(tmp_path / "x", *UIDS, nested)
    if expected is None:
        assert scan_header(path).study_instance_uid == "1.2.3"
    else:
        assert code_of(path) == expected


def test_uids_inside_sequences_are_not_the_instance_s(tmp_path: Path) -> None:
    other = Dataset()
    other.StudyInstanceUID, other.SeriesInstanceUID, other.SOPInstanceUID = "9.1", "9.2", "9.3"
    dataset = image(ReferencedSeriesSequence=Sequence([other]), ReferencedStudySequence=Sequence([other]))
    for syntax in SYNTAXES:
        header = scan_header(write(tmp_path / "x", dataset, syntax))
        assert (header.study_instance_uid, header.sop_instance_uid) == ("1.2.3", "1.2.3.4")


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x7FFFFFFF, 1000])
def test_a_length_beyond_the_file_is_refused_without_reading_it(tmp_path: Path, length: int) -> None:
    path = raw(tmp_path / "x", *UIDS, element(0x40, 0x10, b"UN", b"abcd", length))
    tracemalloc.start()
    assert code_of(path) == "truncated"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_unknown_elements_of_undefined_length_end_where_they_end_or_are_refused(tmp_path: Path) -> None:
    implicit = struct.pack("<HHL", 0x09, 0x10, 4) + b"abcd"
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(implicit)) + implicit
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    good = element(0x09, 0x1001, b"UN", item, 0xFFFFFFFF) + end
    assert scan_header(raw(tmp_path / "good", *UIDS[:2], good, *UIDS[2:])).study_instance_uid == "1.2.3"
    assert (
        code_of(raw(tmp_path / "bad", *UIDS[:2], element(0x09, 0x1001, b"UN", item, 0xFFFFFFFF)))
        == "truncated"
    )


def test_pixel_data_is_never_read(tmp_path: Path) -> None:
    path = raw(tmp_path / "x", *UIDS, struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OW", 0, 1 << 30))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + (1 << 30))
    tracemalloc.start()
    assert scan_header(path).sop_instance_uid == "1.2.3.4"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_an_object_that_ends_within_its_pixel_data_is_refused_where_it_comes(
    tmp_path: Path, syntax: str
) -> None:
    pixels = random.Random(1).randbytes(1 << 17)
    path = write(tmp_path / "x", image(PixelData=pixels, BitsAllocated=8), syntax)
    whole = path.read_bytes()
    for tail in (b"", b"\0", bytes(1000)):
        path.write_bytes(whole + tail)
        assert scan_whole(path).header.sop_instance_uid == "1.2.3.4"
    # The last bytes of a deflated one may be padding.
    for missing in (100, 1 << 16) if syntax == DeflatedExplicitVRLittleEndian else (1, 2, 1 << 16):
        path.write_bytes(whole[:-missing])
        assert scan_header(path).sop_instance_uid == "1.2.3.4"
        with pytest.raises(Refused) as refused:
            scan_whole(path)
        assert refused.value.code == "truncated"


def test_every_whole_sample_of_pydicom_is_taken_with_whatever_its_pixel_data_are(tmp_path: Path) -> None:
    cut = {}
    folder = Path(str(get_testdata_file("CT_small.dcm"))).parent
    for path in sorted(folder.rglob("*.dcm")):
        try:
            scan_header(path)
        except Refused:
            continue
        try:
            scan_whole(path)
        except Refused as refused:
            cut[path.name] = refused.code
    assert cut == {"MR_truncated.dcm": "truncated"}


def test_pixel_data_of_odd_or_undefined_length_and_what_follows_them_are_taken(tmp_path: Path) -> None:
    odd = element(0x7FE0, 0x10, b"OB", bytes(81))
    fragments = struct.pack("<HHL", 0xFFFE, 0xE000, 4) + b"abcd" + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    padding = element(0xFFFC, 0xFFFC, b"OB", bytes(20))
    for pixels in (odd, odd + padding, element(0x7FE0, 0x10, b"OB", fragments, 0xFFFFFFFF) + padding):
        assert scan_whole(raw(tmp_path / "x", *UIDS, pixels)).is_cut is False
    endless = element(0x7FE0, 0x10, b"OB", fragments[:6], 0xFFFFFFFF)
    assert scan_whole(raw(tmp_path / "x", *UIDS, endless)).is_cut is False


def test_a_deflated_object_that_is_larger_than_its_cap_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for pixels in (bytes(6 << 20), random.Random(1).randbytes(6 << 20)):
        write(path, image(PixelData=pixels, BitsAllocated=8), DeflatedExplicitVRLittleEndian)
        assert scan_whole(path).header.patient_id == "P1"


def test_a_deflated_bomb_is_refused_within_its_cap(tmp_path: Path) -> None:
    bomb = b"".join(UIDS) + element(0x40, 0x10, b"UN", bytes(200 << 20))
    packer = zlib.compressobj(wbits=-15)
    path = raw(tmp_path / "x", packer.compress(bomb) + packer.flush(), syntax=DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    assert code_of(path) == "deflated-too-large"
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_what_is_not_part10_or_does_not_say_its_syntax_is_refused(tmp_path: Path) -> None:
    for number, data in enumerate([b"", b"DICM", bytes(132), b"MZ" + bytes(200), bytes(128) + b"DICM"[:3]]):
        (tmp_path / str(number)).write_bytes(data)
        assert code_of(tmp_path / str(number)) == "not-part10"
    (tmp_path / "bare").write_bytes(bytes(128) + b"DICM" + b"".join(UIDS))
    assert code_of(tmp_path / "bare") == "no-transfer-syntax"


@pytest.mark.parametrize("tag", [(0x10, 0x20), (0x10, 0x21)])
def test_a_patient_key_that_is_endless_or_twice_there_is_refused(
    tmp_path: Path, tag: tuple[int, int]
) -> None:
    assert (
        code_of(raw(tmp_path / "x", *UIDS[:2], element(*tag, b"LO", b"x" * 300), *UIDS[2:]))
        == "unreadable-header"
    )
    twice = element(*tag, b"LO", b"A") + element(*tag, b"LO", b"B")
    assert code_of(raw(tmp_path / "y", *UIDS[:2], twice, *UIDS[2:])) == "unreadable-header"


def test_results_of_ours_are_known_by_maker_and_modality(tmp_path: Path) -> None:
    for manufacturer, modality, own in [
        ("Nadir", "SEG", True),
        ("Nadir", "SR", True),
        ("Nadir", "DOC", True),
        ("Nadir", "OT", True),
        ("Nadir", "CT", False),
        ("Other", "SEG", False),
    ]:
        path = write(tmp_path / "x", image(Manufacturer=manufacturer, Modality=modality))
        assert scan_header(path).own is own


def test_equal_datasets_give_equal_files_whoever_wrote_the_meta(tmp_path: Path) -> None:
    write(tmp_path / "a", image(), SourceApplicationEntityTitle="ONE", ImplementationVersionName="X 1")
    write(
        tmp_path / "b", image(), SendingApplicationEntityTitle="TWO", ReceivingApplicationEntityTitle="THREE"
    )
    (tmp_path / "b").write_bytes(b"MZ" + (tmp_path / "b").read_bytes()[2:])
    for name in "ab":
        normalise(tmp_path / name, tmp_path / f"{name}.out")
    assert (tmp_path / "a.out").read_bytes() == (tmp_path / "b.out").read_bytes()
    assert (tmp_path / "b.out").read_bytes()[:128] == bytes(128)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_normalising_keeps_the_dataset_byte_for_byte_and_twice_is_once(tmp_path: Path, syntax: str) -> None:
    write(tmp_path / "a", image(), syntax)
    normalise(tmp_path / "a", tmp_path / "b")
    normalise(tmp_path / "b", tmp_path / "c")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    tails = [(tmp_path / name).read_bytes()[split(tmp_path / name)[1] :] for name in "ab"]
    assert tails[0] == tails[1]
    assert pydicom.dcmread(tmp_path / "b") == pydicom.dcmread(tmp_path / "a")


def test_the_preamble_is_what_pydicom_reads_and_holds_no_ae_title(tmp_path: Path) -> None:
    data = write_preamble(CT, "1.2.3.4", ExplicitVRLittleEndian)
    meta = pydicom.filereader.read_file_meta_info(raw(tmp_path / "x", *UIDS))
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CT, "1.2.3.4")
    assert (meta.TransferSyntaxUID, meta.FileMetaInformationGroupLength) == (
        ExplicitVRLittleEndian,
        len(data) - 144,
    )
    assert not any(element.keyword.endswith("ApplicationEntityTitle") for element in meta)
    assert split(tmp_path / "x")[1] == len(data)
    with pytest.raises(Refused):
        write_preamble(CT, "../x", ExplicitVRLittleEndian)


def test_where_meta_and_dataset_disagree_the_dataset_is_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "a", image(), MediaStorageSOPInstanceUID="9.9.9")
    assert normalise(path, tmp_path / "b").sop_instance_uid == "1.2.3.4"
    assert split(tmp_path / "b")[0].MediaStorageSOPInstanceUID == "1.2.3.4"


def samples() -> list[bytes]:
    folder = Path(str(get_testdata_file("CT_small.dcm"))).parent
    names = (
        "CT_small.dcm",
        "rtplan.dcm",
        "ExplVR_BigEnd.dcm",
        "image_dfl.dcm",
        "reportsi.dcm",
        "UN_sequence.dcm",
        "nested_priv_SQ.dcm",
    )
    return [(folder / name).read_bytes()[:20_000] for name in names]


@pytest.mark.parametrize("seed", range(7))
def test_a_mutated_file_is_read_or_refused_and_nothing_else(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    original = samples()[seed]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(150):
        data = bytearray(original)
        for _ in range(source.randint(1, 12)):
            place = source.randrange(min(len(data), 4000))
            kind = source.randrange(4)
            if kind == 0:
                data[place] = source.randrange(256)
            elif kind == 1:
                data[place : place + 4] = source.choice(
                    [b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", bytes(4)]
                )
            elif kind == 2:
                del data[place : place + source.randint(1, 50)]
            else:
                data[place:place] = source.randbytes(source.randint(1, 20))
        path = tmp_path / "x"
        path.write_bytes(data)
        try:
            scan_header(path)
            outcomes["read"] += 1
        except Refused:
            outcomes["refused"] += 1
    assert sum(outcomes.values()) == 150
    assert outcomes["refused"] > 0


@given(data=st.binary(max_size=400), syntax=st.sampled_from(SYNTAXES))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_noise_behind_a_good_preamble_is_refused(tmp_path: Path, data: bytes, syntax: str) -> None:
    with pytest.raises(Refused):
        scan_header(raw(tmp_path / "x", data, syntax=syntax))


def test_every_cut_of_a_file_is_refused_unless_it_falls_between_two_elements(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", image()).read_bytes()
    last = whole.index(b"1.2.3.9") - 8
    number = whole.index(b"\x20\x00\x11\x00")
    readable = []
    for length in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:length])
        try:
            scan_header(tmp_path / "x")
        except Refused:
            continue
        readable.append(length)
    assert readable == [number, last]
