"""The tests of this folder run in a process of their own, by ``run.py``: see ``library.py``."""

import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
# whose tests are run on the device, too
for folder in ("simulated_device", "engine", "bridge"):
    sys.path.insert(0, str(_TESTS / folder))
sys.path.insert(0, str(_TESTS))

from library import is_loaded  # noqa: E402

collect_ignore_glob = [] if is_loaded() else ["test_*.py"]


@pytest.fixture
def gpu():
    """A simulated GPU, whose counts begin at 0."""
    from device import simulate

    with simulate() as device:
        yield device


@pytest.fixture
def recording_gpu(gpu, monkeypatch):
    """A simulated GPU on which nothing has failed yet, and the shortest training is recorded."""
    from sktune.engine.steps import recorded
    from sktune.engine.steps.recording import capture

    monkeypatch.setattr(recorded, "FEWEST_STEPS", 1)
    monkeypatch.setattr(capture, "FAILURES", capture.Failures())
    monkeypatch.setattr(recorded, "FAILURES", capture.FAILURES)
    return gpu
