"""Spaces that are narrowed around a point."""

import numpy as np
import pytest
from scipy.stats import loguniform, randint, uniform

from sktune import loguniform_int, zero_or
from sktune.search.narrowing import narrow_space


def draw(space, center, share, name="x"):
    narrowed = narrow_space({name: space}, {name: center}, share)[name]
    return narrowed.rvs(size=500, random_state=0)


def test_a_part_of_the_range_is_left_around_the_value():
    draws = draw(loguniform(1e-4, 1e4), 1.0, 0.25)

    assert 0.1 <= draws.min() < 0.12
    assert 9 < draws.max() <= 10.0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_part_is_shifted_at_the_ends(value):
    draws = draw(uniform(0, 1), value, 0.2)

    assert draws.max() - draws.min() == pytest.approx(0.2, abs=0.01)
    assert (abs(draws - value) <= 0.2).all()


@pytest.mark.parametrize(
    ("space", "value", "allowed"),
    [
        (randint(0, 100), 50, range(39, 62)),
        (loguniform_int(1, 10_000), 100, range(30, 340)),
    ],
)
def test_integers_stay_integers(space, value, allowed):
    draws = draw(space, value, 0.2)

    assert {int(x) for x in draws} <= set(allowed)
    assert (draws == draws.astype(int)).all()


def test_zero_stays_possible_where_it_was_best():
    space = zero_or(loguniform(1e-6, 1e-1), p_zero=0.3)

    assert 0.5 < np.mean(draw(space, 0.0, 0.4) == 0) < 1
    assert draw(space, 1e-2, 0.2).min() > 1e-4


def test_a_single_draw_is_a_number():
    narrowed = narrow_space({"x": uniform(0, 1)}, {"x": 0.5}, 0.1)["x"]

    assert type(narrowed.rvs(random_state=0)) is float


@pytest.mark.parametrize(
    ("values", "value", "share", "expected"),
    [
        ([16, 32, 64, 128, 256], 64, 0.01, [32, 64, 128]),
        ([256, 16, 64], 16, 0.1, [16, 64]),
        ([1, 2, 3, 4], 2, 1.0, [1, 2, 3, 4]),
        (["relu", "tanh"], "relu", 0.1, ["relu", "tanh"]),
        ([True, False], True, 0.1, [True, False]),
        ([1, 2, 3], 7, 0.1, [1, 2, 3]),
    ],
)
def test_lists(values, value, share, expected):
    assert narrow_space({"x": values}, {"x": value}, share)["x"] == expected


def test_what_the_point_does_not_name_is_left():
    space = {"x": [1, 2, 3], "y": uniform(0, 1)}

    assert narrow_space(space, {"z": 1}, 0.1) == space
