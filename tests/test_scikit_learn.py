"""scikit-learn's own tests of its searches pass under the backend if they pass without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn import model_selection

FOLDER = Path(model_selection.__file__).with_name("tests")
MODULES = ["test_search.py", "test_successive_halving.py", "test_validation.py"]


def find_failures(path, *plugins):
    """Return the tests of a file that fail, and how many pass."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    options = ["-q", "-rfE", "--tb=no", "--no-header", "-p", "no:cacheprovider", *plugins]
    command = [
        sys.executable,
        "-m",
        "pytest",
        *options,
        "--rootdir",
        str(path.parent),
        "-c",
        os.devnull,
        str(path),
    ]
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode in (0, 1), found.stdout + found.stderr
    lines = found.stdout.splitlines()
    failed = {line.split(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))}
    return failed, next(line for line in reversed(lines) if " passed" in line)


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER.exists(), reason="scikit-learn was installed without its tests")
@pytest.mark.parametrize("name", MODULES)
def test_scikit_learns_own_tests_pass_under_the_backend(name):
    plain, _ = find_failures(FOLDER / name)
    under_backend, summary = find_failures(FOLDER / name, "-p", "under_backend")

    assert under_backend <= plain, under_backend - plain
    assert " passed" in summary
