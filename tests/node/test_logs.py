from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from io import StringIO

import pytest
from pydicom import valuerep

from node.logs import TALKATIVE, about, configure, line
from plugins.errors import Refused


@pytest.fixture
def out() -> Iterator[StringIO]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = StringIO()
    configure("INFO", stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers[:] = before
    root.setLevel(level)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_record_is_one_line_with_time_level_and_logger(out: StringIO) -> None:
    logging.getLogger("node.x").info(line("stored", sha="ab12", source="CT@10.0.0.1"))

    (said,) = out.getvalue().splitlines()
    assert said.endswith("INFO node.x action=stored sha=ab12 source=CT@10.0.0.1")
    assert said[10] == "T"


def test_a_newline_from_the_network_cannot_forge_a_line(out: StringIO) -> None:
    logging.getLogger("node.x").warning(line("rejected", calling_ae="A\n2026 INFO node.x action=accepted"))

    assert len(out.getvalue().splitlines()) == 1


def test_what_the_dicom_libraries_say_keeps_place_and_kind_and_loses_its_text(out: StringIO) -> None:
    logging.getLogger("pydicom").warning("Invalid value for VR UI: '%s'", "DOE^JANE")
    logging.getLogger("pynetdicom.dul").error("Unable to decode DOE^JANE")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("Invalid value for VR DA: 'DOE^JANE'", UserWarning, stacklevel=1)

    said = out.getvalue()
    assert "DOE" not in said
    assert len(said.splitlines()) == 3
    assert "test_logs.py" in said
    assert "UserWarning" in said


def test_the_chatter_of_the_libraries_is_dropped(out: StringIO) -> None:
    logging.getLogger("pynetdicom.acse").info("Accepting Association from DOE")
    assert out.getvalue() == ""


def test_an_exception_is_told_by_type_and_place_its_text_only_when_it_is_ours(out: StringIO) -> None:
    log = logging.getLogger("node.x")
    for error in (ValueError("DOE^JANE"), Refused("no-room", "there is no room")):
        try:
            raise error
        except (ValueError, Refused):
            log.exception("action=failed")

    first, second = out.getvalue().splitlines()
    assert "ValueError at test_logs.py:" in first
    assert "DOE" not in first
    assert "Refused no-room: there is no room at test_logs.py:" in second


@pytest.mark.usefixtures("out")
def test_warnings_that_quote_a_peer_are_not_kept_in_memory() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        configure("INFO", StringIO())
        for number in range(100):
            valuerep.validate_value("UI", f"no UID {number}", 1)
    kept = [key for key in vars(valuerep).get("__warningregistry__", {}) if "no UID" in str(key)]
    assert kept == []


def test_what_is_about_a_study_says_so_on_every_line_of_the_block(out: StringIO) -> None:
    log = logging.getLogger("node.x")
    with about(study=7):
        log.info(line("job-starts", job=3))
        log.info(line("other", study=8))
        logging.getLogger("pydicom").warning("DOE^JANE")
    log.info(line("after"))
    first, second, third, last = out.getvalue().splitlines()
    assert first.endswith("action=job-starts job=3 study=7")
    assert second.endswith("action=other study=8")
    assert third.endswith("study=7") and "DOE" not in third
    assert last.endswith("action=after")


def test_as_json_each_line_is_an_object_with_its_fields(out: StringIO) -> None:
    configure("INFO", out, form="json")
    log = logging.getLogger("node.x")
    with about(study=7):
        log.info(line("job-analysed", job=3, seconds="1.20", studies=(1, 2)))
        try:
            raise ValueError("DOE^JANE")
        except ValueError:
            log.exception("a plain\ntext")
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first.pop("time")[10] == "T"
    assert first == {
        "level": "INFO",
        "logger": "node.x",
        "action": "job-analysed",
        "job": 3,
        "seconds": "1.20",
        "studies": [1, 2],
        "study": 7,
    }
    assert second["message"] == "a plain\ntext" and second["study"] == 7
    assert second["exception"].startswith("ValueError at test_logs.py:") and "DOE" not in str(second)
