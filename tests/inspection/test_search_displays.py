"""Pictures of losses by epoch, and of scores by parameter."""

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from scipy.stats import loguniform
from sklearn.datasets import load_iris
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV as SklearnGridSearchCV
from sklearn.model_selection import HalvingGridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sktune
from sktune.inspection import HalvingDisplay, LossCurveDisplay, SearchDisplay
from sktune.inspection.records import CurveTable, SearchRecord, read_search
from sktune.inspection.records.parameters import make_parameter

plt = pytest.importorskip("matplotlib.pyplot")
plt.switch_backend("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def make_results(n_candidates, n_splits=3):
    rng = np.random.default_rng(0)
    params = [
        {"lr": 10.0 ** -(i % 5), "l2": (i % 3) * 1e-3, "a$x$": "$t_"[i % 3], "w": rng.random()}
        for i in range(n_candidates)
    ]
    results = {"params": params}
    scores = rng.random((n_candidates, n_splits))
    for split in range(n_splits):
        results[f"split{split}_test_score"] = scores[:, split]
    results["mean_test_score"] = scores.mean(axis=1)
    return results


def make_record(n_candidates, n_splits=2, n_epochs=6):
    rng = np.random.default_rng(0)
    rates = np.logspace(-5, 1, n_candidates)
    falls = np.exp(-np.arange(n_epochs) * rates[:, np.newaxis, np.newaxis])
    losses = falls + 0.05 * rng.random((n_candidates, n_splits, n_epochs))
    losses[-1] *= 1e6
    losses[-1, 0, -1] = np.inf
    counts = np.full((n_candidates, n_splits), n_epochs)
    curves = CurveTable(losses, losses + 0.1, losses, counts)
    record = read_search(
        {"params": [{"lr": r} for r in rates], "mean_test_score": rng.random(n_candidates)}
    )
    parameters = {"lr": make_parameter("lr", rates, np.ones(n_candidates, dtype=bool))}
    fields = {**vars(record), "curves": curves, "parameters": parameters}
    return SearchRecord(**fields)


@pytest.mark.parametrize("parameters", ["lr", "l2", "a$x$", "w", ("lr", "l2"), ("a$x$", "w"), ()])
@pytest.mark.parametrize(("n_candidates", "n_splits"), [(7, 3), (7, 1), (1000, 3)])
def test_scores_of_many_kinds(parameters, n_candidates, n_splits):
    results = make_results(n_candidates, n_splits)
    results["split0_test_score"][1] = np.nan
    display = SearchDisplay.from_cv_results(results, parameters)
    display.figure_.canvas.draw()
    frame = display.to_frame()
    assert len(frame) == n_candidates
    assert frame["is_best"].sum() == 1
    assert np.isnan(frame["score"][1])


def test_zeros_of_a_logarithmic_axis_stand_at_the_left():
    display = SearchDisplay.from_cv_results(make_results(9) | {}, "l2")
    assert display.ax_.get_xscale() == "linear"
    params = [{"l2": value} for value in (0.0, 1e-5, 1e-2)]
    display = SearchDisplay.from_cv_results({"params": params, "mean_test_score": [1, 2, 3]}, "l2")
    assert display.ax_.get_xscale() == "log"
    assert display.ax_.get_xticklabels()[0].get_text() == "0"
    assert 0 < display.ax_.get_xticks()[0] < 1e-5


def test_progress_shows_the_best_so_far():
    results = {"params": [{"a": i} for i in range(4)], "mean_test_score": [np.nan, 0.2, 0.1, 0.3]}
    display = SearchDisplay.from_cv_results(results, kind="progress")
    np.testing.assert_array_equal(display.to_frame()["best_so_far"], [np.nan, 0.2, 0.2, 0.3])


def test_one_candidate():
    results = {"params": [{"a": 1}], "mean_test_score": [0.5]}
    assert SearchDisplay.from_cv_results(results).ax_.get_xlabel() == "candidate"


def test_what_cannot_be_drawn():
    results = {"params": [{"a": 1}, {"a": 2}], "mean_test_score": [np.nan, np.nan]}
    with pytest.raises(ValueError, match="at least one candidate must have a score, got none"):
        SearchDisplay.from_cv_results(results)
    with pytest.raises(ValueError, match="search must have trained networks in a group"):
        LossCurveDisplay.from_search(make_results(3))
    with pytest.raises(ValueError, match="kind must be one of .* got 'x'"):
        SearchDisplay.from_cv_results(make_results(3), kind="x")
    with pytest.raises(ValueError, match="parameters must be one or two, got 3"):
        SearchDisplay.from_cv_results(make_results(3), ("lr", "l2", "w"))
    with pytest.raises(ValueError, match="candidates must be numbers of candidates"):
        LossCurveDisplay(make_record(3)).plot(candidates=[9])


@pytest.mark.parametrize("n_candidates", [2, 5, 12, 1000])
def test_diverged_fits_leave_the_limits(n_candidates):
    display = LossCurveDisplay(make_record(n_candidates)).plot()
    display.figure_.canvas.draw()
    low, high = display.ax_.get_ylim()
    assert low > 0
    assert n_candidates == 2 or high < 20
    assert display.ax_.get_yscale() == "log"
    frame = display.to_frame()
    assert len(frame) == n_candidates * 6
    assert frame["regime"].iloc[-1] == "too large"


def test_losses_of_a_real_search():
    X, y = load_iris(return_X_y=True)
    net = sktune.NeuralNetClassifier(max_epochs=4, random_state=0)
    grid = {"lr": [1e-3, 1e-2], "module__activation": ["relu", "tanh"]}
    search = sktune.GridSearchCV(net, grid, cv=2, refit=False).fit(X, y)
    display = LossCurveDisplay.from_search(search, color_by="module__activation")
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert {"relu", "tanh", "training"} <= set(labels)
    assert len(display.lines_) == 4


def test_losses_of_a_single_fit():
    X, y = load_iris(return_X_y=True)
    net = sktune.NeuralNetClassifier(max_epochs=4, random_state=0)
    with pytest.raises(ValueError, match="estimator must be a fitted net with a history"):
        LossCurveDisplay.from_estimator(net)
    pipeline = make_pipeline(StandardScaler(), net).fit(X, y)
    frame = LossCurveDisplay.from_estimator(pipeline).to_frame()
    losses = [epoch["train_loss"] for epoch in pipeline[-1].history]
    assert frame["train_loss"].tolist() == losses


def test_halving_follows_equal_parameters():
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000)
    grid = {"C": [0.001, 0.01, 0.1, 1.0]}
    search = HalvingGridSearchCV(model, grid, cv=2, factor=2, random_state=0).fit(X, y)
    display = HalvingDisplay.from_search(search)
    assert len(display.lines_) == 4
    frame = display.to_frame()
    assert (frame.groupby("track")["C"].nunique() == 1).all()
    colors = [line.get_color() for line in display.lines_]
    assert colors.count("tab:orange") == 1
    with pytest.raises(ValueError, match="search must be a search by halving"):
        HalvingDisplay.from_cv_results(make_results(3))


