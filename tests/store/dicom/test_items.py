from __future__ import annotations

from io import BytesIO

from pydicom import Dataset, dcmread

from store.dicom.items import text, value_of


def test_a_value_of_a_representation_that_nobody_knows_reads_as_missing() -> None:
    written = Dataset()
    written.ValueType, written.PatientID = "TEXT", "P1"
    file = BytesIO()
    written.save_as(file, implicit_vr=False, little_endian=True)
    hostile = BytesIO(file.getvalue().replace(b"\x40\x00\x40\xa0CS", b"\x40\x00\x40\xa0C\\"))
    read = dcmread(hostile, force=True)
    assert (value_of(read, "ValueType"), text(read, "ValueType")) == (None, "")
    assert text(read, "PatientID") == "P1"
