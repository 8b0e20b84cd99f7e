"""JPEG, JPEG-LS and JPEG 2000 code streams: what they declare, whether they are whole and lossless, undecoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

JP2_SIGNATURE: Final = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
START_OF_JPEG_2000: Final = b"\xff\x4f\xff\x51"
STARTS_OF_FRAME: Final = {0xC0, 0xC1, 0xC2, 0xC3, 0xF7}
START_OF_SCAN: Final = 0xDA
START_OF_TILE_PART: Final = b"\xff\x90"
CODING_STYLE: Final = b"\xff\x52"
IRREVERSIBLE: Final = 0
END: Final = b"\xff\xd9"
EARLY: Final = "its code stream ends early"


class BadStream(ValueError):
    """A code stream that breaks its rules; the words say how."""


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return rows and columns that a JPEG or JPEG-LS stream declares. Raises `BadStream` where it does not."""
    for marker, at in _jpeg_segments(data):
        if marker in STARTS_OF_FRAME:
            return _number(data, at + 3, 2), _number(data, at + 5, 2)
    raise BadStream("it has no JPEG start of frame")


def jpeg_2000_size(data: bytes) -> tuple[int, int]:
    """Return rows and columns that a JPEG 2000 stream declares. Raises `BadStream` where it does not."""
    at = _start_of_jpeg_2000(data)
    x1, y1, x0, y0 = (_number(data, at + 8 + 4 * i, 4) for i in range(4))
    return y1 - y0, x1 - x0


def require_whole_jpeg(data: bytes) -> None:
    """Raise `BadStream` where a JPEG stream has no end; what follows the end does not matter."""
    for marker, at in _jpeg_segments(data):
        if marker == START_OF_SCAN and data.find(END, at) >= 0:
            return
    raise BadStream(EARLY)


def require_whole_jpeg_2000(data: bytes) -> None:
    """Raise `BadStream` where a JPEG 2000 stream does not end when its last tile-part has the length that it says."""
    at = _start_of_jpeg_2000(data) + 2
    while (marker := data[at : at + 2]) != END:
        if marker == START_OF_TILE_PART:
            length = _number(data, at + 6, 4)
            at = at + max(length, 12) if length else data.find(END, at)
        else:
            at += 2 + _number(data, at + 2, 2)
        if at < 0 or marker[:1] != b"\xff":
            raise BadStream(EARLY)


def jpeg_ls_is_lossy(head: bytes) -> bool:
    """Return whether the beginning of a JPEG-LS stream allows its values to differ (NEAR)."""
    for marker, at in _jpeg_segments(head):
        if marker == START_OF_SCAN:
            return _number(head, at + 3 + 2 * _number(head, at + 2, 1), 1) > 0
    return False


def jpeg_2000_is_lossy(head: bytes) -> bool:
    """Return whether the beginning of a JPEG 2000 stream names the irreversible transform (9-7)."""
    at = _start_of_jpeg_2000(head) + 2
    while (marker := head[at : at + 2]) not in (CODING_STYLE, START_OF_TILE_PART, END):
        at += 2 + _number(head, at + 2, 2)
    return marker == CODING_STYLE and _number(head, at + 13, 1) == IRREVERSIBLE


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and place of the length of each segment before the first scan, and of the scan's own."""
    at, marker = 2, 0
    while marker != START_OF_SCAN and at + 4 <= len(data):
        if data[at] != 0xFF:
            raise BadStream("a JPEG marker is missing")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        yield marker, at + 2
        at += 2 + _number(data, at + 2, 2)


def _start_of_jpeg_2000(data: bytes) -> int:
    """Return where the code stream begins: at once, or in its box of a JP2 file."""
    at = _place_in_jp2(data) if data.startswith(JP2_SIGNATURE) else 0
    if data[at : at + 4] != START_OF_JPEG_2000:
        raise BadStream("it has no JPEG 2000 code stream")
    return at


def _place_in_jp2(data: bytes) -> int:
    """Return where the content of the first box `jp2c` begins; the end of the data when there is none."""
    at = 0
    while at + 8 <= len(data):
        length, head = _number(data, at, 4), 8
        if length == 1:
            length, head = _number(data, at + 8, 8), 16
        if data[at + 4 : at + 8] == b"jp2c":
            return at + head
        if length < head:
            break
        at += length
    return len(data)


def _number(data: bytes, at: int, width: int) -> int:
    """Return a number of `width` bytes, highest first. Raises `BadStream` where the data end before it does."""
    if at + width > len(data):
        raise BadStream(EARLY)
    return int.from_bytes(data[at : at + width], "big")
