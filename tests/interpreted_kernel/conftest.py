"""The tests of this folder run in a process of their own, by ``run.py``."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

_is_interpreted = os.environ.get("TRITON_INTERPRET", "0") == "1" and find_spec("triton") is not None
collect_ignore_glob = [] if _is_interpreted else ["test_*.py"]


@pytest.fixture(autouse=True)
def _on_processor(monkeypatch):
    """Let the kernel be launched on a processor, which interprets it, for all groups."""
    from sktune.engine import group
    from sktune.engine.steps.launched import backend, choice

    monkeypatch.setattr(group, "STEP_BACKENDS", [backend.LaunchedSteps])
    monkeypatch.setattr(backend, "find_device_blocker", lambda spec: "")
    monkeypatch.setattr(choice, "mode", "1")
    monkeypatch.setattr(choice, "FAILURES", choice.Failures())
