"""The folder of a MONAI bundle: what is read of it before it runs, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from opened_bundle import IMAGE, OUTPUT, bundle_of, oblique, says
from small_bundle import write_bundle
from thorax import study_of
from yaml_texts import alias_bomb

from models.tree import tree_sha256
from plugins.errors import Refused


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
        ("bomb", "bad-inference: configs/inference.yaml cannot be read .it holds more than 100000 values"),
        ("stamp", "bad-inference: configs/inference.yaml .* .'now' in line 1 cannot be read as timestamp"),
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
    yaml = {"yaml": "network_def: {", "bomb": alias_bomb(), "stamp": "network_def: !!timestamp now"}
    if broken in ("no-inference", *yaml):
        inference.unlink()
    if broken in yaml:
        inference.with_suffix(".yaml").write_text(yaml[broken])
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
