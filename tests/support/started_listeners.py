"""Listeners in this process on a small node, stopped when the test ends, and a series to send to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from dicom_series import make_series
from patience import PATIENT_LIMITS
from small_node import SmallNode

from node.listener import Listener

Start = Callable[..., Listener]


@contextmanager
def starting(small: SmallNode, receive_path: str) -> Iterator[Start]:
    """Give a function that starts a listener, which is patient and takes from everybody unless told otherwise."""
    running: list[Listener] = []

    def begin(**keywords: object) -> Listener:
        values = {"host": "127.0.0.1", "port": 0, "accept_any": True, "reserve_bytes": 0, **keywords}
        values.setdefault("receive_path", receive_path)
        values.setdefault("limits", PATIENT_LIMITS)
        listener = Listener(small.database, small.objects, **values)  # type: ignore[arg-type]
        listener.start()
        running.append(listener)
        return listener

    yield begin
    for listener in running:
        listener.stop()


def series(folder: Path, count: int = 4, **keywords: object) -> list[Path]:
    """Return the files of a series."""
    return make_series(folder, np.arange(count * 256.0).reshape(count, 16, 16), **keywords)  # type: ignore[arg-type]
