"""One line per event on standard error, with our own identifiers and never a value out of a patient's object."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import IO

from node.scribe import Scribe
from plugins.errors import NadirError

TALKATIVE = ("pydicom", "pynetdicom", "highdicom", "py.warnings", "httpx", "httpcore", "uvicorn", "alembic")
WARNING_PLACE = re.compile(r"^(?P<place>[^\n]*?:\d+: \w+)", re.ASCII)
UNSAFE = re.compile(r"[^\x20-\x7e]")
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=MappingProxyType({}))


class Line(str):
    """`action=... key=value ...`, which remembers its fields for who writes JSON."""

    fields: Mapping[str, object]


def line(action: str, **fields: object) -> Line:
    """Return `action=... key=value ...`, values with spaces quoted and control characters escaped."""
    told = {"action": action, **fields}
    made = Line(_pairs(told))
    made.fields = told
    return made


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Add fields to every record of this thread until the block ends: `study`, the number of a study's row.

    The number is the same in all roles and hosts of a node, and says nothing of a patient.
    """
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def _pairs(fields: Mapping[str, object]) -> str:
    return " ".join(f"{key}={_value(value)}" for key, value in fields.items())


def _value(value: object) -> str:
    said = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    text = _escaped(said).replace('"', "'")
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


class About(logging.Filter):
    """Gives each record the fields of `about` that it does not tell itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True."""
        known = record.msg.fields if isinstance(record.msg, Line) else {}
        record.about = {name: value for name, value in _about.get().items() if name not in known}
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

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the message with the fields that hold for all of this thread."""
        told = _pairs(getattr(record, "about", {}))
        return f"{super().formatMessage(record)} {told}".rstrip()

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


class JsonLine(OneLine):
    """One JSON object a record: `time`, `level`, `logger`, then the fields, or `message` where there are none."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object."""
        message = record.getMessage()
        fields = record.msg.fields if isinstance(record.msg, Line) else {"message": message}
        told: dict[str, object] = {
            "time": self.formatTime(record, self.datefmt),
            "level": record.levelname,
            "logger": record.name,
            **{name: _plain(value) for name, value in {**fields, **getattr(record, "about", {})}.items()},
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told)


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, int | float | bool | None) else str(value)


def _handler(stream: IO[str] | None) -> logging.Handler:
    if stream is None:
        with suppress(AttributeError, OSError):  # none, or one without a descriptor
            return Scribe(sys.stderr.fileno(), lambda count: line("lines-lost", count=count))
    return logging.StreamHandler(stream)


def configure(level: str = "INFO", stream: IO[str] | None = None, *, form: str = "text") -> None:
    """Send every log record of this process to `stream`, standard error when not given, as single lines.

    `form` is `text`, or `json` for what gathers logs. Standard error is written to by a thread of its own.
    """
    handler = _handler(stream)
    handler.setFormatter(JsonLine() if form == "json" else OneLine())
    handler.addFilter(WithoutValues())
    handler.addFilter(About())
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