def halving_results(**more):
    """Return the results of four candidates, of which two and then one go on."""
    params = [{"C": c} for c in (1, 2, 3, 4, 1, 2, 2)]
    rungs = [0, 0, 0, 0, 1, 1, 2]
    scores = [0.8, 0.9, 0.5, 0.4, 0.6, 0.7, 0.75]
    return {"params": params, "iter": rungs, "mean_test_score": scores} | more


@pytest.mark.parametrize("kind", ["auto", "parallel"])
def test_scores_by_parameters_are_those_of_one_rung(kind):
    results = halving_results(n_resources=[1, 1, 1, 1, 3, 3, 9])
    names = ["C"] if kind == "auto" else []
    for params in results["params"]:
        params["depth"] = 5 * params["C"]
    display = SearchDisplay.from_cv_results(results, names, kind=kind)

    assert len(display.to_frame()) == 4
    label = "score (resources = 1)"
    axes = display.figure_.axes
    assert label in [axes[0].get_ylabel(), axes[-1].get_ylabel()]
    # in the order of the evaluations all are shown
    assert len(SearchDisplay.from_cv_results(results).to_frame()) == 7


def test_halving_tells_the_resource_of_each_rung():
    X, y = load_iris(return_X_y=True)
    grid = {"C": [0.001, 0.01, 0.1, 1.0]}
    model = LogisticRegression(max_iter=1000)
    search = HalvingGridSearchCV(model, grid, cv=2, factor=2, random_state=0).fit(X, y)
    display = HalvingDisplay.from_search(search)

    assert display.ax_.get_xlabel() == "rung, and its n_samples"
    texts = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert texts == [f"{rung}\n{n}" for rung, n in enumerate(search.n_resources_)]
    frame = display.to_frame()
    by_rung = frame.groupby("rung")
    assert by_rung["n_resources"].unique().explode().tolist() == search.n_resources_
    assert by_rung.size().tolist() == search.n_candidates_
    assert frame["is_final"].sum() == search.n_candidates_[-1]

    # a search that tells the resources by an attribute only
    results = {k: v for k, v in search.cv_results_.items() if k != "n_resources"}
    search.cv_results_ = results
    assert HalvingDisplay.from_search(search).to_frame()["n_resources"].equals(frame["n_resources"])


