"""How well lesions are followed from one examination to the next, judged by pairs whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from store.tracking.lesion import EarlierLesion, PresentLesion
from store.tracking.link import Kind, Link
from store.tracking.matching import match
from store.tracking.motion import Motion
from store.tracking.pairing import Gates
from store.tracking.propagation import propagate
from training.pairs import ScanPair


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts of one or of many pairs."""

    links: int = 0
    """True links: an earlier lesion and what it is, or a part of it, now."""
    links_told: int = 0
    """Links that were told."""
    links_right: int = 0
    """Links that were told and are true."""
    new: int = 0
    """Lesions that are new."""
    new_told: int = 0
    """Lesions that were called new."""
    new_right: int = 0
    """Lesions that were called new and are."""
    named: int = 0
    """Present lesions that are, or are a part of, an earlier one."""
    switched: int = 0
    """Present lesions, new or not, that were given the Tracking UID of an earlier lesion that they are no part of."""
    split: int = 0
    """Earlier lesions that were split."""
    split_right: int = 0
    """Those of which every part was told as such."""
    merged: int = 0
    """Present lesions that several have become."""
    merged_right: int = 0
    """Those of which every origin was told."""
    gone: int = 0
    """Earlier lesions that are gone."""
    gone_right: int = 0
    """Those that were called so."""
    unseen: int = 0
    """Earlier lesions whose place is out of view."""
    unseen_right: int = 0
    """Those that were called so."""
    unseen_gone: int = 0
    """Those that were called gone: what must not be."""

    def __add__(self, other: Tally) -> Tally:
        """Return the counts of both."""
        return Tally(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Tally)})

    def figures(self) -> dict[str, float]:
        """Return the shares that these counts make; NaN where there was nothing to count."""
        return {
            "matching_f1": _share(2 * self.links_right, self.links + self.links_told),
            "new_precision": _share(self.new_right, self.new_told),
            "new_recall": _share(self.new_right, self.new),
            "identity_switches": _share(self.switched, self.named),
            "split_recall": _share(self.split_right, self.split),
            "merge_recall": _share(self.merged_right, self.merged),
            "gone_recall": _share(self.gone_right, self.gone),
            "out_of_view_recall": _share(self.unseen_right, self.unseen),
            "out_of_view_called_gone": _share(self.unseen_gone, self.unseen),
        }


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One link with a finding, and whether it is true."""

    kind: Kind
    """What it says."""
    confidence: float
    """How sure it is."""
    right: bool
    """Whether kind and origins are the true ones."""


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def earlier_lesions(pair: ScanPair, motion: Motion, expected_sd_mm: float) -> tuple[EarlierLesion, ...]:
    """Return the earlier lesions where a motion expects them in the new image; their names are their identity."""
    told = []
    for lesion in pair.before:
        place = propagate(lesion.mask, pair.earlier, pair.new, motion)
        told.append(
            EarlierLesion(
                tracking_uid=lesion.name,
                tracking_identifier=lesion.name,
                study_instance_uid=pair.earlier.series_instance_uid,
                expected_mm=place.expected_mm,
                expected_mask=place.mask,
                volume_mm3=lesion.mask.count * pair.earlier.voxel_volume_mm3,
                in_view=place.in_view,
                expected_sd_mm=expected_sd_mm,
            )
        )
    return tuple(told)


def present_lesions(pair: ScanPair) -> tuple[PresentLesion, ...]:
    """Return the lesions of the new image as findings with their true masks."""
    return tuple(
        PresentLesion(
            key=lesion.name,
            label=lesion.name,
            centroid_mm=pair.new.centroid_mm(lesion.mask),
            mask=lesion.mask,
            volume_mm3=lesion.mask.count * pair.new.voxel_volume_mm3,
        )
        for lesion in pair.now
    )


def linked(
    pair: ScanPair,
    earlier: Sequence[EarlierLesion],
    present: Sequence[PresentLesion],
    gates: Gates | None = None,
) -> tuple[Link, ...]:
    """Return the links of a pair; what is new has its key as identity."""
    return match(
        earlier,
        present,
        geometry=pair.new.geometry,
        new_identity=lambda lesion: (lesion.key, lesion.label),
        gates=gates,
    )


def place_errors_mm(pair: ScanPair, earlier: Sequence[EarlierLesion]) -> list[float]:
    """Return how far earlier lesions that the new image shows are expected from where their place truly is, mm."""
    errors = []
    for lesion, told in zip(pair.before, earlier, strict=True):
        if lesion.name not in pair.unseen:
            centre = np.asarray([pair.earlier.centroid_mm(lesion.mask)])
            errors.append(float(np.linalg.norm(pair.motion.to_new(centre)[0] - told.expected_mm)))
    return errors


def tally(pair: ScanPair, links: Sequence[Link]) -> Tally:
    """Return what is right and wrong about the links of a pair."""
    told = {(before, link.finding) for link in links if link.finding for before in link.earlier}
    by_finding = {link.finding: link for link in links if link.finding}
    fates = {link.tracking_uid: link.kind for link in links if link.finding is None}
    origins = {lesion.name: pair.origin(lesion.name) for lesion in pair.now}
    ends = {lesion.name: pair.fate(lesion.name) for lesion in pair.before}
    new = {name for name, kind in origins.items() if kind is Kind.NEW}
    new_told = {name for name, link in by_finding.items() if link.kind is Kind.NEW}
    split = [name for name, kind in ends.items() if kind is Kind.SPLIT]
    merged = [name for name, kind in origins.items() if kind is Kind.MERGED]
    gone = [name for name, kind in ends.items() if kind is Kind.GONE]
    unseen = [name for name, kind in ends.items() if kind is Kind.OUT_OF_VIEW]
    known = {lesion.name for lesion in pair.before}
    return Tally(
        links=len(pair.links),
        links_told=len(told),
        links_right=len(told & pair.links),
        new=len(new),
        new_told=len(new_told),
        new_right=len(new & new_told),
        named=len(origins) - len(new),
        switched=sum(
            link.tracking_uid in known and (link.tracking_uid, name) not in pair.links
            for name, link in by_finding.items()
        ),
        split=len(split),
        split_right=sum(_all_told(pair, told, by_finding, before=name) for name in split),
        merged=len(merged),
        merged_right=sum(_all_told(pair, told, by_finding, now=name) for name in merged),
        gone=len(gone),
        gone_right=sum(fates.get(name) is Kind.GONE for name in gone),
        unseen=len(unseen),
        unseen_right=sum(fates.get(name) is Kind.OUT_OF_VIEW for name in unseen),
        unseen_gone=sum(fates.get(name) is Kind.GONE for name in unseen),
    )


def _all_told(
    pair: ScanPair,
    told: set[tuple[str, str]],
    links: dict[str, Link],
    *,
    before: str | None = None,
    now: str | None = None,
) -> bool:
    """Return whether all links of a lesion that was split, or of one that others merged into, were told as that."""
    kind = Kind.SPLIT if now is None else Kind.MERGED
    own = {(a, b) for a, b in pair.links if before in (None, a) and now in (None, b)}
    return own <= told and all(links[b].kind is kind for _, b in own)


def claims(pair: ScanPair, links: Sequence[Link]) -> list[Claim]:
    """Return every link with a finding, with its confidence and whether it is true."""
    return [
        Claim(
            kind=link.kind,
            confidence=link.confidence,
            right={(before, link.finding) for before in link.earlier}
            == {(before, now) for before, now in pair.links if now == link.finding},
        )
        for link in links
        if link.finding is not None
    ]


__all__ = [
    "Claim",
    "Tally",
    "claims",
    "earlier_lesions",
    "linked",
    "place_errors_mm",
    "present_lesions",
    "tally",
]
