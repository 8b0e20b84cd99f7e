"""One measurement group of a report for each finding (TID 1411 by its segment, TID 1410 by a line on a slice)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CoordinatesForMeasurement,
    FindingSite,
    ImageRegion,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    ReferencedSegment,
    SourceImageForRegion,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from highdicom.sr import Measurement as MeasurementItem
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from plugins import codes
from plugins.contract import Finding, Measurement, Volume
from store.dicom.drawing import Line, axis_line, drawn_slice, region
from store.dicom.equipment import MANUFACTURER, one_line, parameters
from store.dicom.frames import frame_number
from store.dicom.seg import Identified
from store.provenance import Provenance


def identify_algorithm(provenance: Provenance) -> AlgorithmIdentification:
    """Return name, version and parameters of the algorithm (TID 4019); one serves all groups of a report."""
    return AlgorithmIdentification(
        name=provenance.model_name,
        version=provenance.model_version,
        manufacturer=MANUFACTURER,
        parameters=[f"{name}={value}" for name, value in parameters(provenance).items()],
    )


def volumetric_group(
    identified: Identified, seg: Dataset, algorithm: AlgorithmIdentification
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Return the TID 1411 group of a finding: its segment in `seg`, the source series, what was measured."""
    segment = ReferencedSegment(
        sop_class_uid=seg.SOPClassUID,
        sop_instance_uid=seg.SOPInstanceUID,
        segment_number=identified.segment_number,
        source_series=SourceSeriesForSegmentation(identified.finding.series_instance_uid),
    )
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=segment,
        measurements=[number_item(m) for m in measurements_of(identified.finding)],
        **_who_and_what(identified, algorithm),
    )


def planar_group(
    identified: Identified, volume: Volume, headers: Mapping[str, Dataset], algorithm: AlgorithmIdentification
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """Return the TID 1410 group of a finding: its axes (or outline) drawn on one source image, what was measured.

    Long and short axis carry their own two ends besides. Meanings of concepts have the derivation added
    (`SUVbw (Maximum)`), because viewers show nothing else of it.
    """
    finding = identified.finding
    k = drawn_slice(finding)
    image = source_image(volume, headers, k)
    line, closed = region(finding, volume)
    group = PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_region=ImageRegion("POLYLINE", np.round(line, 3), image),
        geometric_purpose=codes.OUTLINE if closed else None,
        measurements=[number_item(m, spoken=True) for m in measurements_of(finding)],
        **_who_and_what(identified, algorithm),
    )
    numbers = [item for item in group[0].ContentSequence if item.ValueType == "NUM"]
    for item, measurement in zip(numbers, measurements_of(finding), strict=True):
        if measurement.end_points_mm is not None and measurement.slice_index == k:
            draw(item, axis_line(measurement, volume), image)
    return group


def _who_and_what(identified: Identified, algorithm: AlgorithmIdentification) -> dict[str, object]:
    finding = identified.finding
    site = None if finding.site is None else FindingSite(finding.site, finding.laterality)
    return {
        "tracking_identifier": TrackingIdentifier(
            uid=identified.tracking_uid, identifier=identified.tracking_identifier
        ),
        "finding_type": finding.type,
        "finding_category": finding.category,
        "finding_sites": None if site is None else [site],
        "algorithm_id": algorithm,
    }


def measurements_of(finding: Finding) -> list[Measurement]:
    """Return what is reported of a finding: its measurements, and its confidence as the last of them."""
    if finding.confidence is None:
        return list(finding.measurements)
    confidence = Measurement(
        name="confidence",
        concept=codes.CERTAINTY_OF_FINDING,
        value=100 * finding.confidence,
        unit=codes.PERCENT,
        method="the algorithm's own estimate",
    )
    return [*finding.measurements, confidence]


def number_item(measurement: Measurement, *, spoken: bool = False) -> MeasurementItem:
    """Return a NUM with its unit, derivation and method; the full words of a long method are a comment under it."""
    concept, derivation = measurement.concept, measurement.derivation
    if spoken and derivation is not None:
        concept = concept._replace(meaning=one_line(f"{concept.meaning} ({derivation.meaning})"))
    method = method_code(measurement)
    number = MeasurementItem(
        name=concept,
        value=sixteen(measurement.value),
        unit=measurement.unit,
        derivation=derivation,
        method=method,
    )
    content = number[0].ContentSequence
    if method.meaning != measurement.method:
        content.append(TextContentItem(codes.COMMENT, measurement.method, "HAS PROPERTIES"))
    if measurement.uncertainty is not None:
        content.append(TextContentItem(codes.UNCERTAINTY, uncertainty_words(measurement), "HAS PROPERTIES"))
    return number


def uncertainty_words(measurement: Measurement) -> str:
    """Return how uncertain a number is, in words."""
    return f"one standard deviation: {measurement.uncertainty:.6g} {measurement.unit.value}"


def method_code(measurement: Measurement) -> Code:
    """Return the method as a code: the standard one for volumes, else a private one that belongs to its words."""
    if measurement.concept == codes.VOLUME:
        return codes.VOXEL_SUM_METHOD
    digest = hashlib.sha256(measurement.method.encode()).hexdigest()
    return Code(f"M{digest[:12]}", codes.PRIVATE_SCHEME, one_line(measurement.method))


def sixteen(value: float) -> float:
    """Return the value with as many digits as a DS of 16 characters holds; ten are more than any measurement has."""
    return float(f"{value:.10g}")


def source_image(volume: Volume, headers: Mapping[str, Dataset], k: int) -> SourceImageForRegion:
    """Return the item that names the image, and the frame of it, that is slice k."""
    uid = volume.sop_instance_uids[k]
    number = frame_number(volume, k)
    return SourceImageForRegion(
        headers[uid].get("SOPClassUID", volume.sop_class_uid), uid, None if number is None else [number]
    )


def draw(item: Dataset, line: Line, image: SourceImageForRegion) -> None:
    """Put the two ends of a length under its number (TID 300, TID 320)."""
    ends = CoordinatesForMeasurement("POLYLINE", np.round(line, 3), image, purpose=codes.PATH)
    item.ContentSequence.append(ends)