def test_halving_without_resources():
    display = HalvingDisplay.from_cv_results(halving_results())

    assert display.ax_.get_xlabel() == "rung"
    frame = display.to_frame()
    assert frame["n_resources"].isna().all()
    # the best is in the last rung, although an earlier one scores more on fewer resources
    assert frame["is_best"].tolist() == [False] * 6 + [True]


def test_the_resource_makes_no_other_candidate():
    results = halving_results(n_resources=[1, 1, 1, 1, 3, 3, 9])
    for params, amount in zip(results["params"], results["n_resources"], strict=True):
        params["max_epochs"] = amount

    assert len(HalvingDisplay.from_cv_results(results).lines_) == 4


def test_a_single_bracket_has_no_name():
    display = HalvingDisplay.from_cv_results(halving_results(bracket=[0] * 7))

    assert "bracket" not in display.to_frame().columns
    assert display.ax_.get_xlabel() == "rung"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"resource": "net__max_epochs"}, "rung, and its epochs"),
        ({"resource": "auto", "resource_": "n_samples"}, "rung, and its n_samples"),
        ({"resource": "auto"}, "rung, and its resource of a fit"),
    ],
)
def test_the_resource_is_named_as_the_search_does(told, expected):
    search = SklearnGridSearchCV(LogisticRegression(), {"C": [1, 2]})
    vars(search).update(told)
    search.cv_results_ = halving_results(n_resources=[1, 1, 1, 1, 3, 3, 9])

    assert HalvingDisplay.from_search(search).ax_.get_xlabel() == expected


def test_rungs_of_equal_resources_are_apart():
    results = halving_results(n_resources=[10, 10, 10, 10, 10, 10, 20])

    display = HalvingDisplay.from_cv_results(results)

    texts = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert texts == ["0\n10", "1\n10", "2\n20"]


def test_brackets_are_drawn_by_their_resources():
    # the second bracket begins with what the second rung of the first has
    params = [{"C": c} for c in (1, 2, 3, 1, 2, 1, 3)]
    results = {"params": params, "bracket": [0, 0, 0, 0, 0, 1, 1], "iter": [0, 0, 0, 1, 1, 0, 0]}
    results["n_resources"] = [1, 1, 1, 3, 3, 3, 3]
    results["mean_test_score"] = [0.1, 0.2, 0.3, 0.4, 0.9, 0.5, 0.6]

    display = HalvingDisplay.from_cv_results(results)
    display.figure_.canvas.draw()

    frame = display.to_frame()
    assert frame["track"].tolist() == [0, 1, 2, 0, 1, 3, 4]
    assert frame["is_final"].tolist() == [False] * 3 + [True] * 4
    assert [line.get_marker() for line in display.lines_] == ["o", "o", "o", "s", "s"]
    assert [line.get_xdata().tolist() for line in display.lines_][1::2] == [[0, 1], [1]]
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == ["1", "3"]
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert sorted(texts) == ["best", "bracket 0", "bracket 1", "in the last rung", "left out"]


def test_parallel_coordinates():
    results = make_results(30)
    results["split0_test_score"][1] = np.nan
    display = SearchDisplay.from_cv_results(results, kind="parallel")
    display.figure_.canvas.draw()
    (lines,) = display.lines_
    assert len(lines.get_segments()) == 29
    # the best lies on top
    assert lines.get_array().argmax() == 28
    assert len(display.ax_.get_xticks()) == 4
    one = {"params": [{"a": 1}], "mean_test_score": [0.5]}
    with pytest.raises(ValueError, match="'parallel' must have at least two parameters, got 0"):
        SearchDisplay.from_cv_results(one, kind="parallel")


