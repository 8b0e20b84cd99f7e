"""Lesions at points that somebody marked: drawn and measured, with who marked them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

from models.card import ModelCard
from models.nodule_segmenter import NAME as NODULE_SEGMENTER
from models.place import Places
from models.segmenter import LesionSegmenter
from plugins import codes
from plugins.contract import Finding, Flag, Mark, Mask, Study, Volume
from plugins.errors import Refused
from plugins.flag_codes import MARKED_BY
from plugins.nodule_drawing import SEGMENTERS, Drawing, Segmenters, choose, draw_at, interval_words
from plugins.series_order import frame_doubts, holds, preferred, reformat_doubts, several

REQUEST = "request"
"""The source of a point that whoever started the analysis named."""


@dataclass(frozen=True, kw_only=True)
class MarkedLesion:
    """The lesion at every point of the study that somebody marked on a CT: in a report, in a presentation state.

    The networks have learned from lung nodules: what is drawn elsewhere is a guess. A mark that lies on a lesion which
    another mark has given already is told and gives no second finding.
    """

    name: ClassVar[str] = "marked_lesion"
    version: ClassVar[str] = "0.1.0"
    title: ClassVar[str] = "Lesions that were marked"
    needs: ClassVar[frozenset[str]] = frozenset({"SR", "PR"})
    """Without an object of one of these modalities there is no mark, and no study is opened to find that out."""

    segmenter: Segmenters = "best"
    """What draws: `learned`, `classical`, or the `best` that can run here."""
    models: Places = field(default_factory=dict, hash=False)
    """Models made here that count instead of those of the release, by family; for the node to give."""

    def __post_init__(self) -> None:
        if self.segmenter not in SEGMENTERS:
            raise ValueError(f"segmenter is one of {', '.join(SEGMENTERS)}, not '{self.segmenter}'")

    @cached_property
    def drawer(self) -> LesionSegmenter:
        """Return what draws a lesion from a point."""
        return choose(self.segmenter, models=self.models)

    @property
    def families(self) -> tuple[str, ...]:
        """Return the families of learned models that these settings use."""
        return () if self.segmenter == "classical" else (NODULE_SEGMENTER,)

    @property
    def model(self) -> ModelCard | None:
        """Return the card of what draws."""
        return self.drawer.card

    def accepts(self, study: Study) -> bool:
        """Return True when a point was marked and there is a CT, and when one was asked for, which is answered."""
        asked = any(mark.source == REQUEST for mark in study.marks)
        return asked or (bool(study.marks) and bool(study.by_role("ct")))

    def run(self, study: Study) -> tuple[Finding | Flag, ...]:
        """Return a finding for every mark at which a lesion is seen, and a flag for each other.

        Refuses `no-ct`, and `no-mark` when no point of the study lies on a CT.
        """
        if not study.by_role("ct"):
            others = ", ".join(sorted({v.modality for v in study.volumes})) or "no other image"
            words = f"a lesion is drawn on a CT in Hounsfield units, and the study holds none ({others})"
            raise Refused("no-ct", f"{words}; name a folder with the CT")
        findings: list[Finding] = []
        flags: list[Flag] = []
        for number, mark in enumerate(study.marks, start=1):
            held = volumes_of(mark, study.by_role("ct"))
            if not held:
                flags.append(_flag("mark-outside", mark, "lies on no CT of the study"))
                continue
            volume = held[0]
            doubts = (*reformat_doubts(volume, held, self.name), *frame_doubts(volume, held, self.name))
            told = (*several(volume, held, self.name), *doubts)
            flags += [flag for flag in told if flag not in flags]
            drawing = draw_at(volume, mark.point_mm, self.drawer, extent_mm=mark.extent_mm)
            if drawing.mask.count == 0:
                flags.append(_flag("no-lesion-at-mark", mark, "shows no lesion"))
            elif (other := _same(drawing.mask, volume, findings)) is not None:
                flags.append(_flag("same-lesion", mark, f"lies on '{other.label}'"))
            else:
                findings.append(_finding(number, mark, drawing, volume))
        if not findings and len(flags) == sum(flag.code == "mark-outside" for flag in flags):
            raise Refused("no-mark", " ".join(f.sentence for f in flags) or "no point is marked on a CT")
        return (*findings, *flags)


def volumes_of(mark: Mark, volumes: tuple[Volume, ...]) -> tuple[Volume, ...]:
    """Return the volumes that a mark lies on, the one to measure first: none but that which it was put on, if any."""
    own = [v for v in volumes if v.series_instance_uid == mark.series_instance_uid]
    frame = mark.frame_of_reference_uid
    same = [v for v in volumes if frame is None or v.frame_of_reference_uid == frame]
    return preferred(v for v in own or same if holds(v, mark.point_mm))


def _same(mask: Mask, volume: Volume, findings: list[Finding]) -> Finding | None:
    """Return the finding that is the same lesion, on the same series."""
    for finding in findings:
        if finding.series_instance_uid == volume.series_instance_uid and is_same(mask, finding.mask):
            return finding
    return None


def is_same(mask: Mask, other: Mask) -> bool:
    """Return True when two drawings on one grid are one lesion: they share more than half of the smaller."""
    shared = int((other.full()[mask.box] & mask.voxels).sum())
    return 2 * shared > min(mask.count, other.count)


def _finding(number: int, mark: Mark, drawing: Drawing, volume: Volume) -> Finding:
    told = [
        f"The point was marked by {mark.made_by} ({mark.source}); the outline was drawn by the algorithm."
    ]
    if (words := interval_words(drawing)) is not None:
        told.append(f"{words[0].upper()}{words[1:]}.")
    label = mark.label or f"Marked lesion {number}"
    flags = (
        Flag(code=MARKED_BY, sentence=f"'{label}': {' '.join(told)}"),
        *(replace(f, sentence=f"'{label}': {f.sentence}") for f in drawing.flags),
    )
    return Finding(
        key="mark-" + ",".join(f"{x:.1f}" for x in mark.point_mm),
        label=label,
        series_instance_uid=volume.series_instance_uid,
        mask=drawing.mask,
        category=codes.MORPHOLOGICALLY_ABNORMAL,
        type=codes.LESION,
        measurements=drawing.measurements,
        is_pointed_at=True,
        tracking_identifier=mark.tracking_identifier,
        tracking_uid=mark.tracking_uid,
        flags=tuple(
            replace(f, plugin=MarkedLesion.name, series_instance_uid=volume.series_instance_uid)
            for f in flags
        ),
        uncertainties=drawing.uncertainties,
    )


def _flag(code: str, mark: Mark, words: str) -> Flag:
    x, y, z = mark.point_mm
    named = f"'{mark.label}' " if mark.label else ""
    sentence = f"The mark {named}at {x:.1f}, {y:.1f}, {z:.1f} mm, made by {mark.made_by}, {words}."
    return Flag(code=code, sentence=sentence, plugin=MarkedLesion.name)


__all__ = ["MarkedLesion", "is_same", "volumes_of"]
