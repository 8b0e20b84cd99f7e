"""Normal tissue of a PET that a person measured and entered: what no analysis measured, or measured otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final

from store.chosen import Chosen
from store.response.history import Reference

KIND: Final = "reference"
"""The kind of choice that it is kept as; of no lesion, and of one study."""
NUMBERS: Final = ("liver_mean", "liver_sd", "blood_pool_mean", "blood_pool_sd", "mediastinum")
"""Fields of `Reference` that can be entered, all SUL in g/ml."""
MOST: Final = 50.0
"""No normal tissue takes up so much, g/ml."""


@dataclass(frozen=True, kw_only=True)
class GivenReference:
    """What a person entered of one PET."""

    date: date
    """Study Date."""
    values: Mapping[str, float]
    """Some of `NUMBERS`, g/ml."""
    author: str
    """Who."""
    at: datetime
    """When."""
    note: str = ""
    """Why, in words."""

    @property
    def words(self) -> str:
        """Return the numbers in words."""
        said = (f"{name.replace('_', ' ')} {value:.2f} g/ml" for name, value in self.values.items())
        return ", ".join(said).replace(" sd ", " SD ")

    def on(self, reference: Reference | None) -> Reference:
        """Return a reference with what was entered in place of what was measured."""
        values: dict[str, Any] = dict(self.values)
        return replace(reference or Reference(), **values)


def given(decided: Chosen, studies: Sequence[tuple[int, str, date]]) -> tuple[GivenReference, ...]:
    """Return what was entered and stands, in the order in which it was; of each date the last word counts."""
    when = {uid: on for _, uid, on in studies}
    return tuple(
        GivenReference(
            date=when[one.study_instance_uid],
            values={name: float(value) for name, value in json.loads(one.value).items()},
            author=one.author,
            at=one.at,
            note=one.note,
        )
        for one in decided.counting
        if one.kind == KIND and one.study_instance_uid in when
    )


__all__ = ["KIND", "MOST", "NUMBERS", "GivenReference", "given"]
