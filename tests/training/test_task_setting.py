from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ball_nodules import TINY, write_crops
from yaml_texts import alias_bomb

from models.nodule_detector import DetectorView, Search
from models.nodule_passes import NoduleView
from models.petct import PetctView
from plugins.errors import Refused
from training import nodule_samples, petct_samples
from training.experiment import Experiment, read_experiments
from training.malignancy_task import Variation
from training.nodule_task import nodule_task
from training.petct_task import Loss
from training.task_setting import ARCHITECTURE, TASKS

SHIPPED = Path(__file__).parents[2] / "training/experiments"


def read_with(tmp_path: Path, model: str, key: str, said: str) -> tuple[Experiment, ...]:
    """Return the shipped experiment of a model, in which one dotted key says something else."""
    plain = yaml.safe_load((SHIPPED / f"{model}.yaml").read_text())
    *way, last = key.split(".")
    inner: Any = plain
    for name in way:
        inner = inner.setdefault(name, {})
    inner[last] = yaml.safe_load(said)
    (path := tmp_path / "wrong.yaml").write_text(yaml.safe_dump(plain))
    return read_experiments(path)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("seed: 2026-13-45", r"'2026-13-45' in line 1 cannot be read as timestamp; put it between quotes"),
        ("seed: !!timestamp abc", "'abc' in line 1 cannot be read as timestamp"),
        ("seed: !!int abc", "'abc' in line 1 cannot be read as int"),
        ("seed: !!int ''", "'' in line 1 cannot be read as int"),
        ("seed: !!bool abc", "'abc' in line 1 cannot be read as bool"),
        ("seed: !!float abc", "'abc' in line 1 cannot be read as float"),
        ("seed: " + "9" * 5000, f"'{'9' * 40}' in line 1 cannot be read as int"),
        ("seed: " + "[" * 3000 + "]" * 3000, "its values lie too deep in each other"),
        ("seed: &a [*a]", "it holds more than 100000 values"),
        (alias_bomb(), r"it holds more than 100000 values, with those that its aliases \(\*name\) say again"),
    ],
)
def test_a_word_that_is_no_value_and_what_has_no_end_are_refused_with_where_they_stand(
    tmp_path: Path, line: str, told: str
) -> None:
    (path := tmp_path / "wrong.yaml").write_text(f"{line}\nname: a\n")
    with pytest.raises(Refused, match=rf"^bad-experiment: .*wrong.yaml cannot be used: {told}"):
        read_experiments(path)


@pytest.mark.parametrize(
    ("model", "key", "said", "write"),
    [
        ("nodule_segmenter", "task.augmentation.zoom", "1e-1", r"'1e-1', a text; write 0\.1 without quotes"),
        ("nodule_segmenter", "task.augmentation.zoom", "-1", "write a number that is at least 0 and below 1$"),
        ("nodule_segmenter", "task.augmentation.zoom", "5", "5, a whole number; write a number"),
        ("nodule_segmenter", "task.augmentation.zoom", "null", "empty; write a number"),
        ("nodule_segmenter", "task.augmentation.jitter_mm", "-4", "write a number that is at least 0$"),
        ("nodule_segmenter", "task.augmentation.fill_weights", "[1, 2]", "a list of 1 to 6 numbers that .* sum to 1$"),
        ("nodule_segmenter", "task.augmentation.fill_weights", "[0, 0, 0, 0]", "sum to 1$"),
        ("nodule_segmenter", "task.augmentation.fill_weights", "[1.5, -0.5]", "at least 0 and sum to 1$"),
        ("nodule_segmenter", "task.augmentation", "5", "write a table of keys and values$"),
        ("nodule_segmenter", "task.entropy_weight", "a", "'a', a text; write a number that is at least 0$"),
        ("nodule_segmenter", "task.entropy_weight", "-1", "write a number that is at least 0$"),
        ("nodule_segmenter", "task.share", "2", "write a number above 0 and at most 1$"),
        ("nodule_segmenter", "task.view.shape", "[40, 40]", "a list of three whole numbers"),
        ("nodule_segmenter", "architecture.channels", "[0, 1, 2, 3]", "write whole numbers that are at least 1$"),
        ("nodule_segmenter", "architecture.strides", "[1, [2, 2, 0], 2]", "write whole numbers that are at least 1$"),
        ("nodule_segmenter", "architecture.stem", "0", "write whole numbers that are at least 1$"),
        ("petct_multitask", "task.augmentation.gain", "-3", "write a number that is at least 0 and at most 10$"),
        ("petct_multitask", "task.augmentation.gain", "'0.1'", r"write 0\.1 without quotes"),
        ("petct_multitask", "task.loss.exponent", "a", "write a number above 0$"),
        ("petct_multitask", "task.made", "-1", "write a whole number that is at least 0$"),
        ("petct_multitask", "task.made_share", "5", "write a number that is at least 0 and at most 1$"),
        ("petct_multitask", "task.view.voxel_mm", "'6'", "'6', a text; write 6 without quotes"),
        ("nodule_malignancy", "task.variation.zoom", "a", "write a number that is at least 0 and below 1$"),
        ("nodule_malignancy", "task.variation.shift_mm", "-1", "write a number that is at least 0$"),
        ("nodule_malignancy", "task.view.window_hu", "[400, -1000]", "a list of two numbers, the lower one first$"),
        ("nodule_detector", "task.search.diameters_mm", "[-4, 53]", "two numbers above 0, the lower one first$"),
        ("nodule_detector", "task.nodules", "0", "write a whole number that is at least 1$"),
    ],
)  # fmt: skip
def test_a_wrong_setting_of_a_task_or_a_network_is_named_with_its_file_and_what_to_write(
    tmp_path: Path, model: str, key: str, said: str, write: str
) -> None:
    with pytest.raises(Refused, match=rf"{key} in .*wrong\.yaml is .*{write}") as refused:
        read_with(tmp_path, model, key, said)
    assert refused.value.code == "bad-experiment"


