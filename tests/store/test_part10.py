from __future__ import annotations

import struct
import tracemalloc
import unicodedata
import warnings
from datetime import date
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from part10_files import CT, SYNTAXES, UIDS, element, image, raw, write
from pydicom.data import get_charset_files, get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from plugins.errors import Refused
from store.part10 import Header, normalise, scan_header, scan_whole, split, write_preamble


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


def test_a_uid_with_leading_zeros_and_blank_padding_is_taken(tmp_path: Path) -> None:
    path = raw(tmp_path / "x", UIDS[0], element(8, 0x18, b"UI", b"1.02.003 "), *UIDS[2:])
    assert scan_header(path).sop_instance_uid == "1.02.003"


def test_uids_inside_sequences_are_not_the_instance_s(tmp_path: Path) -> None:
    other = Dataset()
    other.StudyInstanceUID, other.SeriesInstanceUID, other.SOPInstanceUID = "9.1", "9.2", "9.3"
    dataset = image(ReferencedSeriesSequence=Sequence([other]), ReferencedStudySequence=Sequence([other]))
    for syntax in SYNTAXES:
        header = scan_header(write(tmp_path / "x", dataset, syntax))
        assert (header.study_instance_uid, header.sop_instance_uid) == ("1.2.3", "1.2.3.4")


def test_pixel_data_is_never_read(tmp_path: Path) -> None:
    path = raw(tmp_path / "x", *UIDS, struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OW", 0, 1 << 30))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + (1 << 30))
    tracemalloc.start()
    assert scan_header(path).sop_instance_uid == "1.2.3.4"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


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
