"""A plugin that does as it is told, installed like any third party's: a distribution in a folder on PYTHONPATH."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

METADATA = "Metadata-Version: 2.1\nName: trouble\nVersion: 1.0\n"
ENTRY_POINTS = "[nadir.plugins]\ntrouble = trouble:Trouble\nsecond = trouble:Second\n"
SOURCE = """
import ctypes, json, os, subprocess, sys, time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from models.card import ModelCard
from plugins import codes
from plugins.contract import Finding, Flag, Mask
from plugins.errors import Absent, Refused
from plugins.measure.lesion import measure_lesion


def box(volume, key="box", tracking_uid=None, columns=7):
    k, r, c = volume.array.shape
    mask = Mask(shape=(k, r, c), origin=(1, 4, 4), voxels=np.ones((k - 2, 5, columns), dtype=bool))
    return Finding(key=key, label=f"Box {key}", series_instance_uid=volume.series_instance_uid, mask=mask,
                   category=codes.MORPHOLOGICALLY_ABNORMAL, type=codes.LESION,
                   measurements=measure_lesion(mask, volume), tracking_uid=tracking_uid)


@dataclass(frozen=True)
class Trouble:
    mode: str = "box"
    journal: str = ""
    gate: str = ""
    name: ClassVar[str] = "trouble"
    version: ClassVar[str] = os.environ.get("TROUBLE_VERSION", "1")
    title: ClassVar[str] = "Trouble"

    @property
    def model(self):
        if self.mode != "learned":
            return None
        return ModelCard(name="net", version="1", kind="learned", intended_use="-")

    def accepts(self, study):
        if self.mode == "exits_when_asked":
            sys.exit(0)
        return bool(study.by_role("ct"))

    def run(self, study):
        if self.journal:
            with open(self.journal, "a") as journal:
                journal.write(f"{self.name} {os.getpid()}\\n")
        return getattr(self, self.mode)(study, study.by_role("ct")[0])

    def box(self, study, volume):
        return (box(volume),)

    def several(self, study, volume):
        return tuple(box(volume, key, columns=n) for key, n in (("small", 4), ("large", 9), ("medium", 7)))

    def learned(self, study, volume):
        return (box(volume),)

    def nothing(self, study, volume):
        return ()

    def unsure(self, study, volume):
        return (replace(box(volume), uncertainties={"entropy": 0.4321, "volume_cv": float("inf")}),)

    def segfault(self, study, volume):
        print("Patient", study.patient.patient_id, flush=True)
        ctypes.string_at(0)

    def segfault_once(self, study, volume):
        if Path(self.journal).read_text().count(self.name) < 2:
            ctypes.string_at(0)
        return (box(volume),)

    def leaves_one_behind(self, study, volume):
        with open(self.journal, "a") as journal:
            journal.write(f"left {subprocess.Popen(['sleep', '3600']).pid}\\n")
        return (box(volume),)

    def leaves_one_and_crashes(self, study, volume):
        self.leaves_one_behind(study, volume)
        ctypes.string_at(0)

    def leaves_one_and_hangs(self, study, volume):
        self.leaves_one_behind(study, volume)
        time.sleep(3600)

    def memory(self, study, volume):
        kept = []
        while True:
            kept.append(np.empty(64 << 20, dtype=np.uint8))

    def hang(self, study, volume):
        time.sleep(3600)

    def fault(self, study, volume):
        raise ValueError(f"cannot make sense of {study.patient.patient_id}")

    def exits(self, study, volume):
        sys.exit("no licence for this study")

    def interrupts(self, study, volume):
        raise KeyboardInterrupt

    def in_a_library(self, study, volume):
        return json.loads("{" + study.patient.patient_id)

    def deep(self, study, volume):
        return self.deep(study, volume)

    def refuse(self, study, volume):
        raise Refused("not-today", "this plugin refuses everything")

    def absent(self, study, volume):
        raise Absent("no-lungs", "no series shows lungs")

    def doubt(self, study, volume):
        return (box(volume), Flag(code="odd", sentence="something is odd", plugin="trouble"))

    def only_doubt(self, study, volume):
        return (Flag(code="odd", sentence="something is odd", plugin="trouble"),)

    def scribble(self, study, volume):
        volume.array[:] = 0
        return (box(volume),)

    def transposed(self, study, volume):
        found = box(volume)
        mask = Mask.from_full(np.ascontiguousarray(found.mask.full().transpose(2, 1, 0)))
        return (replace(found, mask=mask),)

    def unmeasured(self, study, volume):
        return (replace(box(volume), measurements=()),)

    def forgetful(self, study, volume):
        box(volume)

    def bare(self, study, volume):
        return box(volume)

    def wordy(self, study, volume):
        return (box(volume), "nothing else")

    def elsewhere(self, study, volume):
        return (replace(box(volume), series_instance_uid="1.2.3"),)

    def too_sure(self, study, volume):
        return (replace(box(volume), confidence=87.0),)

    def numpys(self, study, volume):
        found = box(volume)
        first = found.measurements[0]
        own = replace(first, name="own", concept=codes.MALIGNANT_RATING, unit=codes.NO_UNITS, value=np.float32(1.25),
                      uncertainty=np.int64(7), end_points_mm=np.asarray(first.end_points_mm, dtype=np.float32),
                      slice_index=np.int64(2))
        return (replace(found, measurements=(*found.measurements, own), confidence=np.float32(0.5)),)

    def not_a_number(self, study, volume):
        first, *others = box(volume).measurements
        return (replace(box(volume), measurements=(replace(first, uncertainty=np.float32("nan")), *others)),)

    def beyond(self, study, volume):
        first, *others = box(volume).measurements
        odd = replace(box(volume), measurements=(replace(first, slice_index=99), *others))
        return (box(volume, "first"), odd)

    def listed(self, study, volume):
        found = box(volume)
        mask = Mask(shape=list(found.mask.shape), origin=list(found.mask.origin), voxels=found.mask.voxels)
        return (replace(found, mask=mask),)

    def long_scheme(self, study, volume):
        return (replace(box(volume), type=codes.LESION._replace(scheme_designator="MY-VERY-LONG-CODING-SCHEME")),)

    def whole_array(self, study, volume):
        return (replace(box(volume), mask=box(volume).mask.full()),)

    def not_plain(self, study, volume):
        return (replace(box(volume), automatic=np.bool_(True)),)

    def wait(self, study, volume):
        while not os.path.exists(self.gate):
            time.sleep(0.05)
        return (box(volume),)

    def same_key(self, study, volume):
        return (box(volume), box(volume))

    def shared_uid(self, study, volume):
        return (box(volume, "a", "1.2.3.4"), box(volume, "b", "1.2.3.4"))

    def illegal_uid(self, study, volume):
        return (box(volume, "a", "not a uid!"),)

    def markup(self, study, volume):
        label = '<b>bold</b> & <img src="file:///etc/passwd"/> <a href="javascript:x">x</a>'
        return (replace(box(volume), label=label),)

    def odd_label(self, study, volume):
        return (replace(box(volume), label="tab\\there\\nand there"),)

    def no_voxels(self, study, volume):
        empty = Mask(shape=volume.array.shape, origin=(0, 0, 0), voxels=np.zeros((0, 0, 0), dtype=bool))
        return (replace(box(volume), mask=empty),)

    def wrong_number(self, study, volume):
        found = box(volume)
        numbers = tuple(replace(m, value=m.value * 2) for m in found.measurements)
        return (replace(found, measurements=numbers),)

    def secrets(self, study, volume):
        names = sorted(n for n in os.environ if n.startswith("NADIR_"))
        raise Refused("environment", ",".join(names) or "nothing")


class Second(Trouble):
    name: ClassVar[str] = "second"
"""


def install(folder: Path) -> Path:
    """Write the distribution into a folder that is to be on PYTHONPATH, and return it."""
    information = folder / "trouble-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(METADATA)
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "trouble.py").write_text(SOURCE)
    return folder


def environment(folder: Path, name: str = "trouble", **settings: Any) -> dict[str, str]:
    """Return the environment of a node that runs only this plugin, with these settings."""
    return {
        "PYTHONPATH": str(folder),
        "NADIR_ENABLED": name,
        "NADIR_PLUGINS": json.dumps({name: settings}),
    }
