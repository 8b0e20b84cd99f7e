"""Regions that people or other systems drew, measured like any other lesion."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import ClassVar

from pydicom.sr.coding import Code

from models.card import ModelCard
from plugins import codes
from plugins.contract import Drawn, Finding, Flag, Measurement, Study, Volume
from plugins.edges import doubts_of_edge
from plugins.errors import Refused
from plugins.measure.axes import CONTOUR, Convention, largest_piece, measure_node_axes
from plugins.measure.lesion import measure_lesion
from plugins.measure.uptake import PeakVariant, Threshold

# What a name says, tried in this order; the words are whole tokens of the name, lower case.
_LESIONS: tuple[tuple[frozenset[str], Code, Code], ...] = (
    (frozenset({"edema", "oedema"}), codes.MORPHOLOGICALLY_ABNORMAL, codes.EDEMA),
    (frozenset({"necrosis", "necrotic"}), codes.MORPHOLOGICALLY_ABNORMAL, codes.NECROSIS),
    (
        frozenset({"ln", "lns", "node", "nodes", "lymph", "gtvn"}),
        codes.ANATOMICAL_STRUCTURE,
        codes.LYMPH_NODE,
    ),
    (
        frozenset({"met", "mets", "metastasis", "metastases"}),
        codes.MORPHOLOGICALLY_ABNORMAL,
        codes.NEOPLASM_SECONDARY,
    ),
    (frozenset({"nodule", "nodules"}), codes.MORPHOLOGICALLY_ABNORMAL, codes.NODULE),
    (
        frozenset({"gtv", "gtvp", "igtv", "tumor", "tumour", "cancer", "carcinoma", "neoplasm", "neoplasia"}),
        codes.MORPHOLOGICALLY_ABNORMAL,
        codes.NEOPLASM,
    ),
    (frozenset({"mass"}), codes.MORPHOLOGICALLY_ABNORMAL, codes.MASS),
    (frozenset({"lesion", "lesions"}), codes.MORPHOLOGICALLY_ABNORMAL, codes.LESION),
)
_ANATOMY: tuple[tuple[frozenset[str], Code], ...] = (
    (frozenset({"lung", "lungs"}), codes.LUNG),
    (frozenset({"liver"}), codes.LIVER),
    (frozenset({"kidney", "kidneys"}), codes.KIDNEY),
    (frozenset({"heart"}), codes.HEART),
    (frozenset({"aorta"}), codes.AORTA),
    (frozenset({"brain"}), codes.BRAIN),
    (frozenset({"carina"}), codes.CARINA),
    (frozenset({"trachea", "bronchus", "bronchi"}), codes.TRACHEA_AND_BRONCHUS),
    (frozenset({"esophagus", "oesophagus"}), codes.ESOPHAGUS),
    (frozenset({"cord", "spinalcord"}), codes.SPINAL_CORD),
    (frozenset({"vertebra", "vertebrae"}), codes.VERTEBRA),
    (frozenset({"mediastinum"}), codes.MEDIASTINUM),
    (frozenset({"pleura"}), codes.PLEURA),
    (frozenset({"chestwall"}), codes.CHEST_WALL),
)
_SIDES = ((frozenset({"left", "lt", "l"}), codes.LEFT), (frozenset({"right", "rt", "r"}), codes.RIGHT))
_PAIRED = frozenset({codes.LUNG.value, codes.KIDNEY.value, codes.PLEURA.value})
_ORGAN_TYPES = frozenset({"ORGAN", "CAVITY", "OAR"})
_PLANNED_TYPES = frozenset(
    {"PTV", "CTV", "ITV", "TREATED_VOLUME", "IRRAD_VOLUME", "EXTERNAL", "AVOIDANCE", "BOLUS"}
)
_TOLD_FROM_MM = 2.0
"""By how much the short axis of a node is larger in another slice when that is told; readers differ by that."""
_WITHOUT = re.compile(r"(-|minus|without|_no_)\s*_?i?(gtv|ctv|ptv|tumou?r)", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]+")
_TOKEN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a region is, as far as it is known."""

    category: Code
    """Segmented property category."""
    type: Code
    """Segmented property type."""
    site: Code | None = None
    """Where it is, when the region is a lesion of an organ."""
    laterality: Code | None = None
    """Which side, for paired organs."""
    guessed: bool = False
    """True when it was read from the name."""

    @property
    def is_node(self) -> bool:
        """Whether it is a lymph node, by its type or by where it is, as the response takes it."""
        return any(code == codes.LYMPH_NODE for code in (self.type, self.site) if code is not None)


