from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import nibabel
import numpy as np
import pytest
import torch
from thorax import ct_volume, study_of

from models.tree import tree_sha256
from plugins.contract import Finding, Plugin
from plugins.errors import Refused
from plugins.registry import load_plugins

INTENSITIES = {
    "max": 100,
    "mean": -400,
    "median": -400,
    "min": -1000,
    "percentile_00_5": -1000,
    "percentile_99_5": 60,
    "std": 400,
}
PLANS: dict[str, Any] = {
    "dataset_name": "Dataset001_Balls",
    "plans_name": "nnUNetPlans",
    "original_median_spacing_after_transp": [2.0, 1.0, 1.0],
    "original_median_shape_after_transp": [24, 32, 40],
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "experiment_planner_used": "ExperimentPlanner",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {"0": INTENSITIES},
}


def configuration() -> dict[str, Any]:
    resample = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16, 32, 32],
        "median_image_size_in_voxels": [24.0, 32.0, 40.0],
        "spacing": [2.0, 1.0, 1.0],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resample,
        "resampling_fn_seg_kwargs": {**resample, "is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resample,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [4, 8],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
                "strides": [[1, 1, 1], [1, 2, 2]],
                "n_conv_per_stage": [1, 1],
                "n_conv_per_stage_decoder": [1],
                "conv_bias": True,
                "norm_op": None,
                "norm_op_kwargs": {},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }


def write_folder(folder: Path) -> Path:
    (folder / "fold_0").mkdir(parents=True)
    labels = {"background": 0, "lung tumour": 1, "liver": 2}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({"name": "Balls", **dataset}))
    (folder / "plans.json").write_text(
        json.dumps({**PLANS, "configurations": {"3d_fullres": configuration()}})
    )
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"")
    return folder


def as_plugin(folder: Path, **settings: str) -> Plugin:
    values = {"adapter": "nnunet", "folder": str(folder), "trusted": tree_sha256(folder), **settings}
    return load_plugins({"balls": values}, ["balls"])[0]


def image() -> np.ndarray[Any, np.dtype[np.float32]]:
    hu = np.random.default_rng(0).normal(-800, 40, (24, 32, 40)).astype(np.float32)
    hu[6:12, 8:20, 10:18] = 40.0
    return hu


