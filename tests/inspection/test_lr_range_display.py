import numpy as np
import pytest

from sktune import LRRangeDisplay, NeuralNetClassifier, lr_range_test

pytest.importorskip("matplotlib")

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from sklearn.datasets import load_iris

X, y = load_iris(return_X_y=True)
X = X - X.mean(axis=0)
FEW = {"num": 20, "n_epochs": 8}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def result():
    return lr_range_test(NeuralNetClassifier(random_state=0), X, y, **FEW)


def test_lines_are_the_mean_losses(result):
    display = LRRangeDisplay.from_result(result)

    training, held_out = display.lines_
    np.testing.assert_array_equal(training.get_xdata(), result.rates)
    np.testing.assert_allclose(training.get_ydata(), result.train_losses.mean(axis=1))
    np.testing.assert_allclose(held_out.get_ydata(), result.valid_losses.mean(axis=1))
    assert len(display.fills_) == 2
    assert display.ax_.get_xscale() == "log"
    assert display.figure_ is display.ax_.figure


def test_legend_tells_the_numbers(result):
    display = LRRangeDisplay.from_result(result)

    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts[:3] == ["training", "held out", "good region"]
    assert texts[3] == f"suggestion: {result.suggestion:.2g}"
    assert texts[4] == f"diverges from {result.divergent_edge:.2g}"


def test_axes_and_options_are_those_given(result):
    figure, ax = plt.subplots()

    display = LRRangeDisplay(result).plot(ax=ax, line_kw={"linewidth": 3})

    assert display.ax_ is ax
    assert display.figure_ is figure
    assert {line.get_linewidth() for line in display.lines_} == {3}


def test_from_estimator_runs_the_test(result):
    display = LRRangeDisplay.from_estimator(NeuralNetClassifier(random_state=0), X, y, **FEW)

    assert display.result.suggestion == result.suggestion
    np.testing.assert_array_equal(display.result.train_losses, result.train_losses)


def test_sweep_has_one_line():
    net = NeuralNetClassifier(random_state=0)

    display = LRRangeDisplay.from_estimator(net, X, y, method="sweep", num=100)

    assert len(display.lines_) == 1
    assert display.fills_ == []
    assert np.isfinite(display.ax_.get_ylim()).all()


def test_losses_that_diverge_do_not_set_the_scale(result):
    display = LRRangeDisplay.from_result(result)

    assert display.ax_.get_ylim()[1] < 2 * result.untrained_loss


def test_frame_is_that_of_the_result(result):
    frame = LRRangeDisplay(result).to_frame()

    assert frame.equals(result.to_frame())
    assert frame["lr"].tolist() == result.rates.tolist()
