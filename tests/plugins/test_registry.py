from __future__ import annotations

import sys
from pathlib import Path

import pytest

from plugins.errors import Refused
from plugins.registry import load_plugins, load_working

NOT_IMPORTABLE = "import a_module_that_nobody_installed\n"
RAISES = "class Foreign:\n    def __init__(self):\n        raise RuntimeError('no weights')\n"
NO_CARD = """
class Foreign:
    name, version, title = "foreign", "1", "Foreign"
    def __init__(self, level: int = 1): pass
    @property
    def model(self): raise OSError("no card")
    def accepts(self, study): return True
    def run(self, study): return ()
"""


def install(folder: Path, source: str) -> None:
    information = folder / "foreign-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[nadir.plugins]\nforeign = foreign_plugin:Foreign\n")
    (folder / "foreign_plugin.py").write_text(source)


@pytest.fixture(params=[NOT_IMPORTABLE, RAISES, NO_CARD, "Foreign = 7\n"])
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
