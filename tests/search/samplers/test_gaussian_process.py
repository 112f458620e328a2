"""The Gaussian process of a search, and the sampler that draws candidates by it."""

import numpy as np
import pytest
from scipy.stats import loguniform, randint, uniform

from sktune import loguniform_int, zero_or
from sktune.search.narrowing import narrow_space
from sktune.search.samplers import gaussian_process
from sktune.search.samplers.distributions import Space, make_dimension
from sktune.search.samplers.gaussian_process import GaussianProcessSampler, Surrogate


def peak(features):
    return -((features - 0.3) ** 2).sum(axis=1)


def test_of_many_scores_the_best_and_some_of_all_others_are_known():
    rng = np.random.RandomState(0)
    features = rng.uniform(size=(1500, 2))
    targets = peak(features)

    surrogate = Surrogate(features, targets)

    known = surrogate.process.y_train_
    assert len(known) == 1000
    assert np.isin(np.sort(targets)[-500:], known).all()
    assert targets.min() in known
    grid = rng.uniform(size=(50, 2))
    np.testing.assert_allclose(surrogate.predict(grid), peak(grid), atol=0.02)


def test_the_kernel_is_found_anew_once_there_are_a_tenth_more_scores(monkeypatch):
    found = []
    find = gaussian_process._find_kernel

    def count(features, *args):
        found.append(len(features))
        return find(features, *args)

    monkeypatch.setattr(gaussian_process, "_find_kernel", count)
    sampler = GaussianProcessSampler(Space({"x": uniform(0, 1)}), seed=0)
    sampler.tell(points := sampler.ask(20), [-abs(point.positions[0] - 0.4) for point in points])
    for _ in range(5):
        sampler.tell(points := sampler.ask(1), [-abs(points[0].positions[0] - 0.4)])

    # before the rounds with 20 to 24 scores
    assert found == [20, 22]
    assert abs(sampler.ask(1)[0].positions[0] - 0.4) < 0.1


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
@pytest.mark.parametrize(
    "values",
    [
        zero_or(loguniform(1e-6, 1), 0.3),
        zero_or(uniform(0, 1), 0.9),
        loguniform_int(1, 5),
        randint(0, 4),
        loguniform(1e-3, 1),
    ],
    ids=["zero or log", "zero or uniform", "loguniform_int", "randint", "loguniform"],
)
def test_each_value_of_a_narrowed_range_has_a_position(values, share):
    whole = make_dimension("x", values)
    for center in {whole.value_at(position) for position in np.linspace(0, 1, 7)}:
        narrowed = narrow_space({"x": values}, {"x": center}, share)["x"]
        dimension = make_dimension("x", narrowed)
        for position in np.linspace(0, 1, 21):
            value = dimension.value_at(position)

            assert dimension.value_at(dimension.position_of(value)) == pytest.approx(value)


@pytest.mark.parametrize("values", [uniform(1, 0), uniform(scale=-1), loguniform(2, 1)])
def test_what_scipy_does_not_allow_is_refused(values):
    with pytest.raises(ValueError, match="distribution of 'x' must have parameters that scipy all"):
        make_dimension("x", values)
