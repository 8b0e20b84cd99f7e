from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from demo_run import DemoRun

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
pytestmark = pytest.mark.xdist_group("demo")


@pytest.fixture(scope="module")
def made() -> ModuleType:
    """Return the module that makes both documents."""
    spec = importlib.util.spec_from_file_location("methods_report", ROOT / "benchmarks" / "methods_report.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def text_of(document: bytes) -> str:
    done = subprocess.run(["pdftotext", "-layout", "-", "-"], input=document, capture_output=True, check=True)
    return " ".join(done.stdout.decode().split())


def test_report_and_slides_say_what_the_results_say(made: ModuleType, demo: DemoRun, tmp_path: Path) -> None:
    said = {"kill -9 during ingest (long)": {"at": "x", "acknowledged": 4321, "lost": 0}}
    (tmp_path / "reliability.json").write_text(json.dumps(said))
    rows = [
        {
            "row": "500 slices",
            "unit": "img/s",
            "receivers": [{"name": "storescp", "values": [3.0, 1.25, 2.0]}],
        }
    ]
    (tmp_path / "ingest.json").write_text(json.dumps({"rows": rows}))
    steps = [{"step": "SEG", "sides": {"nadir": {"wall_s": 0.58}, "dcmqi": {"wall_s": 3.91}}}]
    (tmp_path / "pipeline.json").write_text(json.dumps({"steps": steps}))
    evidence = made.gather(demo.out, tmp_path, NOON)
    card = json.loads((ROOT / "models" / "weights" / "nodule_malignancy" / "card.json").read_text())
    auc = card["figures"]["classification"]["settings"]["segmenter's mask"]["auc"]["value"]
    suv = [pair for pair in evidence.pairs if pair.name == "suv_max"]
    assert len(suv) == 7 and all(abs(pair.measured / pair.truth - 1) < 0.005 for pair in suv)
    for document in (made.report(evidence), made.slides(evidence)):
        text = text_of(document)
        assert f"AUC (segmenter's mask) {auc:.3f}" in text
        assert "acknowledged 4321, lost 0" in text
        assert "500 slices storescp 2 img/s" in text and "SEG dcmqi 3.91 s" in text
        assert "SUVmax 7 " in text and "For research use only" in text


def test_what_was_not_measured_is_named_with_the_command(made: ModuleType, tmp_path: Path) -> None:
    text = text_of(made.report(made.gather(tmp_path, tmp_path, NOON)))
    assert text.count("Not measured here") == 3
    assert "nadir demo --out demo-out" in text and "make bench" in text
