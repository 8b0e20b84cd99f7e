from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.bundle_channels import kind_of, layers_of
from models.files import BadModel


def said(**arguments: object) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": [{"_target_": "monai.transforms.AsDiscreted", **arguments}]}


def answer(*channels: list[float]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(channels, dtype=np.float32)[:, :, None, None]


SIGMOID = {"_target_": "Activationsd", "sigmoid": True}


@pytest.mark.parametrize(
    ("postprocessing", "kind"),
    [
        (said(argmax=True), "exclusive"),
        (said(argmax=[True], to_onehot=[3], threshold=[None]), "exclusive"),
        ([{"_target_": "ActivationsD", "softmax": True}, *said(threshold=0.5)["transforms"]], "exclusive"),
        ([SIGMOID, *said(threshold=0.5)["transforms"]], "own"),
        (said(threshold=0.0), "own"),
        (said(argmax=False, threshold=[0.5]), "own"),
        ([SIGMOID], "unsaid"),
        (said(threshold="@level"), "unsaid"),
        (said(argmax=True, _disabled_=True), "unsaid"),
        ([{"_target_": "ThresholdIntensityd", "threshold": 0.5}], "unsaid"),
        ("%other.json#postprocessing", "unsaid"),
    ],
)
def test_a_post_processing_says_whether_channels_exclude_each_other(
    postprocessing: object, kind: str
) -> None:
    assert kind_of(postprocessing) == kind


def test_thresholded_channels_are_masks_that_may_overlap_and_the_background_is_none() -> None:
    both = answer([1, 1, 0], [0, 1, 0])
    layers = layers_of(both, {0: "lung tumour", 1: "necrosis"}, False, "own")
    assert [picture.ravel().tolist() for picture in layers.pictures] == [[1, 1, 0], [0, 2, 0]]
    assert layers.names == {1: "lung tumour", 2: "necrosis"}
    layers = layers_of(answer([0, 1, 1], [1, 1, 0]), {1: "lung tumour"}, True, "own")
    assert [picture.ravel().tolist() for picture in layers.pictures] == [[2, 2, 0]]
    assert layers.names == {2: "lung tumour"}


def test_one_thresholded_channel_is_a_mask_where_it_alone_is_named_and_else_a_picture() -> None:
    one = answer([0, 1, 1])
    (mask,) = layers_of(one, {0: "lung tumour"}, False, "own").pictures
    assert mask.ravel().tolist() == [0, 1, 1]
    for labels, background in (({1: "lung tumour"}, True), ({0: "air", 1: "lung tumour"}, False)):
        layers = layers_of(one, labels, background, "own")
        assert [picture.ravel().tolist() for picture in layers.pictures] == [[0, 1, 1]]
        assert layers.names == {1: "lung tumour"}


def test_channels_that_exclude_each_other_are_one_picture_in_which_0_is_nothing() -> None:
    logits = answer([-1, -3, 2], [-2, -1, 1])
    layers = layers_of(logits, {0: "air", 1: "lung tumour"}, False, "exclusive")
    assert [picture.ravel().tolist() for picture in layers.pictures] == [[0, 1, 0]]
    assert layers.names == {1: "lung tumour"}
    (same,) = layers_of(logits, {1: "lung tumour"}, True, "unsaid").pictures
    assert np.array_equal(same, layers.pictures[0])


def test_channels_of_which_nobody_can_tell_what_they_are_are_refused() -> None:
    two = answer([1, 1], [0, 1])
    with pytest.raises(BadModel, match="gives 2 channels, and neither its post-processing"):
        layers_of(two, {0: "lung tumour", 1: "necrosis"}, False, "unsaid")
    with pytest.raises(BadModel, match="names 1; it has to name each of 0 to 1"):
        layers_of(two, {1: "necrosis"}, False, "own")
