"""The benchmarks run; their figures are not looked at."""

import json
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="benchmarks are not installed")


def test_single_fit(tmp_path, capsys):
    runpy.run_path(FOLDER / "single_fit.py")["main"](["--quick", "--json", str(tmp_path / "found" / "out.json")])

    found = json.loads((tmp_path / "found" / "out.json").read_text())
    assert {row["peer"] for row in found["rows"]} == {"loop", "sktune", "skorch"}
    assert sum(row["what"].startswith("epoch") for row in found["rows"]) == 3 * 4
    assert sum(row["what"].startswith("fit") for row in found["rows"]) == 3 * 4
    assert sum(row["what"].startswith("predict") for row in found["rows"]) == 3
    assert found["machine"]["torch_threads"] >= 1
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 1 + len(found["rows"])
    assert all(row["what"] in printed for row in found["rows"])
