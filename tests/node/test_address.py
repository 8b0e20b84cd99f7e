"""What is said of an address of ours that cannot be had."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from node.address import not_listening


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
