"""An image that lies as those before it is read without a scan, and always with the scan's own answer."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)

from plugins.errors import Refused
from store import header_forms
from store.header_forms import HeaderForms
from store.part10 import Header, Scan, scan_whole, write_preamble

SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


def image(number: int, syntax: str = ExplicitVRLittleEndian, **changes: object) -> bytes:
    """Return the file of one slice, as a listener writes it."""
    dataset = Dataset()
    values: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"1.2.3.{number}",
        "StudyDate": "20260301",
        "Modality": "CT",
        "PatientName": "Müller^Zoë",
        "PatientID": "P1",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.1",
        "InstanceNumber": number,
        "ImageComments": "x" * (number % 5),
        "SliceLocation": number * 1.25,
        "RequestAttributesSequence": [Dataset()],
        "PixelData": bytes(64),
    }
    for keyword, value in {**values, **changes}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
        if syntax == JPEGLSLossless:
            dataset["PixelData"].is_undefined_length = True
            dataset.PixelData = bytes.fromhex("feff00e000000000feff00e002000000abcd")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    data = buffer.getvalue()
    begin = 144 + int(dcmread(BytesIO(data)).file_meta.FileMetaInformationGroupLength)
    return write_preamble(CTImageStorage, str(dataset.SOPInstanceUID), syntax) + data[begin:]


class Reading:
    """The forms of one receiver, whose every answer is held against a scan of the same bytes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forms = HeaderForms()
        self.scans = 0
        self._path = folder / "file.dcm"
        monkeypatch.setattr(header_forms, "scan_whole", self._scan)

    def _scan(self, path: Path, head: bytes) -> Scan:
        self.scans += 1
        return scan_whole(path, head)

    def read(self, data: bytes) -> Header | str:
        self._path.write_bytes(data)
        head = data[: 64 << 10]
        answer = _answer(lambda *file: self.forms.scan(*file, len(data)), self._path, head)
        assert answer == _answer(lambda *file: scan_whole(*file).header, self._path, head)
        return answer


def _answer(read: Callable[[Path, bytes], Header], path: Path, head: bytes) -> Header | str:
    try:
        return read(path, head)
    except Refused as refused:
        return refused.code


@pytest.fixture
def reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reading:
    return Reading(tmp_path, monkeypatch)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_header_of_a_series_is_that_of_a_scan(reading: Reading, syntax: str) -> None:
    answers = [reading.read(image(number, syntax)) for number in range(100, 220)]
    assert [one.sop_instance_uid for one in answers if isinstance(one, Header)] == [
        f"1.2.3.{number}" for number in range(100, 220)
    ]


@pytest.mark.parametrize("syntax", SYNTAXES[:3])
def test_a_series_is_scanned_until_all_that_varies_was_met(reading: Reading, syntax: str) -> None:
    for number in range(100, 220):
        reading.read(image(number, syntax))
    assert reading.scans == 2


def test_series_that_come_mixed_are_each_scanned_twice(reading: Reading) -> None:
    for number in range(100, 130):
        for syntax in SYNTAXES[:3]:
            reading.read(image(number, syntax))
            reading.read(image(number, syntax, PatientWeight=70))
    assert reading.scans == 12


def test_a_second_patient_is_told_from_the_first(reading: Reading) -> None:
    for number in range(1, 40):
        for patient in "PQR":
            one = reading.read(image(number, PatientID=patient * number, StudyInstanceUID=f"1.{number}"))
            assert isinstance(one, Header)
            assert (one.patient_id, one.study_instance_uid) == (patient * number, f"1.{number}")
    assert reading.scans < 5


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"StudyInstanceUID": ""}, "missing-uid"),
        ({"SOPInstanceUID": "1.2.a"}, "invalid-uid"),
        ({"PatientID": "P" * 300}, "unreadable-header"),
        ({"StudyDescription": "D" * 5000}, "unreadable-header"),
    ],
)
def test_what_a_scan_refuses_is_refused_in_a_form_too(
    reading: Reading, changes: dict[str, str], code: str
) -> None:
    data = image(7, **{key: "1.2.3.77" if key.endswith("UID") else "other" for key in changes})
    for known in (image(1), image(2), data, image(3)):
        assert isinstance(reading.read(known), Header)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bad = image(8, **{key: value for key, value in changes.items() if key != "SOPInstanceUID"})
    if "SOPInstanceUID" in changes:
        bad = bad.replace(b"1.2.3.8\0", b"1.2.3.a\0")
    assert reading.read(bad) == code


