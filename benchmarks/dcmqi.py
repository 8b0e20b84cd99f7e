"""The peer for SEG and SR: dcmqi's programs, and the input that they need to say the same as Nadir."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TISSUE = {"CodeValue": "49755003", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Morphologically Altered"}
NODULE = {"CodeValue": "27925004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Nodule"}
LUNG = {"CodeValue": "39607008", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Lung"}
HU = {"CodeValue": "[hnsf'U]", "CodingSchemeDesignator": "UCUM", "CodeMeaning": "Hounsfield unit"}
ATTENUATION = {
    "CodeValue": "112031",
    "CodingSchemeDesignator": "DCM",
    "CodeMeaning": "Attenuation Coefficient",
}
DERIVATIONS = (("373098007", "Mean"), ("386136009", "Standard deviation"), ("56851009", "Maximum"))


def program(name: str) -> str | None:
    """Return the path of one of dcmqi's programs; None when it is not installed."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


def run(*command: str | Path) -> None:
    """Run a program to its end; exit with what it said when it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed: {(done.stdout + done.stderr)[-1500:]}")


def write_seg(program_path: str, labels: Path, images: Path, metadata: Path, out: Path) -> None:
    """Write a SEG with itkimage2segimage."""
    run(
        program_path,
        *("--inputImageList", labels, "--inputDICOMDirectory", images),
        *("--inputMetadata", metadata, "--outputDICOM", out),
    )


def seg_metadata(segments: int) -> dict[str, Any]:
    """Return what itkimage2segimage is told of the segments 1 to n of one label map."""
    return {
        "ContentCreatorName": "Nadir^Algorithm",
        "ClinicalTrialSeriesID": "1",
        "ClinicalTrialTimePointID": "1",
        "SeriesDescription": "Segmentation",
        "SeriesNumber": "801",
        "InstanceNumber": "1",
        "segmentAttributes": [
            [
                {
                    "labelID": n,
                    "SegmentDescription": f"Finding {n}",
                    "SegmentLabel": f"Finding {n}",
                    "SegmentAlgorithmType": "AUTOMATIC",
                    "SegmentAlgorithmName": "nodule model",
                    "SegmentedPropertyCategoryCodeSequence": TISSUE,
                    "SegmentedPropertyTypeCodeSequence": NODULE,
                    "AnatomicRegionSequence": LUNG,
                    "recommendedDisplayRGBValue": [230, 25, 75],
                }
                for n in range(1, segments + 1)
            ]
        ],
    }


def write_sr(program_path: str, images: Path | None, seg: Path, metadata: Path, out: Path) -> None:
    """Write a report with tid1500writer; with `images` it has an image library of them."""
    library = ("--inputImageLibraryDirectory", images) if images else ()
    run(
        program_path,
        *library,
        *("--inputCompositeContextDirectory", seg.parent, "--inputMetadata", metadata, "--outputDICOM", out),
    )


def sr_metadata(
    images: Sequence[Path],
    seg: Path,
    seg_uid: str,
    series_uid: str,
    values: Sequence[tuple[float, float, float]],
) -> dict[str, Any]:
    """Return what tid1500writer is told: for every finding its segment and three measurements."""
    return {
        "SeriesDescription": "Measurements",
        "SeriesNumber": "802",
        "InstanceNumber": "1",
        "compositeContext": [seg.name],
        "imageLibrary": [image.name for image in images],
        "observerContext": {
            "ObserverType": "DEVICE",
            "DeviceObserverUID": "2.25.1",
            "DeviceObserverName": "Nadir",
            "DeviceObserverManufacturer": "Nadir",
            "DeviceObserverModelName": "nodule model",
        },
        "VerificationFlag": "UNVERIFIED",
        "CompletionFlag": "COMPLETE",
        "activitySession": "1",
        "timePoint": "1",
        "Measurements": [_group(n, three, seg_uid, series_uid) for n, three in enumerate(values, start=1)],
    }


def _group(number: int, three: tuple[float, float, float], seg_uid: str, series_uid: str) -> dict[str, Any]:
    """Return one finding with its segment and three measurements."""
    return {
        "TrackingIdentifier": f"Finding {number}",
        "ReferencedSegment": number,
        "SourceSeriesForImageSegmentation": series_uid,
        "segmentationSOPInstanceUID": seg_uid,
        "Finding": NODULE,
        "FindingSite": LUNG,
        "measurementAlgorithmIdentification": {"AlgorithmName": "nodule model", "AlgorithmVersion": "3"},
        "measurementItems": [
            {
                "value": f"{value:.6g}",
                "quantity": ATTENUATION,
                "units": HU,
                "derivationModifier": {
                    "CodeValue": code,
                    "CodingSchemeDesignator": "SCT",
                    "CodeMeaning": meaning,
                },
            }
            for value, (code, meaning) in zip(three, DERIVATIONS, strict=True)
        ],
    }


def to_file(value: dict[str, Any], path: Path) -> Path:
    """Write a value as JSON and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def size(path: Path) -> int:
    """Return the size of a file in bytes."""
    return os.stat(path).st_size
