"""Warnings about likely mistakes, and errors that say what to do."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.model_selection import KFold, cross_val_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktune import MLP, DivergenceError, GridSearchCV, NeuralNetClassifier, NeuralNetRegressor

rng = np.random.RandomState(0)
X = rng.randn(120, 3)
y = (X[:, 0] > 0).astype(int)


class Ending(MLP):
    """An MLP that ends in a function."""

    def __init__(self, n_features, n_outputs, ending="softmax", dtype=None):
        super().__init__(n_features, n_outputs, hidden=(4,), dtype=dtype)
        self.ending = ending

    def forward(self, X):
        return getattr(torch, self.ending)(super().forward(X), 1)


def make_net(estimator=NeuralNetClassifier, **params):
    return estimator(**{"max_epochs": 3, "lr": 0.01, "random_state": 0, **params})


# name: (parameters, message)
MISFITS = {
    "softmax": (
        {"module": Ending},
        "must return logits under CrossEntropyLoss.*leave the softmax out",
    ),
    "softmax, smoothed": (
        {"module": Ending, "criterion": nn.CrossEntropyLoss(label_smoothing=0.1)},
        "must return logits under CrossEntropyLoss",
    ),
    "softmax, sequential": (
        {"module": nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=1))},
        "must return logits under CrossEntropyLoss",
    ),
}


@pytest.mark.parametrize(("params", "message"), MISFITS.values(), ids=MISFITS)
def test_outputs_that_do_not_fit_the_criterion_are_named_once(params, message):
    with pytest.warns(UserWarning, match=message) as caught:
        make_net(**params).fit(X, y)

    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("ending", "what"), [("log_softmax", "log-probabilities"), ("cumsum", "negative numbers")]
)
def test_logarithms_under_a_likelihood_of_probabilities(ending, what):
    net = make_net(module=Ending, module__ending=ending, criterion=nn.NLLLoss)

    message = (
        f"must return probabilities under NLLLoss.* returns {what}: end the module in a softmax"
    )
    with (
        pytest.warns(UserWarning, match=message),
        pytest.raises(DivergenceError, match="became nan"),
    ):
        net.fit(X, y)


def test_outputs_that_fit_are_not_named():
    fitting = [
        {"module": Ending, "criterion": nn.NLLLoss},
        {"module": Ending, "module__ending": "log_softmax"},
        {"module": Ending, "module__ending": "cumsum"},
        # Single rows may sum to 1 by chance.
        {"module": Ending, "batch_size": 2, "max_epochs": 1},
    ]
    for params in fitting:
        make_net(**params).fit(X, y)


def test_a_loss_of_one_s_own_is_not_judged():
    class Own(NeuralNetClassifier):
        def get_loss(self, y_pred, y_true, **kwargs):
            return super().get_loss(torch.log(y_pred), y_true, **kwargs)

    make_net(Own, module=Ending).fit(X, y)


def test_a_fused_search_warns_as_fits_alone_do():
    found = []
    for search in (
        lambda: cross_val_score(make_net(module=Ending), X, y, cv=2),
        lambda: GridSearchCV(make_net(module=Ending), {"lr": [0.01]}, cv=2, refit=False).fit(X, y),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = search()
        found.append([str(warning.message) for warning in caught])

    assert result.fusion_.alone == []
    assert found[0] == found[1]
    assert len(found[0]) == 2


@pytest.mark.parametrize("target", [1000 * X[:, 0], X[:, 0] + 5000, np.c_[X[:, 0], 300 * X[:, 1]]])
@pytest.mark.parametrize("criterion", [nn.MSELoss, nn.L1Loss()])
def test_huge_targets_are_warned_of(target, criterion):
    with pytest.warns(
        UserWarning, match=r"targets y should be scaled.*use TransformedTargetRegressor"
    ) as caught:
        make_net(NeuralNetRegressor, criterion=criterion, max_epochs=1).fit(X, target)
    assert [warning.filename for warning in caught] == [__file__]

    scaled = TransformedTargetRegressor(
        make_net(NeuralNetRegressor, max_epochs=1), transformer=StandardScaler()
    )
    scaled.fit(X, target)


def test_targets_that_are_not_huge():
    make_net(NeuralNetRegressor, max_epochs=1).fit(X, 20 * X[:, 0] + 30)
    make_net(NeuralNetRegressor, max_epochs=1).fit(X[:20], 1000 * X[:20, 0])
    make_net(NeuralNetRegressor, max_epochs=1, criterion=nn.PoissonNLLLoss).fit(
        X, np.arange(120) * 10
    )


def test_huge_targets_in_a_fused_search():
    search = GridSearchCV(
        make_net(NeuralNetRegressor, max_epochs=1), {"lr": [0.01, 0.1]}, cv=KFold(2), refit=False
    )
    with pytest.warns(UserWarning, match="targets y should be scaled") as caught:
        search.fit(X, 1000 * X[:, 0])

    assert search.fusion_.alone == []
    assert {str(warning.message).partition(":")[2] for warning in caught} == {
        " use TransformedTargetRegressor(net, transformer=StandardScaler())"
    }


def test_divergence_of_a_regressor_advises_scaling_the_targets():
    net = make_net(NeuralNetRegressor, lr=1e35, max_epochs=20)
    with pytest.raises(
        DivergenceError, match=r"features .*, targets scaled likewise .*TransformedTargetRegressor"
    ):
        net.fit(X, y)
    with pytest.raises(DivergenceError, match="targets scaled likewise"):
        cross_val_score(net, X, y, cv=2, error_score="raise")
    search = GridSearchCV(net, {"lr": [1e35]}, cv=2, error_score="raise")
    with pytest.raises(DivergenceError, match="targets scaled likewise"):
        search.fit(X, y)
    with pytest.raises(
        DivergenceError, match="features scaled to unit variance, or gradient"
    ) as error:
        make_net(lr=1e35).fit(X, y)
    assert "target" not in str(error.value)


@pytest.mark.parametrize(("factor", "dtype"), [(1e25, np.float32), (1e300, np.float64)])
def test_targets_whose_squares_overflow_are_warned_of_as_huge_alone(factor, dtype):
    target = (X[:, 0] * factor).astype(dtype)
    message = "targets y should be scaled"
    with (
        pytest.raises(DivergenceError, match="finite"),
        pytest.warns(UserWarning, match=message) as caught,
    ):
        make_net(NeuralNetRegressor, max_epochs=1).fit(X, target)
    assert len(caught) == 1
