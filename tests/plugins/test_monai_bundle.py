"""MONAI bundles as analyses: what they draw lies where it is, and what they stop with is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from opened_bundle import BALLS, bundle_of, oblique, says
from small_bundle import LEVEL_HU, write_bundle
from thorax import ct_volume, study_of

from models.tree import tree_sha256
from plugins import codes
from plugins.contract import Finding, Plugin, Volume
from plugins.errors import Refused
from plugins.label_map import affine_ras, on_grid
from plugins.registry import load_plugins


def findings(plugin: Plugin, volume: Volume) -> list[Finding]:
    return [one for one in plugin.run(study_of(volume)) if isinstance(one, Finding)]


def test_a_bundle_is_an_analysis_under_the_name_that_the_settings_give_it(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    plugin = bundle_of(folder)
    assert (plugin.name, plugin.version, plugin.title) == ("tumours", "1.2.3", "tumours: Threshold 1.2.3")
    assert plugin.model is not None
    assert (plugin.model.kind, plugin.model.weights_sha256) == ("learned", tree_sha256(folder))
    assert "tumours" not in {one.name for one in load_plugins()}


def test_what_a_bundle_draws_lies_voxel_for_voxel_where_it_is_on_an_oblique_series(tmp_path: Path) -> None:
    volume = oblique()
    large, small = findings(bundle_of(write_bundle(tmp_path / "bundle")), volume)
    assert np.array_equal(large.mask.full() | small.mask.full(), volume.array > LEVEL_HU)
    assert [one.label for one in (large, small)] == ["lung tumour 1", "lung tumour 2"]
    assert large.type == codes.NEOPLASM
    assert large.site == codes.LUNG
    assert large.automatic
    where = volume.centroid_mm(large.mask)
    assert np.allclose(where, volume.to_mm(BALLS[0][0]), atol=0.01)
    assert large.measurement("long_axis").value == pytest.approx(12.0, abs=1.5)
    assert list(tmp_path.rglob("eval")) == []


def test_a_bundle_with_a_grid_of_its_own_brings_its_answer_back(tmp_path: Path) -> None:
    volume = oblique()
    drawn = findings(bundle_of(write_bundle(tmp_path / "bundle", pixdim=(1.0, 1.0, 1.0))), volume)
    mask = np.logical_or.reduce([one.mask.full() for one in drawn])
    truth = volume.array > LEVEL_HU
    assert 2 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth)) > 0.9


def test_a_bundle_that_does_not_bring_its_answer_back_is_refused(tmp_path: Path) -> None:
    discrete = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    changes = {"postprocessing": {"_target_": "Compose", "transforms": [discrete]}}
    plugin = bundle_of(write_bundle(tmp_path / "bundle", pixdim=(2.0, 2.0, 2.0), **changes))
    with pytest.raises(Refused) as refused:
        plugin.run(study_of(oblique()))
    assert refused.value.code == "other-grid"


def test_a_bundle_that_leaves_rows_and_columns_exchanged_is_refused_though_the_far_corner_fits(
    tmp_path: Path,
) -> None:
    hu = np.full((12, 32, 32), -850.0, dtype=np.float32)
    hu[3:9, 8:16, 10:18] = 40.0
    affine = np.array([[0, 0, 1, -20.0], [0, 1, 0, -20], [2, 0, 0, 100], [0, 0, 0, 1]])
    turned = {"_target_": "Orientationd", "keys": "image", "axcodes": "PLS", "labels": None}
    steps = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        turned,
        {"_target_": "EnsureTyped", "keys": "image"},
    ]
    discrete = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    changes = {
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "postprocessing": {"_target_": "Compose", "transforms": [discrete]},
    }
    plugin = bundle_of(write_bundle(tmp_path / "bundle", **changes))
    with pytest.raises(Refused) as refused:
        plugin.run(study_of(ct_volume(hu, affine)))
    assert refused.value.code == "other-grid"


def test_a_bundle_that_loses_where_the_image_lies_is_told_by_how_many_mm(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    inference = folder / "configs" / "inference.json"
    plain = json.loads(inference.read_text())
    steps = plain["preprocessing"]["transforms"]
    plain["preprocessing"]["transforms"] = [*steps[:2], {**steps[-1], "track_meta": False}]
    discrete = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    plain["postprocessing"]["transforms"] = [discrete]
    inference.write_text(json.dumps(plain))
    volume = oblique()
    corners = np.array([[*corner, 1.0] for corner in np.ndindex(2, 2, 2)]) * [56, 48, 40, 1]
    away_mm = np.linalg.norm(corners @ (affine_ras(volume) - np.eye(4)).T, axis=1).max()
    with pytest.raises(Refused, match=r"other-grid: .* another origin or direction") as refused:
        bundle_of(folder).run(study_of(volume))
    assert "(56, 48, 40) voxels, as the image has, but" in refused.value.sentence
    assert f"up to {away_mm:.2f} mm from it; it has to keep the affine of the image" in refused.value.sentence


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (
            {"_target_": "EnsureTyped", "track_meta": False},
            "has no affine, .* keep track_meta, and bring it back with Invertd",
        ),
        ({"_target_": "ToNumpyd"}, "has no affine, .* keep track_meta, and bring it back with Invertd"),
        (
            {"_target_": "SqueezeDimd", "dim": 0},
            r"has the shape \(56, 48, 40\) and has to be \(channel, x, y, z\)",
        ),
        (
            {"_target_": "CastToTyped", "dtype": "$torch.bfloat16"},
            "is of torch.bfloat16, .* cast it to float32",
        ),
        (
            {"_target_": "CastToTyped", "dtype": "$torch.complex64"},
            "is of torch.complex64, .* cast it to float32",
        ),
    ],
)
def test_a_bundle_whose_answer_is_no_picture_in_the_patient_is_refused_with_what_to_do(
    tmp_path: Path, last: dict[str, object], says: str
) -> None:
    folder = write_bundle(tmp_path / "bundle")
    inference = folder / "configs" / "inference.json"
    plain = json.loads(inference.read_text())
    plain["postprocessing"]["transforms"].append({"keys": "pred", **last})
    inference.write_text(json.dumps(plain))
    with pytest.raises(Refused, match=f"what the bundle's postprocessing gives {says}") as refused:
        bundle_of(folder).run(study_of(oblique()))
    assert refused.value.code == "bundle-failed"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_picture_is_refused_when_the_corner_at_the_end_of_one_axis_lies_elsewhere(axis: int) -> None:
    volume = oblique()
    labels = np.ones(volume.array.shape[::-1], dtype=np.int32)
    affine = affine_ras(volume)
    assert on_grid(labels, affine, volume).shape == volume.array.shape
    step_mm = np.zeros(3)
    step_mm[axis] = 0.1
    moved = affine.copy()  # both changes cancel out at the far corner
    moved[:3, axis] += step_mm / labels.shape[axis]
    moved[:3, (axis + 1) % 3] -= step_mm / labels.shape[(axis + 1) % 3]
    with pytest.raises(Refused, match="other-grid"):
        on_grid(labels, moved, volume)


def test_what_is_drawn_under_a_number_without_a_name_is_refused_and_not_left_out(tmp_path: Path) -> None:
    named = {"0": "background", "2": "lung tumour"}
    plugin = bundle_of(says(write_bundle(tmp_path / "bundle"), "channel_def", named))
    volume = oblique()
    with pytest.raises(Refused, match="number 1, which its labels do not name; it names 2") as refused:
        plugin.run(study_of(volume))
    assert refused.value.code == "unnamed-label"
    assert f"{np.count_nonzero(volume.array > LEVEL_HU)} voxels" in refused.value.sentence


def test_0_in_a_picture_of_labels_is_no_finding_whatever_it_is_called(tmp_path: Path) -> None:
    named = {"0": "air", "1": "lung tumour"}
    plugin = bundle_of(says(write_bundle(tmp_path / "bundle"), "channel_def", named))
    assert [one.label for one in findings(plugin, oblique())] == ["lung tumour 1", "lung tumour 2"]


def test_thresholded_channels_that_overlap_are_each_drawn_whole(tmp_path: Path) -> None:
    import torch

    folder = write_bundle(tmp_path / "bundle")
    inference = folder / "configs" / "inference.json"
    plain = json.loads(inference.read_text())
    plain["postprocessing"]["transforms"] = [
        {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
        plain["postprocessing"]["transforms"][1],
        {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
    ]
    inference.write_text(json.dumps(plain))
    says(folder, "channel_def", {"0": "lung tumour", "1": "necrosis"})
    network = torch.nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        network.weight[:] = 1.0
        network.bias[:] = torch.tensor([-LEVEL_HU, -20.0])
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    volume = oblique()
    k, r, c = BALLS[1][0]
    volume.array[k, r, c] = 0.0
    tumour, small, dead, little = findings(bundle_of(folder), volume)
    assert np.array_equal(tumour.mask.full() | small.mask.full(), volume.array > LEVEL_HU)
    assert np.array_equal(dead.mask.full() | little.mask.full(), volume.array > 20.0)
    assert [one.label for one in (tumour, small, dead, little)] == [
        "lung tumour 1",
        "lung tumour 2",
        "necrosis 1",
        "necrosis 2",
    ]
    assert len({one.key for one in (tumour, small, dead, little)}) == 4


def test_a_label_map_whose_names_leave_nothing_but_0_or_put_the_background_elsewhere_is_refused(
    tmp_path: Path,
) -> None:
    alone = says(write_bundle(tmp_path / "alone"), "channel_def", {"0": "lung tumour"})
    with pytest.raises(Refused, match=r"names 0 alone \('lung tumour'\), which is nothing"):
        bundle_of(alone)
    turned = says(write_bundle(tmp_path / "turned"), "channel_def", {"0": "lung tumour", "1": "background"})
    with pytest.raises(Refused, match="calls 1 the background, which has to be 0"):
        bundle_of(turned)


def with_code(folder: Path, level_hu: float, **more: str) -> Path:
    """Write a bundle whose network is a class in its own `scripts/net.py`, a threshold, with other files beside it."""
    import torch

    (write_bundle(folder, network_def={"_target_": "scripts.net.Net"}) / "scripts").mkdir()
    (folder / "scripts" / "net.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Conv3d):\n    def __init__(self):\n        super().__init__(1, 2, 1)\n\n"
        f"    def forward(self, x):\n        return torch.cat([torch.zeros_like(x), x - {level_hu}], dim=1)\n"
    )
    for name, text in more.items():
        (folder / "scripts" / f"{name}.py").write_text(text)
    torch.save(torch.nn.Conv3d(1, 2, 1).state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.mark.parametrize("more", [{"__init__": ""}, {}], ids=["a package", "a folder"])
def test_bundles_with_code_of_their_own_each_run_theirs_and_again_under_the_same_hash(
    tmp_path: Path, more: dict[str, str]
) -> None:
    volume = oblique()
    paths, wrote = list(sys.path), sys.dont_write_bytecode
    volume.array[2:6, 2:6, 2:6] = -500.0
    low = bundle_of(with_code(tmp_path / "low", -600.0, **more))
    high = bundle_of(with_code(tmp_path / "high", LEVEL_HU, **more))
    for plugin, level_hu in ((low, -600.0), (high, LEVEL_HU), (low, -600.0)):
        drawn = np.logical_or.reduce([one.mask.full() for one in findings(plugin, volume)])
        assert np.array_equal(drawn, volume.array > level_hu)
    assert list(tmp_path.rglob("__pycache__")) == []
    assert (sys.path, sys.dont_write_bytecode) == (paths, wrote)
    assert not {"scripts", "scripts.net"} & set(sys.modules)


def test_what_a_bundle_put_in_place_is_taken_away_when_its_code_stops(tmp_path: Path) -> None:
    paths, wrote = list(sys.path), sys.dont_write_bytecode
    plugin = bundle_of(
        with_code(tmp_path / "bundle", LEVEL_HU, __init__="raise ValueError('no such device')")
    )
    with pytest.raises(Refused, match=r"bundle-failed: .*no such device"):
        plugin.run(study_of(oblique()))
    assert (sys.path, sys.dont_write_bytecode) == (paths, wrote)
    assert not {"scripts", "scripts.net"} & set(sys.modules)


def test_a_bundle_whose_transform_stops_says_what_stopped_it(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    inference = folder / "configs" / "inference.json"
    inference.write_text(inference.read_text().replace('"keys": "image"', '"keys": "img"'))
    with pytest.raises(Refused, match="bundle-failed") as refused:
        bundle_of(folder).run(study_of(oblique()))
    assert "KeyError: 'Key `img` of transform `LoadImaged` was missing" in refused.value.sentence
    assert " at 0x" not in refused.value.sentence


@pytest.mark.parametrize("where", ["weights", "post-processing"])
def test_a_bundle_whose_answer_is_nan_is_refused_and_not_told_as_nothing_found(
    tmp_path: Path, where: str
) -> None:
    import torch

    folder = write_bundle(tmp_path / "bundle")
    if where == "weights":
        network = torch.nn.Conv3d(1, 2, 1)
        with torch.no_grad():
            network.weight[:] = float("nan")
        torch.save(network.state_dict(), folder / "models" / "model.pt")
    else:
        inference = folder / "configs" / "inference.json"
        plain = json.loads(inference.read_text())
        spoil = {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x * float('nan')"}
        plain["postprocessing"]["transforms"].insert(-1, spoil)
        inference.write_text(json.dumps(plain))
    with pytest.raises(Refused, match="the network gave NaN or infinity") as refused:
        bundle_of(folder).run(study_of(oblique()))
    assert refused.value.code == "bundle-failed"


def test_a_bundle_that_stops_says_why_and_an_adapter_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    wrong = {"_target_": "SlidingWindowInferer", "roi_size": [48, 48, 48], "overlap": 7.0}
    plugin = bundle_of(write_bundle(tmp_path / "bundle", inferer=wrong))
    with pytest.raises(Refused, match="bundle-failed"):
        plugin.run(study_of(oblique()))
    with pytest.raises(Refused, match="unknown-adapter"):
        load_plugins({"mine": {"adapter": "keras"}}, ["mine"])
