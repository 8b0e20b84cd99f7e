"""A NIfTI whose axes are a little off right angles: straightened about its middle, or refused."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from plugins.errors import Refused
from store.dicom.nifti_image import NiftiImage, read_ct

SHAPE = (600, 10, 40)


def sheared(folder: Path, shear: float) -> NiftiImage:
    """Return a CT of 600 columns of 0.7 mm whose rows lean by a shear."""
    affine = np.diag([0.7, 0.8, 2.0, 1.0])
    affine[1, 0] = 0.7 * shear
    affine[:3, 3] = (10.0, 20.0, 30.0)
    values = np.linspace(-900, 300, int(np.prod(SHAPE))).reshape(SHAPE).astype(np.int16)
    made = nibabel.Nifti1Image(values, affine)
    made.set_sform(affine, code=1)
    made.set_qform(None, code=0)
    nibabel.save(made, folder / "ct.nii")
    return read_ct(folder / "ct.nii")


def test_no_voxel_lies_a_tenth_of_a_voxel_from_where_the_file_has_it(tmp_path: Path) -> None:
    image = sheared(tmp_path, 4e-4)
    middle = [(n - 1) / 2 for n in SHAPE]
    for index in [(0, 0, 0), (599, 0, 0), (599, 9, 39), middle]:
        i, j, k = index
        ras = (image.affine @ [i, j, k, 1.0])[:3]
        column, row, plane = 599 - i, 9 - j, k
        found = image.volume.to_mm((plane, row, column))
        off_mm = float(np.linalg.norm(np.array(found) - ras * [-1, -1, 1]))
        assert off_mm <= (1e-4 if index is middle else 0.07), index
    assert np.abs(np.triu(_cosines(image), 1)).max() < 1e-12


@pytest.mark.parametrize("shear", [9e-4, 2e-3])
def test_a_shear_that_moves_a_corner_by_more_than_a_tenth_of_a_voxel_is_refused(
    tmp_path: Path, shear: float
) -> None:
    with pytest.raises(Refused, match=r"sheared: the axes of ct\.nii are not at right angles"):
        sheared(tmp_path, shear)


def _cosines(image: NiftiImage) -> np.ndarray:
    axes = image.volume.geometry.affine[:3, :3]
    return axes.T @ axes