@pytest.mark.parametrize("rates", [[0.0, 0.1, 0.1], [0.0, 0.0, 0.0], [np.inf, 0.1, 0.01]])
def test_rates_that_have_no_place_on_a_logarithmic_scale(rates):
    record = make_record(3)
    parameter = make_parameter("lr", rates, [True] * 3, loguniform(1e-4, 1.0))
    record = SearchRecord(**{**vars(record), "parameters": {"lr": parameter}})
    LossCurveDisplay(record).plot().figure_.canvas.draw()
    SearchDisplay(record, [parameter]).plot().figure_.canvas.draw()
    SearchDisplay(record, [parameter, parameter]).plot(kind="parallel").figure_.canvas.draw()


def test_stages_are_divided_and_the_baseline_marked():
    results = make_results(6)
    results["stage"] = np.array(["baseline", "a", "a", "b", "b", "b"], dtype=object)
    display = SearchDisplay.from_cv_results(results)
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert "baseline" in labels
    boundaries = [line for line in display.ax_.get_lines() if line.get_color() == "0.8"]
    assert [line.get_xdata()[0] for line in boundaries] == [0.5, 2.5]


def test_a_grid_is_a_heat_map():
    params = [{"lr": lr, "size": size} for lr in (0.1, 0.001) for size in (8, 32, 16)]
    scores = [0.1, 0.2, 0.3, 0.4, 0.9, np.nan]
    display = SearchDisplay.from_cv_results(
        {"params": params, "mean_test_score": scores}, ("lr", "size")
    )
    mesh, best = display.lines_
    # columns by rate, rows by size, both from small to large
    expected = [[0.4, 0.1], [np.nan, 0.3], [0.9, 0.2]]
    np.testing.assert_array_equal(mesh.get_array().filled(np.nan), expected)
    assert best.get_offsets().tolist() == [[0, 2]]
    texts = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert texts == ["8", "16", "32"]


def scattered(n_candidates, score):
    """Return the results of candidates at random rates and sizes, scored by a function of them."""
    rng = np.random.default_rng(0)
    params = [
        {"lr": 10 ** rng.uniform(-5, 0), "w": rng.uniform(0.1, 1.1)} for _ in range(n_candidates)
    ]
    scores = [score(np.log10(p["lr"]), p["w"], rng) for p in params]
    return {"params": params, "mean_test_score": scores}


def hill(log_lr, w, rng):
    return 1 - (log_lr + 2) ** 2 / 10 - 4 * (w - 0.7) ** 2 + 0.02 * rng.standard_normal()


def list_backgrounds(display):
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    return [text for text in texts if text.startswith("background: Gaussian process")]


@pytest.mark.parametrize("n_candidates", [30, 1000])
def test_a_map_of_points_has_a_background_that_is_predicted(n_candidates):
    display = SearchDisplay.from_cv_results(scattered(n_candidates, hill), ("lr", "w"))
    display.figure_.canvas.draw()

    (mesh,) = [c for c in display.ax_.collections if isinstance(c, QuadMesh)]
    shown = mesh.get_array()
    row, column = np.unravel_index(np.ma.argmax(shown), shown.shape)
    # the top of the hill is at a rate of 0.01 and 0.7, each at 0.6 of its range and 60 cells
    assert abs(row - 0.6 * 59) < 6
    assert abs(column - 0.6 * 59) < 6
    assert len(list_backgrounds(display)) == 1
    bare = SearchDisplay.from_cv_results(scattered(30, hill), ("lr", "w"), background=False)
    assert list_backgrounds(bare) == []


def test_what_cannot_be_predicted_has_no_background():
    def noise(log_lr, w, rng):
        return rng.random()

    few_values = scattered(40, hill)
    for number, params in enumerate(few_values["params"]):
        params["w"] = number % 3
    for results in (scattered(60, noise), scattered(15, hill), few_values):
        display = SearchDisplay.from_cv_results(results, ("lr", "w"))
        assert list_backgrounds(display) == []


def test_a_background_leaves_out_what_is_far_from_all_candidates():
    results = scattered(60, lambda log_lr, w, rng: -((log_lr + 2) ** 2))
    for params in results["params"]:
        # a band along the diagonal
        params["w"] = (np.log10(params["lr"]) + 5.5) / 5
    display = SearchDisplay.from_cv_results(results, ("lr", "w"))

    (mesh,) = [c for c in display.ax_.collections if isinstance(c, QuadMesh)]
    is_hidden = mesh.get_array().mask
    assert is_hidden[0, -1]
    assert is_hidden[-1, 0]
    assert not is_hidden[30, 30]


