"""The steps that `pipeline.py` compares: what is made for them, our side, and the peer's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import dcmqi
import numpy as np
import SimpleITK
from lesions import NOW, PROVENANCE, balls, identified
from numpy.typing import NDArray
from pipeline import Step, share_of, times_faster
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless
from scan import SIZE, make_pixels, write_scan
from scipy import ndimage

from plugins.contract import Finding, Mask
from plugins.measure.components import components
from plugins.measure.lesion import measure_lesion
from store.dicom.seg import Identified, encode_seg
from store.dicom.series import ReadStudy, read_study
from store.dicom.sr import Report, encode_planar, encode_volumetric

CODECS = {
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
    "RLE": RLELossless,
    "JPEG lossless": JPEGLosslessSV1,
    "JPEG baseline": JPEGBaseline8Bit,
}


class Bench:
    """What the steps share, made when it is first asked for."""

    def __init__(self, scratch: Path, *, quick: bool) -> None:
        self.scratch = scratch
        self.slices = 60 if quick else 500
        self.compressed = 12 if quick else 120
        self.findings = 20 if quick else 200
        self.rows = 2_000 if quick else 100_000

    @cached_property
    def pixels(self) -> NDArray[np.int16]:
        return make_pixels(self.slices)

    @cached_property
    def scan(self) -> list[Path]:
        return write_scan(self.scratch / "scan", self.pixels)

    @cached_property
    def read(self) -> ReadStudy:
        return read_study(self.scan)


def read_steps(bench: Bench) -> Iterator[Step]:
    """Yield the reading of uncompressed slices."""
    yield _reading(bench, "uncompressed", bench.scan, 5.0)


def codec_steps(bench: Bench) -> Iterator[Step]:
    """Yield the reading of compressed slices."""
    for name, syntax in CODECS.items():
        folder = bench.scratch / name.replace(" ", "-")
        yield _reading(bench, name, write_scan(folder, bench.pixels[: bench.compressed], syntax), 1.0)


def bring_memory(octets: int) -> None:
    """Touch as much fresh memory, and free it.

    The host takes back what a virtual machine leaves free for a second, and gives it again page by page, which takes
    several times as long as reading: whoever comes first would pay for it.
    """
    np.ones(octets, dtype=np.uint8)


def _reading(bench: Bench, name: str, paths: list[Path], target: float) -> Step:
    def ours() -> object:
        (volume,) = read_study(paths).study.volumes
        return volume

    def execute(names: Sequence[str]) -> object:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(names)
        reader.SetOutputPixelType(SimpleITK.sitkFloat32)
        image = reader.Execute()
        return image, SimpleITK.GetArrayViewFromImage(image)

    def sorted_by_position() -> object:
        return execute(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(paths[0].parent)))

    return Step(
        name=f"{len(paths)} slices, {name}, to a float32 volume",
        target=f">= {target:g}x SimpleITK",
        sides={
            "nadir read_study (headers judged, geometry, padding, rescale)": ours,
            "SimpleITK ImageSeriesReader, files given in order": lambda: execute([str(p) for p in paths]),
            "SimpleITK with GetGDCMSeriesFileNames": sorted_by_position,
        },
        ratio=times_faster,
        is_met=lambda ratio: ratio >= target,
        note=f"{sum(p.stat().st_size for p in paths) / 1e6:.0f} MB in files; memory is brought in before each run",
        before=lambda: bring_memory(5 * len(paths) * SIZE * SIZE),
    )


def seg_steps(bench: Bench) -> Iterator[Step]:
    """Yield the writing of a SEG with five segments, in this process and as whole processes."""
    read, folder = bench.read, bench.scan[0].parent
    volume = read.study.volumes[0]
    labels = _five_columns(bench.slices)
    found = [identified(n, Mask.from_full(labels == n), volume.series_instance_uid, ()) for n in range(1, 6)]
    label_map = bench.scratch / "labels.nrrd"
    image = SimpleITK.GetImageFromArray(labels)
    image.SetSpacing([float(s) for s in volume.spacing_mm[::-1]])
    image.SetOrigin(volume.slice_positions[0])
    SimpleITK.WriteImage(image, str(label_map), True)
    metadata = dcmqi.to_file(dcmqi.seg_metadata(5), bench.scratch / "seg.json")
    own, whole, theirs = (bench.scratch / f"{name}-seg.dcm" for name in ("own", "whole", "dcmqi"))

    def encode(given: ReadStudy) -> None:
        _save(encode_seg(found, volume, given.headers, PROVENANCE, 801, NOW), own)

    def child() -> None:
        dcmqi.run(sys.executable, Path(__file__).with_name("seg_process.py"), folder, label_map, whole)

    program = dcmqi.program("itkimage2segimage") or sys.exit("dcmqi is not installed")
    sides: dict[str, tuple[Path, Callable[[], object]]] = {
        "nadir: read_study, encode_seg, save (masks in memory)": (
            own,
            lambda: encode(read_study(bench.scan)),
        ),
        "dcmqi itkimage2segimage (whole process: DICOM, label map, SEG)": (
            theirs,
            lambda: dcmqi.write_seg(program, label_map, folder, metadata, theirs),
        ),
        "nadir: encode_seg, save alone": (own, lambda: encode(read)),
        "nadir as a whole process: start, DICOM, label map, SEG": (whole, child),
    }
    yield Step(
        name=f"SEG {SIZE}x{SIZE}x{bench.slices}, 5 segments",
        target="<= 1.1x dcmqi, <= its size",
        sides={name: work for name, (_, work) in sides.items()},
        ratio=share_of,
        is_met=lambda ratio: ratio <= 1.1 and dcmqi.size(own) <= dcmqi.size(theirs),
        sizes=lambda: {name: dcmqi.size(path) for name, (path, _) in sides.items()},
        note="both are BINARY, uncompressed, without empty frames",
    )


def _five_columns(slices: int) -> NDArray[np.uint8]:
    """Return a label map with five ellipsoids side by side that reach through nearly all slices."""
    k, r, c = np.ogrid[:slices, :SIZE, :SIZE]
    labels = np.zeros((slices, SIZE, SIZE), dtype=np.uint8)
    for n in range(1, 6):
        inside = ((k - slices / 2) / (slices * 0.47)) ** 2 + ((r - 256) / (80 - 8 * n)) ** 2
        labels[inside + ((c - 90 * n + 20) / 40) ** 2 <= 1] = n
    return labels


def sr_steps(bench: Bench) -> Iterator[Step]:
    """Yield the writing of reports with 200 findings: of the peer's three numbers each, and of all of ours."""
    volume = bench.read.study.volumes[0]
    _, masks = balls(bench.findings, bench.slices)
    full = [
        identified(n, mask, volume.series_instance_uid, measure_lesion(mask, volume))
        for n, mask in enumerate(masks, start=1)
    ]
    three = [replace(one, finding=_three(one.finding)) for one in full]
    seg = encode_seg(full, volume, bench.read.headers, PROVENANCE, 801, NOW)
    seg_path = bench.scratch / "context" / "seg.dcm"
    seg_path.parent.mkdir()
    _save(seg, seg_path)
    values = [tuple(m.value for m in one.finding.measurements) for one in three]
    series = volume.series_instance_uid
    told = dcmqi.sr_metadata(bench.scan, seg_path, str(seg.SOPInstanceUID), series, values)
    metadata = dcmqi.to_file(told, bench.scratch / "sr.json")
    bare = dcmqi.to_file({**told, "imageLibrary": []}, bench.scratch / "sr-without-library.json")
    program = dcmqi.program("tid1500writer") or sys.exit("dcmqi is not installed")
    theirs, folder = bench.scratch / "dcmqi-sr.dcm", bench.scan[0].parent
    peers: dict[str, Callable[[], object]] = {
        "dcmqi tid1500writer with image library (whole process)": lambda: dcmqi.write_sr(
            program, folder, seg_path, metadata, theirs
        ),
        "dcmqi without image library": lambda: dcmqi.write_sr(
            program, None, seg_path, bare, theirs.with_suffix(".bare")
        ),
    }
    yield _reports(bench, "3 numbers each, as the peer", three, seg, peers, theirs)
    yield _reports(bench, "8 numbers each, as the node writes (the peer 3)", full, seg, peers, theirs)


