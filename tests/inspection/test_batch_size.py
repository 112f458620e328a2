import weakref

import numpy as np
import pytest
import skorch
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktune import NeuralNetRegressor, find_max_batch_size
from sktune.inspection.batch_size import _search
from sktune.modules.structure import as_text

X = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
y = X[:, :1] - X[:, 1:2]

ERRORS = {
    "cuda": (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2 GiB"),
    "cpu": (RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 B"),
    "mps": (RuntimeError, "MPS backend out of memory (MPS allocated: 1 GB)"),
    "numpy": (MemoryError, ""),
}


class Limited(nn.Module):
    """A layer that runs out of memory from some rows on, as from the second step if `late`."""

    seen = []
    alive = weakref.WeakSet()
    most_alive = 0

    def __init__(self, limit=70, error="cuda", late=False):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.limit = limit
        self.error = error
        self.late = late
        self.n_calls = 0
        # only the garbage collector frees this
        self.circle = [self]
        Limited.alive.add(self)
        Limited.most_alive = max(Limited.most_alive, len(Limited.alive))

    def forward(self, X):
        self.n_calls += 1
        Limited.seen.append(len(X))
        if len(X) > self.limit and self.n_calls > self.late:
            # what the traceback of the error holds
            held = self.layer(X)
            kind, message = ERRORS[self.error]
            assert held.requires_grad
            raise kind(message)
        return self.layer(X)


@pytest.fixture(autouse=True)
def _forget():
    Limited.seen.clear()
    Limited.most_alive = 0


def make_net(kind=NeuralNetRegressor, **options):
    return kind(Limited, optimizer=torch.optim.Adam, batch_size=16, **options)


@pytest.mark.parametrize("error", ERRORS)
def test_kinds_of_errors(error):
    assert find_max_batch_size(make_net(module__error=error), X, y, start=64) == 64


@pytest.mark.parametrize(("start", "found"), [(None, 64), (1, 64), (128, 64), (200, 50)])
def test_doubles_and_halves(start, found):
    assert find_max_batch_size(make_net(), X, y, start=start) == found


def test_the_second_step_counts():
    assert find_max_batch_size(make_net(module__late=True), X, y) == 64


@pytest.mark.parametrize("kind", [NeuralNetRegressor, skorch.NeuralNetRegressor])
def test_kinds_of_nets_are_left_as_they_are(kind):
    net = make_net(kind, max_epochs=3)
    before = as_text(vars(net))

    assert find_max_batch_size(net, X, y) == 64
    assert as_text(vars(net)) == before
    assert not net.initialized_


def test_pipeline_sees_all_rows():
    scaler = StandardScaler()
    pipeline = make_pipeline(scaler, make_net())

    assert find_max_batch_size(pipeline, X, y) == 64
    assert not hasattr(scaler, "mean_")
    assert pipeline.steps[-1][1].batch_size == 16


@pytest.mark.parametrize("limit", [70, 10_000])
def test_nothing_is_left_in_memory(limit):
    find_max_batch_size(make_net(module__limit=limit), X, y)

    assert len(Limited.alive) == 0
    assert Limited.most_alive == 1


def test_each_size_is_tried_also_after_the_first_step():
    find_max_batch_size(make_net(module__limit=10_000), X, y, start=64)

    # the last batch of an epoch may be smaller
    assert Limited.seen == [64, 64, 64, 128, 72, 128, 200, 200, 200]


def test_rows_are_the_limit():
    assert find_max_batch_size(make_net(module__limit=10_000), X, y) == 200
    assert find_max_batch_size(make_net(module__limit=10_000), X, y, max_batch_size=100) == 100
    assert find_max_batch_size(make_net(module__limit=10_000), X, y, max_batch_size=999) == 200


def test_all_rows_at_once_is_a_size():
    assert find_max_batch_size(make_net().set_params(batch_size=-1), X, y) == 50


def test_sizes_are_told(capsys):
    find_max_batch_size(make_net(), X, y, start=64, verbose=1)

    assert capsys.readouterr().out == "batch_size=64: fits\nbatch_size=128: out of memory\n"


def test_no_size_fits():
    with pytest.raises(MemoryError, match="a batch of one row must fit in memory"):
        find_max_batch_size(make_net(module__limit=0), X, y)


def test_other_errors_are_raised_as_they_are():
    holes = np.where(X > 2, np.nan, X)

    with pytest.raises(ValueError, match="Input X contains NaN"):
        find_max_batch_size(make_net(), holes, y)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        find_max_batch_size(make_net(), X[:, :2], y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        find_max_batch_size(make_net(), X, y[:-1])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"start": 0}, "start must be an int of at least 1, got start=0"),
        ({"start": 2.0}, "start must be an int of at least 1, got start=2.0"),
        ({"max_batch_size": -1}, "max_batch_size must be an int of at least 1, got max_batch_siz"),
    ],
)
def test_bad_sizes(options, match):
    with pytest.raises(ValueError, match=match):
        find_max_batch_size(make_net(), X, y, **options)


def test_estimator_without_a_network():
    with pytest.raises(TypeError, match="estimator must be a network.*got LogisticRegression"):
        find_max_batch_size(LogisticRegression(), X, y)


@pytest.mark.parametrize("limit", range(1, 40))
def test_search_is_within_a_factor_of_two(limit):
    found = _search(lambda size: size <= limit, 6, 32)

    assert found <= limit
    assert found == 32 or 2 * found > limit or limit < 6
