"""Every runtime answers alike; the fastest is found by a trial that is kept, and a wrong one is never used."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_networks import answered, learned, patches

from models import runtime
from models.export import Learned, seen_ranges, to_onnx
from models.files import BadModel
from models.nodule_segmenter import LearnedNoduleSegmenter
from models.runtime import FURTHEST, KINDS, fastest, kept_trials, present, runner

INSTALLED = ("torch-fp32", "onnxruntime-fp32", "torch-bf16", "openvino-bf16")


@pytest.fixture(scope="module")
def ranged() -> Learned:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    one = learned()
    return replace(one, ranges=seen_ranges(to_onnx(one), patches(4)))


def quick(monkeypatch: pytest.MonkeyPatch, *kinds: str, told: list[str] | None = None) -> None:
    """Leave only some kinds, each of which tells when it is opened."""

    def opened(kind: str) -> object:
        def open_it(*given: object) -> object:
            (told if told is not None else []).append(kind)
            return KINDS_BEFORE[kind](*given)

        return open_it

    monkeypatch.setattr(runtime, "KINDS", {kind: opened(kind) for kind in kinds})


KINDS_BEFORE = dict(KINDS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cuda-bf16"])
def test_every_kind_gives_the_logits_of_torch(kind: str, ranged: Learned, tmp_path: Path) -> None:
    run, expected = runner(kind, ranged, tmp_path, 1), answered(ranged.network(), patches(3))
    allowed = 1e-4 if kind.endswith("fp32") else 0.05 * float(expected.std())
    for count in (3, 1):
        given = run(patches(3)[:count])
        assert (given.shape, given.dtype) == (expected[:count].shape, np.float32)
        assert np.abs(given - expected[:count]).mean() < allowed
    assert run(patches(1)) is not run(patches(1)), "an answer is not overwritten by the next one"


def test_compiled_networks_are_not_taken_for_each_other(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    one, other = learned(), learned(seed=1)
    first = runner("openvino-bf16", one, tmp_path, 1)(patches())
    second = runner("openvino-bf16", other, tmp_path, 1)(patches())
    again = runner("openvino-bf16", one, tmp_path, 1)(patches())
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).mean() > 0.1


@pytest.mark.parametrize("kind", ["openvino-bf16", "openvino-int8"])
def test_a_compiled_network_that_was_damaged_on_the_disk_is_compiled_anew(
    kind: str, ranged: Learned, tmp_path: Path
) -> None:
    unchecked = tmp_path / "openvino" / "0" / "1.blob"
    unchecked.parent.mkdir(parents=True)
    unchecked.write_bytes(b"kept by OpenVINO itself")
    expected = runner(kind, ranged, tmp_path, 1)(patches())
    assert not unchecked.exists()
    (path,) = (path for path in tmp_path.rglob("*") if path.suffix in {".blob", ".openvino"})
    whole = path.read_bytes()
    middle = len(whole) // 2
    damaged = whole[:middle] + bytes(byte ^ 255 for byte in whole[middle:][:4096])
    damaged += whole[len(damaged) :]
    path.write_bytes(damaged)
    np.testing.assert_array_equal(runner(kind, ranged, tmp_path, 1)(patches()), expected)
    assert (len(whole), path.read_bytes() != damaged) == (len(damaged), True)


def test_the_more_exact_kinds_come_first_and_eight_bits_need_ranges(ranged: Learned) -> None:
    assert tuple(k for k in present(ranged) if k != "cuda-bf16") == tuple(
        k for k in KINDS if k != "cuda-bf16"
    )
    assert set(INSTALLED) <= set(present(learned())) <= {*INSTALLED, "cuda-bf16"}


def test_without_other_runtimes_torch_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = runtime.importlib.util.find_spec
    monkeypatch.setattr(
        runtime.importlib.util, "find_spec", lambda name: real(name) if name == "torch" else None
    )
    monkeypatch.setattr(runtime, "_has_cuda", lambda: False)
    assert present(learned()) == ("torch-fp32", "torch-bf16")
    assert fastest(learned(), "m", tmp_path, 1).kind.startswith("torch-")


def test_the_fastest_is_tried_once_for_all_weights_of_an_architecture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    quick(monkeypatch, "torch-fp32", "torch-bf16", told=told)
    trial = fastest(learned(), "small", tmp_path / "new", 1)
    assert trial.kind == min(trial.ms, key=trial.ms.__getitem__) or trial.kind == "torch-fp32"
    assert told == ["torch-fp32", "torch-bf16"]
    assert fastest(learned(seed=1), "small", tmp_path / "new", 1) == trial
    assert told == ["torch-fp32", "torch-bf16"]
    assert kept_trials(tmp_path / "new") == (trial,)
    fastest(learned(), "small", tmp_path / "new", 2)
    assert len(kept_trials(tmp_path / "new")) == 2


def test_a_trial_without_a_gpu_does_not_hold_with_one_nor_the_other_way_round(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    quick(monkeypatch, "torch-fp32", told=told)
    for has_cuda in (False, True, False, True):
        monkeypatch.setattr(runtime, "_has_cuda", lambda has_cuda=has_cuda: has_cuda)
        fastest(learned(), "small", tmp_path, 1)
    assert told == ["torch-fp32", "torch-fp32"]
    assert len(kept_trials(tmp_path)) == 2


def test_a_trial_is_told_only_where_it_was_made_and_as_long_as_the_packages_are_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    quick(monkeypatch, "torch-fp32")
    trial = fastest(learned(), "small", tmp_path, 1)
    assert kept_trials(tmp_path) == (trial,)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(runtime.platform, "node", lambda: "another")
        assert kept_trials(tmp_path) == ()
    monkeypatch.setattr(runtime, "version", lambda package: f"{package} renewed")
    assert kept_trials(tmp_path) == ()


def test_where_there_is_no_gpu_torch_is_not_imported_to_find_out() -> None:
    asked = (
        "import sys, models.runtime as r; r.GPU_DEVICES = ('/dev/none',); "
        "print(r._has_cuda(), 'torch' in sys.modules)"
    )
    root = Path(runtime.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", asked], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(("platform", "device"), [("linux", "/dev/nvmap"), ("win32", "")])
def test_torch_is_asked_for_a_gpu_on_a_jetson_and_where_devices_are_no_files(
    platform: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(runtime.os.path, "exists", lambda path: path == device)
    monkeypatch.setattr(runtime.sys, "platform", platform)
    has_cuda = runtime._has_cuda()
    monkeypatch.undo()
    assert has_cuda


@pytest.mark.parametrize("fault", ["none", "wrong", "raises"])
def test_a_kind_that_was_found_with_other_weights_is_held_against_torch_once_for_each_network(
    fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []

    def opened(one: Learned, *_: object) -> object:
        told.append(one.sha256())
        if fault == "raises":
            raise RuntimeError("no such operator")
        if fault == "wrong":
            return lambda shown: np.full((len(shown), 1, *shown.shape[2:]), 50.0, np.float32)
        return KINDS_BEFORE["torch-fp32"](one, tmp_path, 1)

    kinds = {"torch-fp32": KINDS_BEFORE["torch-fp32"], "openvino-int8": opened}
    monkeypatch.setattr(runtime, "KINDS", kinds)
    expected = "openvino-int8" if fault == "none" else "torch-bf16"
    assert runtime.as_torch("openvino-int8", learned(), tmp_path, 1) == expected
    assert len(told) == 1
    assert runtime.as_torch("openvino-int8", learned(), tmp_path, 1) == expected
    assert len(told) == 1
    assert runtime.as_torch("openvino-int8", learned(seed=1), tmp_path, 1) == expected
    assert len(set(told)) == 2
    assert runtime.as_torch("torch-bf16", learned(), tmp_path, 1) == "torch-bf16"
    monkeypatch.setattr(runtime, "version", lambda package: f"{package} renewed")
    assert runtime.as_torch("openvino-int8", learned(), tmp_path, 1) == expected
    assert len(told) == 3, "other runtimes are held against torch again"
    (tmp_path / runtime.EXACT / f"{learned().sha256()}-openvino-int8").write_text("0.0000")
    assert runtime.as_torch("openvino-int8", learned(), tmp_path, 1) == expected
    assert len(told) == 4, "what is not sealed is not believed"


def test_where_the_runtime_of_a_trial_can_no_longer_be_loaded_torch_answers_until_it_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(*_: object) -> object:
        raise ImportError("libopenvino.so: cannot open shared object file")

    model: Any = SimpleNamespace(manifest=SimpleNamespace(name="small"))
    monkeypatch.setattr(Learned, "of", lambda *_: learned())
    monkeypatch.setattr(runtime, "chosen", lambda _: "openvino-bf16")
    good = {kind: KINDS_BEFORE[kind] for kind in ("torch-fp32", "torch-bf16")}
    good["openvino-bf16"] = good["torch-fp32"]
    expected = {"lost": "torch-bf16", "good": "openvino-bf16"}
    for now in ("good", "lost", "good"):
        monkeypatch.setattr(runtime, "KINDS", {**good, "openvino-bf16": lost} if now == "lost" else good)
        opened = runtime.network(model, 0, tmp_path, 1)
        assert opened.kind == expected[now]
        assert LearnedNoduleSegmenter(model=model, given=(opened,)).runtime == expected[now]
        plain = good[expected[now]](learned(), tmp_path, 1)
        np.testing.assert_array_equal(opened(patches()), plain(patches()))
        assert ("openvino-bf16 cannot be used: libopenvino.so" in caplog.text) == (now == "lost")
        caplog.clear()


@pytest.mark.parametrize(
    ("ms", "chosen"),
    [
        ({"torch-fp32": 10.0, "openvino-bf16": 4.0, "openvino-int8": 2.0}, "openvino-int8"),
        ({"torch-fp32": 10.0, "openvino-bf16": 2.1, "openvino-int8": 2.0}, "openvino-bf16"),
        ({"torch-fp32": 1.0, "openvino-bf16": 4.0, "openvino-int8": 2.0}, "torch-fp32"),
    ],
)
def test_the_more_exact_is_taken_where_it_is_about_as_fast(ms: dict[str, float], chosen: str) -> None:
    assert runtime.chosen(ms) == chosen


@pytest.mark.parametrize("fault", ["wrong", "shape", "nan", "raises"])
def test_a_kind_that_answers_otherwise_or_fails_is_not_used(
    fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> object:
        if fault == "raises":
            raise RuntimeError("this machine has no such instruction")
        wrong = {"wrong": np.full, "shape": lambda shape, v, d: np.zeros(shape[1:], d), "nan": np.full}[fault]
        value = np.nan if fault == "nan" else 50.0
        return lambda shown: wrong((len(shown), 1, *shown.shape[2:]), value, np.float32)

    both = {"torch-fp32": KINDS["torch-fp32"], "openvino-bf16": broken}
    monkeypatch.setattr(runtime, "KINDS", both)
    trial = fastest(learned(), "small", tmp_path, 1)
    assert (trial.kind, list(trial.ms)) == ("torch-fp32", ["torch-fp32"])
    assert "openvino-bf16" in caplog.text


def test_the_limit_is_well_above_what_rounding_does(ranged: Learned, tmp_path: Path) -> None:
    shown = runtime.ball(ranged.patch)
    expected = runner("torch-fp32", ranged, tmp_path, 1)(shown)
    for kind in ("torch-bf16", "openvino-int8"):
        assert runtime.apart(runner(kind, ranged, tmp_path, 1)(shown), expected) < FURTHEST / 2


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"model": "m", "kind": "exe", "ms": {}}}'])
def test_a_file_of_trials_that_is_none_is_written_anew(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    quick(monkeypatch, "torch-fp32")
    (tmp_path / "trials.json").write_text(text)
    assert kept_trials(tmp_path) == ()
    fastest(learned(), "small", tmp_path, 1)
    assert [t["kind"] for t in json.loads((tmp_path / "trials.json").read_text()).values()] == ["torch-fp32"]


def test_where_nothing_can_be_kept_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    told: list[str] = []
    quick(monkeypatch, "torch-fp32", "torch-bf16", told=told)
    assert fastest(learned(), "small", tmp_path / "file" / "new", 1).kind == "torch-bf16"
    assert told == []


def test_an_unknown_runtime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="unknown-runtime"):
        runner("tensorflow", learned(), tmp_path, 1)


@pytest.mark.sec
def test_openvino_tells_nobody_that_it_is_used(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    told = """
import socket, sys
def refuse(*_, **__): raise SystemExit("the network was asked")
socket.socket = socket.getaddrinfo = refuse
from pathlib import Path
from models.runtime import openvino
openvino().Core()
import time; time.sleep(0.5)
print(sorted(name for name in sys.modules if name.startswith("openvino_telemetry.")))
"""
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin"}
    root = Path(runtime.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", told], cwd=root, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.sec
def test_onnxruntime_tells_nobody_that_it_is_used(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin"}
    root = Path(runtime.__file__).parents[1]
    told = "from models.export import onnxruntime; onnxruntime().get_available_providers()"
    subprocess.run([sys.executable, "-c", told], cwd=root, env=env, check=True)
    assert list(tmp_path.iterdir()) == []  # no identifier of this machine, no store of events to send


def test_nothing_is_imported_before_a_network_is_asked_for() -> None:
    heavy = "import sys, models.runtime; print({'torch', 'openvino', 'onnxruntime', 'onnx'} & {*sys.modules})"
    root = Path(runtime.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", heavy], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