def _three(finding: Finding) -> Finding:
    """Return a finding with the three numbers that the peer is given."""
    kept = tuple(finding.measurement(name) for name in ("hu_mean", "hu_sd", "hu_max"))
    return replace(finding, measurements=kept)


def _reports(
    bench: Bench,
    words: str,
    findings: Sequence[Identified],
    seg: Dataset,
    peers: Mapping[str, Callable[[], object]],
    theirs: Path,
) -> Step:
    read, volumes = bench.read, bench.read.study.volumes
    own = {kind: bench.scratch / f"{kind}.dcm" for kind in ("volumetric", "planar")}

    def volumetric() -> None:
        report = Report(headers=read.headers, provenance=PROVENANCE, series_number=802, written_at=NOW)
        _save(encode_volumetric(findings, volumes, [seg], report), own["volumetric"])

    def planar() -> None:
        report = Report(headers=read.headers, provenance=PROVENANCE, series_number=803, written_at=NOW)
        _save(encode_planar(findings, volumes, [seg], report), own["planar"])

    peer, bare = peers
    kinds = {"nadir: volumetric (TID 1411)": volumetric, "nadir: planar (TID 1410)": planar}
    return Step(
        name=f"SR, {len(findings)} findings, {words}, evidence of {bench.slices} slices",
        target="<= 1.5x dcmqi",
        sides={
            "nadir: both reports, build and save": lambda: (volumetric(), planar()),
            peer: peers[peer],
            **kinds,
            bare: peers[bare],
        },
        ratio=share_of,
        is_met=lambda ratio: ratio <= 1.5,
        sizes=lambda: {
            peer: dcmqi.size(theirs),
            **dict(zip(kinds, (dcmqi.size(path) for path in own.values()), strict=True)),
        },
        note="ours is in-process with the study read, as in the node; the peer starts, reads headers and its JSON",
    )


