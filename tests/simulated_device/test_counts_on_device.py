"""What a search launches, and how often it waits: bounds, for the cost of a GPU's small kernels.

The search is as that of ``benchmarks/search_speed.py``: 300 lanes in 3 groups, 20 epochs; of fewer
rows and narrower nets, on which no count depends.
"""

import joblib
import numpy as np
import pytest
from device import Graph, simulate
from scipy.stats import loguniform, uniform
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.model_selection import RandomizedSearchCV, StratifiedKFold

from sktune import NeuralNetClassifier
from sktune.engine.report import FusionReport

X, y = make_classification(330, 6, n_informative=4, n_classes=3, random_state=0)
X = X.astype(np.float32)
N_EPOCHS = 20
N_GROUPS = 3
SPACE = {
    "lr": loguniform(1e-4, 1e-2),
    "optimizer__weight_decay": loguniform(1e-6, 1e-1),
    "batch_size": [8, 16, 32],
    "module__dropout": uniform(0, 0.6),
}
NET = NeuralNetClassifier(module__hidden=(8,), max_epochs=N_EPOCHS, random_state=0)


@pytest.fixture(scope="module")
def counted():
    """The counts of a search and of a fit alone, the sizes of the recordings, and the report."""
    sizes = []
    report = FusionReport()
    with simulate() as device, pytest.MonkeyPatch.context() as patch:
        end = Graph.capture_end
        patch.setattr(Graph, "capture_end", lambda self: end(self) or sizes.append(len(self)))
        search = RandomizedSearchCV(
            NET, SPACE, n_iter=60, random_state=0, cv=StratifiedKFold(5), refit=False
        )
        with joblib.parallel_config("sktune", report=report, n_jobs=1):
            search.fit(X, y)
        of_search = device.counts()
        sizes_of_search = list(sizes)
        device.reset()
        clone(NET).set_params(**search.best_params_).fit(X, y)
        of_fit = device.counts()
    return of_search, of_fit, sizes_of_search, report


def test_the_yardstick_is_recorded(counted):
    *_, report = counted

    assert sum(group["lanes"] for group in report.groups) == 300
    assert [group["steps"] for group in report.groups] == ["recorded"] * N_GROUPS


def test_waits_of_a_group_in_an_epoch(counted):
    of_search, *_ = counted

    assert of_search.waits / (N_GROUPS * N_EPOCHS) <= 2


def test_launches_outside_of_recordings(counted):
    of_search, *_ = counted

    assert of_search.launches - of_search.replays <= 1500


def test_launches_of_a_fit_alone(counted):
    _, of_fit, *_ = counted

    assert of_fit.launches - of_fit.replays <= 1500
    assert of_fit.waits <= 2.5 * N_EPOCHS
    assert of_fit.replays > 0


def test_kernels_of_a_recorded_step(counted):
    *_, sizes, _ = counted
    # each group has a recording of its whole batches: 33, 16 and 8 steps; two have another one
    whole = sorted(sizes)[-N_GROUPS:]
    n_steps = sorted([264 // size for size in SPACE["batch_size"]])

    kernels = np.diff(whole) / np.diff(n_steps)
    assert (kernels <= 20).all()
