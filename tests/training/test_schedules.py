import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from sktune.training.schedules import SCHEDULES, looks_at_max_epochs, lr_factors

names = st.sampled_from(sorted(SCHEDULES))
epochs = st.integers(1, 200)
times = st.floats(0, 300, allow_nan=False)


def torch_factors(make_scheduler, n_steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make_scheduler(optimizer)
    factors = []
    for _ in range(n_steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


@given(names, epochs, st.lists(times, min_size=1, max_size=20), st.just(0) | st.floats(0.01, 20))
def test_factor_is_between_0_and_1(name, max_epochs, t, warmup):
    factors = lr_factors(name, t, max_epochs, warmup=warmup)

    assert factors.shape == (len(t),)
    assert np.all((factors >= 0) & (factors <= 1))


@given(names, epochs, st.lists(times, min_size=1, max_size=20))
def test_factor_is_a_function_of_the_time_alone(name, max_epochs, t):
    together = lr_factors(name, t, max_epochs)

    assert together == pytest.approx(
        [float(lr_factors(name, one, max_epochs)) for one in t], rel=1e-14
    )


@given(names, epochs, times)
def test_last_value_holds_beyond_max_epochs(name, max_epochs, t):
    assert lr_factors(name, max_epochs + t, max_epochs) == lr_factors(name, max_epochs, max_epochs)


@given(st.sampled_from(["step", "exponential", "time", "cosine"]), epochs, times, times)
def test_decay_never_rises(name, max_epochs, t, later):
    early, late = lr_factors(name, sorted([t, later]), max_epochs)

    assert early >= late - 1e-12


@given(epochs, times)
def test_constant_is_one(max_epochs, t):
    assert lr_factors("constant", t, max_epochs) == 1


@given(st.floats(0.5, 50), times)
def test_warmup_rises_to_the_full_rate(warmup, t):
    factor = lr_factors("constant", t, 1000, warmup=warmup)

    assert factor == pytest.approx(min(1, 0.01 + 0.99 * t / warmup))


@pytest.mark.parametrize(
    ("name", "params", "scheduler"),
    [
        ("step", {"step_size": 3, "gamma": 0.5}, lambda o: lr_scheduler.StepLR(o, 3, gamma=0.5)),
        ("exponential", {"gamma": 0.8}, lambda o: lr_scheduler.ExponentialLR(o, 0.8)),
        ("cosine", {}, lambda o: lr_scheduler.CosineAnnealingLR(o, 12)),
        ("cosine", {"final": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, 12, eta_min=0.1)),
        ("time", {"k": 0.3}, lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + 0.3 * t))),
    ],
)
def test_agrees_with_torch_at_whole_epochs(name, params, scheduler):
    assert lr_factors(name, np.arange(12), 12, **params) == pytest.approx(
        torch_factors(scheduler, 12)
    )


def test_one_cycle_agrees_with_torch():
    # torch's steps go from 0 to n_steps - 1, both ends included.
    n_steps = 2001
    scheduler = torch_factors(
        lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=n_steps + 1, cycle_momentum=False),
        n_steps,
    )
    t = np.arange(n_steps) / (n_steps - 1) * 10

    assert np.abs(lr_factors("one_cycle", t, 10) - scheduler).max() < 5e-3


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [(lambda t, n: 1 - t / n, [1.0, 0.5]), (lambda t, n: 0.25, [0.25, 0.25])],
)
def test_callable(schedule, expected):
    assert lr_factors(schedule, [0, 2], 4).tolist() == expected


def test_callable_takes_parameters():
    assert lr_factors(lambda t, n, power: (1 - t / n) ** power, [2], 4, power=2).tolist() == [0.25]


@pytest.mark.parametrize(
    ("schedule", "params", "message"),
    [
        ("cosin", {}, "lr_schedule must be one of .*, got 'cosin'; did you mean 'cosine'?"),
        (
            "step",
            {"gama": 0.1},
            "a parameter of lr_schedule='step' must be one of .*did you mean 'gamma'?",
        ),
        (
            "step",
            {"step_size": 0},
            "lr_schedule__step_size must be a positive number, got lr_schedule__step_size=0",
        ),
        (
            "step",
            {"gamma": "a"},
            "lr_schedule__gamma must be a positive number, got lr_schedule__gamma='a'",
        ),
        ("time", {"k": -1}, "lr_schedule__k must be a non-negative number, got lr_schedule__k=-1"),
        (
            "time",
            {"k": math.nan},
            "lr_schedule__k must be a non-negative number, got lr_schedule__k=nan",
        ),
        ("cosine", {"warmup": -1}, "lr_schedule__warmup must be a non-negative number, got"),
        ("one_cycle", {"pct_start": 1.0}, "lr_schedule__pct_start must be between 0 and 1, got"),
    ],
)
def test_bad_schedule_is_named(schedule, params, message):
    with pytest.raises(ValueError, match=message):
        lr_factors(schedule, [0.0], 10, **params)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_says_whether_it_looks_at_max_epochs(name):
    t = np.linspace(0, 9.9, 50)
    shorter, longer = (lr_factors(name, t, max_epochs, warmup=3) for max_epochs in (10, 25))

    assert np.array_equal(shorter, longer) != looks_at_max_epochs(name)


def test_a_function_looks_at_max_epochs_unless_it_says_otherwise():
    def halving(t, max_epochs):
        return 0.5**t

    assert looks_at_max_epochs(halving)
    halving.looks_at_max_epochs = False
    assert not looks_at_max_epochs(halving)
