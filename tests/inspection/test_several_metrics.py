"""Searches by several metrics: everything that reads searches, by each metric."""

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV as SklearnGridSearchCV

import sktune
from sktune.inspection import (
    ImportanceDisplay,
    LossCurveDisplay,
    SearchDisplay,
    diagnose,
    effect_table,
    importance,
    report,
)
from sktune.inspection.records import list_metrics, read_search

mpl.use("Agg")
X, y = load_iris(return_X_y=True)
GRID = {"lr": [1e-4, 1e-3, 1e-2], "optimizer__weight_decay": [0.0, 0.1]}
NAMES = {"right": "accuracy", "sure": "neg_log_loss"}


def choose_second(results):
    return 1


def score_both(model, X, y):
    """Return two scores as a dict, which scikit-learn takes as two metrics."""
    loss = log_loss(y, model.predict_proba(X))
    return {"right": accuracy_score(y, model.predict(X)), "sure": -loss}


def fit_search(scoring, refit):
    net = sktune.NeuralNetClassifier(max_epochs=3, random_state=0)
    return sktune.GridSearchCV(net, GRID, cv=2, scoring=scoring, refit=refit).fit(X, y)


SEARCHES = {
    "by name": (NAMES, "sure"),
    "by a callable": (NAMES, choose_second),
    "without a refit": (NAMES, False),
    "one standard error": (NAMES, sktune.OneStandardError(metric="sure")),
    "scores as a dict": (score_both, "right"),
}


@pytest.fixture(scope="module", params=SEARCHES)
def search(request):
    return fit_search(*SEARCHES[request.param])


@pytest.fixture(autouse=True)
def close_figures():
    from matplotlib import pyplot as plt

    yield
    plt.close("all")


@pytest.mark.parametrize("metric", NAMES)
def test_all_read_the_metric_that_is_asked(search, metric, tmp_path):
    scores = search.cv_results_[f"mean_test_{metric}"]
    frame = SearchDisplay.from_search(search, "lr", metric).to_frame()
    np.testing.assert_allclose(frame["score"], scores)
    display = SearchDisplay.from_search(search, ("lr", "weight_decay"), metric)
    np.testing.assert_allclose(np.sort(display.lines_[0].get_array().ravel()), np.sort(scores))
    assert SearchDisplay.from_search(search, (), metric, kind="parallel").lines_
    table = effect_table(search, "lr", metric)
    by_rate = scores.reshape(3, 2).mean(axis=1)
    np.testing.assert_allclose(table["mean_score"], by_rate)
    assert importance(search, metric).metric == metric
    assert ImportanceDisplay.from_search(search, metric).ax_
    is_known = not callable(search.scoring)
    assert ("underfits" in diagnose(search, X, y, metric=metric).skipped) != is_known
    page = report(search, tmp_path / "report.html", X=X, y=y, metric=metric)
    best = read_search(search, metric).best_index
    text = page.read_text(encoding="utf-8")
    assert f'<dd class="value">{scores[best]:.4f}' in text
    (other,) = set(NAMES) - {metric}
    its_score = search.cv_results_[f"mean_test_{other}"][best]
    assert f'<dt>Its {other}</dt><dd class="value">{its_score:.4f}' in text


def test_the_best_is_the_chosen_one_or_that_of_the_metric(search):
    for metric in NAMES:
        best = read_search(search, metric).best_index
        scores = search.cv_results_[f"mean_test_{metric}"]
        by_itself = search.refit is False or (
            isinstance(search.refit, str) and search.refit != metric
        )
        assert best == (int(np.argmax(scores)) if by_itself else search.best_index_)


def test_losses_need_no_metric(search):
    display = LossCurveDisplay.from_search(search)

    assert display.record.best_index == getattr(search, "best_index_", None)
    assert len(display.to_frame()) == 6 * 3


@pytest.mark.parametrize("refit", [False, choose_second])
def test_a_metric_must_be_given_where_none_is_the_main_one(refit):
    search = SklearnGridSearchCV(
        LogisticRegression(max_iter=500), {"C": [0.1, 1]}, scoring=NAMES, cv=2
    )
    search.set_params(refit=refit).fit(X, y)

    for look in (SearchDisplay.from_search, diagnose, importance, ImportanceDisplay.from_search):
        with pytest.raises(ValueError, match=r"metric must be given .* one of \['right', 'sure'\]"):
            look(search)
        with pytest.raises(ValueError, match=r"metric must be one of .* got 'accuracy'"):
            look(search, metric="accuracy")
    with pytest.raises(ValueError, match="metric must be given where there are several"):
        effect_table(search, "C")


def test_the_scorer_behind_a_name_is_known():
    results = {"params": [{"C": 1}, {"C": 2}], "mean_test_accuracy": [0.5, 0.6]}
    search = SklearnGridSearchCV(LogisticRegression(), {"C": [1, 2]})
    search.cv_results_ = results

    assert read_search(results).scorer == "accuracy"
    search.scoring = {"accuracy": "neg_log_loss"}
    assert read_search(search).scorer == "neg_log_loss"
    search.scoring = {"accuracy": score_both}
    assert read_search(search).scorer == ""
    assert "underfits" in diagnose(search, X, y).skipped
    assert list_metrics(search) == ["accuracy"]


def test_a_baseline_is_computed_by_one_of_several_scores(tmp_path):
    net = sktune.NeuralNetClassifier(max_epochs=2, random_state=0)
    search = sktune.GridSearchCV(net, {"lr": [0.1]}, cv=2, scoring=score_both, refit="right")
    search.fit(X, y)

    page = report(search, tmp_path / "report.html", X=X, y=y).read_text(encoding="utf-8")

    assert "computed for this report" in page
    boosted = diagnose(search, X, y, compare=True)
    assert "boosting-better" not in boosted.skipped
