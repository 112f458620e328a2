"""Dropout within ``torch.utils.checkpoint``, which computes a block again in the backward pass."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import cross_val_score
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sktune import GridSearchCV, NeuralNetClassifier
from sktune.modules.dropout import _is_in_backward
from sktune.modules.function_masks import calls_dropout

X = np.random.default_rng(0).normal(size=(40, 6))
y = np.arange(40) % 3


class Net(nn.Module):
    def __init__(self, is_recomputed=True, use_reentrant=False):
        super().__init__()
        self.is_recomputed = is_recomputed
        self.use_reentrant = use_reentrant
        self.first = nn.Linear(6, 8)
        self.hidden = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.5)
        self.others = nn.Dropout1d(0.5)
        self.last = nn.Linear(8, 3)
        self.double()

    def forward(self, X):
        X = torch.tanh(self.first(X))
        if self.is_recomputed and self.training:
            X = checkpoint(self.compute, X, use_reentrant=self.use_reentrant)
        else:
            X = self.compute(X)
        return self.last(X)

    def compute(self, X):
        return torch.tanh(self.hidden(self.others(self.dropout(X))))


class Twice(Net):
    def compute(self, X):
        return self.dropout(torch.tanh(self.hidden(self.dropout(X))))


class Functional(Net):
    def compute(self, X):
        return torch.tanh(self.hidden(F.dropout(X, 0.5, self.training)))


def make(module, **settings):
    return NeuralNetClassifier(module, max_epochs=3, batch_size=16, random_state=0, **settings)


def test_a_backward_pass_is_known():
    found = []
    x = torch.ones(2, requires_grad=True)
    x.register_hook(lambda gradient: found.append(_is_in_backward()))
    x.sum().backward()
    assert found == [True]
    assert not _is_in_backward()


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_call_that_is_computed_again_has_the_same_mask(use_reentrant):
    fits = []
    for is_recomputed in (False, True):
        settings = {"module__is_recomputed": is_recomputed, "module__use_reentrant": use_reentrant}
        fits.append(make(Net, **settings).fit(X, y))
    one, other = (net.module_.state_dict() for net in fits)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_searches_score_as_fits_alone_do():
    search = GridSearchCV(make(Net), {"lr": [0.01, 0.02]}, cv=2, scoring="neg_log_loss")
    found = search.fit(X, y).cv_results_
    for n, candidate in enumerate(found["params"]):
        alone = make(Net, **candidate)
        expected = cross_val_score(alone, X, y, cv=2, scoring="neg_log_loss")
        assert [found[f"split{split}_test_score"][n] for split in (0, 1)] == expected.tolist()


def test_calls_whose_masks_cannot_be_told_apart_are_refused():
    with pytest.raises(RuntimeError, match="must be called once in a step, got 2 calls"):
        make(Twice).fit(X, y)
    make(Twice, module__is_recomputed=False).fit(X, y)


def test_functions_are_left_to_torch():
    """torch draws the same mask again, from the state of its generator."""
    assert not calls_dropout(Functional())
    seen = []

    class Recording(Functional):
        def compute(self, X):
            found = F.dropout(X, 0.5, self.training)
            # the module is also called with a stand-in, to read it
            if self.training and isinstance(found, torch.Tensor):
                seen.append(found.detach() == 0)
            return torch.tanh(self.hidden(found))

    one, other = (make(Recording).fit(X, y).module_.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    # forward, and again in the backward pass
    assert len(seen) == 2 * 2 * 3 * 3
    assert all(map(torch.equal, seen[::2], seen[1::2]))
    assert any(mask.any() for mask in seen)
