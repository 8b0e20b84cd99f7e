"""Which findings that nobody looked at would teach a model most, and why: uncertainty, disagreement and what is new.

Score = 0.5 uncertainty + 0.25 disagreement + 0.25 novelty, each 0 to 1. Uncertainty is the mean rank (share of the
findings of the same model that have less) of the entropy of what is drawn and of the Dice that the networks expect to
lose; disagreement is the rank of how far the networks' drawings lie apart, and 1 where they see nothing and the
classical procedure drew. Novelty is what is unlike all that people drew on here: scanner, kernel, slice distance,
voxel values, size and organ. What the release's models learned from before is not known in these terms, so a kernel may
be new here and no news to the model.

The best are taken one by one (greedily), and what is like those that were taken comes after the others: more than two
findings of one person, or more than half of the list from one scanner and kernel.

Who models are judged on teaches nothing. Such findings are needed too, but must not be picked by their doubt, or the
hold-out would be harder than what comes in: they are drawn by lot. Persons who stand on neither side are left out.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from store.candidates import Candidate, Candidates, Traits
from store.sides import JUDGE, JUDGED_SHARE, NEITHER

UNCERTAINTY, DISAGREEMENT, NOVELTY = 0.5, 0.25, 0.25
"""Weights of the parts of the score."""
OF_PERSON: Final = 2
"""So many findings of one person before those of others."""
OF_SCANNER: Final = 0.5
"""Such a part of the list from one scanner and kernel before those of others."""
OFTEN: Final = 3
"""What was drawn on so often is not new."""
ALIKE_MM, ALIKE_SIZE = 0.3, 0.25
"""Slice distances that differ by less, and long axes that differ by less than this part, are alike."""
FAR: Final = 0.3
"""Histograms of which such a part lies elsewhere are wholly new."""
REMARKABLE: Final = 0.75
"""A rank is told from here on."""
BY_LOT: Final = (
    "its patient stands on the side that models are judged on: an outline teaches nothing and is needed for judging; "
    "drawn by lot, so that the judged are like all others"
)


@dataclass(frozen=True, kw_only=True)
class Taught:
    """One finding, or a study without one, that a person should look at."""

    candidate: Candidate
    """Which."""
    use: Literal["learn", "judge"]
    """What its outline would be used for."""
    score: float | None
    """0 to 1; None for what is drawn by lot."""
    uncertainty: float | None
    """Rank among the findings of its model, 0 to 1; None when nothing is known."""
    disagreement: float | None
    """Likewise."""
    novelty: float
    """0 for what is like much that was drawn on, to 1."""
    why: str
    """One sentence with the numbers."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The parts of the score of a finding, and what they say."""

    uncertainty: float | None
    disagreement: float | None
    novelty: float
    why: str

    @property
    def score(self) -> float:
        """Return the score."""
        return (
            UNCERTAINTY * (self.uncertainty or 0.0)
            + DISAGREEMENT * (self.disagreement or 0.0)
            + NOVELTY * self.novelty
        )


def rank(known: Candidates, at_most: int | None = None) -> tuple[Taught, ...]:
    """Return what nobody looked at and would teach most, the best first, then what is needed for judging.

    Of `at_most`, judging gets the share of persons who are judged on, when there are so many. Only what a model looked
    at counts, and only patients with a PatientID, without which a mask is of no use.
    """
    open_ones = [c for c in known.found if not c.is_reviewed and c.model_sha256 and c.patient_id]
    learn = [c for c in open_ones if c.side not in (JUDGE, NEITHER)]
    judge = sorted((c for c in open_ones if c.side == JUDGE), key=_lot)
    places = len(open_ones) if at_most is None else at_most
    of_judge = min(len(judge), max(round(places * JUDGED_SHARE), places - len(learn)))
    taught = [
        Taught(
            candidate=one,
            use="learn",
            score=round(parts.score, 4),
            uncertainty=parts.uncertainty,
            disagreement=parts.disagreement,
            novelty=parts.novelty,
            why=parts.why,
        )
        for one, parts in _spread(learn, known, places - of_judge)
    ]
    by_lot = {"use": "judge", "score": None, "uncertainty": None, "disagreement": None, "novelty": 0.0}
    return (
        *taught,
        *(Taught(candidate=one, why=BY_LOT, **by_lot) for one in judge[:of_judge]),  # type: ignore[arg-type]
    )


def _lot(one: Candidate) -> str:
    return hashlib.sha256(f"{one.study_instance_uid}|{one.plugin}|{one.tracking_uid}".encode()).hexdigest()


def _spread(learn: Sequence[Candidate], known: Candidates, places: int) -> list[tuple[Candidate, Scored]]:
    """Return the best first, those behind the others that are like what was taken before."""
    rated = [(one, parts) for one, parts in zip(learn, scored(learn, known), strict=True)]
    rated.sort(key=lambda pair: (-round(pair[1].score, 9), _lot(pair[0])))
    limit = max(1, int(OF_SCANNER * places))
    persons: Counter[str] = Counter()
    scanners: Counter[str] = Counter()
    first: list[tuple[Candidate, Scored]] = []
    same_scanner: list[tuple[Candidate, Scored]] = []
    same_person: list[tuple[Candidate, Scored]] = []
    for pair in rated:
        traits = pair[0].traits
        scanner = f"{traits.scanner}|{traits.kernel}" if traits else ""
        if persons[pair[0].person] >= OF_PERSON:
            same_person.append(pair)
            continue
        persons[pair[0].person] += 1
        scanners[scanner] += 1
        (first if scanners[scanner] <= limit else same_scanner).append(pair)
    return [*first, *same_scanner, *same_person][:places]


