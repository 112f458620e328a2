"""The pictures of a report."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from sktune.engine.report import FusionReport
from sktune.inspection.records import read_search
from sktune.inspection.report.drawing import draw_curves, draw_effect
from sktune.inspection.report.drawing.scales import Scale
from sktune.inspection.report.drawing.svg import Drawing

FLOATS = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(st.lists(FLOATS, min_size=1), st.booleans())
def test_a_scale_keeps_order_and_stays_within(numbers, is_log):
    scale = Scale.around(numbers, is_log)
    places = scale.place(np.sort(numbers))
    assert (np.diff(places) >= 0).all()
    assert ((places >= 0) & (places <= 1)).all()


@given(st.lists(st.floats(1e-9, 1e9), min_size=2), st.booleans())
def test_ticks_are_few_and_within(numbers, is_log):
    scale = Scale.around(numbers, is_log)
    ticks = [number for number, _ in scale.ticks()]
    assert len(ticks) <= 8
    room = 1e-9 * max(abs(scale.low), abs(scale.high))
    assert all(scale.low - room <= number <= scale.high + room for number in ticks)


@pytest.mark.parametrize(
    ("scale", "texts"),
    [
        (Scale(0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (Scale(-0.3, 0.3), ["-0.2", "0", "0.2"]),
        (Scale(1e-5, 1e-1, True), ["1e-05", "0.0001", "0.001", "0.01", "0.1"]),
        (Scale(1.5, 30.0, True), ["2", "5", "10", "20"]),
        (Scale(1e-3, 1.0, True, True), ["0", "0.001", "0.01", "0.1", "1"]),
    ],
)
def test_texts_of_ticks(scale, texts):
    assert [text for _, text in scale.ticks()] == texts


def test_zero_has_a_place_of_its_own_on_a_logarithmic_scale():
    places = Scale.around([0.0, 1e-3, 1e-1], is_log=True).place([0.0, 1e-3, 1e-1])
    assert 0 < places[0] < 0.1 < places[1] < places[2]


def test_texts_are_escaped_and_lines_are_interrupted():
    drawing = Drawing(10, 10, 'a"<b>')
    drawing.add_text(0, 0, "<script>", "tick")
    drawing.add_lines([(np.arange(4.0), np.array([0, 1, np.nan, 2]))], "curve")
    svg = drawing.to_svg()
    assert "<script>" not in svg
    assert 'aria-label="a&quot;&lt;b&gt;"' in svg
    assert 'd="M0 0L1 1M3 2"' in svg


def _results(scores, values):
    return read_search({"params": [{"p": v} for v in values], "mean_test_score": scores})


def test_effects_of_numbers():
    scores = [0.5, 0.6, np.nan, 0.7, 0.65, -1000.0]
    record = _results(scores, [1, 2, 3, 4, 5, 6])
    svg, notes = draw_effect(record, record.parameters["p"])
    points = re.search('class="point" d="([^"]*)"', svg)[1]
    assert points.count("M") == 5
    assert notes == ["1 far lower scores are drawn at the edge.", "1 candidates have no score."]


def test_effects_of_categories():
    record = _results(np.linspace(0, 1, 30), [f"value {n}" for n in range(30)])
    svg, notes = draw_effect(record, record.parameters["p"])
    assert svg.count(">value ") == 20
    assert "The 20 most frequent of 30 values are drawn." in notes


def _record_with_curves(losses):
    fusion = FusionReport()
    for candidate, values in enumerate(losses):
        fusion.curves.add(candidate, 0, {"train_loss": values, "lr": np.ones(len(values))})
    search = GridSearchCV(LogisticRegression(), {"C": [1.0]})
    n = len(losses)
    search.cv_results_ = {"params": [{"C": k} for k in range(n)], "mean_test_score": np.arange(n)}
    search.fusion_ = fusion
    return read_search(search)


def test_curves_that_diverge_do_not_flatten_the_others():
    losses = [np.linspace(1, 0.5, 4)] * 60 + [np.array([1, 1e9, np.inf, np.nan])]
    losses.append(np.linspace(1, 0.4, 4))
    svg, notes = draw_curves(_record_with_curves(losses), "train_loss", "loss")
    assert notes == ["Losses above the axis are drawn at its upper end (candidates: 1)."]
    best = re.search('class="curve best" d="([^"]*)"', svg)[1]
    heights = [float(pair.split()[1]) for pair in re.split("[ML]", best)[1:]]
    assert heights[-1] - heights[0] > 40


def test_many_epochs_are_thinned():
    losses = [np.linspace(1, 0.5, 500)] * 3
    svg, notes = draw_curves(_record_with_curves(losses), "train_loss", "loss")
    assert notes == ["Of 500 epochs, 60 are drawn, evenly spaced."]
    assert re.search('class="curve best" d="([^"]*)"', svg)[1].count("L") == 59


def test_many_candidates_are_drawn_in_part_and_the_best_is_among_them():
    record = _record_with_curves([np.array([1.0, 0.5])] * 2_500)
    svg, notes = draw_curves(record, "train_loss", "loss")
    assert notes == ["2000 candidates are drawn, with the best; 500 are not."]
    # the ten best, of which one is the best of all
    assert svg.count("curve top") == 1
    assert re.search('class="curve top" d="([^"]*)"', svg)[1].count("M") == 9
    assert 'class="curve best"' in svg