def test_pairs_that_are_no_full_grid_are_points():
    params = [{"lr": lr, "size": size} for lr in (0.1, 0.001) for size in (8, 32, 16)]
    results = {"params": params[:-1], "mean_test_score": np.arange(5.0)}
    points = SearchDisplay.from_cv_results(results, ("lr", "size")).lines_[0]
    assert len(points.get_offsets()) == 5


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["auto", "progress", "parallel"])
def test_no_finite_score_is_told(score, kind):
    params = [{"a": 1, "b": 1}, {"a": 2, "b": 3}]
    record = read_search({"params": params, "mean_test_score": [score] * 2})
    with pytest.raises(ValueError, match="at least one candidate must have a score, got none"):
        SearchDisplay(record, []).plot(kind=kind)


def test_parallel_coordinates_need_two_parameters():
    results = {"params": [{"a": 1}, {"a": 2}], "mean_test_score": [0.1, 0.2]}
    with pytest.raises(ValueError, match="must have at least two parameters, got 1"):
        SearchDisplay.from_cv_results(results, kind="parallel")


def test_losses_that_are_all_infinite_are_told():
    record = make_record(3)
    record.curves.train_loss[:] = np.inf
    record.curves.valid_loss[:] = np.nan
    with pytest.raises(ValueError, match="at least one candidate must have a finite loss"):
        LossCurveDisplay(record).plot()
    # a single finite one can be drawn
    record.curves.train_loss[0] = 0.5
    assert LossCurveDisplay(record).plot().lines_
    with pytest.raises(ValueError, match="at least one candidate must have a finite loss"):
        LossCurveDisplay(record).plot(candidates=[1, 2])


@pytest.mark.parametrize("n_candidates", [5, 12, 40])
def test_the_legend_leaves_the_axes_their_width(n_candidates):
    display = LossCurveDisplay(make_record(n_candidates)).plot()
    display.figure_.canvas.draw()
    assert display.ax_.get_position().width > 0.7


def test_a_single_fit_has_no_regime():
    display = LossCurveDisplay(make_record(3))
    texts = [text.get_text() for text in display.plot().ax_.get_legend().get_texts()]
    assert any("α" in text for text in texts)
    X, y = load_iris(return_X_y=True)
    net = sktune.NeuralNetClassifier(max_epochs=4, random_state=0).fit(X, y)
    legend = LossCurveDisplay.from_estimator(net).ax_.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["training"]


def test_arguments_of_lines():
    results = {"params": [{"a": 1}, {"a": 2}, {"a": 2}], "iter": [0, 0, 1]}
    results["mean_test_score"] = [0.1, 0.2, 0.3]
    lines = HalvingDisplay.from_cv_results(results, line_kw={"lw": 5}).lines_
    lines += LossCurveDisplay(make_record(3)).plot(line_kw={"lw": 5}).lines_
    assert {line.get_linewidth() for line in lines} == {5}


def test_a_loss_of_zero_leaves_the_axis_logarithmic():
    record = make_record(5)
    record.curves.train_loss[0, :, -1] = 0.0
    ax = LossCurveDisplay(record).plot().ax_
    assert ax.get_yscale() == "log"
    mean = record.curves.mean_over_splits("train_loss")[0]
    assert ax.get_ylim()[0] == pytest.approx(mean[mean > 0].min() / 1.3)
    record.curves.train_loss[0, :, -1] = 1e-30
    assert LossCurveDisplay(record).plot().ax_.get_ylim()[0] > 1e-7
    record.curves.train_loss[0, :, -1] = -1.0
    assert LossCurveDisplay(record).plot().ax_.get_yscale() == "linear"


@pytest.mark.parametrize(
    ("decays", "expected"),
    [
        ([0.0, 1e-4, 1e-2], ["weight decay λ: 0"]),
        ([np.nan, 1e-4, 1e-2], ["weight decay λ: no number"]),
        ([1e-5, 1e-4, 1e-2], []),
    ],
)
def test_grey_lines_are_explained(decays, expected):
    parameter = make_parameter("optimizer__weight_decay", decays, [True] * 3, loguniform(1e-5, 1))
    record = SearchRecord(**{**vars(make_record(3)), "parameters": {"decay": parameter}})
    legend = LossCurveDisplay(record).plot(color_by="decay").ax_.get_legend()
    texts = [text.get_text() for text in legend.get_texts()]
    assert [text for text in texts if "decay" in text] == expected
