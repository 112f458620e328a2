"""The tests of this folder run in a process of their own, by ``run.py``: see ``library.py``."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from library import is_loaded  # noqa: E402

collect_ignore_glob = [] if is_loaded() else ["test_*.py"]


@pytest.fixture
def gpu():
    """A simulated GPU, whose counts begin at 0."""
    from device import simulate

    with simulate() as device:
        yield device
