from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.tree import tree_sha256
from plugins.errors import Refused
from plugins.registry import load_plugins, load_working

NOT_IMPORTABLE = "import a_module_that_nobody_installed\n"
RAISES = "class Foreign:\n    def __init__(self):\n        raise RuntimeError('no weights')\n"
NO_CARD = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Foreign:
    level: int = 1
    name, version, title = "foreign", "1", "Foreign"
    @property
    def model(self): raise OSError("no card")
    def accepts(self, study): return True
    def run(self, study): return ()
"""

EXITS = "import sys\nsys.exit('needs CUDA')\n"
EXITS_WHEN_MADE = "class Foreign:\n    def __init__(self):\n        raise SystemExit(3)\n"
EXITS_WITH_ITS_MODEL = NO_CARD.replace('OSError("no card")', "SystemExit")
GIVES_UP = "class GivenUp(BaseException): ...\nraise GivenUp('no licence')\n"


def install(folder: Path, source: str, *, entry: str = "foreign") -> None:
    claim(folder, "foreign", f"{entry} = foreign_plugin:Foreign")
    (folder / "foreign_plugin.py").write_text(source)


def claim(folder: Path, package: str, entry: str) -> None:
    information = folder / f"{package}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[nadir.plugins]\n{entry}\n")


NAMED = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Foreign:
    name, version, title, model = "NAME", "1", "Foreign", None
    def accepts(self, study): return True
    def run(self, study): return ()
"""


@pytest.fixture(
    params=[
        NOT_IMPORTABLE,
        RAISES,
        NO_CARD,
        "Foreign = 7\n",
        EXITS,
        EXITS_WHEN_MADE,
        EXITS_WITH_ITS_MODEL,
        GIVES_UP,
    ]
)
def broken(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, request.param)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "foreign_plugin", raising=False)


@pytest.mark.usefixtures("broken")
def test_a_plugin_that_cannot_be_loaded_is_told_by_name_and_holds_no_other_back() -> None:
    loaded = load_working()
    assert {"contours", "emphysema"} <= {plugin.name for plugin in loaded.plugins}
    assert "foreign" not in {plugin.name for plugin in loaded.plugins}
    (reason,) = loaded.broken
    assert reason.code == "broken-plugin"
    assert "plugin 'foreign' (foreign_plugin:Foreign)" in reason.sentence


@pytest.mark.usefixtures("broken")
def test_a_plugin_that_cannot_be_loaded_is_refused_when_a_person_asks_for_it() -> None:
    with pytest.raises(Refused) as caught:
        load_plugins(names=["foreign"])
    assert caught.value.code == "broken-plugin"


@pytest.mark.usefixtures("broken")
def test_when_none_of_those_asked_for_can_be_loaded_that_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        load_working(names=["foreign"])
    assert caught.value.code == "broken-plugin"


def test_what_an_administrator_wrote_wrongly_is_refused_and_not_passed_over() -> None:
    with pytest.raises(Refused, match="there is no plugin 'lungz'"):
        load_working(names=["emphysema", "lungz"])
    with pytest.raises(Refused, match="does not take these settings") as caught:
        load_working({"emphysema": {"colour": "red"}})
    assert caught.value.code == "bad-plugin-settings"


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "foreign_plugin", raising=False)
    return tmp_path


PRINTS = """
import random, time
from dataclasses import dataclass
print("imported")
@dataclass(frozen=True)
class Foreign:
    name, version, title = "foreign", "1", "Foreign"
    def __post_init__(self): print("made")
    @property
    def model(self):
        time.sleep(random.random() / 50)
        print("modelled")
    def accepts(self, study): return True
    def run(self, study): return ()
"""


def test_what_a_plugin_prints_while_it_is_loaded_is_no_output_of_a_command(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(foreign, PRINTS)
    load_working()
    told = capsys.readouterr()
    assert told.out == ""
    assert set(told.err.split()) == {"imported", "made", "modelled"}


def test_plugins_that_threads_load_at_one_time_leave_the_output_as_it_was(foreign: Path) -> None:
    install(foreign, PRINTS)
    before = sys.stdout
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: load_plugins(names=["foreign"]), range(24)))
    assert sys.stdout is before


DECLARED = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Foreign:
    name, version, title, model = "foreign", "1", "Foreign", None
    def accepts(self, study): return True
    def run(self, study): return ()
    DECLARATION
