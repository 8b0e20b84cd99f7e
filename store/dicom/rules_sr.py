"""Rules for SR after TID 1500 with groups of TID 1410, 1411 and 1501: structure, identity, regions, units, evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from plugins import codes
from store.dicom.equipment import RESEARCH_USE
from store.dicom.items import (
    children,
    code_of,
    items,
    name_of,
    numeric,
    references,
    same,
    template_of,
    text,
    walk,
)
from store.dicom.response_codes import SUBJECT_TIME_POINT, TIME_POINT_NUMBERS
from store.dicom.rules_seg import SEG_CLASSES, own_equipment
from store.dicom.uids import is_legal
from store.dicom.violation import Rule, Violation, own

SR_CLASSES: Final = (EnhancedSRStorage, ComprehensiveSRStorage, Comprehensive3DSRStorage)
LENGTH_UNITS: Final = ("mm", "cm", "m", "um")
VOLUME_UNITS: Final = ("mm3", "cm3", "dm3", "ml", "mL", "l", "L", "um3")
SUV_UNITS: Final = (
    *(f"g/ml{{SUV{kind}}}" for kind in ("bw", "lbm", "ibw", "lbm(James128)", "lbm(Janma)")),
    "cm2/ml{SUVbsa}",
    "g/ml",
)
UNITS: Final[dict[Code, tuple[str, ...]]] = {
    codes.LONG_AXIS: LENGTH_UNITS,
    codes.SHORT_AXIS: LENGTH_UNITS,
    codes.LENGTH: LENGTH_UNITS,
    codes.DIAMETER: LENGTH_UNITS,
    codes.AREA: ("mm2", "cm2", "m2", "um2"),
    codes.VOLUME: VOLUME_UNITS,
    codes.METABOLIC_VOLUME: VOLUME_UNITS,
    codes.ATTENUATION: ("[hnsf'U]",),
    codes.SUV_BW: SUV_UNITS,
    codes.SUV_LBM: SUV_UNITS,
    codes.SUV_BSA: SUV_UNITS,
    codes.SUV_LBM_JANMA: (codes.SUV_LBM_JANMA_UNIT.value, "g/ml"),
    codes.TOTAL_LESION_GLYCOLYSIS: ("g", "g{SUVbw}", "g{SUVlbm}", "g/ml{SUVbw}.ml", "g/ml{SUVbw}.cm3"),
    codes.LAA_950: ("%",),
    codes.LAA_910: ("%",),
    codes.PERC_15: ("[hnsf'U]",),
    codes.CERTAINTY_OF_FINDING: ("%",),
}
"""Units that a concept can be measured in."""
RELATIONS: Final[dict[Code, str]] = {
    codes.LANGUAGE: "HAS CONCEPT MOD",
    codes.PROCEDURE_REPORTED: "HAS CONCEPT MOD",
    codes.IMAGING_MEASUREMENTS: "CONTAINS",
    codes.MEASUREMENT_GROUP: "CONTAINS",
    codes.QUALITATIVE_EVALUATIONS: "CONTAINS",
    codes.TRACKING_IDENTIFIER: "HAS OBS CONTEXT",
    codes.TRACKING_UNIQUE_IDENTIFIER: "HAS OBS CONTEXT",
    codes.FINDING: "CONTAINS",
    codes.FINDING_SITE: "HAS CONCEPT MOD",
    codes.LATERALITY: "HAS CONCEPT MOD",
    codes.DERIVATION: "HAS CONCEPT MOD",
    codes.REFERENCED_SEGMENT: "CONTAINS",
    codes.REFERENCED_SEGMENTATION_FRAME: "CONTAINS",
    codes.IMAGE_REGION: "CONTAINS",
    codes.SOURCE_SERIES: "CONTAINS",
    codes.ALGORITHM_NAME: "HAS CONCEPT MOD",
    codes.ALGORITHM_VERSION: "HAS CONCEPT MOD",
}
"""How an item of a concept is related to its parent."""
WITH_FINDINGS: Final = (codes.ALL_WITH_FINDINGS, codes.SOME_WITH_FINDINGS)
TITLES: Final = (
    codes.IMAGING_MEASUREMENT_REPORT,
    codes.ONCOLOGY_MEASUREMENT_REPORT,
    codes.MR_MEASUREMENT_REPORT,
    codes.PET_MEASUREMENT_REPORT,
)
LEVEL_2: Final = (codes.IMAGING_MEASUREMENTS, codes.DERIVED_MEASUREMENTS, codes.QUALITATIVE_EVALUATIONS)


def groups_of(sr: Dataset) -> list[tuple[str, Dataset]]:
    """Return the measurement groups of a report, each with its position in the tree."""
    found = []
    for i, container in enumerate(items(sr, "ContentSequence"), start=1):
        if same(name_of(container), codes.IMAGING_MEASUREMENTS):
            for j, group in enumerate(items(container, "ContentSequence"), start=1):
                if same(name_of(group), codes.MEASUREMENT_GROUP):
                    found.append((f"1.{i}.{j}", group))
    return found


def evidence_of(sr: Dataset) -> dict[str, str]:
    """Return what a report lists as evidence: SOP Class UID by SOP Instance UID."""
    listed = {}
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in items(sr, keyword):
            for series in items(study, "ReferencedSeriesSequence"):
                for item in references(series):
                    listed[text(item, "ReferencedSOPInstanceUID")] = text(item, "ReferencedSOPClassUID")
    return listed


def region_kinds(group: Dataset) -> list[str]:
    """Return the kind of each region directly in a group: image, space, segment, segment-frame or surface."""
    kinds = []
    for item in items(group, "ContentSequence"):
        value_type, name = text(item, "ValueType"), name_of(item)
        if same(name, codes.VOLUME_SURFACE):
            kinds.append("surface")
        elif value_type in ("SCOORD", "SCOORD3D"):
            kinds.append("image" if value_type == "SCOORD" else "space")
        elif same(name, codes.REFERENCED_SEGMENT):
            kinds.append("segment")
        elif same(name, codes.REFERENCED_SEGMENTATION_FRAME):
            kinds.append("segment-frame")
    return kinds


def group_template(group: Dataset) -> str:
    """Return which template a group follows: 1411, 1410 or 1501; by its regions where it does not say."""
    kinds = region_kinds(group)
    if "segment" in kinds or "surface" in kinds or kinds.count("image") > 1:
        return "1411"
    return "1410" if kinds else template_of(group) or "1501"


def sr_root(sr: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """The root is a measurement report of TID 1500, with language, procedure and something measured or said."""
    drawn = same(name_of(sr), codes.IMAGING_MEASUREMENT_REPORT)
    time_points = {_time_point(group) for _, group in groups_of(sr)}
    if not any(same(name_of(sr), title) for title in TITLES):
        yield _broken("sr-root", "1", "the title is no measurement report of CID 7021")
    elif time_points == {""} and not drawn:
        yield _broken(
            "sr-root", "1", "the title is not (126000, DCM, Imaging Measurement Report): viewers ignore it"
        )
    elif len(time_points) > 1 and drawn:
        yield _broken(
            "sr-root", "1", "the title is (126000, DCM): viewers draw its time points as one, or fail"
        )
    if template_of(sr) != "1500":
        yield _broken("sr-template", "1", "ContentTemplateSequence does not say 1500")
    if text(sr, "ValueType") != "CONTAINER":
        yield _broken("sr-root", "1", "the root is no CONTAINER")
    if not children(sr, codes.LANGUAGE):
        yield _broken("sr-language", "1", "names no language")
    if not children(sr, codes.PROCEDURE_REPORTED, "CODE"):
        yield _broken("sr-procedure", "1", "names no procedure reported")
    if not any(children(sr, name, "CONTAINER") for name in LEVEL_2):
        yield _broken("sr-measurements", "1", "has neither imaging measurements nor qualitative evaluations")
    for container in children(sr, codes.IMAGING_MEASUREMENTS):
        if not items(container, "ContentSequence"):
            yield _broken(
                "sr-measurements", "1", "the container of measurements is empty: viewers fail on it"
            )


def sr_relationships(sr: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """Each known item is related to its parent as its template says."""
    for where, item, parent in walk(sr):
        if parent is None:
            continue
        relation, name, value_type = text(item, "RelationshipType"), name_of(item), text(item, "ValueType")
        wanted = next((r for code, r in RELATIONS.items() if same(name, code)), None)
        if text(parent, "ValueType") in ("SCOORD", "TCOORD"):
            wanted = "SELECTED FROM"
        elif any(same(name, code) for code in TIME_POINT_NUMBERS):
            wanted = "HAS OBS CONTEXT"
        elif same(name_of(parent), codes.MEASUREMENT_GROUP) and value_type in ("NUM", "SCOORD", "SCOORD3D"):
            wanted = "CONTAINS"
        elif value_type in ("SCOORD", "SCOORD3D") and text(parent, "ValueType") == "NUM":
            wanted = "INFERRED FROM"
        if not relation:
            yield _broken("sr-relationship", where, "has no relationship to its parent")
        elif wanted is not None and relation != wanted:
            yield _broken("sr-relationship", where, f"{_name(item)} is related by {relation}, not {wanted}")


def sr_tracking(sr: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """Each group has one Tracking Identifier and one legal Tracking UID, before other UIDs.

    No other group has it, but for one that says that it is of another time point (TID 1502).
    """
    seen: Counter[tuple[str, str]] = Counter()
    for where, group in groups_of(sr):
        uids = children(group, codes.TRACKING_UNIQUE_IDENTIFIER, "UIDREF")
        names = children(group, codes.TRACKING_IDENTIFIER, "TEXT")
        if len(uids) != 1 or not text(uids[0], "UID"):
            yield _broken("sr-tracking", where, f"has {len(uids)} Tracking Unique Identifiers, not one")
        if len(names) != 1 or not text(names[0], "TextValue"):
            yield _broken("sr-tracking", where, f"has {len(names)} Tracking Identifiers, not one")
        first = children(group, value_type="UIDREF")[:1]
        if uids and first and first[0] is not uids[0]:
            yield _broken(
                "sr-tracking", where, "another UID comes before the tracking UID: viewers take the first"
            )
        for uid in filter(None, (text(one, "UID") for one in uids)):
            if not is_legal(uid):
                yield _broken("sr-tracking", where, f"its Tracking UID '{uid}' is no legal UID")
        if uids:
            key = text(uids[0], "UID"), _time_point(group)
            seen[key] += 1
            if seen[key] == 2:
                yield _broken(
                    "sr-tracking", where, "its Tracking UID is that of another group: viewers merge them"
                )


def sr_regions(sr: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """A ROI group has exactly one kind of region, a planar one exactly one region; TID 1410 and 1411 are not mixed."""
    templates = set()
    for where, group in groups_of(sr):
        kinds, template = region_kinds(group), group_template(group)
        templates.add(template)
        if not kinds and (template in ("1410", "1411") or (own(sr) and not _time_point(group))):
            yield _broken("sr-region", where, "has no region")
        if len(set(kinds)) > 1 or (template == "1410" and len(kinds) > 1) or kinds.count("segment") > 1:
            yield _broken("sr-region", where, f"has more than one region: {', '.join(kinds)}")
        if (
            template_of(group) in ("1410", "1411")
            and kinds
            and template_of(group) != template
            and len(kinds) > 1
        ):
            yield _broken(
                "sr-region", where, f"says TID {template_of(group)} but has the regions of TID {template}"
            )
        if "segment" in kinds or "segment-frame" in kinds:
            sources = children(group, codes.SOURCE_SERIES) or children(group, codes.SOURCE_IMAGE)
            if not sources:
                yield _broken(
                    "sr-region", where, "names a segment but neither source series nor source image"
                )
        for region in children(group, value_type="SCOORD"):
            if not any(True for image in children(region, value_type="IMAGE") for _ in references(image)):
                yield _broken("sr-region", where, "its region is drawn on no image")
    if {"1410", "1411"} <= templates:
        yield _broken(
            "sr-mixed", "1", "mixes groups of TID 1410 and TID 1411: some viewers show nothing of it"
        )


def sr_units(sr: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """Each number is finite and in a UCUM unit that its concept can have."""
    for where, group in groups_of(sr):
        for i, item in enumerate(items(group, "ContentSequence"), start=1):
            if text(item, "ValueType") != "NUM" or text(item, "RelationshipType") == "HAS OBS CONTEXT":
                continue
            value, unit = numeric(item)
            name = name_of(item)
            if value is None or value != value or value in (float("inf"), float("-inf")):
                yield _broken("sr-number", f"{where}.{i}", f"{_name(item)} has no finite value")
            measured = items(item, "MeasuredValueSequence")
            scheme = code_of(measured[0], "MeasurementUnitsCodeSequence") if measured else None
            if scheme is None or scheme.scheme_designator != "UCUM":
                yield _broken("sr-unit", f"{where}.{i}", f"{_name(item)} has no UCUM unit")
                continue
            allowed = next((units for code, units in UNITS.items() if same(name, code)), None)
            if allowed is not None and unit not in allowed:
                yield _broken(
                    "sr-unit",
                    f"{where}.{i}",
                    f"{_name(item)} is in '{unit}', not in {allowed[0]} or the like",
                )


def sr_evidence(sr: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """Everything that the content refers to is listed as evidence; in ours, so is a SEG."""
    listed = evidence_of(sr)
    missing: dict[str, str] = {}
    for where, item, _ in walk(sr):
        if text(item, "ValueType") in ("IMAGE", "COMPOSITE", "WAVEFORM"):
            for reference in references(item):
                missing.setdefault(text(reference, "ReferencedSOPInstanceUID"), where)
    for uid, where in missing.items():
        if uid not in listed:
            yield _broken("sr-evidence", where, f"refers to {uid}, which is not listed as evidence")
    if own(sr) and groups_of(sr) and not any(kind in SEG_CLASSES for kind in listed.values()):
        yield _broken("sr-evidence", "1", "lists no SEG as evidence")


def sr_own(sr: Dataset, companions: Sequence[Dataset]) -> Iterator[Violation]:
    """What every report of our own has besides: unverified, for research use, who measured, what was found."""
    if not own(sr):
        return
    if text(sr, "VerificationFlag") != "UNVERIFIED":
        yield _broken("sr-verified", "VerificationFlag", "ours are UNVERIFIED")
    texts = [text(item, "TextValue") for _, item, _ in walk(sr) if text(item, "ValueType") == "TEXT"]
    if not any(RESEARCH_USE.lower() in words.lower() for words in texts):
        yield _broken("research-use", "1", f"does not say '{RESEARCH_USE}'")
    if not children(sr, codes.DEVICE_OBSERVER_UID, "UIDREF"):
        yield _broken("sr-observer", "1", "does not name the device that observed")
    yield from own_equipment(sr)
    outcomes = [
        code_of(item, "ConceptCodeSequence")
        for container in children(sr, codes.QUALITATIVE_EVALUATIONS)
        for item in children(container, codes.PROCESSING_SUMMARY)
    ]
    found = any(same(outcome, code) for outcome in outcomes for code in WITH_FINDINGS)
    if not outcomes or found != bool(groups_of(sr)):
        yield _broken("sr-measurements", "1", "what it says was found is not what it holds")
    for where, group in groups_of(sr):
        for name in (codes.FINDING, codes.ALGORITHM_NAME, codes.ALGORITHM_VERSION):
            if not children(group, name):
                yield _broken("sr-finding", where, f"has no {name.meaning}")
        if not children(group, value_type="NUM"):
            yield _broken("sr-finding", where, "has no measurement")


def _time_point(group: Dataset) -> str:
    """Return what a group calls its time point; empty when it says none."""
    named = children(group, SUBJECT_TIME_POINT, "TEXT")
    return text(named[0], "TextValue") if named else ""


def _name(item: Dataset) -> str:
    name = name_of(item)
    return "an item without a name" if name is None else name.meaning or name.value


def _broken(rule: str, where: str, sentence: str) -> Violation:
    return Violation(rule=rule, where=where, sentence=sentence)


SR_RULES: Final[tuple[Rule, ...]] = (
    sr_root,
    sr_relationships,
    sr_tracking,
    sr_regions,
    sr_units,
    sr_evidence,
    sr_own,
)
