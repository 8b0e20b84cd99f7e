"""What a reader is told of links."""

from __future__ import annotations

import pytest

from store.tracking.link import Kind, Link
from store.tracking.words import flags_of

FITS_NONE = "no earlier lesion fits: the nearest, 'Lesion 1', was expected 80.0 mm away"
UNCOMPARED = "no earlier lesion is known; not all earlier lesions could be compared"
COUNTS = "was not seen before and counts as new, as a person drew it"
WAITS = "was not seen before; a reader must confirm it before it counts"


@pytest.mark.parametrize(
    ("reason", "by_hand", "words"),
    [
        (FITS_NONE, {"a"}, COUNTS),
        (FITS_NONE, (), WAITS),
        (FITS_NONE, {"b"}, WAITS),
        (UNCOMPARED, {"a"}, WAITS),
    ],
)
def test_a_reader_is_asked_to_confirm_only_what_does_not_count_yet(
    reason: str, by_hand: set[str], words: str
) -> None:
    link = Link(
        kind=Kind.NEW,
        tracking_uid="1.2",
        tracking_identifier="Lesion 2",
        finding="a",
        earlier=(),
        study_instance_uid="1.1",
        confidence=0.3,
        reason=reason,
    )
    (flag,) = flags_of([link], {"1.1": "2026-01-05"}, "contours", by_hand)
    assert flag.code == "lesion-new"
    assert flag.sentence == f"'Lesion 2' {words}: {reason} (compared with 2026-01-05)."
