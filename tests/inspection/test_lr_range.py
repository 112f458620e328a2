import warnings

import numpy as np
import pytest
import skorch
import torch
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from torch import nn

from sktune import NeuralNetClassifier, NeuralNetRegressor, lr_range_test
from sktune.modules.structure import as_text

X, y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)).astype(np.float32)
FEW = {"num": 20, "n_epochs": 8}


def make_bowl(seed=0):
    """Return a table, targets, and the largest eigenvalue of the Hessian of their squared loss."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(120, 4)) * [3.0, 1.0, 1.0, 0.5]
    y = X @ [0.5, -1.0, 1.0, 2.0]
    # the column of the bias
    design = np.column_stack([X, np.ones(len(X))])
    hessian = 2 / len(X) * design.T @ design
    return X, y, np.linalg.eigvalsh(hessian)[-1]


def make_linear(**options):
    options = {"batch_size": -1, "random_state": 0} | options
    sizes = {"module__in_features": 4, "module__out_features": 1}
    return NeuralNetRegressor(nn.Linear, optimizer=torch.optim.SGD, **sizes, **options)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("num", [20, 60])
def test_quadratic_bowl_diverges_at_two_over_the_largest_eigenvalue(num, momentum):
    X, y, largest = make_bowl()
    whole = [(np.arange(len(X)), np.arange(len(X)))]
    net = make_linear(optimizer__momentum=momentum)

    result = lr_range_test(net, X, y, lr_min=1e-6, lr_max=10, num=num, cv=whole, n_epochs=200)

    step = result.rates[1] / result.rates[0]
    # with momentum: Polyak 1964, theorem 9
    edge = 2 * (1 + momentum) / largest
    assert edge < result.divergent_edge < edge * step * 1.001
    assert result.good_region[1] < edge


def test_sweep_of_the_bowl():
    X, y, largest = make_bowl()

    result = lr_range_test(
        make_linear(), X, y, lr_min=1e-6, lr_max=10, num=200, method="sweep", random_state=0
    )

    # the loss has to grow for some steps before it is above that without training
    assert 2 / largest < result.divergent_edge < 10 / largest
    assert result.lower_edge < result.suggestion < 2 / largest
    assert result.valid_losses is None
    assert result.train_losses.shape == (200, 1)


@pytest.mark.parametrize("method", ["parallel", "sweep"])
def test_pipeline_is_tested_and_left_as_it_is(method):
    estimator = make_pipeline(StandardScaler(), NeuralNetClassifier(random_state=0))
    before = as_text(estimator.steps)
    net_before = as_text(vars(estimator.steps[1][1]))
    options = FEW if method == "parallel" else {"num": 150}

    result = lr_range_test(estimator, X * 10 + 100, y, method=method, **options)

    assert as_text(estimator.steps) == before
    assert as_text(vars(estimator.steps[1][1])) == net_before
    assert not hasattr(estimator.steps[0][1], "mean_")
    assert not estimator.steps[1][1].initialized_
    assert 1e-6 < result.lower_edge < result.suggestion < result.divergent_edge <= 10


def test_losses_are_those_of_single_fits():
    net = NeuralNetClassifier(random_state=3)
    even, odd = np.arange(0, 150, 2), np.arange(1, 150, 2)
    splits = [(even, odd), (odd, even)]

    result = lr_range_test(net, X, y, cv=splits, **FEW)

    assert result.train_losses.shape == result.valid_losses.shape == (20, 2)
    for place, split in [(0, 0), (10, 1), (12, 0)]:
        train, test = splits[split]
        single = clone(net).set_params(lr=float(result.rates[place]), max_epochs=8)
        single.fit(X[train], y[train])
        expected = single.history[-1, "train_loss"]
        np.testing.assert_allclose(result.train_losses[place, split], expected, rtol=1e-5)
        probabilities = single.predict_proba(X[test])
        valid_loss = -np.log(probabilities[np.arange(len(test)), y[test]]).mean()
        np.testing.assert_allclose(result.valid_losses[place, split], valid_loss, rtol=1e-4)


def test_rates_are_trained_together(monkeypatch):
    # a net alone would take its steps in the fit loop
    monkeypatch.setattr(NeuralNetClassifier, "run_single_epoch", None)

    lr_range_test(NeuralNetClassifier(random_state=0), X, y, **FEW)


class Own(Callback):
    """Code of the user's, which keeps fits out of groups."""

    def on_batch_end(self, net, **kwargs):
        pass


def test_losses_of_fits_that_are_not_fused():
    fused = lr_range_test(NeuralNetClassifier(random_state=0), X, y, **FEW)
    net = NeuralNetClassifier(random_state=0, callbacks=[Own()])

    alone = lr_range_test(net, X, y, **FEW)

    finite = np.isfinite(fused.train_losses) & (fused.rates < 0.1)[:, None]
    np.testing.assert_allclose(alone.train_losses[finite], fused.train_losses[finite], rtol=1e-3)
    assert alone.lower_edge == fused.lower_edge


@pytest.mark.parametrize("method", ["parallel", "sweep"])
@pytest.mark.parametrize("kind", ["sktune", "skorch"])
def test_random_state_repeats_the_result(kind, method):
    options = {"num": 100, "lr_max": 1000} if method == "sweep" else {**FEW, "lr_max": 1000}
    net = NeuralNetClassifier() if kind == "sktune" else make_skorch_net()
    state = torch.get_rng_state()

    results = [
        lr_range_test(net, X, y, method=method, random_state=seed, **options) for seed in (1, 1, 2)
    ]

    np.testing.assert_array_equal(results[0].train_losses, results[1].train_losses)
    assert (results[0].train_losses[0] != results[2].train_losses[0]).any()
    assert torch.equal(torch.get_rng_state(), state)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, X):
        return self.layers(X)