def _save(dataset: Dataset, path: Path) -> None:
    dataset.save_as(path, enforce_file_format=True)


def component_steps(bench: Bench) -> Iterator[Step]:
    """Yield the labelling of 100 lesions, and their measuring beside it."""
    volume = bench.read.study.volumes[0]
    count = 20 if bench.slices < 200 else 100
    whole, _ = balls(count, bench.slices)
    found = components(whole, 6)
    if len(found) != ndimage.label(whole)[1]:
        sys.exit("the components are not those of scipy")
    size = f"{SIZE}x{SIZE}x{bench.slices}"
    yield Step(
        name=f"connected components of {count} lesions in {size}",
        target=">= 8x scipy.ndimage.label",
        sides={
            "nadir components (cropped masks)": lambda: components(whole, 6),
            "scipy.ndimage.label (label image)": lambda: ndimage.label(whole),
        },
        ratio=times_faster,
        is_met=lambda ratio: ratio >= 8,
        note="6-connected on both sides; counts are equal",
    )
    yield Step(
        name=f"measuring {count} lesions in {size}",
        target="<= labelling",
        sides={
            "nadir measure_lesion (axes, volume, five statistics)": lambda: [
                measure_lesion(m, volume) for m in found
            ],
            "scipy.ndimage.label": lambda: ndimage.label(whole),
            "nadir components": lambda: components(whole, 6),
        },
        ratio=share_of,
        is_met=lambda ratio: ratio <= 1,
    )


def sql_steps(bench: Bench) -> Iterator[Step]:
    """Yield the writing of measurements into SQLite."""
    from sql_rows import Ledger

    ledger = Ledger(bench.scratch / "sql", measurements=bench.rows)
    yield Step(
        name=f"{bench.rows} measurements into SQLite",
        target=">= 0.25x raw executemany",
        sides={
            f"nadir store.findings.save ({ledger.findings} findings with them)": ledger.save,
            "sqlite3 executemany (the measurements alone)": ledger.executemany,
        },
        ratio=times_faster,
        is_met=lambda ratio: ratio >= 0.25,
        before=ledger.empty,
        note="both: the same tables and indexes, WAL, synchronous=FULL, one transaction, into empty tables",
    )


STEPS: dict[str, Callable[[Bench], Iterator[Step]]] = {
    "read": read_steps,
    "codecs": codec_steps,
    "seg": seg_steps,
    "sr": sr_steps,
    "components": component_steps,
    "sql": sql_steps,
}