def scored(wanted: Sequence[Candidate], known: Candidates) -> list[Scored]:
    """Return the parts of the score of each, by rank among all findings of the same analysis and model."""
    of_model: defaultdict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for one in known.found:
        of_model[one.plugin, one.model_sha256].append(one)
    ranks = {model: _Ranks(found) for model, found in of_model.items()}
    newness = _Newness(known)
    return [_score(one, ranks[one.plugin, one.model_sha256], newness) for one in wanted]


class _Ranks:
    """Where a number stands among those of all findings of a model."""

    def __init__(self, found: Iterable[Candidate]) -> None:
        values: defaultdict[str, list[float]] = defaultdict(list)
        for one in found:
            for name, value in one.uncertainties.items():
                values[name].append(value)
        self._sorted = {name: np.sort(several) for name, several in values.items()}

    def of(self, one: Candidate, name: str) -> tuple[float, int] | None:
        """Return the share of findings with less, and how many there are; None when it is not known of this one."""
        if (value := one.uncertainties.get(name)) is None:
            return None
        values = self._sorted[name]
        return float(np.searchsorted(values, value)) / len(values), len(values)


def _score(one: Candidate, ranks: _Ranks, newness: _Newness) -> Scored:
    said: list[str] = []
    doubts = []
    for name, words in (
        ("entropy", "the networks are unsure: entropy"),
        ("dice_deficit", "the networks expect to lose a Dice of"),
    ):
        if (found := ranks.of(one, name)) is not None:
            doubts.append(found[0])
            said += _remark(words, one.uncertainties[name], *found)
    apart = ranks.of(one, "disagreement")
    disagreement = None if apart is None else apart[0]
    if one.is_unseen:
        disagreement = 1.0
        said.append("the networks see nothing where the classical procedure drew it")
    elif apart is not None:
        said += _remark("the networks disagree:", one.uncertainties["disagreement"], *apart)
    novelty, news = newness.of(one)
    if not one.label:
        said.append("nothing was found in it")
    why = "; ".join([*said, *news]) or "nothing about it stands out"
    uncertainty = float(np.mean(doubts)) if doubts else None
    return Scored(uncertainty=uncertainty, disagreement=disagreement, novelty=novelty, why=why)


def _remark(words: str, value: float, share: float, count: int) -> list[str]:
    """Return what is told of a number that is higher than most."""
    told = f"{words} {value:.2f}, more than {math.floor(100 * share)}% of {count} findings"
    return [told] if share >= REMARKABLE else []


class _Newness:
    """How unlike a finding is to what people drew on."""

    def __init__(self, known: Candidates) -> None:
        labelled = [one for one in known.found if one.is_labelled and one.label]
        self._masks = len(known.labelled)
        self._of = {
            "scanner": Counter(t.scanner for t in known.labelled),
            "kernel": Counter(t.kernel for t in known.labelled),
        }
        self._slices = np.array([t.slice_distance_mm for t in known.labelled])
        self._sizes = np.array([c.long_axis_mm for c in labelled if c.long_axis_mm])
        self._sites = Counter(c.site for c in labelled)
        self._histograms = {
            unit: np.array([t.histogram for t in known.labelled if t.unit == unit and t.histogram])
            for unit in {t.unit for t in known.labelled if t.histogram}
        }
        self._of_known: dict[Traits, list[tuple[float, str]]] = {}

    def of(self, one: Candidate) -> tuple[float, list[str]]:
        """Return 0 to 1, and what is new; nothing is while nothing was drawn on."""
        if not self._masks:
            return 0.0, []
        parts: list[tuple[float, str]] = []
        if one.traits is not None:
            if one.traits not in self._of_known:
                self._of_known[one.traits] = list(self._of_series(one.traits))
            parts += self._of_known[one.traits]
        if one.label:
            parts += self._of_lesion(one)
        return 1.0 - float(np.prod([1.0 - weight for weight, _ in parts])), [
            words for _, words in parts if words
        ]

    def _of_series(self, traits: Traits) -> Iterable[tuple[float, str]]:
        for name, value in (("scanner", traits.scanner), ("kernel", traits.kernel)):
            if value:
                yield self._rare(0.5, self._of[name][value], f"{name} '{value}'")
        alike = int((np.abs(self._slices - traits.slice_distance_mm) < ALIKE_MM).sum())
        yield self._rare(0.3, alike, f"a slice distance of {traits.slice_distance_mm:g} mm")
        if traits.histogram and (others := self._histograms.get(traits.unit)) is not None:
            nearest = float(np.abs(others - np.array(traits.histogram)).sum(axis=1).min()) / 2.0
            words = f"{nearest:.0%} of its voxels have other values than in any series that was drawn on"
            yield 0.5 * min(1.0, nearest / FAR), words if nearest >= FAR / 2 else ""

    def _of_lesion(self, one: Candidate) -> Iterable[tuple[float, str]]:
        if one.long_axis_mm is not None:
            alike = int((np.abs(self._sizes - one.long_axis_mm) <= ALIKE_SIZE * one.long_axis_mm).sum())
            yield self._rare(0.3, alike, f"a long axis of about {one.long_axis_mm:.0f} mm")
        if one.site:
            yield self._rare(0.3, self._sites[one.site], f"site '{one.site}'")

    def _rare(self, weight: float, count: int, words: str) -> tuple[float, str]:
        times = ("never", "only once", "only twice")
        masks = "1 mask" if self._masks == 1 else f"{self._masks} masks"
        said = f"{words} was {times[count]} outlined ({masks})" if count < OFTEN else ""
        return weight * max(0.0, 1.0 - count / OFTEN), said


__all__ = ["Scored", "Taught", "rank", "scored"]
