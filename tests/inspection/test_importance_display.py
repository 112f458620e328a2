"""The picture of the shares."""

import pytest

from sktune.inspection import ImportanceDisplay

plt = pytest.importorskip("matplotlib.pyplot")
plt.switch_backend("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def make_results(n_values):
    params = [{"a$x$": a, "lr": 10.0**-b} for a in range(n_values) for b in range(n_values)]
    return {"params": params, "mean_test_score": [candidate["a$x$"] for candidate in params]}


def test_bars_are_sorted_and_pairs_hatched():
    display = ImportanceDisplay.from_search(make_results(8))
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    widths = [bar.get_width() for bar in display.bars_]

    assert labels[0] == r"a\$x\$"
    assert widths == sorted(widths, reverse=True)
    hatched = {label for label, bar in zip(labels, display.bars_, strict=True) if bar.get_hatch()}
    assert len(hatched) == 1
    assert " × " in hatched.pop()
    assert display.ax_.get_title().startswith("Most is explained by")
    display.figure_.canvas.draw()


def test_title_says_that_candidates_are_too_few():
    display = ImportanceDisplay.from_search(make_results(2))

    assert display.ax_.get_title().startswith("Not enough candidates to tell")
    assert {bar.get_alpha() for bar in display.bars_} == {0.35}
    display.figure_.canvas.draw()


def test_draws_without_shares():
    results = make_results(6)
    results["mean_test_score"] = [0.5] * 36
    display = ImportanceDisplay.from_search(results)

    assert display.ax_.get_title() == "Not enough candidates to tell: all have the same score."
    display.figure_.canvas.draw()


def test_given_axes_and_max_bars():
    _, ax = plt.subplots()
    display = ImportanceDisplay.from_search(make_results(8), ax=ax, max_bars=2)

    assert display.ax_ is ax
    assert len(display.bars_) == 2
    assert len(display.to_frame()) == 3


def test_max_bars_must_be_positive():
    with pytest.raises(ValueError, match="max_bars must be at least 1, got max_bars=0"):
        ImportanceDisplay.from_search(make_results(8), max_bars=0)
