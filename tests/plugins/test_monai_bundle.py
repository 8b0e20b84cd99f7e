from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from small_bundle import LEVEL_HU, write_bundle
from thorax import ct_volume, study_of

from models.tree import tree_sha256
from plugins import codes
from plugins.contract import Finding, Plugin, Volume
from plugins.errors import Refused
from plugins.label_map import affine_ras, on_grid
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


@pytest.mark.sec
@pytest.mark.parametrize("how", ["another", "changed", "added", "link"])
def test_model_of_which_nobody_vouches_for_a_byte_runs_nothing(tmp_path: Path, how: str) -> None:
    canary = tmp_path / "canary"
    evil = {"_target_": "builtins.open", "file": str(canary), "mode": "w"}
    folder = write_bundle(tmp_path / "bundle", imports=[f"$open({str(canary)!r}, 'w')"], network_def=evil)
    trusted = tree_sha256(folder)
    if how == "changed":
        path = folder / "models" / "model.pt"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    elif how == "added":
        (folder / "configs" / "more.py").write_text("")
    elif how == "link":
        os.symlink("/etc/passwd", folder / "docs")
    with pytest.raises(Refused) as refused:
        bundle_of(folder, "0" * 64 if how == "another" else trusted)
    assert ("link" if how == "link" else "not-trusted") in str(refused.value)
    assert not canary.exists()


@pytest.mark.sec
def test_model_changed_after_it_was_opened_runs_nothing(tmp_path: Path) -> None:
    folder, canary = write_bundle(tmp_path / "bundle"), tmp_path / "canary"
    plugin = bundle_of(folder)
    assert plugin.model is not None
    inference = folder / "configs" / "inference.json"
    plain = json.loads(inference.read_text())
    inference.write_text(json.dumps({**plain, "imports": [f"$open({str(canary)!r}, 'w')"]}))
    with pytest.raises(Refused, match="is not, or did not stay, what is vouched for") as refused:
        plugin.run(study_of(oblique()))
    assert refused.value.code == "changed-model"
    assert f"with the sha256 {tree_sha256(folder)}" in refused.value.sentence
    assert not canary.exists()


@pytest.mark.sec
@pytest.mark.parametrize("stops", [False, True])
def test_model_changed_while_it_runs_leaves_no_result(tmp_path: Path, stops: bool) -> None:
    folder, other = tmp_path / "bundle", tmp_path / "other.pt"
    after = "1 / 0" if stops else "x"
    swap = f"$lambda x: (__import__('os').replace({str(other)!r}, {str(folder / 'models/model.pt')!r}), {after})[1]"
    write_bundle(folder, inferer="$lambda x, network: network(x)")
    inference = folder / "configs" / "inference.json"
    plain = json.loads(inference.read_text())
    plain["preprocessing"]["transforms"].append({"_target_": "Lambdad", "keys": "image", "func": swap})
    inference.write_text(json.dumps(plain))
    plugin = bundle_of(folder)
    other.write_bytes(b"other weights")
    with pytest.raises(Refused) as refused:
        plugin.run(study_of(oblique()))
    assert refused.value.code == "changed-model"
    assert not other.exists()


@pytest.mark.sec
def test_model_whose_weights_are_a_program_is_refused_though_the_folder_is_vouched_for(
    tmp_path: Path,
) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (open, (str(tmp_path / "canary"), "w"))

    folder = write_bundle(tmp_path / "bundle")
    (folder / "models" / "model.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(Refused) as refusal:
        bundle_of(folder).run(study_of(oblique()))
    assert not (tmp_path / "canary").exists()
    assert refusal.value.code == "unreadable-weights"
    assert refusal.value.sentence == (
        "models/model.pt holds more than weights, or none (UnpicklingError): save the state_dict of its network as "
        "models/model.pt"
    )


@pytest.mark.parametrize(
    ("broken", "code"),
    [("no-metadata", "no-bundle"), ("two-channels", "bundle-channels"), ("no-labels", "bad-metadata")],
)
def test_a_folder_that_is_no_such_bundle_says_what_is_missing(tmp_path: Path, broken: str, code: str) -> None:
    folder = write_bundle(tmp_path / "bundle")
    path = folder / "configs" / "metadata.json"
    plain = json.loads(path.read_text())
    if broken == "two-channels":
        plain["network_data_format"]["inputs"]["image"]["num_channels"] = 2
    elif broken == "no-labels":
        del plain["network_data_format"]["outputs"]["pred"]["channel_def"]
    path.write_text(json.dumps(plain))
    if broken == "no-metadata":
        path.unlink()
    with pytest.raises(Refused, match=code):
        bundle_of(folder)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (
            "json",
            r"bad-inference: configs/inference.json cannot be read \(Expecting value.*fetch the bundle again",
        ),
        (
            "no-inference",
            r"no-bundle: configs/inference.json \(or .yaml\), which says how the network is built",
        ),
        (
            "no-inferer",
            r"bundle-sections: configs/inference.json has no inferer; a bundle is run by network_def",
        ),
        ("list", "bad-inference: configs/inference.json is no table"),
        ("yaml", r"bad-inference: configs/inference.yaml cannot be read \(while parsing"),
        (
            "torchscript",
            r"no-bundle: models/model.pt is not there; models/model.ts is TorchScript, .* not read here",
        ),
        ("no-weights", "no-bundle: models/model.pt, the weights of the network, is not there"),
    ],
)
def test_what_is_wrong_with_the_files_of_a_bundle_is_told_when_it_is_opened(
    tmp_path: Path, broken: str, sentence: str
) -> None:
    folder = write_bundle(tmp_path / "bundle")
    inference, weights = folder / "configs" / "inference.json", folder / "models" / "model.pt"
    if broken in ("no-inference", "yaml"):
        inference.unlink()
    if broken == "yaml":
        inference.with_suffix(".yaml").write_text("network_def: {")
    elif broken == "no-inferer":
        kept = {k: v for k, v in json.loads(inference.read_text()).items() if k != "inferer"}
        inference.write_text(json.dumps(kept))
    elif broken in ("json", "list"):
        inference.write_text("[]" if broken == "list" else '{"network_def": ')
    elif broken == "torchscript":
        weights.rename(weights.with_suffix(".ts"))
    elif broken == "no-weights":
        weights.unlink()
    with pytest.raises(Refused, match=sentence):
        bundle_of(folder)


