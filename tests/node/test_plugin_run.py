"""What a plugin does wrong is told with its name and reaches neither other analyses nor what is published."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.sr.coding import Code

from node import fault
from node.pipeline import analyse
from node.task import Analysed, Answer, Task
from plugins import codes
from plugins.contract import Finding, Mask, Measurement
from plugins.errors import OffContract
from plugins.registry import config_sha256, load_plugins

MakeTask = Callable[..., Task]


def _one(task: Task) -> Analysed:
    (analysed,) = analyse(task).analysed
    return analysed


def test_a_plugin_that_writes_into_the_image_fails_and_the_next_sees_it_as_it_came(
    make_task: MakeTask,
) -> None:
    alone = _one(make_task("box"))
    settings = {"trouble": {"mode": "scribble"}, "second": {"mode": "box"}}
    task = make_task(plugins=("trouble", "second"), plugin_settings=settings, out="both")
    bad, good = analyse(task).analysed
    assert bad.error_code == "broken"
    assert "plugin 'trouble' 1 failed: ValueError at" in (bad.error_text or "")
    assert good.error_code is None
    assert good.results.series == alone.results.series
    assert [f.measurements for f in good.results.found] == [f.measurements for f in alone.results.found]


@pytest.mark.parametrize("mode", ["exits", "exits_when_asked"])
def test_a_plugin_that_exits_has_failed_and_the_next_one_runs(make_task: MakeTask, mode: str) -> None:
    settings = {"trouble": {"mode": mode}, "second": {"mode": "box"}}
    bad, good = analyse(make_task(plugins=("trouble", "second"), plugin_settings=settings)).analysed
    assert bad.error_code == "broken"
    assert "plugin 'trouble' 1 failed: SystemExit at node/plugin_run.py:" in (bad.error_text or "")
    assert (good.error_code, len(good.results.found)) == (None, 1)


@pytest.mark.parametrize("mode", ["transposed", "wrong_number"])
def test_what_is_refused_is_neither_in_the_table_nor_on_the_page_nor_in_pictures(
    make_task: MakeTask, tmp_path: Path, mode: str
) -> None:
    settings = {"trouble": {"mode": mode}, "second": {"mode": "box"}}
    task = make_task(plugins=("trouble", "second"), plugin_settings=settings, pages=True)
    bad, _ = analyse(task).analysed
    assert (bad.error_code, bad.results.found) == ("broken", ())
    with (tmp_path / "out" / "measurements.csv").open(newline="", encoding="utf-8") as stream:
        assert {row["plugin"] for row in csv.DictReader(stream)} == {"second"}
    assert (tmp_path / "out" / "report.html").read_text().count("Box box") == page_of_second_alone(
        make_task, tmp_path
    ).count("Box box")


def page_of_second_alone(make_task: MakeTask, tmp_path: Path) -> str:
    settings = {"second": {"mode": "box"}}
    analyse(make_task(plugins=("second",), plugin_settings=settings, pages=True, out="alone"))
    return (tmp_path / "alone" / "report.html").read_text()


def test_a_mask_on_another_grid_is_told_with_the_plugin_and_both_shapes(make_task: MakeTask) -> None:
    error = _one(make_task("transposed")).error_text or ""
    assert "plugin 'trouble' 1 gave" in error
    assert "mask has the shape (20, 20, 6); its series has (6, 20, 20)" in error


def test_the_table_and_the_page_tell_which_version_and_settings_made_the_numbers(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task("box", pages=True)
    (analysed,) = analyse(task).analysed
    with (tmp_path / "out" / "measurements.csv").open(newline="", encoding="utf-8") as stream:
        assert {row["plugin_version"] for row in csv.DictReader(stream)} == {"1"}
    page = (tmp_path / "out" / "report.html").read_text()
    (plugin,) = load_plugins(task.plugin_settings, ["trouble"])
    assert config_sha256(plugin) in page
    assert analysed.job_key in page


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("forgetful", "returned NoneType; 'run' returns a tuple, an empty one when nothing was found"),
        ("bare", "returned Finding; 'run' returns a tuple"),
        ("wordy", "returned a str among what it found; it returns Findings and Flags"),
        ("elsewhere", "gave a finding on the series 1.2.3, which is no volume of the study"),
        (
            "too_sure",
            "failed: the confidence of a finding is 0 to 1, not 87.0 (OffContract at trouble/trouble.py:",
        ),
        (
            "not_a_number",
            "failed: the uncertainty of measurement 'long_axis' is nan, not a finite number (OffContract at trouble/",
        ),
        (
            "long_scheme",
            "failed: the type of a finding has a coding scheme of 26 characters; DICOM takes 16 at most (OffContract",
        ),
        ("whole_array", "failed: the mask of a finding is a ndarray, not a Mask (OffContract at trouble/"),
        (
            "beyond",
            "gave finding 2 a measurement 'long_axis' in slice 99; its series has the slices 0 to 5",
        ),
        ("unmeasured", "gave finding 1 without a measurement; its report needs at least one"),
    ],
)
def test_what_is_not_what_the_contract_says_is_the_plugins_fault_and_is_told(
    make_task: MakeTask, mode: str, words: str
) -> None:
    analysed = _one(make_task(mode))
    assert (analysed.error_code, analysed.applicable) == ("broken", True)
    assert f"plugin 'trouble' 1 {words}" in (analysed.error_text or "")
    assert [(t.code, t.refused) for t in analysed.results.told] == [("broken", True)]
    assert analysed.results.written == ()


def test_numbers_of_numpy_are_taken_as_plain_ones(make_task: MakeTask) -> None:
    analysed = _one(make_task("numpys"))
    assert analysed.error_text is None
    (found,) = analysed.results.found
    measured = found.measurements[-1]
    assert (measured.value, measured.uncertainty, found.confidence) == (1.25, 7.0, 0.5)
    assert {type(n) for n in (measured.value, measured.uncertainty, found.confidence)} == {float}
    assert {type(n) for end in measured.end_points_mm or () for n in end} == {float}


def test_a_shape_given_as_a_list_is_that_shape(make_task: MakeTask) -> None:
    plain, listed = _one(make_task("box", out="plain")), _one(make_task("listed", out="listed"))
    assert (listed.error_text, listed.results.found) == (None, plain.results.found)


def test_what_cannot_be_handed_over_costs_its_analysis_the_results_and_no_other(make_task: MakeTask) -> None:
    settings = {"trouble": {"mode": "not_plain"}, "second": {"mode": "box"}}
    bad, good = analyse(make_task(plugins=("trouble", "second"), plugin_settings=settings)).analysed
    assert (bad.error_code, bad.results.found, bad.results.written) == ("broken", (), ())
    assert "the results of 'trouble' cannot be written: TypeError at " in (bad.error_text or "")
    assert (good.error_code, len(good.results.found)) == (None, 1)
    assert '"Box box"' in json.dumps(Answer(analysed=(bad, good)).to_json()).replace("\\", "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"value": "12"}, "the value of measurement 'size' is a str, not a number"),
        ({"value": np.float32("inf")}, "the value of measurement 'size' is inf, not a finite number"),
        (
            {"uncertainty": np.array([1.0])},
            "the uncertainty of measurement 'size' is a ndarray, not a number",
        ),
        (
            {"end_points_mm": ((float("nan"), 0, 0), (1, 1, 1))},
            "one of the end points of measurement 'size' is nan, not a finite number",
        ),
        (
            {"end_points_mm": ((1, 2), (3, 4))},
            "the end points of measurement 'size' are not two points of three numbers",
        ),
        (
            {"concept": Code("1", "MY-VERY-LONG-CODING-SCHEME", "Size")},
            "the concept of measurement 'size' has a coding scheme of 26 characters; DICOM takes 16 at most",
        ),
        (
            {"derivation": Code("1", "99LC", "x" * 65)},
            "the derivation of measurement 'size' has a meaning of 65 characters; DICOM takes 64 at most",
        ),
        (
            {"unit": "mm"},
            "the unit of measurement 'size' is a str, not a Code of value, coding scheme and meaning",
        ),
        ({"slice_index": -1}, "the slice index of measurement 'size' is -1, not a whole number from 0"),
        ({"slice_index": 2.0}, "the slice index of measurement 'size' is a float, not a whole number"),
    ],
)
def test_what_is_no_number_is_no_measurement_and_is_told_by_its_name(
    changes: dict[str, Any], words: str
) -> None:
    plain: dict[str, Any] = {"name": "size", "concept": codes.VOLUME, "unit": codes.ML, "method": "counted"}
    with pytest.raises(OffContract, match=f"^{re.escape(words)}$"):
        Measurement(**{**plain, "value": 1.0, **changes})


def test_a_code_may_have_a_long_value_and_all_the_characters_that_dicom_takes() -> None:
    code = Code("ATTENUATION-OF-THE-CYST-FLUID", "S" * 16, "m" * 64)
    assert Measurement(name="own", concept=code, value=1.0, unit=codes.ML, method="own").concept == code


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 2), "the shape of a mask is three numbers: slice, row, column"),
        ((2, 2, 2.0), "one of the shape of a mask is a float, not a whole number"),
    ],
)
def test_a_mask_on_no_grid_is_told_so(shape: Any, words: str) -> None:
    with pytest.raises(OffContract, match=f"^{words}$"):
        Mask(shape=shape, origin=(0, 0, 0), voxels=np.ones((1, 1, 1), dtype=bool))


def test_a_plugin_that_fails_in_a_library_is_told_with_its_own_line_between_ours_and_the_librarys(
    make_task: MakeTask,
) -> None:
    told = _one(make_task("in_a_library")).error_text or ""
    way = r"JSONDecodeError at node/plugin_run\.py:\d+ > trouble/trouble\.py:\d+ > json/decoder\.py:\d+$"
    assert re.search(way, told), told
    assert "SECRET" not in told


def test_what_is_installed_beside_the_node_is_not_told_as_ours(
    make_task: MakeTask, trouble: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fault, "ROOT", trouble)
    told = _one(make_task("fault")).error_text or ""
    assert re.search(r"failed: ValueError at trouble/trouble\.py:\d+$", told), told


@pytest.mark.parametrize("confidence", [-0.1, 1.01, float("nan")])
def test_a_confidence_beyond_0_to_1_is_no_finding(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence of a finding is"):
        Finding(
            key="one",
            label="One",
            series_instance_uid="1.2.3",
            mask=Mask(shape=(1, 1, 1), origin=(0, 0, 0), voxels=np.ones((1, 1, 1), dtype=bool)),
            category=codes.MORPHOLOGICALLY_ABNORMAL,
            type=codes.LESION,
            measurements=(),
            confidence=confidence,
        )


def test_the_page_names_the_files_that_lie_beside_it(make_task: MakeTask, tmp_path: Path) -> None:
    analyse(make_task("box", pages=True))
    page = (tmp_path / "out" / "report.html").read_text()
    listed = page.split("Files written")[1].split("</ul>")[0]
    names = re.findall(r"<li[^>]*>([^<]+)</li>", listed)
    assert names
    assert all((tmp_path / "out" / name).is_file() and not Path(name).is_absolute() for name in names)
