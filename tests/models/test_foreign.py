"""What is told of foreign code that stopped."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.foreign import said_by


def program() -> bytes:
    return pickle.dumps(Path("a place"), protocol=2)


def zipped() -> bytes:
    file = io.BytesIO()
    torch.save(Path("a place"), file)
    return file.getvalue()


def script() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "kind"),
    [(program, "UnpicklingError"), (zipped, "UnpicklingError"), (script, "RuntimeError")],
    ids=["a pickle", "a zip of torch", "TorchScript"],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file:UserWarning")
def test_the_advice_to_read_a_pickle_without_protection_is_never_handed_on(
    make: Callable[[], bytes], kind: str
) -> None:
    with pytest.raises((pickle.UnpicklingError, RuntimeError), match="will likely succeed") as caught:
        torch.load(io.BytesIO(make()), weights_only=True)
    assert said_by(caught.value) == kind


def test_whatever_else_foreign_code_says_is_told_with_its_type() -> None:
    assert said_by(RuntimeError("CUDA out of memory")) == "RuntimeError: CUDA out of memory"
    assert said_by(ValueError()) == "ValueError"


def test_the_causes_that_an_error_names_are_told_and_no_place_in_memory() -> None:
    transform = "<monai.transforms.io.dictionary.LoadImaged object at 0x7f12ab34cd56>"
    error = RuntimeError(f"applying transform {transform}")
    error.__cause__ = KeyError("img")
    error.__cause__.__cause__ = ValueError("set `weights_only` to `False`")
    wanted = (
        "RuntimeError: applying transform <monai.transforms.io.dictionary.LoadImaged>, because of KeyError: 'img',"
        " because of ValueError"
    )
    assert said_by(error) == wanted


def test_errors_that_name_each_other_as_their_cause_are_told_and_come_to_an_end() -> None:
    error, other = RuntimeError("this"), ValueError("that")
    error.__cause__, other.__cause__ = other, error
    assert said_by(error).startswith("RuntimeError: this, because of ValueError: that, because of ")
    assert len(said_by(error).split(", because of ")) == 8
