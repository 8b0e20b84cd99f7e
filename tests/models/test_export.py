"""What is exported answers as the network does; nothing on the disk is believed that was not written by us."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import UNET, answered, learned, patches

from models.export import ABANDONED_S, derived, remembered, seen_ranges, to_int8, to_onnx
from models.files import BadModel
from models.fused import fused

CLASSIFIER = {
    "kind": "classifier",
    "in_channels": 2,
    "out_channels": 1,
    "init_features": 4,
    "growth_rate": 2,
    "block_config": [1, 1],
}


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("stem", [1, 2])
def test_a_fused_network_answers_the_same(stem: int, norm: str) -> None:
    network = learned({**UNET, "stem": stem, "norm": norm}).network()
    quick = fused(network)
    np.testing.assert_allclose(answered(quick, patches()), answered(network, patches()), atol=1e-4)
    kinds = [type(part).__name__ for part in quick.modules()]
    assert ("BatchNorm3d" in kinds, kinds.count("ConvTranspose3d")) == (False, 1)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (2, 2, 0), ((1, 2, 2), (1, 2, 2), 0), (3, 2, 1)]
)
def test_every_transposed_convolution_stays_what_it_is(
    kernel: int | tuple[int, int, int], stride: int | tuple[int, int, int], padding: int
) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.ConvTranspose3d(2, 3, kernel, stride, padding))
    np.testing.assert_allclose(answered(fused(network), patches()), answered(network, patches()), atol=1e-5)


@pytest.mark.parametrize("architecture", [UNET, CLASSIFIER], ids=["unet", "classifier"])
def test_onnx_answers_as_the_network_for_any_number_of_patches(architecture: dict[str, object]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    one = learned(architecture)
    session = onnxruntime.InferenceSession(to_onnx(one), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        (given,) = session.run(["logits"], {"patches": patches(count)})
        np.testing.assert_allclose(given, answered(one.network(), patches(count)), atol=1e-4)


def test_weights_in_half_precision_are_widened() -> None:
    one = learned()
    half = replace(
        one, weights={n: v.astype(np.float16) if v.dtype.kind == "f" else v for n, v in one.weights.items()}
    )
    assert {p.dtype for p in half.network().parameters()} == {torch.float32}
    assert half.sha256() != one.sha256()


def test_weights_of_another_architecture_are_refused() -> None:
    with pytest.raises(BadModel, match="other-architecture"):
        replace(learned(), architecture={**UNET, "channels": [4, 8, 16]}).network()


def test_eight_bits_take_a_quarter_of_the_size_and_answer_nearly_the_same() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    one = learned({**UNET, "channels": [24, 48, 96]})
    form = to_onnx(one)
    small = to_int8(form, seen_ranges(form, patches()))
    assert len(form) / len(small) > 3.3
    session = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {"patches": patches()})
    expected = answered(one.network(), patches())
    assert np.abs(given - expected).mean() < 0.05 * expected.std()
    assert len(np.unique(given)) > 1000, "logits have no steps"


def test_ranges_hold_nought_and_what_most_patches_show() -> None:
    pytest.importorskip("onnx")
    form = to_onnx(learned())
    ranges = seen_ranges(form, patches() * 0.5 + 2)
    assert ranges["patches"] == (0.0, pytest.approx(2.5, abs=0.01))
    assert all(low <= 0 <= high for low, high in ranges.values())
    assert ranges["logits"][0] < ranges["logits"][1]


def test_ranges_of_another_network_are_refused() -> None:
    pytest.importorskip("onnx")
    form = to_onnx(learned())
    with pytest.raises(BadModel, match="bad-ranges"):
        to_int8(form, {"patches": (-1.0, 1.0)})


def test_what_was_made_once_is_read_again_and_a_changed_file_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, cache = learned(), tmp_path / "forms"
    form = derived(one, "onnx", cache)
    (path,) = cache.iterdir()
    assert (path.name, path.stat().st_mode & 0o77) == (f"{one.sha256()}.onnx", 0)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert derived(one, "onnx", cache) == form
    monkeypatch.setattr("models.export.to_onnx", lambda _: pytest.fail("it is there"))
    assert derived(one, "onnx", cache) == form


def test_what_another_made_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "form"
    assert remembered(path, lambda: b"first", "version 1") == b"first"
    assert remembered(path, lambda: b"second", "version 1") == b"first"
    assert remembered(path, lambda: b"third", "version 2") == b"third"
    assert remembered(path, lambda: b"fourth", "version 1") == b"fourth"


def test_what_killed_writers_left_goes_when_the_next_file_is_written(tmp_path: Path) -> None:
    half = {name: Path(tempfile.mkstemp(dir=tmp_path)[1]) for name in ("abandoned", "being written")}
    kept = tmp_path / "trials.json"
    kept.write_bytes(b"{}")
    for old in (half["abandoned"], kept):
        os.utime(old, (time.time() - 2 * ABANDONED_S,) * 2)
    remembered(tmp_path / "form", lambda: b"content")
    assert {*tmp_path.iterdir()} == {half["being written"], kept, tmp_path / "form"}


def test_a_writer_that_is_stopped_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(SystemExit):
        remembered(tmp_path / "form", lambda: b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert derived(learned(), "onnx", tmp_path / "file" / "forms") == to_onnx(learned())


def test_other_weights_or_other_ranges_are_another_form() -> None:
    one = learned()
    others = [
        learned(seed=1),
        replace(one, ranges={"patches": (-1.0, 1.0)}),
        replace(one, patch=(2, 8, 8, 8)),
    ]
    assert len({form.sha256() for form in [one, *others]}) == 4


def test_no_ranges_no_eight_bits(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="no-ranges"):
        derived(learned(), "int8", tmp_path)