@dataclass(frozen=True, kw_only=True)
class Contours:
    """Measures every region that came with a study (RTSTRUCT, SEG, NIfTI) on the series it was drawn on.

    Every region is measured, organs and marks too: what is a lesion is for the reader to say. The mask is taken as it
    is; only the measuring is automatic, so there is no confidence. Label, tracking identifier and UID and codes are
    kept; a region without a code is coded from RTROIInterpretedType and from its name, which a flag tells, or as an
    imaging region of interest.
    """

    name: ClassVar[str] = "contours"
    version: ClassVar[str] = "1.1.0"
    title: ClassVar[str] = "Measurement of drawn regions"

    convention: Convention = CONTOUR
    """Where the outline of a mask runs: `contour` or `pixel-centre`."""
    node_rule: bool = False
    """Measure lymph nodes in the slice of their largest perpendicular instead of that of their largest long axis.

    RECIST 1.1 does not say which slice is meant; Lugano and WHO need the largest long axis and its own perpendicular.
    """
    suv_threshold: float = 4.0
    """Fixed SUV threshold of MTV and TLG on PET; not used when `percent_of_maximum` is set."""
    percent_of_maximum: float | None = None
    """Threshold of MTV and TLG as % of the region's SUVmax (41 is usual)."""
    peak: PeakVariant = "global"
    """Which SUVpeak: `global`, `local` or `weighted`."""

    def __post_init__(self) -> None:
        if self.convention not in ("contour", "pixel-centre"):
            raise ValueError(f"convention is 'contour' or 'pixel-centre', not '{self.convention}'")
        if self.peak not in ("global", "local", "weighted"):
            raise ValueError(f"peak is 'global', 'local' or 'weighted', not '{self.peak}'")

    @property
    def model(self) -> ModelCard | None:
        """Return None: nothing here is learned."""
        return None

    def accepts(self, study: Study) -> bool:
        """Return True when regions came with the study."""
        return bool(study.drawn)

    def run(self, study: Study) -> tuple[Finding | Flag, ...]:
        """Return one finding for each region that holds a voxel of a usable series, and a flag for each other.

        Refuses `no-measurable-region` when no region is left.
        """
        series = {volume.series_instance_uid: volume for volume in study.volumes}
        findings: list[Finding] = []
        left_out: list[Flag] = []
        for drawn in study.drawn:
            volume = series.get(drawn.series_instance_uid)
            if volume is None:
                left_out.append(
                    _flag("region-without-series", drawn, "lies on a series that could not be used")
                )
            elif drawn.mask.count == 0:
                left_out.append(_flag("empty-region", drawn, "holds no voxel centre of its series"))
            else:
                findings.append(self._measure(drawn, volume))
        if not findings:
            raise Refused(
                "no-measurable-region", " ".join(flag.sentence for flag in left_out) or "no region was drawn"
            )
        return (*findings, *left_out)

    def _measure(self, drawn: Drawn, volume: Volume) -> Finding:
        kind = kind_of(drawn)
        threshold = (
            Threshold.fixed(self.suv_threshold)
            if self.percent_of_maximum is None
            else Threshold.percent(self.percent_of_maximum)
        )
        measurements = measure_lesion(
            drawn.mask,
            volume,
            convention=self.convention,
            node=self.node_rule and kind.is_node,
            threshold=threshold,
            peak=self.peak,
        )
        return Finding(
            key=f"{drawn.source_sop_instance_uid}:{drawn.number}",
            label=drawn.label or f"Region {drawn.number}",
            series_instance_uid=drawn.series_instance_uid,
            mask=drawn.mask,
            category=kind.category,
            type=kind.type,
            site=kind.site,
            laterality=kind.laterality,
            measurements=measurements,
            confidence=None,
            automatic=False,
            tracking_identifier=drawn.tracking_identifier,
            tracking_uid=drawn.tracking_uid,
            flags=(*_doubts(drawn, kind, volume), *self._doubts_of_slice(drawn, kind, volume, measurements)),
        )

    def _doubts_of_slice(
        self, drawn: Drawn, kind: Kind, volume: Volume, measurements: tuple[Measurement, ...]
    ) -> tuple[Flag, ...]:
        """Return the doubt about a node whose short axis is larger in another slice than the one told; else none."""
        if not kind.is_node or self.node_rule:
            return ()
        told = next(one.value for one in measurements if one.name == "short_axis")
        largest = measure_node_axes(drawn.mask, volume, self.convention).short_axis_mm
        if largest <= told + _TOLD_FROM_MM:
            return ()
        words = (
            f"has a short axis of {told:.1f} mm in the slice of its largest long axis, which is the one told, and of "
            f"{largest:.1f} mm in another slice (the setting node_rule of contours takes that)"
        )
        return (_flag("node-short-axis", drawn, words),)


