"""Who each lesion of a study is, after it was laid beside the lesions of other time points."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from plugins.contract import Finding, Study, Volume
from store.dicom.uids import derive_uid
from store.tracking.brought import Brought, Scene, Standing
from store.tracking.lesion import EarlierLesion, PresentLesion
from store.tracking.link import UNCOMPARED, Kind, Link
from store.tracking.matching import match
from store.tracking.naming import Names
from store.tracking.overlap import ball_radius_mm
from store.tracking.past import Named

AS_BEFORE, BY_A_PERSON = "as in the earlier analysis of this study", "as a person said"
HARDLY_NEW = 0.3
"""No lesion is more surely new than this when there are earlier ones that nobody could compare it with."""
Place = tuple[str, str]
"""Series Instance UID and `Finding.key`: no two findings of one run share both."""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """What the same analysis of the same study said of a finding before."""

    name: Named
    """Its identity."""
    confidence: float
    """0 to 1."""
    before_uid: str = ""
    """What it was called before anybody relinked it."""
    is_decided: bool = False
    """True when a person relinked it."""


def place_of(finding: Finding) -> Place:
    """Return what no other finding of the run shares."""
    return (finding.series_instance_uid, finding.key)


def present(finding: Finding, volume: Volume, tracking_uid: str | None = None) -> PresentLesion:
    """Return a finding as the matching knows it, with the identity that it is told to have."""
    return PresentLesion(
        key=finding.key,
        label=finding.label,
        centroid_mm=volume.centroid_mm(finding.mask),
        mask=finding.mask,
        volume_mm3=finding.mask.count * volume.voxel_volume_mm3,
        site=finding.site.value if finding.site else None,
        type=finding.type.value,
        tracking_uid=tracking_uid,
    )


class Story:
    """Decides identities and links of the lesions of one analysis.

    Parameters
    ----------
    plugin
        Name of the analysis.
    study
        The study.
    lesions
        What was found that is followed by its place.
    scene
        The lesions of other time points.
    pins
        What the same analysis of the same study said before.
    decided
        Where a person's relink says who it is.
    was_compared
        True when that was said with the newest earlier study at hand: then it stands.
    known
        Every identity that the analysis gave in the patient.
    others
        Tracking UIDs that other analyses gave.
    strangers
        Tracking UIDs of another patient, which nothing new is given.

    """

    def __init__(
        self,
        *,
        plugin: str,
        study: Study,
        lesions: Sequence[Finding],
        scene: Scene,
        pins: Mapping[Place, Pin],
        was_compared: bool,
        decided: Collection[Place] = (),
        known: Iterable[Named],
        others: Iterable[str] = (),
        strangers: Iterable[str] = (),
    ) -> None:
        self._plugin, self._study, self._lesions, self._scene = plugin, study, lesions, scene
        self._pins, self._was_compared, self._decided = pins, was_compared, decided
        brought = [
            Named(tracking_uid=b.lesion.tracking_uid, tracking_identifier=b.lesion.tracking_identifier)
            for b in scene.lesions.values()
        ]
        named = [*known, *brought, *(pin.name for pin in pins.values())]
        self._names = Names(named)
        self._taken = {one.tracking_uid for one in named}
        # Who writes one of our names means the others that he writes as well.
        ours = self._taken | set(others)
        self._taken |= set(strangers)
        self._speaks = any(f.tracking_uid in ours for f in lesions)
        self._given: set[str] = set()

    def told(self) -> tuple[dict[Place, Named], tuple[Link, ...]]:
        """Return the identity of every lesion by its place, and what became of each since earlier studies.

        Links of lesions come in the order of `lesions`, then those of what was not found again.
        """
        of_lesion: dict[Place, Link] = {}
        fates: list[Link] = []
        for volume in self._study.volumes:
            own = [f for f in self._lesions if f.series_instance_uid == volume.series_instance_uid]
            for link in self._on(volume, own):
                if link.finding is not None:
                    of_lesion[volume.series_instance_uid, link.finding] = link
                elif self._is_earlier(link.tracking_uid):
                    fates.append(link)
        absent = (b for b in self._scene.lesions.values() if b.volume is None)
        fates += [_nowhere(b) for b in absent if b.standing is Standing.EARLIER]
        names = {place_of(f): self._name(f, of_lesion[place_of(f)]) for f in self._lesions}
        links = [
            replace(of_lesion[place], tracking_identifier=name.tracking_identifier)
            for place, name in names.items()
        ]
        is_gone = [f for f in fates if f.tracking_uid not in self._given]
        return names, (*links, *is_gone)

    def _on(self, volume: Volume, own: Sequence[Finding]) -> list[Link]:
        """Return what became of the lesions of one series and of those that were brought to it."""
        settled = {f.key: uid for f in own if (uid := self._settled(f)) is not None}
        before = [b for b in self._scene.on(volume) if b.lesion.tracking_uid not in self._given]
        by_key = {f.key: f for f in own}
        links = match(
            [b.lesion for b in before],
            [present(f, volume, self._said(f)) for f in own if f.key not in settled],
            geometry=volume.geometry,
            new_identity=lambda lesion: (self._own_uid(by_key[lesion.key]), lesion.label),
        )
        told = [self._told(by_key.get(link.finding or ""), link, before) for link in links]
        self._given.update(link.tracking_uid for link in told if link.finding is not None)
        return [
            *(self._as_before(by_key[k], uid) for k, uid in settled.items()),
            *told,
        ]

    def _as_before(self, finding: Finding, tracking_uid: str) -> Link:
        """Return the link of a lesion that no earlier study has, as was decided."""
        pin = self._pins.get(place_of(finding))
        words = AS_BEFORE if pin else "the drawing calls it a lesion of its own"
        if pin and pin.confidence <= HARDLY_NEW and finding.series_instance_uid in self._scene.incomplete:
            words = f"{words}; {UNCOMPARED}"
        return Link(
            kind=Kind.NEW,
            tracking_uid=tracking_uid,
            tracking_identifier="",
            finding=finding.key,
            earlier=(),
            study_instance_uid="",
            confidence=pin.confidence if pin else 1.0,
            reason=BY_A_PERSON if place_of(finding) in self._decided else words,
        )

    def _settled(self, finding: Finding) -> str | None:
        """Return the identity that a lesion has although no other time point knows it, if that was decided."""
        drawn, pin = finding.tracking_uid, self._pins.get(place_of(finding))
        uid, is_decided = None, place_of(finding) in self._decided
        if drawn is not None:
            uid = drawn if self._speaks or is_decided else None
        elif pin is not None and (self._was_compared or is_decided):
            uid = pin.name.tracking_uid
        if uid is None or uid in self._scene.lesions or uid in self._given:
            return None
        self._given.add(uid)
        return uid

    def _said(self, finding: Finding) -> str | None:
        """Return the identity that the drawing brought, or that was given before; None for none that is free."""
        uid, pin = finding.tracking_uid, self._pins.get(place_of(finding))
        if uid is None and pin is not None and pin.name.tracking_uid in self._scene.lesions:
            uid = pin.name.tracking_uid
        return None if uid in self._given else uid

    def _own_uid(self, finding: Finding) -> str:
        """Return an identity that nothing else of the patient has: what it was called before, or a new one."""
        pin = self._pins.get(place_of(finding))
        uid = pin.name.tracking_uid if pin else ""
        if not uid or uid in self._given or uid in self._scene.lesions:
            parts = (self._study.study_instance_uid, "tracking", self._plugin, *place_of(finding))
            uid, more = derive_uid(*parts), 0
            while uid in self._taken:
                more += 1
                uid = derive_uid(*parts, str(more))
        self._taken.add(uid)
        return uid

    def _told(self, finding: Finding | None, link: Link, before: Sequence[Brought]) -> Link:
        """Return a link after what is no earlier study went out of it, no surer than the images allow."""
        parents = tuple(uid for uid in link.earlier if self._is_earlier(uid))
        others = [self._scene.lesions[uid] for uid in parents] or before
        sure = min((b.motion.quality.confidence for b in others if b.motion), default=1.0)
        is_decided = finding is not None and place_of(finding) in self._decided
        if finding is not None and (finding.tracking_uid == link.tracking_uid or is_decided):
            sure = 1.0  # somebody said so
        link = replace(link, earlier=parents, confidence=min(link.confidence, sure))
        if finding is None:
            return link
        known = self._scene.lesions.get(link.tracking_uid)
        if not parents and known is not None and known.standing is Standing.EARLIER:
            return _by_name(link, known)
        is_later = not parents and link.kind is not Kind.NEW
        if is_later:
            reason = "no earlier study shows it; its name is that of a later study, analysed before this one"
            link = replace(link, kind=Kind.NEW, study_instance_uid="", expected_mm=None, reason=reason)
        if not parents and finding.series_instance_uid in self._scene.incomplete:
            reason = f"{link.reason}; {UNCOMPARED}"
            link = replace(link, confidence=min(link.confidence, HARDLY_NEW), reason=reason)
        elif not parents and not is_decided and (other := self._expected_elsewhere(finding)) is not None:
            words = f"'{other.tracking_identifier}' is expected there on another series; {UNCOMPARED}"
            sure = min(link.confidence, HARDLY_NEW)
            link = replace(link, confidence=sure, reason=f"{link.reason}; {words}")
        if is_later:
            return link
        if link.kind is Kind.MERGED and len(parents) == 1:
            link = replace(link, kind=Kind.SAME)
        pin = self._pins.get(place_of(finding))
        if finding.tracking_uid is None and pin is not None and pin.name.tracking_uid == link.tracking_uid:
            words = BY_A_PERSON if is_decided else AS_BEFORE
            reason = f"{words}; {link.reason.partition('; ')[2]}"
            link = replace(link, confidence=min(pin.confidence, sure), reason=reason)
        return link

    def _expected_elsewhere(self, finding: Finding) -> EarlierLesion | None:
        """Return the earlier lesion that was brought to another series of this space, to the place of a finding."""
        volume = self._study.volume(finding.series_instance_uid)
        frame, now = volume.frame_of_reference_uid, present(finding, volume)
        for b in self._scene.lesions.values():
            if frame is None or b.volume is None or b.volume is volume or b.standing is not Standing.EARLIER:
                continue
            reach_mm = ball_radius_mm(max(now.volume_mm3, b.lesion.volume_mm3))
            is_there = math.dist(now.centroid_mm, b.lesion.expected_mm) <= reach_mm
            if is_there and b.volume.frame_of_reference_uid == frame:
                return b.lesion
        return None

    def _is_earlier(self, tracking_uid: str) -> bool:
        return self._scene.lesions[tracking_uid].standing is Standing.EARLIER

    def _name(self, finding: Finding, link: Link) -> Named:
        """Return the identity of a lesion; one that is new gets a Tracking ID that no other has."""
        uid, pin = link.tracking_uid, self._pins.get(place_of(finding))
        if (brought := self._scene.lesions.get(uid)) is not None:
            return Named(tracking_uid=uid, tracking_identifier=brought.lesion.tracking_identifier)
        if pin is not None and pin.name.tracking_uid == uid and pin.name.tracking_identifier:
            return pin.name
        label = finding.tracking_identifier or finding.label
        identifier = self._names.give(label, uid, renumbered=finding.automatic)
        return Named(tracking_uid=uid, tracking_identifier=identifier)


def _by_name(link: Link, brought: Brought) -> Link:
    """Return the link of a lesion that is called like an earlier one that was seen on another series."""
    words = "it was given its Tracking UID by whoever drew it, or before; the earlier one was seen on another series"
    return replace(
        link,
        kind=Kind.SAME,
        earlier=(brought.lesion.tracking_uid,),
        study_instance_uid=brought.lesion.study_instance_uid,
        reason=words,
    )


def _nowhere(brought: Brought) -> Link:
    lesion = brought.lesion
    return Link(
        kind=Kind.OUT_OF_VIEW,
        tracking_uid=lesion.tracking_uid,
        tracking_identifier=lesion.tracking_identifier,
        finding=None,
        earlier=(lesion.tracking_uid,),
        study_instance_uid=lesion.study_instance_uid,
        confidence=1.0,
        reason=brought.reason,
    )


__all__ = ["Pin", "Place", "Story", "place_of", "present"]
