"""Who each finding is: a name that lasts from study to study of a patient, decided before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from node.fault import place
from plugins.contract import Finding, Flag, Plugin, Study
from plugins.errors import Broken
from store.analysed import Linked
from store.dicom.equipment import one_line
from store.dicom.seg import Identified
from store.dicom.uids import derive_uid, is_legal
from store.tracking.followed import Followed
from store.tracking.link import Link
from store.tracking.naming import Names
from store.tracking.past import Named, Past

Follower = Callable[[Plugin, Study, Sequence[Finding]], Followed]
"""Gives the findings of an analysis the identity that they have from other times."""


def follower(past: Past) -> Follower:
    """Return what gives findings the identity that they have from other times; registrations are made once."""
    if past.is_empty:
        return lambda plugin, study, findings: Followed(findings=tuple(findings))
    # Registering needs libraries that a first study does without.
    from store.tracking.brought import Motions
    from store.tracking.follow import follow

    motions = Motions()

    def followed(plugin: Plugin, study: Study, findings: Sequence[Finding]) -> Followed:
        try:
            return follow(plugin, study, findings, past, motions)
        except (MemoryError, KeyboardInterrupt):
            raise
        # Files of other times, and a plugin's `segment_at`: what is wrong with them costs this study no result.
        except BaseException as error:
            sentence = f"The study was not compared with what was before: {place(error, plugin)}."
            flag = Flag(code="not-followed", sentence=sentence, plugin=plugin.name)
            return Followed(findings=tuple(findings), flags=(flag,))

    return followed


def linked(link: Link) -> Linked:
    """Return a link as a plain value."""
    return Linked(
        kind=link.kind.value,
        tracking_uid=link.tracking_uid,
        tracking_identifier=link.tracking_identifier,
        is_found=link.finding is not None,
        earlier=link.earlier,
        study_instance_uid=link.study_instance_uid,
        confidence=link.confidence,
        reason=link.reason,
        expected_mm=link.expected_mm,
    )


def legally_called(plugin: str, findings: Sequence[Finding]) -> tuple[tuple[Finding, ...], tuple[Flag, ...]]:
    """Return the findings without what a source calls a Tracking UID and is no UID, and a flag for each of these."""
    legal: list[Finding] = []
    flags: list[Flag] = []
    for finding in findings:
        if finding.tracking_uid is not None and not is_legal(finding.tracking_uid):
            said = "came with a Tracking UID that is no legal UID and was given its own"
            flags.append(_doubt("tracking-uid-illegal", plugin, finding, said))
            finding = replace(finding, tracking_uid=None)
        legal.append(finding)
    return tuple(legal), tuple(flags)


def identify(
    plugin: str,
    study_instance_uid: str,
    findings: Sequence[Finding],
    names: Mapping[tuple[str, str], Named] | None = None,
    strangers: Collection[str] = (),
) -> tuple[tuple[Identified, ...], tuple[Flag, ...]]:
    """Return the findings with segment number and tracking identity, and the flags raised on the way.

    `names` are identities that the patient's past gives, by series and key of the finding. Else a tracking UID that
    came with the source is kept, but never given to two findings. The others, and those whose past gives no legal
    UID, derive from study, plugin, series and the finding's key, so that a repeated run gives the same, and never one
    of `strangers`, which lesions had while the study was another patient's. A finding without a past has the Tracking
    ID of its source, else its label, with a number where another finding is called so.
    Raises `Broken` for a plugin that gives one key to two findings of a series, or a finding without voxels.
    """
    identified: list[Identified] = []
    flags: list[Flag] = []
    known = names or {}
    given = Names((*known.values(), *_brought(findings)))
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    for finding in findings:
        series = finding.series_instance_uid
        numbers[series] = numbers.get(series, 0) + 1
        name = known.get((series, finding.key))
        uid = name.tracking_uid if name else finding.tracking_uid
        if uid is not None and not is_legal(uid):
            uid, name = None, None
        if uid in taken:
            said = "has the Tracking UID of another region and was given its own"
            flags.append(_doubt("tracking-uid-shared", plugin, finding, said))
            uid, name = None, None
        if uid is None:
            parts = (study_instance_uid, "tracking", plugin, series, finding.key)
            more = ((), *((str(n),) for n in range(1, len(strangers) + 1)))
            uid = next(own for n in more if (own := derive_uid(*parts, *n)) not in strangers)
        if uid in taken:
            raise Broken(f"plugin '{plugin}' gave one key to two findings of a series")
        if finding.mask.count == 0:
            raise Broken(f"plugin '{plugin}' gave a finding without voxels")
        taken.add(uid)
        label = finding.tracking_identifier or finding.label
        identifier = name.tracking_identifier if name else given.give(label, uid, renumbered=False)
        identified.append(
            Identified(
                finding=finding,
                segment_number=numbers[series],
                tracking_identifier=one_line(identifier, longest=1024),
                tracking_uid=uid,
                before_uid=name.before_uid if name else "",
            )
        )
    return tuple(identified), tuple(flags)


def _brought(findings: Sequence[Finding]) -> Iterator[Named]:
    for one in findings:
        if one.tracking_uid and one.tracking_identifier:
            yield Named(tracking_uid=one.tracking_uid, tracking_identifier=one.tracking_identifier)


def _doubt(code: str, plugin: str, finding: Finding, said: str) -> Flag:
    sentence = f"'{finding.label}' {said}."
    return Flag(code=code, sentence=sentence, series_instance_uid=finding.series_instance_uid, plugin=plugin)


__all__ = ["Follower", "follower", "identify", "legally_called", "linked"]