AXIAL = np.array([[0.0, 0.0, 1.0, -20.0], [0.0, 1.0, 0.0, -16.0], [2.0, 0.0, 0.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


def drawn(plugin: Plugin, hu: Any, affine: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in plugin.run(study_of(ct_volume(hu, affine))):
        assert isinstance(one, Finding)
        name = one.label.rstrip("0123456789 ")
        found[name] = found.get(name, False) | one.mask.full()
    return found


class Threshold:
    """Stands in for the predictor: names what is dense `lung tumour`, and only in front of the middle of the body."""

    def __init__(self, **options: object) -> None: ...

    used: ClassVar[list[tuple[object, ...]]] = []

    def initialize_from_trained_model_folder(self, folder: str, folds: object, checkpoint: str) -> None:
        assert (Path(folder) / "plans.json").is_file()
        self.used.append((folds, checkpoint))

    def predict_single_npy_array(self, array: Any, properties: dict[str, list[float]]) -> Any:
        assert properties == {"spacing": [2.0, 1.0, 1.0]}
        array = array.copy()
        array[0, :, array.shape[2] // 2 :] = -1000.0
        logits = self.predict_logits_from_preprocessed_data(torch.from_numpy(array))
        return logits.numpy().argmax(axis=0).astype(np.uint8)

    def predict_logits_from_preprocessed_data(self, data: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(data), data + 200.0])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nnunetv2", "nnunetv2.inference", "nnunetv2.inference.predict_from_raw_data"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    module = sys.modules["nnunetv2.inference.predict_from_raw_data"]
    monkeypatch.setattr(module, "nnUNetPredictor", Threshold, raising=False)
    monkeypatch.setattr("plugins.nnunet.version", lambda name: "2.8.1")


@pytest.mark.usefixtures("stand_in")
def test_the_image_is_given_along_the_patient_and_the_answer_comes_back_on_the_series(tmp_path: Path) -> None:
    plugin, hu = as_plugin(write_folder(tmp_path / "model")), image()
    truth = hu > -200
    truth[:, 16:] = False
    assert np.array_equal(drawn(plugin, hu, AXIAL)["lung tumour"], truth)
    # The same body as a coronal series from the back to the front: K is -Y, R is -Z, C is X.
    turned = np.ascontiguousarray(hu.transpose(1, 0, 2)[::-1, ::-1])
    affine = AXIAL[:, [1, 0, 2, 3]] @ np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = AXIAL[:3, :3] @ [23, 31, 0] + AXIAL[:3, 3]
    assert np.array_equal(drawn(plugin, turned, affine)["lung tumour"], truth.transpose(1, 0, 2)[::-1, ::-1])


def with_reader(folder: Path, plans: object, dataset: object = None) -> Path:
    for name, key, reader in (
        ("plans.json", "image_reader_writer", plans),
        ("dataset.json", "overwrite_image_reader_writer", dataset),
    ):
        plain = json.loads((folder / name).read_text())
        plain.pop(key, None)
        (folder / name).write_text(json.dumps(plain if reader is None else {**plain, key: reader}))
    return folder


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("plans", "dataset", "towards"),
    [
        ("SimpleITKIO", None, "LP"),
        ("NibabelIO", None, "LP"),
        ("NibabelIOWithReorient", None, "RA"),
        ("SimpleITKIOWithReorient", None, "RA"),
        ("SimpleITKIO", "NibabelIOWithReorient", "LP"),
        (None, "NibabelIOWithReorient", "RA"),
        (None, "None", "LP"),
        (None, None, "LP"),
    ],
)
def test_the_image_is_given_as_the_reader_gave_those_that_the_network_learned_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plans: str | None,
    dataset: str | None,
    towards: str,
) -> None:
    hu = image()
    stored = nibabel.Nifti1Image(
        hu.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ AXIAL[:, [2, 1, 0, 3]]
    )
    ras = np.asarray(nibabel.as_closest_canonical(stored).dataobj).transpose(2, 1, 0)
    seen: list[Any] = []

    def first_octant(_: object, array: Any, properties: dict[str, list[float]]) -> Any:
        assert properties == {"spacing": [2.0, 1.0, 1.0]}
        seen.append(array[0].copy())
        labels = np.zeros(array.shape[1:], dtype=np.uint8)
        labels[:12, :16, :20] = 1
        return labels

    monkeypatch.setattr(Threshold, "predict_single_npy_array", first_octant)
    plugin = as_plugin(with_reader(write_folder(tmp_path / "model"), plans, dataset))
    found = drawn(plugin, hu, AXIAL)["lung tumour"]
    wanted = np.zeros(hu.shape, dtype=bool)
    if towards == "LP":
        wanted[:12, :16, :20] = True
        assert np.array_equal(seen[0], hu) and plugin.version == "nnunetv2 2.8.1"
    else:
        wanted[:12, 16:, 20:] = True
        assert np.array_equal(seen[0], ras) and plugin.version == "nnunetv2 2.8.1 RAS"
    assert np.array_equal(found, wanted)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("plans", "dataset"), [("NaturalImage2DIO", None), (None, "Tiff3DIO"), (["NibabelIO"], None)]
)
def test_a_network_whose_images_another_reader_read_is_refused_by_its_name(
    tmp_path: Path, plans: object, dataset: object
) -> None:
    folder = with_reader(write_folder(tmp_path / "model"), plans, dataset)
    with pytest.raises(Refused, match="unknown-reader: the network learned from images of the reader") as no:
        as_plugin(folder)
    assert str(plans or dataset) in no.value.sentence
    (folder / "plans.json").write_text("[" * 100_000)
    with pytest.raises(Refused, match=r"bad-metadata: plans.json cannot be read"):
        as_plugin(folder)


def with_labels(folder: Path, labels: object, order: list[int] | None = None) -> Path:
    plain = json.loads((folder / "dataset.json").read_text())
    more = {} if order is None else {"regions_class_order": order}
    (folder / "dataset.json").write_text(json.dumps({**plain, "labels": labels, **more}))
    return folder


KITS = {"background": 0, "kidney": [1, 2, 3], "renal masses": [2, 3], "tumour": 2}


@pytest.mark.usefixtures("stand_in")
def test_a_network_of_regions_draws_each_region_whole_with_those_that_lie_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = np.zeros((24, 32, 40), dtype=np.int16)
    written[4:14, 4:14, 4:14] = 1
    written[6:12, 6:12, 6:12] = 3
    written[8:10, 8:10, 8:10] = 2
    monkeypatch.setattr(Threshold, "predict_single_npy_array", lambda *_: written)
    plugin = as_plugin(with_labels(write_folder(tmp_path / "model"), KITS, [1, 3, 2]))
    found = drawn(plugin, image(), AXIAL)
    assert set(found) == {"kidney", "renal masses", "tumour"}
    for name, volume in (("kidney", written > 0), ("renal masses", written > 1), ("tumour", written == 2)):
        assert np.array_equal(found[name], volume), name
    written[20, 20, 20] = 4
    with pytest.raises(Refused, match="unnamed-label: the model drew 1 voxels under number 4"):
        drawn(plugin, image(), AXIAL)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("order", [None, [1, 3], [3, 1, 2], [2, 3, 1], [1, 2, 2], [1, 3, 4], [2, 3, 2]])
def test_regions_that_cannot_be_told_apart_again_are_refused_when_the_folder_is_opened(
    tmp_path: Path, order: list[int] | None
) -> None:
    folder = with_labels(write_folder(tmp_path / "model"), KITS, order)
    with pytest.raises(Refused, match=r"bad-metadata: .*regions \(kidney, renal masses, tumour\)"):
        as_plugin(folder)


@pytest.mark.usefixtures("stand_in")
def test_regions_that_share_a_part_and_labels_that_are_no_numbers_are_refused_when_the_folder_is_opened(
    tmp_path: Path,
) -> None:
    folder = write_folder(tmp_path / "model")
    with pytest.raises(Refused, match=r"bad-metadata: .*regions \(lesion, rim\)"):
        as_plugin(with_labels(folder, {"background": 0, "lesion": [1, 2], "rim": [2, 3]}, [1, 3]))
    for labels in (["background", "lesion"], {"background": 0, "lesion": "one"}, {"lesion": None}):
        with pytest.raises(Refused, match=r"bad-metadata: dataset.json names no channels and labels"):
            as_plugin(with_labels(folder, labels))


@pytest.mark.usefixtures("stand_in")
def test_a_label_in_a_list_of_one_has_its_name_and_what_was_ignored_in_training_is_none(
    tmp_path: Path,
) -> None:
    folder = with_labels(
        write_folder(tmp_path / "model"), {"background": [0], "lung tumour": [1], "ignore": 2}
    )
    truth = image() > -200
    truth[:, 16:] = False
    found = drawn(as_plugin(folder), image(), AXIAL)
    assert list(found) == ["lung tumour"]
    assert np.array_equal(found["lung tumour"], truth)


@pytest.mark.usefixtures("stand_in")
def test_a_folder_that_is_no_trained_network_says_what_is_missing(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "PET", "1": "CT"}, "labels": {}}))
    with pytest.raises(Refused, match="bundle-channels"):
        as_plugin(folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(Refused, match="no-nnunet"):
        as_plugin(folder)


@pytest.mark.usefixtures("stand_in")
def test_an_incomplete_folder_says_when_it_is_opened_what_is_missing_and_which_weights_are_there(
    tmp_path: Path,
) -> None:
    folder = write_folder(tmp_path / "model")
    final = folder / "fold_0" / "checkpoint_final.pth"
    final.rename(final.with_name("checkpoint_best.pth"))
    (folder / "fold_1").mkdir()
    (folder / "fold_1" / "checkpoint_latest.pth").write_bytes(b"")
    wanted = (
        "no-nnunet: no fold_N of the folder holds checkpoint_final.pth, the weights of the network; there is"
        " fold_0/checkpoint_best.pth, fold_1/checkpoint_latest.pth: write which one as 'checkpoint' in its settings"
    )
    with pytest.raises(Refused, match=wanted):
        as_plugin(folder)
    assert as_plugin(folder, checkpoint="checkpoint_best.pth").version == "nnunetv2 2.8.1"
    for name in ("fold_0", "fold_1"):
        shutil.rmtree(folder / name)
    with pytest.raises(
        Refused, match=r"holds checkpoint_final.pth, .*; copy the whole folder of the training"
    ):
        as_plugin(folder)
    (folder / "plans.json").unlink()
    with pytest.raises(Refused, match=r"no-nnunet: the folder has no plans.json"):
        as_plugin(folder)


@pytest.mark.usefixtures("stand_in")
def test_folds_with_the_checkpoint_are_used_and_that_of_everything_where_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Threshold, "used", [])
    folder = write_folder(tmp_path / "model")
    shutil.copytree(folder / "fold_0", folder / "fold_3")
    shutil.copytree(folder / "fold_0", folder / "fold_all")
    (folder / "fold_1").mkdir()
    drawn(as_plugin(folder), image(), AXIAL)
    for name in ("fold_0", "fold_3"):
        shutil.rmtree(folder / name)
    drawn(as_plugin(folder), image(), AXIAL)
    assert Threshold.used == [((0, 3), "checkpoint_final.pth"), (("all",), "checkpoint_final.pth")]