def test_the_same_elements_in_two_transfer_syntaxes_are_two_forms(reading: Reading) -> None:
    for number in range(100, 120):
        for syntax in ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.1"):
            plain = image(number).replace(
                write_preamble(CTImageStorage, f"1.2.3.{number}", ExplicitVRLittleEndian),
                write_preamble(CTImageStorage, f"1.2.3.{number}", syntax),
            )
            one = reading.read(plain)
            assert isinstance(one, Header)
            assert one.transfer_syntax_uid == syntax
    assert reading.scans == 6


def test_where_a_sequence_varies_every_image_is_scanned_and_few_are_learned_from(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = []
    learn = HeaderForms._learn
    monkeypatch.setattr(HeaderForms, "_learn", lambda *a: (learned.append(1), learn(*a)))
    for number in range(1, 300):
        item = Dataset()
        item.ScheduledProcedureStepID = f"S{number}"
        reading.read(image(number, RequestAttributesSequence=[item]))
    assert reading.scans == 299
    assert len(learned) < 70


def test_a_file_without_pixels_or_cut_short_is_scanned(reading: Reading) -> None:
    for number in range(1, 5):
        reading.read(image(number))
        reading.read(image(number, PixelData=None))
    whole = image(9)
    answers = [reading.read(whole[:length]) for length in (*range(1, len(whole), 7), len(whole))]
    assert {type(one) for one in answers} == {str, Header}


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_an_image_cut_within_its_pixel_data_is_refused_in_a_form_too(reading: Reading, syntax: str) -> None:
    for number in range(100, 110):
        whole = image(number, syntax, PixelData=random.Random(number).randbytes(1 << 18))
        assert isinstance(reading.read(whole), Header)
        assert isinstance(reading.read(whole + b"\0"), Header)
        for missing in (
            (100, 1000, 200_000) if syntax == DeflatedExplicitVRLittleEndian else (1, 100, 200_000)
        ):
            answer = reading.read(whole[:-missing])
            assert answer == "truncated" or syntax == JPEGLSLossless


@pytest.mark.parametrize("syntax", SYNTAXES[:2])
def test_pixels_of_two_representations_are_two_forms(reading: Reading, syntax: str) -> None:
    for number in range(100, 120):
        native = image(number, syntax)
        assert isinstance(reading.read(native), Header)
        assert isinstance(reading.read(native.replace(b"\xe0\x7f\x10\0OW", b"\xe0\x7f\x10\0OB")), Header)
    assert reading.scans == (4 if syntax == ExplicitVRLittleEndian else 2)


def test_no_more_than_a_few_forms_are_kept(reading: Reading) -> None:
    for number in range(64):
        reading.read(image(number + 1, **extra(number)))
    assert len(reading.forms._forms) == header_forms.MOST_FORMS


def extra(number: int) -> dict[str, object]:
    """Return attributes that no other number has all of."""
    keywords = ("PatientAge", "PatientSize", "PatientWeight", "Allergies", "Occupation", "KVP")
    values: tuple[object, ...] = ("040Y", 1.8, 70, "none", "baker", 120)
    return {k: v for bit, (k, v) in enumerate(zip(keywords, values, strict=True)) if number >> bit & 1}


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_to_the_bytes_the_answer_is_that_of_a_scan(
    reading: Reading, data: st.DataObject
) -> None:
    syntax = data.draw(st.sampled_from(SYNTAXES[:3]))
    for number in (1, 2, 3):
        reading.read(image(number, syntax))
    draw = random.Random(data.draw(st.integers(0, 1 << 32)))
    for _ in range(40):
        mutated = bytearray(image(draw.randrange(1, 2000), syntax))
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(128, len(mutated))
            kind = draw.randrange(4)
            if kind == 0:
                mutated[at] = draw.randrange(256)
            elif kind == 1:
                mutated[at] ^= 1 << draw.randrange(8)
            elif kind == 2:
                del mutated[at : at + draw.randrange(1, 9)]
            else:
                mutated[at:at] = draw.randbytes(draw.randrange(1, 9))
            if len(mutated) < 140:
                break
        reading.read(bytes(mutated))
