"""Which lesions of a baseline RECIST 1.1 would follow as targets: a proposal, with the reason for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plugins.errors import Refused
from store.response.burden import NODE_TENTHS, TARGET_NODE_TENTHS, TARGET_TENTHS, mm
from store.response.history import Role
from store.response.organs import NO_SITE, organ
from store.response.rules import USUAL, Rules


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A lesion of the baseline."""

    lesion: str
    """Its name."""
    site: str = ""
    """Organ, in words; empty when it is not known."""
    node: bool = False
    """True for a lymph node."""
    long_axis_tenths: int | None = None
    """Longest diameter, tenths of a millimetre."""
    short_axis_tenths: int | None = None
    """Longest diameter across it."""
    slice_mm: float | None = None
    """Distance of the slices it was measured on; None takes it for 5 mm or less."""
    measurable: bool = True
    """False for what no length describes: effusions, blastic bone, lymphangitis, irradiated lesions."""
    said: Role | None = None
    """What a person said it is: kept, and counted."""


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """What a lesion is proposed to be."""

    lesion: str
    """Its name."""
    role: Role | None
    """Target or non-target; None for a node of normal size, which is no lesion."""
    because: str
    """Why, in words."""


def propose(lesions: Sequence[Candidate], rules: Rules = USUAL) -> tuple[Proposed, ...]:
    """Return which lesions to follow as targets, all in the order given (RECIST 1.1, 3.1 and 4.2).

    Measurable is a long axis of 10 mm, or of twice the distance of slices above 5 mm; a short axis of 15 mm for a
    node. Of these the largest of each organ comes first, then the second of each, up to `rules.most_targets` and
    `rules.most_targets_per_organ`. All lymph nodes are one organ unless the rules say otherwise, and both of a pair
    are one (recist.eortc.org). A lesion whose organ is not known counts for an organ of its own. Size stands for what
    can be measured again, which only a reader can judge.
    Refuses a lesion that is named twice (`lesion-twice`).
    """
    if len({lesion.lesion for lesion in lesions}) < len(lesions):
        raise Refused("lesion-twice", "A lesion of the baseline is named twice.")
    said = [lesion for lesion in lesions if lesion.said is Role.TARGET]
    free = [lesion for lesion in lesions if lesion.said is None and not _why_not(lesion)]
    chosen = _chosen(said, free, rules)
    why = {lesion.lesion: _why(lesion, chosen, rules) for lesion in lesions}
    return tuple(Proposed(lesion=name, role=role, because=because) for name, (role, because) in why.items())


def _chosen(said: Sequence[Candidate], free: Sequence[Candidate], rules: Rules) -> list[Candidate]:
    """Return the targets: those that a person named, then by turns the largest of every organ."""
    chosen = list(said)
    by_size = sorted(free, key=lambda lesion: (-_size(lesion), lesion.lesion))
    for turn in range(rules.most_targets_per_organ):
        for lesion in by_size:
            taken = _of_its_organ(lesion, chosen, rules)
            if lesion not in chosen and taken <= turn and len(chosen) < rules.most_targets:
                chosen.append(lesion)
    return chosen


def _of_its_organ(lesion: Candidate, chosen: Sequence[Candidate], rules: Rules) -> int:
    """Return how many are chosen that are known to be of the organ of a lesion."""
    own = _organ(lesion, rules)
    return 0 if own == NO_SITE else sum(_organ(other, rules) == own for other in chosen)


def _why(lesion: Candidate, chosen: Sequence[Candidate], rules: Rules) -> tuple[Role | None, str]:
    if lesion.said is not None:
        return lesion.said, f"A person said {lesion.said}."
    if lesion in chosen:
        own = _organ(lesion, rules)
        rank = "its organ is not known" if own == NO_SITE else f"one of the largest of {own}"
        return Role.TARGET, f"{_measure(lesion)}: measurable, {rank}."
    reason = _why_not(lesion)
    if reason:
        short = lesion.short_axis_tenths
        normal = lesion.node and short is not None and short < NODE_TENTHS
        return (None if normal else Role.NON_TARGET), reason
    if _of_its_organ(lesion, chosen, rules) >= rules.most_targets_per_organ:
        room = f"{_organ(lesion, rules)} has its {rules.most_targets_per_organ} targets"
    else:
        room = f"there are {len(chosen)} targets of other organs or larger ones"
    return Role.NON_TARGET, f"{_measure(lesion)}: measurable, but {room}."


def _why_not(lesion: Candidate) -> str:
    """Return why a lesion is not measurable; empty when it is."""
    if not lesion.measurable:
        return "Not measurable by its kind."
    axis = lesion.short_axis_tenths if lesion.node else lesion.long_axis_tenths
    if axis is None:
        return f"It has no {'short' if lesion.node else 'long'} axis."
    if lesion.node and axis < NODE_TENTHS:
        return f"{_measure(lesion)}: below 10 mm a node is normal."
    least: float = TARGET_NODE_TENTHS if lesion.node else TARGET_TENTHS
    rule = f"{least / 10:.1f} mm"
    if lesion.slice_mm is not None and 20 * lesion.slice_mm > max(least, 100):
        least = 20 * lesion.slice_mm
        rule = f"twice the {lesion.slice_mm:g} mm between its slices"
    return "" if axis >= least else f"{_measure(lesion)}: not measurable below {rule}."


def _measure(lesion: Candidate) -> str:
    return f"{'Short' if lesion.node else 'Long'} axis {mm(_size(lesion))}"


def _size(lesion: Candidate) -> int:
    return (lesion.short_axis_tenths if lesion.node else lesion.long_axis_tenths) or 0


def _organ(lesion: Candidate, rules: Rules) -> str:
    return organ(lesion.site, lesion.node, rules)


__all__ = ["Candidate", "Proposed", "propose"]
