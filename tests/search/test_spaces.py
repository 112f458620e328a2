import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import loguniform, uniform
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, ParameterGrid, ParameterSampler
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn, optim

import sktune
from sktune.search.spaces import default_space, loguniform_int, powers_of_two, zero_or


class WithDropout(nn.Module):
    def __init__(self, width=8, dropout=0.0):
        super().__init__()
        self.layer = nn.Linear(width, 2)
        self.dropout = nn.Dropout(dropout)


NET = NeuralNetClassifier(WithDropout)
NAMES = {"lr", "optimizer__weight_decay", "batch_size", "module__dropout"}


@given(st.integers(1, 1000), st.integers(0, 10_000), st.integers(0, 2**31 - 1))
@settings(max_examples=50, deadline=None)
def test_loguniform_int_stays_within_its_bounds(low, width, seed):
    draws = loguniform_int(low, low + width).rvs(size=100, random_state=seed)

    assert draws.dtype.kind == "i"
    assert draws.min() >= low
    assert draws.max() <= low + width


def test_loguniform_int_draws_each_about_as_often_as_one_over_its_value():
    draws = loguniform_int(1, 8).rvs(size=100_000, random_state=0)

    shares = np.array([Counter(draws.tolist())[k] for k in range(1, 9)]) / len(draws)
    edges = np.log(np.arange(1, 10) - 0.5)
    np.testing.assert_allclose(shares, np.diff(edges) / (edges[-1] - edges[0]), atol=0.005)
    np.testing.assert_allclose(shares * np.arange(1, 9), 0.36, rtol=0.12)


def test_loguniform_int_gives_one_python_int_by_default():
    assert type(loguniform_int(3, 99).rvs(random_state=0)) is int
    assert loguniform_int(7, 7).rvs(random_state=0) == 7


@pytest.mark.parametrize("draw", [loguniform_int(1, 99), zero_or(loguniform(1e-3, 1))])
@pytest.mark.parametrize("seed", [0, np.random.RandomState(0), np.random.default_rng(0)])
def test_rvs_takes_any_random_state_and_size(draw, seed):
    assert draw.rvs(size=(2, 3), random_state=seed).shape == (2, 3)
    assert np.isscalar(draw.rvs(random_state=seed))


def test_zero_or_is_zero_as_often_as_asked():
    draws = zero_or(loguniform(1e-6, 1e-1), 0.3).rvs(size=10_000, random_state=0)

    assert np.mean(draws == 0.0) == pytest.approx(0.3, abs=0.02)
    assert draws[draws > 0].min() >= 1e-6


@pytest.mark.parametrize(("p_zero", "expected"), [(0, {False}), (1, {True})])
def test_zero_or_of_certainties(p_zero, expected):
    draws = zero_or(uniform(1, 2), p_zero).rvs(size=100, random_state=0)

    assert set((draws == 0).tolist()) == expected


def test_powers_of_two_serve_in_a_grid_and_in_a_random_search():
    sizes = powers_of_two(16, 128)

    assert sizes == [16, 32, 64, 128]
    assert len(ParameterGrid({"batch_size": sizes})) == 4
    assert (
        list(ParameterSampler({"batch_size": sizes}, 1, random_state=0))[0]["batch_size"] in sizes
    )
    assert powers_of_two(1, 1) == [1]


def test_parameter_sampler_repeats_its_draws():
    space = {"width": loguniform_int(8, 512), "decay": zero_or(loguniform(1e-6, 1))}

    first, second = (list(ParameterSampler(space, 5, random_state=3)) for _ in range(2))

    assert first == second
    assert {type(draw["width"]) for draw in first} == {int}
    assert {type(draw["decay"]) for draw in first} == {float}


@pytest.mark.parametrize("make", [lambda: loguniform_int(2, 9), lambda: zero_or(loguniform(1, 9))])
def test_spaces_are_values(make):
    space = make()

    for copy in (pickle.loads(pickle.dumps(space)), clone(space, safe=False), make()):
        assert copy == space
        assert hash(copy) == hash(space)
        assert repr(copy) == repr(space)


