"""Fused fits on a GPU are what plain fits on it are: the tests of the processor, on the device."""

import pytest
from test_parity import *  # noqa: F403


@pytest.fixture(autouse=True)
def _on_device(gpu):
    """Let ``device="auto"``, the default, find the device."""
