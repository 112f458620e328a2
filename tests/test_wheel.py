"""What a user installs: a wheel that is built of the project has all that its parts need."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "sktune")
# What reads files of its own package, and what a user may import: in a fresh interpreter.
PROGRAM = """
from pathlib import Path
import sktune
from sklearn.datasets import load_iris
from sktune.inspection import report
assert Path(sktune.__file__).is_relative_to(Path("installed").resolve()), sktune.__file__
X, y = load_iris(return_X_y=True)
net = sktune.NeuralNetClassifier(max_epochs=2, random_state=0)
search = sktune.GridSearchCV(net, {"lr": [1e-3, 1e-2]}, cv=2).fit(X, y)
page = report(search, "report.html").read_text(encoding="utf-8")
assert "<svg" in page and "</html>" in page
assert "sktune-summary" in search._repr_html_()
print("written")
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all((ROOT / name).exists() for name in SOURCES), reason="the sources are not here"
    ),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy of the sources, so that nothing is left beside them."""
    project = tmp_path_factory.mktemp("project")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, project / name)
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", folder, project]
    if _has_setuptools():
        # without this, pip asks the network for another one
        command += ["--no-build-isolation", "--no-index"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def _has_setuptools():
    """Tell whether the setuptools that pyproject.toml asks for is installed."""
    try:
        return int(metadata.version("setuptools").split(".")[0]) > 77
    except metadata.PackageNotFoundError:
        return False


def test_the_wheel_has_all_files_of_the_package(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("sktune/")}
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "sktune").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    # pages for those who read the sources are not needed
    assert {name for name in sources - held if not name.endswith(".md")} == set()
    assert "sktune/inspection/report/templates/page.html" in held


def test_a_report_is_written_from_the_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "OMP_NUM_THREADS": "1"}
    # compiling takes long, and is not what is tested
    env["SKTUNE_COMPILED"] = "0"

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "written"
    assert (tmp_path / "report.html").exists()