@pytest.mark.parametrize(
    ("model", "key", "says"),
    [
        ("nodule_segmenter", "architecture.dropot", "'dropot' in architecture; known there are act, channels"),
        ("nodule_segmenter", "architecture.pooling", "'pooling' in architecture; known there are act, channels"),
        ("petct_multitask", "architecture.gate", "'gate' in architecture; .* gates, head_features, .* strides"),
        ("nodule_detector", "architecture.norm", "'norm' in architecture; .* in_channels, kind, layers, .* widths"),
        ("nodule_segmenter", "task.view.foo", "'foo' in task.view; known there are first, fits_mm, .* windows_hu"),
        ("nodule_segmenter", "task.augmentation.zom", "'zom' in task.augmentation; known there are fill_weights, gain"),
        ("nodule_segmenter", "task.entropy", "'entropy' in task; known there are augmentation, entropy_weight, share,"),
        ("nodule_malignancy", "task.variation.gain", "'gain' in task.variation; known there are noise_hu, shift_hu,"),
        ("nodule_detector", "task.share", "'share' in task; known there are nodule_share, nodules, noise_hu, others,"),
        ("petct_multitask", "task.loss.weight", "'weight' in task.loss; known there are exponent, fn_weight,"),
    ],
)  # fmt: skip
def test_a_setting_that_is_not_known_is_named_with_its_file_and_those_that_are(
    tmp_path: Path, model: str, key: str, says: str
) -> None:
    with pytest.raises(Refused, match=rf"bad-experiment: .*wrong\.yaml says {says}"):
        read_with(tmp_path, model, key, "0.1")


def test_every_shipped_experiment_has_known_settings() -> None:
    names = [
        experiment.name for path in sorted(SHIPPED.glob("*.yaml")) for experiment in read_experiments(path)
    ]
    assert len(names) >= 8 and "petct_multitask" in names


@pytest.mark.parametrize(
    ("model", "key", "said"),
    [
        ("nodule_segmenter", "task.augmentation.zoom", "0"),
        ("nodule_segmenter", "task.augmentation.fill_weights", "[0.1, 0.2, 0.3, 0.4]"),
        ("nodule_segmenter", "task.share", "1"),
        ("nodule_segmenter", "architecture.strides", "[1, [2, 2, 1], 2]"),
        ("petct_multitask", "task.made_share", "0.0"),
    ],
)
def test_a_setting_of_a_task_at_the_border_can_be_read(
    tmp_path: Path, model: str, key: str, said: str
) -> None:
    assert len(read_with(tmp_path, model, key, said)) == 1


def test_a_point_so_far_off_that_its_patch_may_miss_the_nodule_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "tiny.yaml").write_text(TINY.replace("STEPS", "1"))
    (experiment,) = read_experiments(path)
    crops = write_crops(tmp_path / "crops")
    far = replace(experiment, task={**experiment.task, "augmentation": {"jitter_mm": 1000, "zoom": 0.2}})
    with pytest.raises(Refused, match=r"bad-experiment: .*jitter_mm is 1000, .* reaches 7\.5 mm"):
        nodule_task(far, 0, crops)


def test_every_setting_that_a_task_has_is_looked_at() -> None:
    has = {
        "nodule_segmenter": {"view": NoduleView, "augmentation": nodule_samples.Augmentation},
        "nodule_malignancy": {"variation": Variation},
        "nodule_detector": {"view": DetectorView, "search": Search},
        "petct_multitask": {"view": PetctView, "augmentation": petct_samples.Augmentation, "loss": Loss},
    }
    for model, parts in has.items():
        keys = {f"{part}.{field.name}" for part, kind in parts.items() for field in fields(kind)}
        assert keys <= TASKS[model].keys()
    said = {
        key for path in SHIPPED.glob("*.yaml") for key in yaml.safe_load(path.read_text())["architecture"]
    }
    assert said - {"kind", "norm", "pooling"} <= ARCHITECTURE.keys()


def test_as_many_frequencies_may_be_said_as_there_are_fills() -> None:
    most = TASKS["nodule_segmenter"]["augmentation.fill_weights"]
    for count in range(1, 9):
        assert most.fits([1.0] + [0.0] * (count - 1)) == (count <= len(nodule_samples.FILLS))
    three = TASKS["petct_multitask"]["augmentation.fill_weights"]
    assert [three.fits([1.0] + [0.0] * n) for n in (1, 2, 3)] == [False, True, False]
    assert len(petct_samples.FILLS) == 3
