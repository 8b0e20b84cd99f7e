"""A node with a small PET/CT champion, and masks of people on PET as `training.collect` writes them."""

from __future__ import annotations

import zlib
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ball_sarcomas import PET_MM, TINY, write_sarcomas
from dicom_series import make_series
from edited_seg import edited
from labelled_node import LabelledNode, Visited
from numpy.typing import NDArray
from pydicom import dcmread
from shapes import grid
from small_node import SmallNode

from models.petct import NAME
from models.shipped import Model
from plugins.contract import Mask, Volume
from plugins.pet_lesion import PetLesion
from store import registry
from store.database import Database
from store.model_folders import stage
from store.objects import ObjectStore
from store.patient_key import patient_key
from training.curate.case_files import write_case
from training.experiment import read_experiments
from training.fit import fit
from training.frozen import Gathered
from training.manifest import FOLDS, Case, DataManifest
from training.petct_task import petct_task
from training.ship import About, ship
from training.sts import sts_manifest

Array = NDArray[np.bool_]
ABOUT = About(
    name=NAME,
    version="tiny",
    licence="Apache-2.0",
    training_data="Seven balls.",
    input="SUV.",
    intended_use="Tests.",
)
DECIDED = {
    "level": {"all": 0.5, "folds": {"0": 0.5}},
    "mirrors": 1,
    "usual_log_hazard": {"0": 0.0},
    "reported": False,
}
CT_MM = (4.0, 2.5, 2.5)
PET_SPACING_MM, MIDDLE_MM, RADIUS_MM = (4.0, 4.0, 4.0), (40.0, 40.0, 40.0), 12.0
BQ_PER_SUV = 2.5198e8 / 70000
"""As `dicom_series` has the tracer."""


def petct_champion(folder: Path, steps: int) -> Path:
    """Train one small network on seven balls for so many steps; return its folder as a model."""
    balls, run = write_sarcomas(folder / "sts"), folder / "run"
    config = folder / "tiny.yaml"
    config.write_text(TINY.replace("STEPS", str(steps)) + "  outcomes: 2\n")
    (experiment,) = read_experiments(config)
    fit(experiment, 0, petct_task(experiment, 0, balls), run / "fold0")
    ship(run, sts_manifest(balls), folder / "model", ABOUT, DECIDED, {})
    return folder / "model"


def let_count(home: Path, database: Database, champion: Path) -> None:
    """Let this champion count on a node."""
    staged = stage(home, NAME, champion)
    with database.transaction() as session:
        now = database.now()
        judged = registry.Judged(
            champion_sha256=registry.counts_now(session, NAME), is_proposed=True, because="-",
            data_sha256="-", judged_sha256="-", figures={},
        )  # fmt: skip
        version = registry.register(session, staged, judged, now=now)
        registry.approve(session, home, NAME, version.number, author="test", now=now)


def uptake(radius_mm: float, suv: float, reach_mm: float = 40.0) -> tuple[Volume, Volume, Mask]:
    """Return a PET with a ball in the middle, the CT of the same place, and the ball."""
    found = []
    for role, spacing_mm, inside, outside in (("pet_suv", PET_MM, suv, 0.5), ("ct", CT_MM, 50.0, -100.0)):
        half = [int((radius_mm + reach_mm) / s) for s in spacing_mm]
        start_mm = (-half[2] * spacing_mm[2], -half[1] * spacing_mm[1], -half[0] * spacing_mm[0])
        empty = grid(
            (2 * half[0] + 1, 2 * half[1] + 1, 2 * half[2] + 1), spacing_mm, start_mm=start_mm, role=role
        )
        far = np.linalg.norm(
            empty.to_mm(np.stack(np.indices(empty.array.shape), axis=-1).astype(float)), axis=-1
        )
        ball = far <= radius_mm
        found.append((replace(empty, array=np.where(ball, inside, outside).astype(np.float32)), ball))
    (pet, ball), (ct, _) = found
    return pet, ct, Mask.from_full(ball)


