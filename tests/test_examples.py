"""Every script in examples/ runs, issues no warning and leaves no file but what it names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# The others take longer; `make examples` runs all of them.
QUICK = {"quickstart.py"}
# What a script leaves in the current folder, and says so.
LEFT = {"digits_demo.py": ["report.html"]}


def run_example(path, folder, *arguments):
    """Run a script in a folder of its own; return what it printed."""
    python_path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path}
    env["PYTHONIOENCODING"] = "utf-8"
    command = [sys.executable, str(path), *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


def test_there_are_examples():
    assert {"digits_demo.py", *QUICK} <= {path.name for path in EXAMPLES}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.name, marks=() if path.name in QUICK else pytest.mark.slow)
        for path in EXAMPLES
    ],
)
def test_example_runs(path, tmp_path):
    printed = run_example(path, tmp_path)
    assert printed
    left = [str(other) for other in tmp_path.iterdir()]
    assert left == [str(tmp_path / name) for name in LEFT.get(path.name, [])]
    assert all(name in printed for name in left)


@pytest.mark.slow
def test_picture_is_drawn_when_asked_for(tmp_path):
    pytest.importorskip("matplotlib")

    run_example(ROOT / "examples" / "grid_against_random_search.py", tmp_path, "scores.png")

    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
