"""One line per event on standard error, with our own identifiers and never a value out of a patient's object."""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
import warnings
from types import TracebackType
from typing import IO

from plugins.errors import NadirError

TALKATIVE = ("pydicom", "pynetdicom", "highdicom", "py.warnings", "httpx", "httpcore", "uvicorn", "alembic")
WARNING_PLACE = re.compile(r"^(?P<place>[^\n]*?:\d+: \w+)", re.ASCII)
UNSAFE = re.compile(r"[^\x20-\x7e]")
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def line(action: str, **fields: object) -> str:
    """Return `action=... key=value ...`, values with spaces quoted and control characters escaped."""
    return " ".join(f"{key}={_value(value)}" for key, value in {"action": action, **fields}.items())


def _value(value: object) -> str:
    text = _escaped(str(value)).replace('"', "'")
    return f'"{text}"' if " " in text or not text else text


def _escaped(text: str) -> str:
    return UNSAFE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


class WithoutValues(logging.Filter):
    """Keeps place and kind of what the DICOM libraries say, and drops their text, which quotes values."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True for every record worth keeping, its text replaced where it may quote a value."""
        if record.name.split(".", 1)[0] not in TALKATIVE and record.name not in TALKATIVE:
            return True
        if record.levelno < logging.WARNING:
            return False
        found = WARNING_PLACE.match(record.getMessage()) if record.name == "py.warnings" else None
        where = f"{record.module}:{record.lineno}"
        record.msg = found["place"] if found else f"text withheld, it may quote values ({where})"
        record.args = ()
        return True


class OneLine(logging.Formatter):
    """`time level logger message`, the exception as its type and places only, all on one line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        record.exc_text = None
        return _escaped(super().format(record).replace("\n", " | "))

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802 - the name is logging's
        """Return type and places of an exception; its text only when it is our own sentence."""
        kind, error, trace = ei
        if kind is None:
            return ""
        places = [
            f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in traceback.extract_tb(trace)
        ]
        said = f" {error}" if isinstance(error, NadirError) else ""
        return f"{kind.__name__}{said} at {' > '.join(places[-8:])}"


def configure(level: str = "INFO", stream: IO[str] | None = None) -> None:
    """Send every log record of this process to `stream`, standard error when not given, as single lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(OneLine())
    handler.addFilter(WithoutValues())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in TALKATIVE:
        talkative = logging.getLogger(name)
        talkative.handlers.clear()
        talkative.propagate = True
        talkative.setLevel(logging.WARNING)
    # A peer that cannot be reached is told by whoever wanted to reach it, with its address.
    logging.getLogger("pynetdicom.transport").setLevel(logging.CRITICAL)
    logging.captureWarnings(True)
    # Python keeps every text that it has warned of, and these quote what a peer sent: memory for the peer to fill.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(pydicom|pynetdicom)\b")
