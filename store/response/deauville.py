"""The Deauville score of a lesion, as a reader gave it or from its uptake beside mediastinum and liver."""

from __future__ import annotations

from dataclasses import dataclass

from store.response.history import Reference, Seen, Status
from store.response.rules import Rules
from store.response.uptake import peak, thousandths, told


@dataclass(frozen=True, kw_only=True)
class Score:
    """A Deauville score."""

    lesion: str
    """The lesion."""
    value: int
    """1 to 5."""
    by_reader: bool
    """Whether a reader gave it."""
    words: str
    """Where it comes from."""


def score(seen: Seen | None, reference: Reference | None, rules: Rules) -> Score | None:
    """Return the score of a lesion; None when neither a reader nor numbers tell it.

    1: gone; 2: up to the mediastinum (the blood pool where that is not given); 3: up to the liver; 4: above it; 5: from
    `rules.markedly_above_liver` times the liver on (Barrington 2014, J Clin Oncol 32:3048). Numbers are SULpeak of the
    lesion and the mean of the liver; without a mediastinum, what is up to the liver is 3. That new lesions are 5
    too is left to what judges them.
    """
    if seen is None or seen.status is Status.NOT_EVALUABLE:
        return None
    if seen.deauville is not None:
        words = f"{seen.lesion} Deauville {seen.deauville} by a reader"
        return Score(lesion=seen.lesion, value=seen.deauville, by_reader=True, words=words)
    steps = peak(seen)
    if steps == 0:
        what = "no uptake" if seen.status is not Status.COALESCED else "grown together with another one"
        return Score(lesion=seen.lesion, value=1, by_reader=False, words=f"{seen.lesion} Deauville 1, {what}")
    if steps is None or reference is None or reference.liver_mean is None:
        return None
    liver = thousandths(reference.liver_mean)
    chest = reference.blood_pool_mean if reference.mediastinum is None else reference.mediastinum
    name = "blood pool" if reference.mediastinum is None else "mediastinum"
    against = (
        f"liver mean {told(liver)}"
        if chest is None
        else f"{name} {told(thousandths(chest))}, liver mean {told(liver)}"
    )
    if steps > liver:
        value = 5 if steps >= rules.markedly_above_liver * liver else 4
    else:
        value = 2 if chest is not None and steps <= thousandths(chest) else 3
    words = f"{seen.lesion} Deauville {value} by SULpeak {told(steps)} ({against})"
    return Score(lesion=seen.lesion, value=value, by_reader=False, words=words)


__all__ = ["Score", "score"]
