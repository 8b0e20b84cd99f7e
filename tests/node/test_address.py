"""Addresses of others that cannot be spoken to, and what is said of one of ours that cannot be had."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from node.address import not_listening, parse_destination, web_root
from node.settings import Settings
from plugins.errors import Refused


@pytest.mark.parametrize(
    ("error", "setting", "todo"),
    [
        (OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)), "", "choose another port"),
        (OSError(errno.EADDRINUSE, "in use"), "http_port", "choose another port (http_port)"),
        (OSError(errno.EADDRNOTAVAIL, "not ours"), "", "choose another address"),
        (OSError(errno.EADDRNOTAVAIL, "not ours"), "http_port", "choose another address (http_host)"),
        (
            socket.gaierror(socket.EAI_NONAME, "unknown"),
            "metrics_port",
            "choose another address (metrics_host)",
        ),
    ],
)
def test_what_has_to_be_changed_is_the_address_where_this_machine_has_it_not(
    error: OSError, setting: str, todo: str
) -> None:
    told = not_listening("", "10.9.9.9", 104, error, setting)
    assert str(told) == f"cannot listen on 10.9.9.9:104: {error.strerror}; {todo}"


@pytest.mark.parametrize(
    "ae_title", ["P\u00c4CS", "PACS\u4e2d", "A\\B", "A\x07B", "A B", " ", "", "SEVENTEEN-LETTERS"]
)
def test_an_ae_title_that_dicom_cannot_say_is_refused_before_anything_is_sent_there(ae_title: str) -> None:
    wrong: list[dict[str, object]] = [
        {"destinations": (f"{ae_title}@127.0.0.1:104",)},
        {"priors_from": (f"{ae_title}@127.0.0.1:104",)},
        {"commitment_callers": (f"{ae_title}@127.0.0.1:104",)},
        {"callers": (f"{ae_title}@127.0.0.1",)},
        {"destinations": ("P@h:104",), "delivery": {"P@h:104": {"reported_by": (f"{ae_title}@10.0.0.1",)}}},
    ]
    for flags in wrong:
        with pytest.raises(Refused, match="write AE") as caught:
            Settings.load(**flags)
        assert caught.value.code == "bad-settings" and "\n" not in caught.value.sentence


def test_a_port_has_one_spelling_so_that_no_destination_is_served_twice() -> None:
    with pytest.raises(Refused, match="'P@h:0104' has a port that begins with 0: write 104"):
        Settings.load(destinations=("P@h:104", "P@h:0104"))
    assert parse_destination("P@h:104") == ("P", "h", 104)


def test_an_ae_title_may_have_every_other_character_of_dicom() -> None:
    assert parse_destination("a[Z]!-_.{~}:/@h:104") == ("a[Z]!-_.{~}:/", "h", 104)
    assert Settings.load(callers=("CT_1.a", "*@10.0.0.0/8")).callers == ("CT_1.a", "*@10.0.0.0/8")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:99999/r", "ports are 1 to 65535"),
        ("http://127.0.0.1:0/r", "ports are 1 to 65535"),
        ("https://pacs:eighty/r", "ports are 1 to 65535"),
        ("http://:8042/r", "names no host"),
        ("http://[::1/r", "names no host"),
        ("http://pacs/dicom-web#f", "has a fragment"),
        ("http://u:secret@pacs/dicom-web#f", "'http://pacs/dicom-web#f' has a fragment"),
        ("http://u:sec#ret@pacs/dicom-web", "that of a password as %23"),
    ],
)
@pytest.mark.parametrize("setting", ["destinations", "pacs_url", "priors_from"])
def test_a_url_that_cannot_be_asked_is_refused_without_its_password(
    url: str, says: str, setting: str
) -> None:
    with pytest.raises(Refused) as caught:
        Settings.load(**{setting: url if setting == "pacs_url" else (url,)})
    assert caught.value.code == "bad-settings"
    assert setting in caught.value.sentence and says in caught.value.sentence
    assert "sec" not in caught.value.sentence and "\n" not in caught.value.sentence


def test_a_worklist_is_judged_as_any_other_url() -> None:
    with pytest.raises(Refused, match=r"worklist\.url.*ports are 1 to 65535"):
        Settings.load(destinations=("P@h:104",), worklist={"url": "http://pacs:99999/ups"})


@pytest.mark.parametrize("url", ["http://h", "https://u:p%23@h:65535/a/b", "http://[::1]:8042/dicom-web"])
def test_a_url_that_can_be_asked_is_kept_as_it_is(url: str) -> None:
    assert web_root(url) == web_root(url + "/") == parse_destination(url) == url
