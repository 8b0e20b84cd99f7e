"""What an Accept field takes, as viewers and programs write it."""

from __future__ import annotations

import pytest

from node.web.accept import ANY, taken

JSON = ("application/dicom+json", "application/json")
DICOM = ("application/dicom",)
FRAME = ("image/jpeg", "application/octet-stream")
BASELINE = "1.2.840.10008.1.2.4.50"


@pytest.mark.parametrize(
    ("accept", "kinds"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/dicom+json", JSON),
        ("application/json", JSON),
        ("application/json, text/plain, */*", JSON),
        ("application/*;q=0.1", JSON),
        ("text/html, image/gif, image/jpeg, *; q=.2", JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),
        ('multipart/related; type="application/dicom"; transfer-syntax=*', DICOM),
        ('multipart/related; type="application/dicom"; transfer-syntax="*"', DICOM),
        ("multipart/related; type=application/dicom; transfer-syntax=*", DICOM),
        ('multipart/related;type="application/dicom"', DICOM),
        ("Multipart/Related; Type=Application/DICOM", DICOM),
        ("multipart/related", DICOM),
        ("multipart/*", DICOM),
        ("multipart/related; type=application/octet-stream; transfer-syntax=*", FRAME),
        ('multipart/related; type="image/*"', FRAME),
        ('multipart/related; type="image/jpeg"; transfer-syntax=1.2, multipart/related; type="*/*"', FRAME),
    ],
)
def test_what_viewers_send_is_taken(accept: str, kinds: tuple[str, ...]) -> None:
    assert ANY in taken(accept, kinds)


@pytest.mark.parametrize(
    ("accept", "kinds"),
    [
        ("text/html", JSON),
        ("application/dicom+xml", JSON),
        ('multipart/related; type="application/dicom+xml"', JSON),
        ("application/json;q=0, application/dicom+json; q=0.000, text/html", JSON),
        ("image/jpeg", DICOM),
        ("application/json", DICOM),
        ('multipart/related; type="application/octet-stream"', DICOM),
        ('text/html; x="a, application/dicom"', DICOM),
        ('multipart/related; type="image/*"', ("application/octet-stream",)),
        ("image/png, text/*", FRAME),
        (";;,,=", JSON),
    ],
)
def test_what_asks_for_something_else_takes_nothing(accept: str, kinds: tuple[str, ...]) -> None:
    assert taken(accept, kinds) == frozenset()


def test_the_transfer_syntaxes_are_those_of_the_options_that_fit() -> None:
    accept = (
        f'multipart/related; type="application/dicom"; transfer-syntax={BASELINE};q=0.5, '
        'multipart/related; type="application/dicom"; transfer-syntax="1.2.840.10008.1.2.1", '
        "multipart/related; type=image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.70"
    )
    assert taken(accept, DICOM) == {BASELINE, "1.2.840.10008.1.2.1"}