def test_spaces_of_other_parameters_differ():
    assert zero_or(loguniform(1, 9)) != zero_or(loguniform(1, 8))
    assert zero_or(loguniform(1, 9)) != zero_or(loguniform(1, 9), 0.5)
    assert zero_or(loguniform_int(1, 9)) == zero_or(loguniform_int(1, 9))
    assert zero_or(uniform(0, scale=2)) == zero_or(uniform(0, scale=2))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: loguniform_int(0, 8), ValueError, "must satisfy 1 <= low <= high, got low=0"),
        (lambda: loguniform_int(9, 8), ValueError, "got low=9 and high=8"),
        (lambda: loguniform_int(1.5, 8), ValueError, "low must be a whole number, got low=1.5"),
        (lambda: loguniform_int(1, True), ValueError, "high must be a whole number, got high=True"),
        (lambda: powers_of_two(16, 100), ValueError, "high must be a power of two, got high=100"),
        (lambda: powers_of_two(0, 8), ValueError, "low must be a power of two, got low=0"),
        (lambda: powers_of_two(32, 16), ValueError, "low must not be above high, got low=32"),
        (lambda: zero_or([1, 2]), TypeError, r"distribution must have an rvs method, got \[1, 2\]"),
        (
            lambda: zero_or(uniform(), 1.5),
            ValueError,
            "p_zero must be between 0 and 1, got p_zero=",
        ),
        (lambda: default_space(LogisticRegression()), TypeError, "skorch net, got LogisticRegress"),
        (lambda: default_space(NeuralNetClassifier), TypeError, "contain a skorch net, got type"),
        (lambda: default_space(make_pipeline(NET, "passthrough")), TypeError, "got Pipeline"),
    ],
)
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("estimator", "prefix"),
    [
        (NET, ""),
        (sktune.NeuralNetClassifier(), ""),
        (make_pipeline(StandardScaler(), sktune.NeuralNetRegressor()), "neuralnetregressor__"),
        (Pipeline([("scale", StandardScaler()), ("net", NET)]), "net__"),
        (GridSearchCV(NET, {}), "estimator__"),
        (TransformedTargetRegressor(NeuralNetRegressor(WithDropout)), "regressor__"),
        (
            TransformedTargetRegressor(Pipeline([("net", NeuralNetRegressor(WithDropout))])),
            "regressor__net__",
        ),
        (
            Pipeline([("target", TransformedTargetRegressor(NeuralNetRegressor(WithDropout)))]),
            "target__regressor__",
        ),
    ],
)
def test_default_space_finds_the_net(estimator, prefix):
    space = default_space(estimator)

    assert set(space) == {prefix + name for name in NAMES}
    clone(estimator).set_params(**next(iter(ParameterSampler(space, 1, random_state=0))))


def test_default_space_leaves_out_what_the_net_lacks():
    assert set(default_space(NeuralNetClassifier(nn.Linear))) == NAMES - {"module__dropout"}
    assert "module__dropout" in default_space(NeuralNetClassifier(WithDropout()))
    without_decay = NeuralNetClassifier(WithDropout, optimizer=optim.LBFGS)
    assert set(default_space(without_decay)) == NAMES - {"optimizer__weight_decay"}


SPACES = [
    loguniform_int(100, 5000),
    zero_or(loguniform(1e-6, 1e-1), p_zero=0.3),
    zero_or(uniform()),
]


@pytest.mark.parametrize("space", SPACES)
def test_quantiles_belong_to_the_draws(space):
    draws = np.sort(space.rvs(size=20_000, random_state=0))
    shares = np.array([0.1, 0.35, 0.5, 0.9])
    expected = draws[(shares * len(draws)).astype(int)]

    np.testing.assert_allclose(space.ppf(shares), expected, rtol=0.2, atol=0.02)
    assert space.ppf(0.5) == space.ppf(np.array([0.5]))[0]
    assert np.shape(space.ppf(0.5)) == ()
    for share in (0.35, 0.9):
        assert space.cdf(space.ppf(share)) == pytest.approx(share, abs=0.02)
