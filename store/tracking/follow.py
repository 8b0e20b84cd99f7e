"""One analysis of one study laid beside what the patient had before: who each finding is, and what became of the rest.

Lesions are followed by their place: the images are registered, earlier lesions brought to the new grid and matched.
Other regions (a lung, a liver reference) are followed by their name. Earlier studies are asked from the newest to the
oldest, each for the lesions that no newer one has, so that a lesion keeps its identity over a visit that did not show
it. What the same analysis said of the same study before counts as well, and so do later studies that were analysed
first: these give identities and no links.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from plugins.contract import Finding, Flag, Plugin, Study
from plugins.errors import Refused
from store.tracking.brought import Motions, Scene, Standing, still
from store.tracking.earlier import EarlierSeries, Region, is_lesion, read_earlier
from store.tracking.followed import Followed
from store.tracking.matching import match
from store.tracking.naming import renamed
from store.tracking.past import EarlierResults, Named, Past, Relinked
from store.tracking.second_look import second_look
from store.tracking.story import Pin, Place, Story, place_of, present
from store.tracking.words import flags_of


def follow(
    plugin: Plugin, study: Study, findings: Sequence[Finding], past: Past, motions: Motions
) -> Followed:
    """Return the findings of one analysis with the identity that the patient's past gives them.

    What has no name here gets its own, as in a first study; a study without a past comes back as it was given.
    """
    lacking = _lacking(past, plugin.name)
    if not (past.earlier or past.later or past.same):
        return Followed(findings=tuple(findings), flags=lacking)
    read = _Read.of(past, plugin.name)
    findings, spoken = _as_people_said(findings, study, past)
    lesions = [f for f in findings if is_lesion(f.category, f.type) and f.mask.count]
    pins = _pins((*read.same, *read.before), study, lesions, past)
    scene = Scene(study=study, looked_at={f.series_instance_uid for f in lesions}, motions=motions)
    for series in read.earlier:
        scene.take(series, Standing.EARLIER)
    if any(place_of(f) not in pins for f in lesions):
        for series in read.later:
            scene.take(series, Standing.LATER)
    said = {one.study_instance_uid for one in past.said}
    story = Story(
        plugin=plugin.name,
        study=study,
        lesions=lesions,
        scene=scene,
        pins=pins,
        decided={*spoken, *(place for place, pin in pins.items() if pin.is_decided)},
        was_compared=not past.earlier or (past.earlier[0].study_instance_uid in said and not past.has_news),
        known=past.names,
        others=past.others,
        strangers=past.strangers,
    )
    names, links = story.told()
    look = second_look(plugin, study, lesions, links, scene, past.rejected)
    links = look.links
    names |= {place_of(f): _own_name(f) for f in look.redrawn}
    names |= _regions(read, study, [f for f in findings if not is_lesion(f.category, f.type)])
    before = {place: pin.before_uid for place, pin in pins.items() if pin.is_decided} | spoken
    names |= {place: replace(names[place], before_uid=uid) for place, uid in before.items()}
    dates = {one.study_instance_uid: one.study_date for one in past.earlier}
    links = links if past.earlier else ()
    worth_telling = [link for link in links if link.tracking_uid not in past.rejected]
    by_hand = {f.key for f in lesions if not f.automatic}
    return Followed(
        findings=tuple(_called(finding, names) for finding in (*findings, *look.redrawn)),
        names=names,
        links=links,
        flags=(*lacking, *read.flags, *scene.flags, *flags_of(worth_telling, dates, plugin.name, by_hand)),
    )


def _own_name(finding: Finding) -> Named:
    return Named(
        tracking_uid=finding.tracking_uid or "",
        tracking_identifier=finding.tracking_identifier or finding.label,
    )


def _lacking(past: Past, plugin: str) -> tuple[Flag, ...]:
    if not past.lacking:
        return ()
    words = f"{past.lacking} earlier studies, or searches for them, are not here yet"
    sentence = f"{words}; lesions were compared without them, and may be called new that are not."
    return (Flag(code="priors-not-here", sentence=sentence, plugin=plugin),)


def _called(finding: Finding, names: Mapping[Place, Named]) -> Finding:
    """Return a lesion that an algorithm named under the name that it has in the patient."""
    name = names.get(place_of(finding))
    if name is None or not finding.automatic or not is_lesion(finding.category, finding.type):
        return finding
    return renamed(finding, name.tracking_identifier)


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What the analysis found at other times."""

    earlier: tuple[tuple[EarlierSeries, ...], ...]
    later: tuple[tuple[EarlierSeries, ...], ...]
    same: tuple[EarlierSeries, ...]
    before: tuple[EarlierSeries, ...]
    flags: tuple[Flag, ...]

    @classmethod
    def of(cls, past: Past, plugin: str) -> _Read:
        flags: list[Flag] = []

        def read(results: EarlierResults) -> tuple[EarlierSeries, ...]:
            series, doubts = read_earlier(results, plugin, past)
            flags.extend(doubts)
            return series

        return cls(
            earlier=tuple(map(read, past.earlier)),
            later=tuple(map(read, past.later)),
            same=read(past.same) if past.same else (),
            before=read(past.before) if past.before else (),
            flags=tuple(flags),
        )


