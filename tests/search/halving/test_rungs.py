"""The numbers of candidates and resources, rung by rung."""

import pytest
from sklearn.experimental import enable_halving_search_cv  # noqa: F401

from sktune.search.halving.rungs import Plan, count_powers, plan_halving, plan_hyperband


def numbers(rungs):
    return [(rung.n_candidates, rung.n_resources) for rung in rungs]


@pytest.mark.parametrize(
    ("factor", "ratio", "expected"),
    [(3, 1, 0), (3, 2.9, 0), (3, 3, 1), (3, 243, 5), (3, 242, 4), (10, 1000, 3), (1.5, 2.25, 2)],
)
def test_powers_are_counted_exactly(factor, ratio, expected):
    assert count_powers(factor, ratio) == expected


def test_rungs_of_nine_candidates():
    rungs, n_required, n_possible = plan_halving(9, 1, 18, 3, False, True)
    assert numbers(rungs) == [(9, 2), (3, 6), (1, 18)]
    assert (n_required, n_possible) == (3, 3)


def test_what_survivors_cost_that_go_on():
    rungs, *_ = plan_halving(9, 1, 18, 3, False, True)
    goes_on = Plan([rungs], "max_epochs", 1, True)
    anew = Plan([rungs], "max_epochs", 1, False)
    assert (goes_on.n_resources, anew.n_resources) == (18 + 12 + 12, 18 + 18 + 18)
    assert goes_on.n_fits == 13
    assert str(goes_on).splitlines()[-1] == (
        "9 candidates, which go on from where they stand: 42 of max_epochs on 1 splits"
    )


def test_aggressive_elimination_repeats_the_first_rung():
    rungs, n_required, n_possible = plan_halving(27, 10, 30, 3, True, False)
    assert numbers(rungs) == [(27, 10), (9, 10), (3, 10), (1, 30)]
    assert (n_required, n_possible) == (4, 2)


def test_brackets_are_those_of_the_paper():
    # Li et al. 2018, table 1: R = 81, eta = 3
    found = [numbers(rungs) for rungs in plan_hyperband(1, 81, 3)]
    assert found == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]
