"""A whole process that does what dcmqi's itkimage2segimage does: DICOM folder and label map to a SEG.

python benchmarks/seg_process.py FOLDER LABELS OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import SimpleITK
from lesions import NOW, PROVENANCE, identified
from scipy import ndimage

from plugins.contract import Mask
from store.dicom.seg import encode_seg
from store.dicom.series import read_study


def main() -> None:
    folder, labels_path, out = map(Path, sys.argv[1:4])
    read = read_study(folder.iterdir())
    volume = read.study.volumes[0]
    image = SimpleITK.ReadImage(str(labels_path))
    labels = SimpleITK.GetArrayViewFromImage(image)
    k, r, c = (int(n) for n in labels.shape)
    found = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        voxels = np.asarray(labels[box] == number)
        mask = Mask(shape=(k, r, c), origin=tuple(s.start for s in box), voxels=voxels)
        found.append(identified(number, mask, volume.series_instance_uid, ()))
    seg = encode_seg(found, volume, read.headers, PROVENANCE, 801, NOW)
    seg.save_as(out, enforce_file_format=True)


if __name__ == "__main__":
    main()