"""
MODALITIES = "a tuple of modalities as images name them, such as ('CT',)"


@pytest.mark.parametrize(
    ("said", "form"),
    [
        ("needs = 'CT'", MODALITIES),
        ("needs = 7", MODALITIES),
        ("needs = ('CT', None)", MODALITIES),
        ("needs = ('ct',)", MODALITIES),
        ("families = 'nodule_segmenter'", "a tuple of names"),
        ("families = None", "a tuple of names"),
        ("version = 1.0", "a text"),
        ("name = 7", "a text"),
        ("title = None", "a text"),
    ],
)
def test_what_a_plugin_says_of_itself_in_another_form_is_refused_when_it_is_loaded(
    foreign: Path, said: str, form: str
) -> None:
    install(foreign, DECLARED.replace("DECLARATION", said))
    (reason,) = load_working().broken
    assert reason.code == "broken-plugin"
    assert reason.sentence == f"plugin 'foreign' (foreign_plugin:Foreign) has {said}, which is to be {form}"


def test_a_plugin_that_cannot_say_which_families_of_models_it_uses_is_broken(foreign: Path) -> None:
    raises = "@property\n    def families(self): raise OSError('no list')"
    install(foreign, DECLARED.replace("DECLARATION", raises))
    (reason,) = load_working().broken
    assert reason.sentence.endswith("(foreign_plugin:Foreign) cannot say what its 'families' is: no list")


@pytest.mark.parametrize(
    "source", [NAMED.replace("@dataclass(frozen=True)", ""), NAMED + '    families = ("nodule_segmenter",)\n']
)
def test_a_plugin_whose_settings_cannot_be_read_is_broken(foreign: Path, source: str) -> None:
    install(foreign, source.replace("NAME", "foreign"))
    (reason,) = load_working().broken
    assert reason.code == "broken-plugin"
    assert "(foreign_plugin:Foreign) tells no settings, as the fields of a dataclass do:" in reason.sentence


@pytest.mark.parametrize("needs", ["('CT',)", "['CT', 'PT']", "frozenset({'SR'})", "()", "None"])
def test_every_collection_of_modalities_may_be_needed(foreign: Path, needs: str) -> None:
    install(foreign, DECLARED.replace("DECLARATION", f"needs = {needs}"))
    assert load_plugins(names=["foreign"])[0].title == "Foreign"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (EXITS, "cannot be loaded: SystemExit (needs CUDA)"),
        (EXITS_WHEN_MADE, "cannot be made: SystemExit (3)"),
        (EXITS_WITH_ITS_MODEL, "has no model that can be used: SystemExit"),
        (GIVES_UP, "cannot be loaded: GivenUp (no licence)"),
    ],
)
def test_a_plugin_that_exits_is_broken_and_says_how(foreign: Path, source: str, why: str) -> None:
    install(foreign, source)
    (reason,) = load_working().broken
    assert reason.sentence == f"plugin 'foreign' (foreign_plugin:Foreign) {why}"


def test_ctrl_c_while_a_plugin_is_loaded_is_no_fault_of_the_plugin(foreign: Path) -> None:
    install(foreign, "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_working()


@pytest.mark.parametrize("name", ["other", "emphysema"])
def test_a_plugin_that_has_another_name_than_its_entry_point_is_broken_and_both_are_said(
    foreign: Path, name: str
) -> None:
    install(foreign, NAMED.replace("NAME", name), entry="mine")
    loaded = load_working()
    (reason,) = loaded.broken
    assert reason.code == "broken-plugin"
    expected = f"plugin 'mine' (foreign_plugin:Foreign) calls itself '{name}': its 'name' must be 'mine'"
    assert reason.sentence == expected
    assert [plugin.title for plugin in loaded.plugins].count("Foreign") == 0
    with pytest.raises(Refused, match="calls itself"):
        load_plugins(names=["mine"])


@pytest.mark.parametrize(
    ("entry", "other", "rival"),
    [
        ("foreign", "elsewhere:Foreign", "elsewhere (elsewhere:Foreign)"),
        ("emphysema", "", "nadir (plugins.emphysema:Emphysema)"),
    ],
)
def test_a_name_that_two_packages_claim_is_broken_with_both_packages(
    foreign: Path, entry: str, other: str, rival: str
) -> None:
    install(foreign, NAMED.replace("NAME", entry), entry=entry)
    if other:
        claim(foreign, "elsewhere", f"{entry} = {other}")
    loaded = load_working()
    (reason,) = loaded.broken
    assert reason.code == "broken-plugin"
    assert f"plugin '{entry}' is claimed by " in reason.sentence
    assert "foreign (foreign_plugin:Foreign)" in reason.sentence
    assert rival in reason.sentence
    assert entry not in {plugin.name for plugin in loaded.plugins}
    assert "contours" in {plugin.name for plugin in loaded.plugins}


def test_the_same_entry_point_told_twice_is_one_plugin(foreign: Path) -> None:
    install(foreign, NAMED.replace("NAME", "foreign"))
    claim(foreign, "foreign-editable", "foreign = foreign_plugin:Foreign")
    (plugin,) = load_plugins(names=["foreign"])
    assert plugin.title == "Foreign"
    assert load_working().broken == ()


def test_an_adapter_that_cannot_be_used_is_told_by_its_own_name_and_folder(tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("no bundle")
    values = {"adapter": "monai_bundle", "folder": str(tmp_path), "trusted": tree_sha256(tmp_path)}
    (reason,) = load_working({"spleen": values}).broken
    assert reason.sentence.startswith("plugin 'spleen' (plugins.monai_bundle:MonaiBundle) has no model")
    assert "no-bundle: the folder has no configs/metadata.json" in reason.sentence
    assert str(tmp_path) in reason.sentence


@pytest.mark.parametrize("adapter", ["monai_bundle", "nnunet", "total_segmentator"])
def test_an_adapter_that_nobody_vouches_for_is_told_how_to(adapter: str) -> None:
    with pytest.raises(
        Refused, match=r"plugin 'spleen' .*: 'trusted' is not said; .*'nadir models hash ours'"
    ) as caught:
        load_plugins({"spleen": {"adapter": adapter, "folder": "ours"}}, ["spleen"])
    assert caught.value.code == "bad-plugin-settings"
    with pytest.raises(
        Refused, match=r"plugin 'spleen' .*: 'folder' is not said; name the folder of the model"
    ):
        load_plugins({"spleen": {"adapter": adapter}}, ["spleen"])
