import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sktune.inspection import LRRangeResult

RATES = np.geomspace(1e-6, 10, 36)


def make_losses(begins=1e-4, ends=1e-1):
    """Return losses that fall to 0.2 between two rates, and are NaN above ten times the second."""
    progress = np.log(RATES / begins) / np.log(ends / begins)
    losses = 1 - 0.8 * np.clip(progress, 0, 1)
    losses[RATES / ends > 10] = np.nan
    return losses


def make_result(losses, method="parallel"):
    losses = np.array(losses)
    if losses.ndim == 1:
        losses = losses[:, None]
    return LRRangeResult(method, RATES, losses, losses + 0.1, 1.0)


def test_regions_of_a_smooth_curve():
    result = make_result(make_losses())

    step = RATES[1] / RATES[0]
    assert 1e-4 < result.lower_edge < 1e-4 * step**4
    assert result.good_region[0] < 1e-1 < result.good_region[1] < 1.01
    assert 1.0 < result.divergent_edge <= step * 1.0001
    assert result.good_region[0] <= result.suggestion <= result.good_region[1]
    assert result.suggestion in RATES
    assert result.space.support() == (result.lower_edge, result.good_region[1])


@pytest.mark.parametrize("spike", [-100.0, 100.0, np.nan])
@pytest.mark.parametrize("place", [2, 8, 14, 20, 26, 33])
def test_a_spike_changes_nothing(spike, place):
    losses = make_losses()
    smooth = make_result(losses)
    losses[place] = spike

    result = make_result(losses)

    step = RATES[1] / RATES[0]
    for name in ("suggestion", "divergent_edge", "lower_edge"):
        # a median may move by one place
        ratio = getattr(result, name) / getattr(smooth, name)
        assert 0.999 / step < ratio < 1.001 * step, name


def test_good_region_is_contiguous():
    losses = make_losses(begins=1e-3)
    # learns as well, but cut off from the best by rates that do not
    losses[3:8] = 0.3

    result = make_result(losses)

    assert result.lower_edge > 1e-3


def test_a_fold_that_diverges_is_a_rate_that_diverges():
    losses = np.repeat(make_losses()[:, None], 3, axis=1)
    losses[RATES > 0.2, 1] = np.nan

    assert 0.2 < make_result(losses).divergent_edge < 0.4


def test_rates_that_are_worse_than_the_best_do_not_diverge():
    losses = make_losses()
    losses[(RATES > 0.1) & (RATES < 1.01)] = 0.7

    result = make_result(losses)

    assert result.good_region[1] < 0.11
    assert 1.0 < result.divergent_edge < 2.0


@pytest.mark.parametrize(
    ("losses", "match"),
    [
        (
            np.full(36, 1.0),
            "lower the training loss by 1%.*raise lr_max=10, or raise n_epochs",
        ),
        (
            np.where(RATES < 1, 1.0, np.nan),
            "the training loss by 1%.*raise num, lower lr_min",
        ),
        (np.full(36, np.nan), "at which training is finite, got lr_min=1e-06: try lr_min=1e-09"),
        (make_losses(ends=9.9), "lr_max must be a rate at which training diverges.*lr_max=1e.03"),
        (make_losses(begins=1e-9), "lr_min must be a rate that is too low to learn.*lr_min=1e-08"),
    ],
)
def test_an_edge_that_is_not_found_says_what_to_widen(losses, match):
    with pytest.raises(ValueError, match=match):
        make_result(losses)


def test_too_few_rates():
    rates = np.geomspace(1e-6, 10, 10)
    losses = np.array([1, 1, 1, 1, 1, 1, 0, 9, 9, 9.0])[:, None]

    with pytest.raises(ValueError, match="num must be large enough.*got one of num=10"):
        LRRangeResult("sweep", rates, losses, None, 1.0)


@settings(max_examples=50, deadline=None)
@given(
    begins=st.floats(1e-5, 1e-3),
    width=st.floats(10, 1e3),
    factor=st.floats(1e-3, 1e3),
    seed=st.integers(0, 99),
)
def test_edges_are_in_order_whatever_the_unit_of_the_loss(begins, width, factor, seed):
    noise = np.random.default_rng(seed).normal(0, 0.01, (len(RATES), 3))
    losses = make_losses(begins, min(begins * width, 0.1))[:, None] + noise

    result = make_result(losses)
    other = LRRangeResult("parallel", RATES, factor * losses, None, factor)

    low, high = result.good_region
    assert result.lower_edge <= low <= result.suggestion <= high < result.divergent_edge
    assert result.lower_edge < high
    for name in ("lower_edge", "good_region", "divergent_edge", "suggestion"):
        assert getattr(result, name) == getattr(other, name)


def test_sweep_ends_where_the_loss_is_lowest():
    result = make_result(make_losses(), method="sweep")

    assert result.good_region == (result.lower_edge, RATES[np.argmin(result.smoothed_losses)])
    assert result.lower_edge < result.suggestion < result.good_region[1]
    assert np.isinf(result.smoothed_losses[RATES > 1.01]).all()


def test_bias_of_the_average_is_corrected():
    result = make_result(np.where(RATES > 1, np.nan, np.where(RATES > 1e-3, 0.5, 1.0)), "sweep")

    # without the correction it would begin near 0
    np.testing.assert_allclose(result.smoothed_losses[:10], 1.0)


def test_frame():
    pytest.importorskip("pandas")
    losses = np.stack([make_losses(), make_losses() + 0.02], axis=1)

    frame = make_result(losses).to_frame()

    assert list(frame)[:3] == ["lr", "train_loss", "train_loss_std"]
    assert list(frame)[3:] == ["valid_loss", "valid_loss_std", "smoothed_loss"]
    np.testing.assert_allclose(frame["train_loss"][0], 1.01)
    np.testing.assert_allclose(frame["train_loss_std"][0], 0.01)
    np.testing.assert_array_equal(frame["lr"], RATES)


def test_summary_tells_the_numbers():
    result = make_result(make_losses())

    text = str(result)

    assert text.startswith("36 learning rates from 1e-06 to 10 on 1 splits, method='parallel'")
    for number in (result.lower_edge, result.divergent_edge, result.suggestion):
        assert f" {number:.3g}\n" in text


def test_result_is_frozen():
    with pytest.raises(AttributeError, match="cannot assign to field 'suggestion'"):
        make_result(make_losses()).suggestion = 1.0
