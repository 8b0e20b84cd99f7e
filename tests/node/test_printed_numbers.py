"""Negative numbers that commands print where the terminal or pipe cannot write a minus sign."""

from __future__ import annotations

import io
import sys

import pytest

from node import printing

ROW = {
    "plugin": "emphysema",
    "finding": "lung",
    "measured": {"perc_15": {"value": -880.0, "unit": "[hnsf'U]"}},
}
SAID = {"plugin": "other", "finding": "−", "measured": {"mean": {"value": -1.5, "unit": "[hnsf'U]"}}}


@pytest.mark.parametrize(("encoding", "minus"), [("ascii", "-"), ("latin-1", "-"), ("utf-8", "−")])
def test_a_negative_number_is_readable_in_every_encoding(
    monkeypatch: pytest.MonkeyPatch, encoding: str, minus: str
) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", stream)
    printing.print_measured([ROW, SAID], {"finding": "finding"})
    stream.flush()
    told = written.getvalue().decode(encoding)
    assert f"{minus}880" in told and f"mean {minus}1.50 HU" in told and "\\u" not in told