def _as_people_said(
    findings: Sequence[Finding], study: Study, past: Past
) -> tuple[tuple[Finding, ...], dict[Place, str]]:
    """Return the findings, those that brought their Tracking UID with that of a later relink, and what they brought.

    One that a relink makes a fragment of another drawing keeps its own: no two regions share a Tracking UID.
    """
    said = {one.before_uid: one.other_uid for one in _spoken_of(past, study) if one.is_decided}
    taken = {f.tracking_uid for f in findings if f.tracking_uid not in said}
    found: list[Finding] = []
    brought: dict[Place, str] = {}
    for finding in findings:
        uid = finding.tracking_uid
        if uid is not None and (now := said.get(uid)) is not None and now not in taken:
            taken.add(now)
            brought[place_of(finding)] = uid
            finding = replace(finding, tracking_uid=now)
        found.append(finding)
    return tuple(found), brought


def _spoken_of(past: Past, study: Study) -> list[Relinked]:
    return [one for one in past.relinked if one.study_instance_uid == study.study_instance_uid]


def _pins(
    same: Sequence[EarlierSeries], study: Study, lesions: Sequence[Finding], past: Past
) -> dict[Place, Pin]:
    """Return what lesions were called when the same analysis looked at the same study before, after relinks."""
    pins: dict[Place, Pin] = {}
    confidence = {one.tracking_uid: one.confidence for one in past.said}
    volumes = {v.series_instance_uid: v for v in study.volumes}
    said = {one.tracking_uid: one for one in _spoken_of(past, study)}
    for series in same:
        if (volume := volumes.get(series.series_instance_uid)) is None:
            continue
        try:
            masks = series.masks(volume)
        except Refused:  # of images that are others now
            continue
        known = _told_apart([r for r in series.lesions if r.number in masks], said, past)
        before = [still(series, r, masks[r.number], volume) for r in known.values()]
        now = [present(f, volume) for f in lesions if f.series_instance_uid == series.series_instance_uid]
        links = match(before, now, geometry=volume.geometry, new_identity=lambda lesion: (lesion.key, ""))
        for link in links:
            if link.finding is not None and link.tracking_uid in link.earlier:
                region = known[link.tracking_uid]
                word = said.get(region.written_uid)
                is_decided = word is not None and word.is_decided
                pin = Pin(
                    name=Named(
                        tracking_uid=region.tracking_uid, tracking_identifier=region.tracking_identifier
                    ),
                    confidence=1.0 if is_decided else confidence.get(region.written_uid, 1.0),
                    before_uid=word.before_uid if word else "",
                    is_decided=is_decided,
                )
                pins.setdefault((series.series_instance_uid, link.finding), pin)
    return pins


def _told_apart(regions: Sequence[Region], said: Mapping[str, Relinked], past: Past) -> dict[str, Region]:
    """Return the regions of one SEG by the Tracking UID that each is to have.

    Of several that a person called fragments of one lesion, the first that is written so has its name; the others keep
    their own. A lesion that nobody wrote yet, because a person set it apart, has no Tracking ID.
    """
    called = {one.tracking_uid: one.tracking_identifier for one in past.names}
    apart: dict[str, Region] = {}
    for region in sorted(regions, key=lambda r: r.tracking_uid != r.written_uid):
        word = said.get(region.written_uid)
        if word is not None and word.other_uid in apart:
            own = called.get(word.before_uid, region.tracking_identifier)
            region = replace(region, tracking_uid=word.before_uid, tracking_identifier=own)
        elif word is not None and word.other_uid not in {*called, *past.others}:
            region = replace(region, tracking_identifier="")
        apart.setdefault(region.tracking_uid, region)
    return apart


def _regions(read: _Read, study: Study, regions: Sequence[Finding]) -> dict[Place, Named]:
    """Return the identity of regions that are followed by their name: that of the nearest time point that has one.

    A name that stands for two regions of one time point says of neither which it is.
    """
    volumes = {v.series_instance_uid: v for v in study.volumes}
    asked = [(volumes[f.series_instance_uid].modality, f.label.casefold(), f.type.value) for f in regions]
    names: dict[Place, Named] = {}
    for time in (*read.earlier, read.same, read.before, *read.later):
        known: dict[tuple[str, str, str], list[Named]] = {}
        for series in time:
            own = volumes.get(series.series_instance_uid)
            for one in series.regions:
                key = (
                    own.modality if own else series.modality,
                    one.label.casefold(),
                    one.type.value if one.type else "",
                )
                name = Named(tracking_uid=one.tracking_uid, tracking_identifier=one.tracking_identifier)
                known.setdefault(key, []).append(name)
        for finding, key in zip(regions, asked, strict=True):
            is_drawn = finding.tracking_uid is not None
            if not is_drawn and asked.count(key) == 1 and len(known.get(key, ())) == 1:
                names.setdefault(place_of(finding), known[key][0])
    return names


__all__ = ["follow"]
