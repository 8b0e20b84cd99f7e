from __future__ import annotations

import numpy as np
import pytest
from shapes import grid

from plugins import codes
from plugins.contours import Contours
from plugins.contract import Drawn, Flag, Mask, Patient, Study, Volume, parted
from plugins.edges import doubts_of_edge
from plugins.pet_lesion import PetLesion

SHAPE, SPACING = (12, 20, 20), (3.0, 2.0, 2.0)


def box(first: int, last: int) -> Mask:
    voxels = np.zeros(SHAPE, dtype=np.bool_)
    voxels[first : last + 1, 8:13, 8:13] = True
    return Mask.from_full(voxels)


def study(volume: Volume, *drawn: Drawn) -> Study:
    return Study(
        study_instance_uid="1.2.1",
        patient=Patient(patient_id="P"),
        study_date=None,
        volumes=(volume,),
        drawn=drawn,
    )


def edges(flags: tuple[Flag, ...]) -> list[str]:
    return [flag.sentence for flag in flags if flag.code == "reaches-image-edge"]


@pytest.mark.parametrize(
    ("first", "last", "sides"), [(0, 4, ["first slice"]), (7, 11, ["last slice"]), (3, 7, [])]
)
def test_a_drawn_lesion_and_one_on_pet_tell_that_they_reach_the_edge(
    first: int, last: int, sides: list[str]
) -> None:
    mask = box(first, last)
    ct, pet = grid(SHAPE, SPACING), grid(SHAPE, SPACING, role="pet_suv")
    pet.array[mask.box] = 8.0
    words = [f"it reaches the edge of the images ({side}), beyond which it may go on" for side in sides]
    region = Drawn(
        label="GTV-1",
        mask=mask,
        series_instance_uid=ct.series_instance_uid,
        source="RTSTRUCT",
        source_sop_instance_uid="1.2.9",
        number=1,
    )
    (drawn,) = parted(Contours().run(study(ct, region)))[0]
    found = [one for one in parted(PetLesion().run(study(pet)))[0] if one.type == codes.LESION]
    expected = [f"{one}; do not take its size as it is" for one in words]
    assert edges(drawn.flags) == edges(found[0].flags) == edges(doubts_of_edge(mask, ct)) == expected


def test_an_organ_that_goes_on_beyond_the_images_is_no_doubt() -> None:
    ct = grid(SHAPE, SPACING)
    organ = Drawn(
        label="Lung_L",
        mask=box(0, 11),
        series_instance_uid=ct.series_instance_uid,
        source="RTSTRUCT",
        source_sop_instance_uid="1.2.9",
        number=1,
        interpreted_type="ORGAN",
    )
    assert edges(parted(Contours().run(study(ct, organ)))[0][0].flags) == []
