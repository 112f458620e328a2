"""A pytest plugin: ``-p under_backend`` runs any tests under the backend ``"sktune"``."""

import joblib
import pytest

import sktune  # noqa: F401 (registers the backend)


@pytest.fixture(autouse=True)
def under_backend():
    with joblib.parallel_config("sktune"):
        yield