def kind_of(drawn: Drawn) -> Kind:
    """Return what a region is: its own codes first, then RTROIInterpretedType, then the words of its name.

    Planning systems write ORGAN for almost everything, so a name that says tumour or node outweighs it, unless the name
    says an organ too (`Lungs-GTV` is the lung without its tumour).
    """
    words = {word.lower() for pattern in (_TOKEN, _WORD) for word in pattern.findall(drawn.label)}
    organ = next((code for tokens, code in _ANATOMY if words & tokens), None)
    side = next((code for tokens, code in _SIDES if words & tokens), None)
    if organ is None or organ.value not in _PAIRED:
        side = None
    if drawn.type_code is not None:
        return Kind(category=_category(drawn), type=drawn.type_code, site=drawn.site_code)
    interpreted = (drawn.interpreted_type or "").upper()
    lesion = next(((category, code) for tokens, category, code in _LESIONS if words & tokens), None)
    if interpreted in _PLANNED_TYPES:
        return Kind(category=codes.SPATIAL_CONCEPT, type=codes.REGION_OF_INTEREST, site=drawn.site_code)
    if lesion is None and interpreted == "GTV":
        lesion = (codes.MORPHOLOGICALLY_ABNORMAL, codes.NEOPLASM)
    spared = interpreted in _ORGAN_TYPES or _WITHOUT.search(drawn.label) is not None
    if lesion is not None and not (organ is not None and spared):
        guessed = interpreted != "GTV" or lesion[1] != codes.NEOPLASM
        return Kind(
            category=lesion[0],
            type=lesion[1],
            site=drawn.site_code or organ,
            laterality=side,
            guessed=guessed,
        )
    if organ is not None:
        return Kind(category=codes.ANATOMICAL_STRUCTURE, type=organ, laterality=side, guessed=True)
    if interpreted in _ORGAN_TYPES:
        return Kind(category=codes.ANATOMICAL_STRUCTURE, type=codes.ORGAN)
    return Kind(category=codes.SPATIAL_CONCEPT, type=codes.REGION_OF_INTEREST, site=drawn.site_code)


def _category(drawn: Drawn) -> Code:
    """Return the category of a coded region: its own, or anatomy for known organs, or abnormal for known lesions."""
    if drawn.category_code is not None:
        return drawn.category_code
    known = [code for _, code in _ANATOMY] + [codes.LYMPH_NODE, codes.ORGAN]
    if drawn.type_code in known or (drawn.interpreted_type or "").upper() in _ORGAN_TYPES:
        return codes.ANATOMICAL_STRUCTURE
    if (
        drawn.type_code in [code for _, _, code in _LESIONS]
        or (drawn.interpreted_type or "").upper() == "GTV"
    ):
        return codes.MORPHOLOGICALLY_ABNORMAL
    return codes.SPATIAL_CONCEPT


def _doubts(drawn: Drawn, kind: Kind, volume: Volume) -> tuple[Flag, ...]:
    flags: list[Flag] = [replace(flag, plugin=Contours.name) for flag in drawn.flags]
    if kind.guessed:
        flags.append(
            _flag("kind-from-name", drawn, f"has no code; '{kind.type.meaning}' was read from its name")
        )
    _, pieces = largest_piece(drawn.mask.voxels)
    if pieces > 1:
        flags.append(
            _flag(
                "several-pieces",
                drawn,
                f"has {pieces} pieces; the axes are those of the largest, the rest is of all",
            )
        )
    if kind.category == codes.MORPHOLOGICALLY_ABNORMAL or kind.type == codes.LYMPH_NODE:
        flags.extend(replace(flag, plugin=Contours.name) for flag in doubts_of_edge(drawn.mask, volume))
    return tuple(flags)


def _flag(code: str, drawn: Drawn, words: str) -> Flag:
    sentence = f"The region '{drawn.label}' ({drawn.source} number {drawn.number}) {words}."
    return Flag(
        code=code, sentence=sentence, series_instance_uid=drawn.series_instance_uid, plugin="contours"
    )
