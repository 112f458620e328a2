"""Fixtures that several files use."""

import pytest
import torch


@pytest.fixture
def in_float64():
    """Let modules compute in float64, so that equal results agree to many digits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