def test_without_the_package_the_refusal_says_what_to_install(tmp_path: Path) -> None:
    if "nnunetv2" in sys.modules or _is_installed():
        pytest.skip("nnunetv2 is installed here")
    with pytest.raises(Refused, match="pip install nnunetv2"):
        as_plugin(write_folder(tmp_path / "model"))


@pytest.mark.long
def test_the_real_package_gives_what_its_own_predictor_gives(tmp_path: Path) -> None:
    pytest.importorskip("nnunetv2", reason="nnunetv2 is not a dependency; install it to run this")
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    folder, hu = write_folder(tmp_path / "model"), image()
    torch.manual_seed(1)
    arch = dict(configuration()["architecture"]["arch_kwargs"])
    arch.update(conv_op=torch.nn.Conv3d, nonlin=torch.nn.LeakyReLU)
    network = PlainConvUNet(input_channels=1, num_classes=3, deep_supervision=False, **arch)
    checkpoint = {
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": None,
        "network_weights": network.state_dict(),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    where = {"perform_everything_on_device": False, "device": torch.device("cpu")}
    own = nnUNetPredictor(use_mirroring=False, allow_tqdm=False, **where)
    own.initialize_from_trained_model_folder(str(folder), None)
    wanted = np.asarray(own.predict_single_npy_array(hu[None], {"spacing": [2.0, 1.0, 1.0]}))
    found = drawn(as_plugin(folder), hu, AXIAL)
    assert len(np.unique(wanted)) > 1
    for value, name in ((1, "lung tumour"), (2, "liver")):
        assert np.array_equal(found.get(name, np.zeros(hu.shape, dtype=bool)), wanted == value)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("words", "told"),
    [("wrong patch", "ValueError: wrong patch"), ("set `weights_only` to `False`", "ValueError")],
)
def test_a_network_that_stops_says_why_but_not_how_to_read_pickles_without_protection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, told: str
) -> None:
    def stop(*_: object) -> None:
        raise ValueError(words)

    monkeypatch.setattr(Threshold, "predict_single_npy_array", stop)
    plugin = as_plugin(write_folder(tmp_path / "model"))
    with pytest.raises(Refused) as refusal:
        plugin.run(study_of(ct_volume(image(), AXIAL)))
    assert refusal.value.sentence == f"nnU-Net stopped with {told}"


@pytest.mark.usefixtures("stand_in")
def test_a_network_whose_answer_is_nan_is_refused_and_draws_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Threshold.predict_logits_from_preprocessed_data

    def spoiled(self: Threshold, data: torch.Tensor) -> torch.Tensor:
        logits = own(self, data)
        logits[1, :2] = float("nan")
        return logits

    monkeypatch.setattr(Threshold, "predict_logits_from_preprocessed_data", spoiled)
    plugin, hu = as_plugin(write_folder(tmp_path / "model")), image()
    with pytest.raises(Refused, match=r"NaN or infinity for 2560 of 61440 numbers of its answer") as refusal:
        plugin.run(study_of(ct_volume(hu, AXIAL)))
    assert refusal.value.code == "model-failed"
    assert Threshold.predict_logits_from_preprocessed_data is spoiled


def _is_installed() -> bool:
    from importlib.util import find_spec

    return find_spec("nnunetv2") is not None
