"""Text out of bytes and Specific Character Set (PS3.5 6.1, PS3.3 C.12.1.1.2): always a string, never a warning."""

from __future__ import annotations

import re
import unicodedata

FRAGMENT = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
STEERS = "\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""Inside of a class of a pattern: what ends a line, or turns the direction of the text around it (UAX 9, 2)."""
CONTROL = re.compile(f"[\x00-\x1f\x7f-\x9f{STEERS}\ud800-\udfff]")


def base_encoding(specific_character_set: bytes) -> str:
    """Return the Python codec of the first value; Latin-1 when it is empty or unknown."""
    from pydicom.charset import default_encoding, python_encoding

    first = specific_character_set.split(b"\\")[0].strip(b" \0").decode("ascii", "replace")
    return python_encoding.get(first, default_encoding)


def decode_text(value: bytes, encoding: str) -> str:
    """Return the text of a value, without padding and control characters; what cannot be decoded is replaced."""
    if b"\x1b" not in value:
        text = value.decode(encoding, "replace")
    else:
        text = "".join(_fragment(part, encoding) for part in FRAGMENT.findall(value))
    if text.isascii() and text.isprintable():
        return text.strip()
    return unicodedata.normalize("NFC", CONTROL.sub(" ", text)).strip()


def storable(text: str) -> str:
    """Return the text without what PostgreSQL keeps in no column: NUL and lone surrogates."""
    return UNSTORABLE.sub(" ", text)


def _fragment(part: bytes, encoding: str) -> str:
    if not part.startswith(b"\x1b"):
        return part.decode(encoding, "replace")
    # Not at import: what only writes to SQL needs no pydicom, and that takes half a second to come.
    from pydicom.charset import CODES_TO_ENCODINGS, handled_encodings

    length = 4 if part.startswith((b"\x1b$(", b"\x1b$)")) else 3
    codec = CODES_TO_ENCODINGS.get(part[:length])
    if codec in handled_encodings:
        return part.decode(codec, "replace")
    rest = part[length:]
    if codec is None:
        return rest.decode(encoding, "replace")
    # A delimiter of a name ends the reach of an escape sequence (PS3.5 6.1.2.5.3).
    index = next((i for i, byte in enumerate(rest) if byte in b"^=\\"), len(rest))
    return rest[:index].decode(codec, "replace") + rest[index:].decode(encoding, "replace")
