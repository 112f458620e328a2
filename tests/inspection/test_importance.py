"""Shares of the score's variance: on scores whose truth is known."""

import time

import numpy as np
import pytest

from sktune.inspection import importance


def make_results(score, n_candidates, n_more=0, seed=0):
    """Return results of random candidates with parameters a, b, lr, act and maybe more."""
    rng = np.random.default_rng(seed)
    params = []
    for _ in range(n_candidates):
        candidate = {"a": rng.random(), "b": rng.random(), "lr": 10 ** rng.uniform(-4, 0)}
        candidate["act"] = str(rng.choice(["relu", "tanh"]))
        candidate.update({f"more{i}": rng.random() for i in range(n_more)})
        params.append(candidate)
    scores = [score(candidate, rng) for candidate in params]
    return {"params": params, "mean_test_score": np.array(scores)}


def score_a(candidate, rng):
    return candidate["a"]


def score_xor(candidate, rng):
    return float((candidate["a"] > 0.5) != (candidate["b"] > 0.5))


def score_noise(candidate, rng):
    return rng.random()


def test_one_parameter_explains_all():
    found = importance(make_results(score_a, 100))

    assert found.is_conclusive
    assert found.shares["a",] > 0.95
    assert max(share for key, share in found.shares.items() if key != ("a",)) < 0.05


def test_additive_scores_have_the_shares_of_their_variances():
    found = importance(make_results(lambda c, rng: c["a"] + 0.5 * c["b"], 400))

    # 1 / (1 + 0.5²) and the rest
    assert found.shares["a",] == pytest.approx(0.8, abs=0.08)
    assert found.shares["b",] == pytest.approx(0.2, abs=0.08)
    assert found.shares["a", "b"] < 0.05


def test_interaction_is_of_the_pair():
    found = importance(make_results(score_xor, 300))

    assert found.is_conclusive
    assert found.shares["a", "b"] > 0.5
    assert found.shares["a",] < 0.15
    assert found.shares["b",] < 0.15


def test_scale_is_logarithmic():
    found = importance(make_results(lambda c, rng: np.log(c["lr"]), 100))

    assert found.shares["lr",] > 0.95


@pytest.mark.parametrize("seed", range(5))
def test_noise_cannot_be_told(seed):
    found = importance(make_results(score_noise, 80, seed=seed))

    assert not found.is_conclusive
    assert str(found).startswith("Not enough candidates to tell: scores of unseen candidates")


@pytest.mark.parametrize("n_candidates", [5, 19])
def test_few_candidates_cannot_tell(n_candidates):
    found = importance(make_results(score_a, n_candidates))

    assert found.reason == f"{n_candidates} have a score, and 20 must (parameters: 4)"


def test_two_candidates_have_no_shares():
    found = importance(make_results(score_a, 2))

    assert not found.is_conclusive
    assert np.isnan(list(found.shares.values())).all()


def test_equal_scores_cannot_tell():
    found = importance(make_results(lambda c, rng: 0.5, 40))

    assert found.reason == "all have the same score"
    assert np.isnan(list(found.shares.values())).all()


def test_failed_candidates_are_left_out_and_counted():
    results = make_results(score_a, 100)
    results["mean_test_score"][::10] = np.nan
    found = importance(results)

    assert (found.n_candidates, found.n_failed) == (90, 10)
    assert found.shares["a",] > 0.95


def test_unset_value_is_a_level_of_its_own():
    results = make_results(score_a, 100)
    for number, candidate in enumerate(results["params"]):
        if number % 2:
            del candidate["lr"]
    results["mean_test_score"] = np.arange(100) % 2

    assert importance(results).shares["lr",] > 0.9


def test_thousand_candidates_are_fast():
    start = time.perf_counter()
    importance(make_results(score_a, 1000, n_more=4))

    assert time.perf_counter() - start < 20


def test_single_parameter():
    params = [{"C": 10.0**i} for i in range(20)]
    found = importance({"params": params, "mean_test_score": np.arange(20.0)})

    assert list(found.shares) == [("C",)]
    assert found.shares["C",] > 0.95


def test_same_seed_gives_same_shares():
    results = make_results(score_noise, 40)

    assert importance(results).shares == importance(results).shares
    assert importance(results).shares != importance(results, random_state=1).shares


def test_frame_is_sorted():
    pytest.importorskip("pandas")
    frame = importance(make_results(score_a, 100)).to_frame()

    assert list(frame.columns) == ["parameter", "other", "share", "std"]
    assert len(frame) == 4 + 6
    assert frame["parameter"][0] == "a"
    assert frame["other"][0] == ""
    assert frame["share"].is_monotonic_decreasing


def test_all_failed():
    results = make_results(lambda c, rng: np.nan, 3)

    with pytest.raises(ValueError, match="must have a score, got 3 without one"):
        importance(results)


def test_one_candidate():
    with pytest.raises(ValueError, match="must vary at least one parameter, got 1 candidates"):
        importance(make_results(score_a, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_trees": 8}, "n_trees must be an integer of at least 32, got n_trees=8"),
        ({"n_samples": 1.5}, "n_samples must be an integer of at least 2, got n_samples=1.5"),
        ({"n_samples": 100}, "n_samples must be a power of 2, got n_samples=100"),
    ],
)
def test_wrong_counts(options, message):
    with pytest.raises(ValueError, match=message):
        importance(make_results(score_a, 30), **options)


def test_of_halving_the_first_rung_counts():
    rng = np.random.default_rng(0)
    params = [{"a": rng.random(), "b": rng.random()} for _ in range(60)]
    scores = [candidate["a"] for candidate in params]
    alone = importance({"params": params, "mean_test_score": scores})
    # those that go on score more, for their resources
    later = {"params": params + params[:20], "mean_test_score": scores + [5.0] * 20}
    halving = importance(later | {"iter": [0] * 60 + [1] * 20})

    assert halving.shares == alone.shares
    assert halving.n_candidates == 60
    assert importance(later).shares != alone.shares
