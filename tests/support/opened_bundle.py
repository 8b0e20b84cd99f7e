"""Bundles as a site opens them: what their metadata say, and an oblique series to run them on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models.tree import tree_sha256
from plugins.contract import Plugin, Volume
from plugins.registry import load_plugins

OUTPUT = ("network_data_format", "outputs", "pred")
IMAGE = ("network_data_format", "inputs", "image")
BALLS = (((14, 20, 16), 6.0), ((30, 30, 40), 4.0))


def oblique(spacing_mm: tuple[float, float, float] = (2.0, 1.0, 1.0)) -> Volume:
    """Return two balls of 40 HU in -850 HU, on a grid that is turned against the patient."""
    import highdicom
    from pydicom.sr.coding import Code

    shape = (40, 48, 56)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) * spacing_mm
    hu = np.full(shape, -850.0, dtype=np.float32)
    for middle, radius_mm in BALLS:
        hu[np.linalg.norm(grid - np.asarray(middle) * spacing_mm, axis=-1) <= radius_mm] = 40.0
    a, b = np.radians(20.0), np.radians(-10.0)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * np.asarray(spacing_mm)
    affine[:3, 3] = (-31.0, 17.0, 230.0)
    geometry = highdicom.VolumeGeometry(affine, shape, "PATIENT", frame_of_reference_uid="1.2.3.4")
    return Volume(
        array=hu,
        geometry=geometry,
        role="ct",
        unit=Code("[hnsf'U]", "UCUM", "HU"),
        modality="CT",
        series_instance_uid="1.2.3",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uids=tuple(f"1.2.3.{k}" for k in range(shape[0])),
        slice_positions=tuple(tuple(map(float, affine[:3, 3] + k * affine[:3, 0])) for k in range(shape[0])),  # type: ignore[misc]
    )


def says(folder: Path, key: str, value: object, *, of: tuple[str, ...] = OUTPUT) -> Path:
    """Let the metadata of a bundle say something else, by default of its output; None takes the key away."""
    path = folder / "configs" / "metadata.json"
    plain = json.loads(path.read_text())
    part = plain
    for name in of:
        part = part[name]
    part[key] = value
    if value is None:
        part.pop(key)
    path.write_text(json.dumps(plain))
    return folder


def bundle_of(folder: Path, trusted: str | None = None, **settings: str) -> Plugin:
    values = {"adapter": "monai_bundle", "folder": str(folder), "trusted": trusted or tree_sha256(folder)}
    values.update(settings)
    (plugin,) = load_plugins({"tumours": values}, ["tumours"])
    return plugin