def write_uptake(folder: Path, name: str, patients: tuple[str, ...], first: int = 0) -> DataManifest:
    """Write one ball of each patient, every other one with a CT."""
    cases = [_case(folder, patient, number + first) for number, patient in enumerate(patients)]
    return DataManifest(name=name, cases=tuple(sorted(cases, key=lambda case: case.case_id)))


def _case(folder: Path, patient: str, number: int) -> Case:
    key = patient_key(patient)
    pet, ct, mask = uptake(16.0 + 2.0 * (number % 8), 4.0 + number % 5)
    more, less = _own(patient)
    pet = replace(pet, array=pet.array + np.float32(0.001 * more + 0.0001 * less))
    ct = replace(ct, array=np.where(ct.array > 0, ct.array + more, ct.array - less).astype(np.float32))
    return write_case(
        folder,
        pet,
        {"mask": mask},
        case_id=key,
        patient_id=key,
        fold=int(key, 16) % FOLDS,
        tags={"origin": "corrected"},
        image_role="pet",
        margin_mm=40.0,
        beside={"ct": ct} if number % 2 else None,
    )


def _own(patient: str) -> tuple[int, int]:
    """Return two small numbers, by which no two patients have the same images."""
    return divmod(zlib.crc32(patient.encode()) % 1000, 10)


def gather(learners: tuple[str, ...], judges: tuple[str, ...]) -> Any:
    """Return what writes these persons' labels."""

    def write(folder: Path, _: Model) -> Gathered:
        return Gathered(
            learn=write_uptake(folder / "learn", "labels", learners),
            judge=write_uptake(folder / "judge", "hold-out", judges, 3),
        )

    return write


def uptake_at(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], radius_mm: float) -> Array:
    """Return the ball in the middle of every visit."""
    places = np.moveaxis(np.indices(shape), 0, -1) * spacing_mm
    return np.asarray(np.linalg.norm(places - MIDDLE_MM, axis=-1) <= radius_mm)


def uptake_node(home: Path) -> LabelledNode:
    """Return a node without studies."""
    made = SmallNode.make(home)
    objects = ObjectStore(home / "store", sync=False)
    return LabelledNode(home=home, database=made.database, objects=objects)


def visit_uptake(
    node: LabelledNode,
    patient_id: str,
    now: datetime,
    *,
    ct_slices: int = 20,
    radius_mm: float = RADIUS_MM,
    suv: float = 6.0,
) -> Visited:
    """Bring a PET/CT that Nadir finds uptake on, hottest in its middle, which somebody then draws 4 mm wider."""
    shape = (20, 20, 20)
    more, less = _own(patient_id)
    ball = uptake_at(shape, PET_SPACING_MM, radius_mm)
    pet = np.where(ball, suv * BQ_PER_SUV + more, 0.5 * BQ_PER_SUV + less)
    pet[tuple(int(mm / step) for mm, step in zip(MIDDLE_MM, PET_SPACING_MM, strict=True))] *= 1.1
    ct = np.where(uptake_at((ct_slices, 32, 32), CT_MM, radius_mm), 50.0 + more // 5, -100.0 - less)
    with TemporaryDirectory() as name:
        same: dict[str, Any] = {"patient_id": patient_id}
        folder, pt = Path(name), {"modality": "PT", "spacing_mm": PET_SPACING_MM, "prefix": "pet"}
        paths = make_series(folder, pet, **pt, **same)
        images = tuple(dcmread(path) for path in paths)
        for path in make_series(folder, ct, spacing_mm=CT_MM, series_number=2, **same):
            node.take(dcmread(path), now)
    for image in images:
        node.take(image, now)
    study = str(images[0].StudyInstanceUID)
    seg = node.analyse(study, now, PetLesion())
    wider = uptake_at(shape, PET_SPACING_MM, radius_mm + 4.0)
    node.take(edited(seg, images, lambda masks: wider[..., None] | masks), now + timedelta(hours=1))
    return Visited(patient_id=patient_id, study_instance_uid=study, images=images, seg=seg)
