"""The tests of ``tests/simulated_device``, in a process that has a simulated GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "simulated_device"
sys.path.insert(0, str(FOLDER))

from library import find_obstacle  # noqa: E402

OBSTACLE = find_obstacle()


def run(*arguments):
    """Run tests of the folder; return what pytest printed."""
    command = [sys.executable, FOLDER / "run.py", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(bool(OBSTACLE), reason=f"a GPU cannot be simulated: {OBSTACLE}")
def test_on_a_simulated_gpu():
    names = ["alone", "counts", "devices", "recorded", "simulation", "streams"]
    report = run(*(str(FOLDER / f"test_{name}_on_device.py") for name in names))

    assert " passed" in report
    assert "failed" not in report


@pytest.mark.slow
@pytest.mark.skipif(bool(OBSTACLE), reason=f"a GPU cannot be simulated: {OBSTACLE}")
def test_parity_on_a_simulated_gpu():
    assert " passed" in run(str(FOLDER / "test_parity_on_device.py"))
