"""What no line of the product may do: run what it reads, or open a way to."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("models", "plugins", "store", "training", "node", "orthanc")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MODULES = frozenset({"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "jsonpickle"})
YAML_DOORS = frozenset(
    {"yaml.safe_load", "yaml.compose", "yaml.SafeLoader", "yaml.YAMLError"}
)  # compose: nodes only
CALLS = frozenset({"eval", "exec", "compile", "__import__"})
SHELLS = frozenset(
    {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"}
)
UNPACKS = frozenset({"extractall", "unpack_archive"})


def forbidden(tree: ast.AST) -> Iterator[str]:
    """Yield what is forbidden in a file, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        yield from _forbidden_yaml(node)
        for name in names:
            if name.partition(".")[0] in MODULES:
                yield f"{node.lineno}: import {name}"  # type: ignore[attr-defined]
        if isinstance(node, ast.Call):
            yield from (f"{node.lineno}: {why}" for why in _forbidden_call(node))


def _forbidden_yaml(node: ast.AST) -> Iterator[str]:
    """Yield every way into YAML but the safe one: the others make objects of what they read."""
    if isinstance(node, ast.ImportFrom) and node.module == "yaml":
        yield f"{node.lineno}: from yaml"
    if isinstance(node, ast.Import) and any(alias.name == "yaml" and alias.asname for alias in node.names):
        yield f"{node.lineno}: yaml under another name"
    name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
    if name.startswith("yaml.") and name not in YAML_DOORS:
        yield f"{name} makes objects of what it reads"


def _forbidden_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in CALLS or name in SHELLS or last in UNPACKS:
        yield name
    if given.get("shell", "False") != "False":
        yield f"{name} with a shell"
    if given.get("allow_pickle", "False") != "False":
        yield f"{name} with pickles"
    if (
        last in ("load", "load_state_dict_from_url")
        and name.startswith("torch")
        and given.get("weights_only") != "True"
    ):
        yield f"{name} without weights_only=True"
    if name in ("torch.jit.load", "torch.hub.load"):
        yield f"{name}, which runs what it loads"
    if name.endswith(("_create_unverified_context", "disable_warnings")) or given.get("verify") == "False":
        yield f"{name}, which trusts any certificate"


@pytest.mark.sec
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_model_files_and_all_else_that_is_read_is_never_run(path: Path) -> None:
    assert list(forbidden(ast.parse(path.read_text()))) == []


@pytest.mark.sec
@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from yaml import load",
        "import yaml as y",
        "yaml.load(f, Loader=yaml.Loader)",
        "import dill as d",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.jit.load(f)",
        "np.load(f, allow_pickle=True)",
        "subprocess.run(c, shell=True)",
        "os.system(c)",
        "eval(x)",
        "tar.extractall(p)",
        "httpx.get(u, verify=False)",
    ],
)
def test_model_files_what_would_run_them_is_found(line: str) -> None:
    assert list(forbidden(ast.parse(line)))


@pytest.mark.sec
def test_model_files_may_be_loaded_as_weights_only() -> None:
    harmless = (
        "torch.load(f, weights_only=True)\nnp.load(f)\nre.compile('x')\nmodel.eval()\nyaml.safe_load(f)"
    )
    assert list(forbidden(ast.parse(harmless))) == []