def make_skorch_net():
    options = {"criterion": nn.CrossEntropyLoss, "optimizer": torch.optim.Adam}
    # a validation split of skorch's own would need the rows in random order
    return skorch.NeuralNetClassifier(Small, train_split=None, batch_size=32, **options)


def test_rate_of_the_optimizer_is_the_one_that_counts():
    net = NeuralNetClassifier(random_state=0, optimizer__lr=0.1)

    result = lr_range_test(net, X, y, **FEW)

    plain = lr_range_test(NeuralNetClassifier(random_state=0), X, y, **FEW)
    np.testing.assert_array_equal(result.train_losses, plain.train_losses)


def test_a_net_does_not_stop_early():
    net = NeuralNetClassifier(random_state=0, early_stopping=True, n_iter_no_change=1)

    result = lr_range_test(net, X, y, **FEW)

    plain = lr_range_test(NeuralNetClassifier(random_state=0), X, y, **FEW)
    np.testing.assert_array_equal(result.train_losses, plain.train_losses)


def test_sample_weight_is_an_argument_of_fit():
    weight = np.where(y == 2, 0.0, 1.0)

    result = lr_range_test(
        NeuralNetClassifier(random_state=0, classes=[0, 1, 2]), X, y,
        params={"sample_weight": weight}, **FEW,
    )  # fmt: skip

    assert not np.allclose(
        result.train_losses[:5],
        lr_range_test(NeuralNetClassifier(random_state=0), X, y, **FEW).train_losses[:5],
    )


def test_diverging_fits_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = lr_range_test(make_linear(batch_size=16), *make_bowl()[:2], lr_max=1e9, **FEW)

    assert np.isnan(result.train_losses).any()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"lr_min": 1.0, "lr_max": 1.0}, "lr_min must be below lr_max, got lr_min=1.0 and lr_max"),
        ({"lr_min": 0.0}, "lr_min must be a positive finite number, got lr_min=0.0"),
        ({"lr_max": np.inf}, "lr_max must be a positive finite number, got lr_max=inf"),
        ({"lr_max": "10"}, "lr_max must be a positive finite number, got lr_max='10'"),
        ({"num": 7}, "num must be an int of at least 8, got num=7"),
        ({"num": 20.0}, "num must be an int of at least 8, got num=20.0"),
        ({"n_epochs": 0}, "n_epochs must be an int of at least 1, got n_epochs=0"),
        ({"method": "swep"}, "method must be one of .*got 'swep'; did you mean 'sweep'"),
        ({"cv": 1}, "k-fold cross-validation requires at least one train/test split"),
    ],
)
def test_bad_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        lr_range_test(NeuralNetClassifier(random_state=0), X, y, **options)


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (LogisticRegression(), "LogisticRegression"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "LogisticRegression"),
        (TransformedTargetRegressor(NeuralNetRegressor()), "TransformedTargetRegressor"),
        (NeuralNetClassifier, "type"),
    ],
)
def test_estimator_without_a_network(estimator, name):
    with pytest.raises(TypeError, match=f"estimator must be a network.*, got {name}"):
        lr_range_test(estimator, X, y)


def test_rows_that_do_not_match():
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[150, 149\]"):
        lr_range_test(NeuralNetClassifier(random_state=0), X, y[:-1])


@pytest.mark.parametrize("method", ["parallel", "sweep"])
def test_errors_of_fit_are_raised_as_they_are(method):
    holes = X.copy()
    holes[3] = np.nan

    with pytest.raises(ValueError, match="Input X contains NaN"):
        lr_range_test(NeuralNetClassifier(random_state=0), holes, y, method=method)


@pytest.mark.parametrize("batch_size", [0, "64"])
def test_errors_of_hyperparameters_are_raised_as_they_are(batch_size):
    net = NeuralNetClassifier(random_state=0, batch_size=batch_size)

    with pytest.raises(ValueError, match="batch_size must be an int of at least 1, or -1"):
        lr_range_test(net, X, y)


def test_rates_that_are_too_narrow():
    net = NeuralNetClassifier(random_state=0)

    with pytest.raises(ValueError, match="none of 20 does.*raise lr_max=1e-08, or raise n_epochs"):
        lr_range_test(net, X, y, lr_min=1e-10, lr_max=1e-8, **FEW)
    with pytest.raises(ValueError, match="lr_max must be a rate at which training diverges"):
        lr_range_test(net, X, y, lr_max=1e-2, **FEW)
    with pytest.raises(ValueError, match="lr_min must be a rate that is too low to learn"):
        lr_range_test(net, X, y, lr_min=1e-2, **FEW)


def test_schedule_of_a_sweep():
    net = NeuralNetClassifier(random_state=0, lr_schedule="cosine")

    with pytest.raises(ValueError, match="no schedule under method='sweep'.*lr_schedule='cosine'"):
        lr_range_test(net, X, y, method="sweep")


class Stopping(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt


def test_sweep_that_a_callback_stops():
    net = NeuralNetClassifier(random_state=0, callbacks=[Stopping()], batch_size=50)

    with pytest.raises(RuntimeError, match="num=64 steps, but the training was stopped after 6"):
        lr_range_test(net, X, y, method="sweep")
