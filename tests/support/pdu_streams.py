"""What a hostile peer may send: a valid association with its messages, spoiled with knowledge of its structure."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

from raw_peer import (
    CT,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    VERIFICATION,
    associate_rq,
    command,
    item,
    p_data,
    pdu,
    store_command,
)

CONTEXTS = [(VERIFICATION, IMPLICIT_LITTLE), (CT, EXPLICIT_LITTLE)]
LENGTHS = (0, 1, 2, 3, 5, 6, 7, 0x7F, 0xFF, 0x100, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
ELEMENTS = (0x0000, 0x0002, 0x0003, 0x0100, 0x0110, 0x0120, 0x0600, 0x0700, 0x0800, 0x0900, 0x1000, 0x1030)
Stream = list[bytes]
Mutation = Callable[[random.Random, Stream], Stream]


def valid_stream(data: bytes, uid: str, *, fragment_bytes: int = 1000) -> Stream:
    """Return the PDUs of an association that echoes, stores an object twice and releases."""
    pdus = [associate_rq("NADIR", "FUZZ", CONTEXTS), p_data(1, 3, _echo())]
    for _ in range(2):
        pdus += store_pdus(data, uid, fragment_bytes=fragment_bytes)
    return [*pdus, pdu(0x05, bytes(4))]


def store_pdus(data: bytes, uid: str, *, fragment_bytes: int = 1000) -> Stream:
    """Return the PDUs of one C-STORE."""
    pdus = [p_data(3, 3, store_command(CT, uid))]
    for start in range(0, len(data), fragment_bytes):
        last = 2 if start + fragment_bytes >= len(data) else 0
        pdus.append(p_data(3, last, data[start : start + fragment_bytes]))
    return pdus


def _echo() -> bytes:
    return command(
        AffectedSOPClassUID=VERIFICATION, CommandField=0x0030, MessageID=1, CommandDataSetType=0x0101
    )


def spoiled(dice: random.Random, stream: Stream) -> Stream:
    """Return a stream after one to three mutations."""
    pdus = list(stream)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        pdus = dice.choice(MUTATIONS)(dice, pdus) or list(stream)
    return pdus


def _replace(pdus: Stream, at: int, *new: bytes) -> Stream:
    return [*pdus[:at], *new, *pdus[at + 1 :]]


def _messages(pdus: Sequence[bytes]) -> list[int]:
    return [at for at, one in enumerate(pdus) if len(one) > 12 and one[0] == 0x04] or [0]


def flip_bits(dice: random.Random, pdus: Stream) -> Stream:
    """Flip one to sixteen bits anywhere."""
    pdus = [bytearray(one) for one in pdus]  # type: ignore[misc]
    for _ in range(dice.randint(1, 16)):
        one = dice.choice(pdus)
        if one:
            one[dice.randrange(len(one))] ^= 1 << dice.randrange(8)  # type: ignore[index]
    return [bytes(one) for one in pdus]


def truncate(dice: random.Random, pdus: Stream) -> Stream:
    """End within a PDU."""
    at = dice.randrange(len(pdus))
    return [*pdus[:at], pdus[at][: dice.randrange(len(pdus[at]) + 1)]]


def change_pdu_length(dice: random.Random, pdus: Stream) -> Stream:
    """Announce another length of a PDU than it has."""
    at = dice.randrange(len(pdus))
    one = pdus[at]
    if len(one) < 6:
        return pdus
    (length,) = struct.unpack(">L", one[2:6])
    new = dice.choice((*LENGTHS, max(0, length - 1), length + 1, length * 2, dice.randrange(1 << 32)))
    return _replace(pdus, at, one[:2] + struct.pack(">L", new & 0xFFFFFFFF) + one[6:])


def shuffle(dice: random.Random, pdus: Stream) -> Stream:
    """Swap two PDUs, or put all but the first in any order."""
    if dice.random() < 0.5:
        rest = pdus[1:]
        dice.shuffle(rest)
        return [*pdus[:1], *rest]
    a, b = dice.randrange(len(pdus)), dice.randrange(len(pdus))
    pdus = list(pdus)
    pdus[a], pdus[b] = pdus[b], pdus[a]
    return pdus


def duplicate(dice: random.Random, pdus: Stream) -> Stream:
    """Send a PDU several times."""
    at = dice.randrange(len(pdus))
    return _replace(pdus, at, *[pdus[at]] * dice.choice((2, 2, 3, 50)))


def leave_out(dice: random.Random, pdus: Stream) -> Stream:
    """Leave a PDU out."""
    return _replace(pdus, dice.randrange(len(pdus)))


def splice(dice: random.Random, pdus: Stream) -> Stream:
    """Go on within a PDU with a piece of another."""
    a, b = dice.randrange(len(pdus)), dice.randrange(len(pdus))
    cut, start = dice.randrange(len(pdus[a]) + 1), dice.randrange(len(pdus[b]) + 1)
    return _replace(pdus, a, pdus[a][:cut] + pdus[b][start:])


def insert_noise(dice: random.Random, pdus: Stream) -> Stream:
    """Put random bytes, or a PDU that has no place here, between two others."""
    noise = dice.choice(
        (
            dice.randbytes(dice.randint(1, 40)),
            pdu(dice.choice((0x01, 0x02, 0x03, 0x05, 0x06, 0x07)), dice.randbytes(dice.choice((0, 4, 68)))),
            pdu(dice.randrange(256), dice.randbytes(dice.randint(0, 20))),
            pdu(0x04, b""),
        )
    )
    at = dice.randrange(len(pdus) + 1)
    return [*pdus[:at], noise, *pdus[at:]]


def change_item(dice: random.Random, pdus: Stream) -> Stream:
    """Change length, context or control byte of a fragment."""
    at = dice.choice(_messages(pdus))
    one = bytearray(pdus[at])
    if len(one) < 12:
        return pdus
    match dice.randrange(3):
        case 0:
            one[6:10] = struct.pack(">L", dice.choice((*LENGTHS, dice.randrange(1 << 32))))
        case 1:
            one[10] = dice.choice((0, 1, 2, 3, 5, 255, dice.randrange(256)))
        case 2:
            one[11] = dice.choice((0, 1, 2, 3, 4, 0xFF, dice.randrange(256)))
    return _replace(pdus, at, bytes(one))


def split_fragments(dice: random.Random, pdus: Stream) -> Stream:
    """Send one PDU as many tiny ones, or several as fragments of one."""
    at = dice.choice(_messages(pdus))
    one = pdus[at]
    if len(one) < 12:
        return pdus
    context_id, control, data = one[10], one[11], one[12:]
    step = dice.choice((1, 7, 100))
    pieces = [data[start : start + step] for start in range(0, min(len(data), 400), step)] or [b""]
    items = [
        struct.pack(">LBB", len(piece) + 2, context_id, control if last else control & 1) + piece
        for last, piece in zip([*[False] * (len(pieces) - 1), True], pieces, strict=True)
    ]
    return _replace(pdus, at, *((pdu(0x04, b"".join(items)),) if dice.random() < 0.5 else map(_alone, items)))


def _alone(one: bytes) -> bytes:
    return pdu(0x04, one)


def interleave(dice: random.Random, pdus: Stream) -> Stream:
    """Begin another message, or go on with one that is over, among the fragments of a message."""
    at = dice.choice(_messages(pdus))
    other = dice.choice(
        (
            p_data(dice.choice((1, 3)), dice.choice((1, 3)), store_command(CT, "1.2.3")),
            p_data(dice.choice((1, 3, 5)), dice.choice((0, 2)), dice.randbytes(dice.randint(0, 50))),
            p_data(3, 1, store_command(CT, "1.2.3")[:20]),
        )
    )
    return [*pdus[: at + 1], other, *pdus[at + 1 :]]


def change_command(dice: random.Random, pdus: Stream) -> Stream:
    """Write a command set anew: elements missing, doubled, disordered, with wrong lengths, huge or odd values."""
    elements: list[tuple[int, int, bytes]] = [
        (0, 0x0002, CT.encode() + b"\0"),
        (
            0,
            0x0100,
            struct.pack("<H", dice.choice((1, 1, 1, 1, 0x30, 0x20, 0x8001, 0x8030, 0xFFF, 0xFFFF, 0))),
        ),
        (0, 0x0110, struct.pack("<H", dice.choice((1, 1, 0, 0xFFFF)))),
        (0, 0x0700, struct.pack("<H", dice.choice((0, 2, 0xFFFF)))),
        (0, 0x0800, struct.pack("<H", dice.choice((0, 1, 0x0101, 0x0102, 0x0100, 0xFFFF)))),
        (0, 0x1000, dice.choice((b"1.2.3\0", b"", b"../../x", b"\0" * 64, b"9" * 64, b"9" * 4000))),
    ]
    for _ in range(dice.randint(0, 3)):
        at = dice.randrange(len(elements)) if elements else 0
        match dice.randrange(6):
            case 0 if elements:
                del elements[at]
            case 1 if elements:
                elements.append(elements[at])
            case 2:
                dice.shuffle(elements)
            case 3 if elements:
                elements[at] = (*elements[at][:2], dice.randbytes(dice.choice((0, 1, 2, 3, 7, 70000))))
            case 4:
                elements.append((dice.choice((0, 2, 8, 0xFFFE)), dice.choice(ELEMENTS), dice.randbytes(4)))
            case _:
                elements.append((0, dice.choice(ELEMENTS), dice.randbytes(dice.choice((0, 1, 2, 4, 64)))))
    body = b"".join(
        struct.pack("<HHL", group, element, dice.choice((len(value),) * 12 + LENGTHS)) + value
        for group, element, value in elements
    )
    length = dice.choice((len(body), len(body), len(body), *LENGTHS))
    whole = (
        dice.choice((struct.pack("<HHLL", 0, 0, 4, length), struct.pack("<HHLL", 0, 0, 4, length), b""))
        + body
    )
    return _replace(pdus, dice.choice(_messages(pdus)), p_data(dice.choice((3, 3, 3, 1)), 3, whole))


def change_request(dice: random.Random, pdus: Stream) -> Stream:
    """Ask for an association in a way that nobody should."""
    return [hostile_request(dice), *pdus[1:]]


def hostile_request(dice: random.Random) -> bytes:
    """Return an A-ASSOCIATE-RQ that is wrong in one way or more."""
    titles = (
        b"NADIR".ljust(16),
        b"\0" * 16,
        b"../../etc/passwd",
        b"\xff" * 16,
        b"A\\B\n\r\t".ljust(16),
        b"FUZZ".ljust(16),
    )
    head = (
        struct.pack(">HH", dice.choice((1, 1, 0, 2, 0xFFFF)), 0) + titles[0] + dice.choice(titles) + bytes(32)
    )
    body = b""
    for _ in range(dice.choice((1, 1, 1, 0, 2, 30))):
        body += item(0x10, dice.choice((b"1.2.840.10008.3.1.1.1", b"1.2.3", b"", b"x" * 65)))
    ids = dice.choice((range(1, 256, 2), range(256), [1] * 128, [0, 2, 4], [], [1, 3], [1, 3], [1] * 300))
    for number in ids:
        syntaxes = item(0x40, dice.choice((IMPLICIT_LITTLE, EXPLICIT_LITTLE, "", "1.2.3", "x" * 70)).encode())
        uid = dice.choice(
            (CT, VERIFICATION, "1.2.840.10008.5.1.4.1.2.1.1", "", "not a UID", "9" * 65)
        ).encode()
        abstract = item(0x30, uid) * dice.choice((1, 1, 1, 0, 2))
        context = (
            struct.pack(">BBBB", number & 0xFF, 0, 0, 0) + abstract + syntaxes * dice.choice((1, 1, 0, 3, 50))
        )
        body += _item(dice, 0x20, context)
    body += _item(dice, 0x50, b"".join(_user_item(dice) for _ in range(dice.choice((0, 1, 2, 3, 200)))))
    return pdu(0x01, head + body)


def _user_item(dice: random.Random) -> bytes:
    kind = dice.choice((0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x00, 0xFF))
    body: bytes = dice.choice(
        (
            struct.pack(">L", dice.choice(LENGTHS)),
            b"1.2.3",
            b"",
            dice.randbytes(dice.randint(0, 60)),
            struct.pack(">H", len(CT)) + CT.encode() + b"\1\0",
            b"\2\1" + struct.pack(">H", 4) + b"user" + struct.pack(">H", 0xFFFF) + b"secret",
        )
    )
    return _item(dice, kind, body)


def _item(dice: random.Random, kind: int, body: bytes) -> bytes:
    length = len(body) if dice.random() < 0.95 else dice.choice((0, 1, 3, 0xFF, 0xFFFF, len(body) + 1))
    return struct.pack(">BBH", kind, 0, min(length, 0xFFFF)) + body


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    truncate,
    change_pdu_length,
    shuffle,
    duplicate,
    leave_out,
    splice,
    insert_noise,
    change_item,
    split_fragments,
    interleave,
    change_command,
    change_command,
    change_command,
    change_request,
)
