"""What a lesion is called: one Tracking ID for one lesion of a patient, numbers going on where they stopped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import count

from plugins.contract import Finding
from store.dicom.equipment import one_line
from store.tracking.past import Named

NUMBERED = re.compile(r"(?P<base>.*[^\d _-])[ _-]*(?P<number>\d{1,6})")


class Names:
    """Gives Tracking IDs that no other lesion of the patient has."""

    def __init__(self, known: Iterable[Named]) -> None:
        self._owner: dict[str, str] = {}
        self._last: dict[str, int] = {}
        for one in known:
            self._keep(one.tracking_identifier, one.tracking_uid)

    def give(self, label: str, tracking_uid: str, *, renumbered: bool) -> str:
        """Return the Tracking ID of a lesion that has none yet and is called `label`, and keep it.

        `renumbered` True lets the number at the end of a label go on counting (`Nodule 1` of a patient with three
        nodules becomes `Nodule 4`); else the label stays unless another lesion has it.
        """
        identifier = one_line(label, longest=1024)
        base, number = _split(identifier)
        taken = self._owner.get(identifier, tracking_uid) != tracking_uid
        if taken or (renumbered and number is not None and base in self._last):
            free = (f"{base} {n}" for n in count(self._last.get(base, 1) + 1))
            identifier = next(one for one in free if one not in self._owner)
        self._keep(identifier, tracking_uid)
        return identifier

    def _keep(self, identifier: str, tracking_uid: str) -> None:
        self._owner.setdefault(identifier, tracking_uid)
        base, number = _split(identifier)
        self._last[base] = max(self._last.get(base, 0), number or 1)


def renamed(finding: Finding, label: str) -> Finding:
    """Return a finding with another label, also in what its flags say."""
    if label == finding.label:
        return finding
    flags = tuple(
        replace(f, sentence=f.sentence.replace(f"'{finding.label}'", f"'{label}'")) for f in finding.flags
    )
    return replace(finding, label=label, flags=flags)


def _split(identifier: str) -> tuple[str, int | None]:
    """Return what is before the number at the end of a Tracking ID, and the number."""
    found = NUMBERED.fullmatch(identifier)
    return (identifier, None) if found is None else (found["base"], int(found["number"]))


__all__ = ["Names", "renamed"]