@pytest.mark.parametrize(
    ("of", "key", "value", "sentence"),
    [
        ((), "version", None, "bad-metadata: configs/metadata.json has no 'version', which"),
        (
            OUTPUT[:2],
            "box",
            {"type": "object"},
            r"outputs' in configs/metadata.json has 'pred', 'box'; only a bundle",
        ),
        (OUTPUT, "channel_def", ["background", "tumour"], "is no table of numbers and their names"),
        (OUTPUT, "channel_def", {"first": "tumour"}, "is no table of numbers and their names"),
        (OUTPUT[:1], "inputs", {}, "has no 'network_data_format.inputs.image.num_channels'"),
    ],
)
def test_what_the_metadata_of_a_bundle_lack_is_named_with_its_place(
    tmp_path: Path, of: tuple[str, ...], key: str, value: object, sentence: str
) -> None:
    with pytest.raises(Refused, match=sentence):
        bundle_of(says(write_bundle(tmp_path / "bundle"), key, value, of=of))


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


def test_a_role_that_no_series_can_have_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    with pytest.raises(Refused, match="role is one of ct, pet_suv, mr, not 'CT'") as refused:
        bundle_of(folder, role="CT")
    assert refused.value.code == "bad-plugin-settings"


@pytest.mark.parametrize(
    ("modality", "role", "sentence"),
    [
        (
            "MR",
            "ct",
            "is for the modality 'MR', and its role here is 'ct': write role = \"mr\" in its settings",
        ),
        (
            "CT",
            "mr",
            "is for the modality 'CT', and its role here is 'mr': write role = \"ct\" in its settings",
        ),
        ("US", "ct", "is for the modality 'US', and its role here is 'ct': no role gives it such images"),
    ],
)
def test_a_bundle_for_another_modality_than_its_role_is_refused(
    tmp_path: Path, modality: str, role: str, sentence: str
) -> None:
    folder = says(write_bundle(tmp_path / "bundle"), "modality", modality, of=IMAGE)
    with pytest.raises(Refused, match=f"other-modality: the bundle {sentence}"):
        bundle_of(folder, role=role)


@pytest.mark.parametrize(
    ("modality", "role"),
    [
        ("CT", "ct"),
        ("MRI", "mr"),
        ("PET", "pet_suv"),
        ("CT, MR", "mr"),
        (["CT"], "ct"),
        ("n/a", "mr"),
        (None, "ct"),
    ],
)
def test_a_bundle_for_the_modality_of_its_role_or_for_none_is_opened(
    tmp_path: Path, modality: str | list[str] | None, role: str
) -> None:
    folder = says(write_bundle(tmp_path / "bundle"), "modality", modality, of=IMAGE)
    assert bundle_of(folder, role=role).version == "1.2.3"


@pytest.mark.parametrize("named", [{"0": "background"}, {"0": " Background "}, {}])
def test_a_bundle_that_names_nothing_to_be_found_is_refused_when_it_is_opened(
    tmp_path: Path, named: dict[str, str]
) -> None:
    with pytest.raises(Refused, match=r"bad-metadata: .* names no label but the background"):
        bundle_of(says(write_bundle(tmp_path / "bundle"), "channel_def", named))


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
