"""A SEG as a viewer writes it when somebody has edited one: new object, new equipment, the same Tracking UIDs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import highdicom
import numpy as np
from dicom_series import derived
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes

Masks = NDArray[np.bool_]
"""(K, R, C, segments)."""


def masks_of(seg: Dataset, images: Sequence[Dataset]) -> Masks:
    """Return the segments of a SEG on the grid of its source images, slices in the order of `images`."""
    read = highdicom.seg.Segmentation.from_dataset(seg)
    return np.asarray(
        read.get_pixels_by_source_instance(
            [image.SOPInstanceUID for image in images], assert_missing_frames_are_empty=True
        ),
        dtype=np.bool_,
    )


def edited(
    seg: Dataset,
    images: Sequence[Dataset],
    edit: Callable[[Masks], Masks],
    *,
    author: str = "Grey^Meredith",
    times: int = 1,
    without: Sequence[int] = (),
) -> Segmentation:
    """Return the SEG as a viewer stores it after `edit` changed its masks; `times` tells several edits apart.

    Segments `without` (their numbers) were deleted in the viewer.
    """
    masks = edit(masks_of(seg, images))
    kept = [old for old in seg.SegmentSequence if old.SegmentNumber not in without]
    masks = masks[..., [old.SegmentNumber - 1 for old in kept]]
    segments = [
        SegmentDescription(
            segment_number=number,
            segment_label=old.SegmentLabel,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=highdicom.sr.CodedConcept.from_dataset(
                old.SegmentedPropertyTypeCodeSequence[0]
            ),
            algorithm_type=SegmentAlgorithmTypeValues.MANUAL,
            tracking_uid=old.TrackingUID,
            tracking_id=old.TrackingID,
        )
        for number, old in enumerate(kept, start=1)
    ]
    made = Segmentation(
        source_images=list(images),
        pixel_array=masks.astype(np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=derived("edited series", seg.SOPInstanceUID, times),
        series_number=900 + times,
        sop_instance_uid=derived("edited", seg.SOPInstanceUID, times),
        instance_number=1,
        manufacturer="OHIF",
        manufacturer_model_name="Viewer",
        software_versions="3.13.2",
        device_serial_number="0",
        content_creator_name=author,
    )
    made.SeriesDescription = "edited"
    return made


__all__ = ["edited", "masks_of"]
