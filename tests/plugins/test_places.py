"""How a model that was made here comes into an analysis: by its family, held against its hash, into its identity."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from made_models import write_model

from models.nodule_segmenter import NAME
from models.place import ModelPlace
from plugins.contract import plugin_settings
from plugins.errors import Refused, Unavailable
from plugins.lung_nodule import LungNodule
from plugins.marked_lesion import MarkedLesion
from plugins.pet_lesion import PetLesion
from plugins.registry import config_sha256, load_plugins

OTHER = ModelPlace(folder="/elsewhere", sha256="a" * 64)


@dataclass(frozen=True)
class Foreign:
    """A plugin of somebody who calls something else `models`."""

    models: int = 3


@pytest.fixture
def place(tmp_path: Path) -> ModelPlace:
    return ModelPlace(folder=str(tmp_path / "model"), sha256=write_model(tmp_path / "model", 1))


def lung_nodule(models: dict[str, ModelPlace], **values: object) -> Any:
    return load_plugins({"lung_nodule": values}, ["lung_nodule"], models)[0]


@pytest.mark.parametrize("plugin", [LungNodule(), MarkedLesion(), PetLesion(), PetLesion(outline="learned")])
def test_without_a_model_made_here_the_hash_of_the_settings_is_what_it_was_before_there_were_any(
    plugin: Any,
) -> None:
    before = {f.name: getattr(plugin, f.name) for f in fields(plugin) if f.name != "models"}
    assert config_sha256(plugin) == hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()


def test_the_field_of_another_plugin_that_is_called_so_is_a_setting_like_any() -> None:
    assert plugin_settings(Foreign()) == {"models": 3}  # type: ignore[arg-type]


def test_the_hash_of_the_settings_knows_the_model_and_not_its_folder(
    tmp_path: Path, place: ModelPlace
) -> None:
    first = lung_nodule({NAME: place})
    (tmp_path / "model").rename(tmp_path / "moved")
    moved = lung_nodule({NAME: ModelPlace(folder=str(tmp_path / "moved"), sha256=place.sha256)})
    assert plugin_settings(first)["models"] == {NAME: place.sha256}
    assert config_sha256(first) == config_sha256(moved) != config_sha256(lung_nodule({}))
    assert first.model.sha256 != lung_nodule({}).model.sha256
    assert (first.model.version, first.model.weights_sha256) == ("1.1.0", place.sha256)


def test_only_the_families_that_the_settings_use_are_given(place: ModelPlace) -> None:
    assert lung_nodule({"petct_multitask": OTHER}) == LungNodule()
    assert lung_nodule({NAME: place}, segmenter="classical") == LungNodule(segmenter="classical")
    assert LungNodule().families == (NAME, "nodule_detector", "nodule_malignancy")
    assert PetLesion().families == ()
    assert PetLesion(outline="learned").families == ("petct_multitask",)


def test_a_detector_made_here_makes_another_analysis_though_another_model_draws(tmp_path: Path) -> None:
    sha256 = write_model(tmp_path / "detector", 1, family="nodule_detector")
    given = lung_nodule({"nodule_detector": ModelPlace(folder=str(tmp_path / "detector"), sha256=sha256)})
    assert given.model == LungNodule().model
    assert config_sha256(given) != config_sha256(LungNodule())


def test_a_model_that_was_changed_is_refused_and_the_shipped_one_does_not_take_its_place(
    tmp_path: Path, place: ModelPlace
) -> None:
    (tmp_path / "model" / "card.json").write_text("{}")
    with pytest.raises(Refused, match=r"changed-model: .*is not as it was judged: 'card\.json'"):
        lung_nodule({NAME: place})


def test_a_model_that_cannot_be_looked_into_from_here_may_be_there_later(place: ModelPlace) -> None:
    with pytest.raises(Unavailable, match="which cannot be read here: No such file"):
        lung_nodule({NAME: OTHER})


def test_which_model_counts_is_no_setting_of_an_analysis() -> None:
    with pytest.raises(Refused, match=r"bad-plugin-settings.*nadir models approve"):
        load_plugins({"lung_nodule": {"models": {NAME: "x"}}}, ["lung_nodule"])
