"""JPEG Lossless (process 14, first-order prediction) with what few encoders write: restarts and a point transform."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = 16
CODES = b"\xff\xc4\x00\x24\x00" + bytes([0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17))
"""A Huffman table in which every length of a difference has a code of five bits."""


def lossless_jpeg(image: NDArray[Any], *, rows_between_restarts: int = 0, point_transform: int = 0) -> bytes:
    """Return a code stream of a 16-bit grey image whose lowest `point_transform` bits are left out."""
    rows, columns = image.shape
    size = rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    head = b"\xff\xd8" + CODES + b"\xff\xc3\x00\x0b" + bytes([BITS]) + size + b"\x01\x01\x11\x00"
    if rows_between_restarts:
        head += b"\xff\xdd\x00\x04" + (rows_between_restarts * columns).to_bytes(2, "big")
    head += b"\xff\xda\x00\x08\x01\x01\x00\x01\x00" + bytes([point_transform])
    values = image.astype(np.int64) >> point_transform
    step = rows_between_restarts or rows
    parts = [_scan(values[r : r + step], 1 << (BITS - point_transform - 1)) for r in range(0, rows, step)]
    body = parts[0] + b"".join(bytes([0xFF, 0xD0 + i % 8]) + part for i, part in enumerate(parts[1:]))
    return head + body + b"\xff\xd9"


def _scan(values: NDArray[Any], first: int) -> bytes:
    before = np.empty_like(values)
    before[:, 1:] = values[:, :-1]
    before[1:, 0] = values[:-1, 0]
    before[0, 0] = first
    bits = "".join(_code(int(d)) for d in ((values - before + 0x7FFF) % 0x10000 - 0x7FFF).ravel())
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")


def _code(difference: int) -> str:
    length = abs(difference).bit_length()
    code = format(length, "05b")
    if length in (0, 16):
        return code
    return code + format(difference if difference > 0 else difference + (1 << length) - 1, f"0{length}b")
