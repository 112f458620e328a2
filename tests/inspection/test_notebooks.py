"""What notebooks show of fitted searches and networks."""

import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import sklearn
import skorch
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sktune
from sktune.engine.report import FusionReport
from sktune.inspection import Finding
from sktune.inspection.notebook.summary import Summary
from sktune.inspection.notebook.writing import to_html, write_summary

X, y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X).astype(np.float32)
EVIL = "</style><img src=x onerror=alert(1)>"
RATES = {"lr": [1e-3, 1e-2]}


class Reader(HTMLParser):
    """Collects the texts of the cells, and checks that every element is closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.rows, self.tags = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1].append(data)

    @property
    def facts(self):
        return {row[0]: row[1] for row in self.rows}


def net(**settings):
    return sktune.NeuralNetClassifier(**{"max_epochs": 3, "random_state": 0} | settings)


def make_search(kind):
    """Return an unfitted search over the rate of a small network."""
    fast = {"cv": 2}
    if kind == "grid":
        return sktune.GridSearchCV(net(), RATES, **fast)
    if kind == "random":
        return sktune.RandomizedSearchCV(net(), RATES, n_iter=2, random_state=0, **fast)
    if kind == "bayes":
        pytest.importorskip("optuna", reason="BayesSearchCV needs Optuna")
        return sktune.BayesSearchCV(net(), RATES, n_iter=2, random_state=0, **fast)
    if kind == "staged":
        return sktune.StagedSearch(net(), [("alpha", RATES)], n_iter=2, random_state=0, **fast)
    if kind == "pipeline":
        model = make_pipeline(StandardScaler(), net())
        return sktune.GridSearchCV(model, {"neuralnetclassifier__lr": [1e-3, 1e-2]}, **fast)
    return sktune.HoldoutSearch(sktune.GridSearchCV(net(), RATES, **fast), random_state=0)


KINDS = ["grid", "random", "bayes", "staged", "pipeline", "holdout"]


@pytest.mark.parametrize("kind", KINDS)
def test_searches_show_scores_curves_and_the_diagram(kind):
    search = make_search(kind)
    assert "sktune-summary" not in search._repr_html_()
    search.fit(X, y)

    html = search._repr_html_()
    reader = Reader(write_summary(search))

    core = getattr(search, "search_", search)
    assert reader.facts["Best accuracy"].startswith(f"{core.best_score_:.4f} ± ")
    n_candidates = len(core.cv_results_["params"])
    assert reader.facts["Tried"] == f"{n_candidates} candidates × 2 folds = {2 * n_candidates} fits"
    assert "compiled steps" in reader.facts["Trained together"]
    assert "svg" in reader.tags
    assert any("lr (learning rate α)" in label for label in reader.facts)
    # the summary comes first, and scikit-learn's diagram is whole
    assert html.index("sktune-summary") < html.index("sk-top-container")
    assert html.count("sktune-summary'>") == 1
    assert search._repr_mimebundle_()["text/html"].startswith("<div class='sktune-summary'>")
    with sklearn.config_context(display="text"):
        assert not hasattr(search, "_repr_html_")
        assert "text/html" not in search._repr_mimebundle_()


def test_a_holdout_search_shows_baseline_and_sealed_test():
    tuned = make_search("holdout").fit(X, y)

    facts = Reader(write_summary(tuned)).facts

    assert facts["Baseline accuracy"].startswith(f"{tuned.baseline_score_:.4f}")
    assert facts["Test accuracy, 30 sealed rows"].startswith(f"{tuned.test_score_:.4f}, ")
    assert facts["Test accuracy, 30 sealed rows"].endswith(f"optimism {tuned.optimism_:+.4f}")


def test_networks_show_their_training():
    model = net(max_epochs=4, early_stopping=True)
    assert write_summary(model) == ""
    model.fit(X, y)

    reader = Reader(write_summary(model))

    assert reader.facts["Epochs"] == "4 (max_epochs=4)"
    losses = model.history_[:, "valid_loss"]
    assert reader.facts["Validation loss"].startswith(f"{losses[-1]:.4f} at the end")
    assert reader.facts["Module"] == "MLP, 1,027 weights, on cpu"
    assert reader.tags.count("path") == 2
    assert model._repr_html_().index("sktune-summary") < model._repr_html_().index("sk-top")
    model.partial_fit(X, y)
    assert Reader(write_summary(model)).facts["Epochs"] == "8 (max_epochs=4)"


def test_regressors_and_nets_of_one_epoch():
    model = sktune.NeuralNetRegressor(max_epochs=1, random_state=0).fit(X, X[:, 0])

    reader = Reader(write_summary(model))

    assert reader.facts["Epochs"] == "1 (max_epochs=1)"
    assert "svg" not in reader.tags


def test_other_estimators_have_no_summary():
    assert write_summary(LogisticRegression().fit(X, y)) == ""
    assert write_summary(skorch.NeuralNetClassifier(sktune.MLP)) == ""


def two_metrics(refit):
    scoring = ["accuracy", "neg_log_loss"]
    return sktune.GridSearchCV(net(), RATES, cv=2, scoring=scoring, refit=refit).fit(X, y)


def test_several_metrics_are_those_of_the_chosen_candidate():
    search = two_metrics("neg_log_loss")

    facts = Reader(write_summary(search)).facts

    assert [label for label in facts if "Baseline" not in label][:2] == [
        "Best neg_log_loss",
        "Its accuracy",
    ]
    accuracy = search.cv_results_["mean_test_accuracy"][search.best_index_]
    assert facts["Its accuracy"].startswith(f"{accuracy:.4f}")


@pytest.mark.parametrize("refit", [False, lambda results: 1])
def test_several_metrics_without_a_main_one(refit):
    facts = Reader(write_summary(two_metrics(refit))).facts

    # alphabetical order is scikit-learn's
    assert list(facts)[0] == "Best accuracy"
    assert ("Best neg_log_loss" in facts) == (refit is False)
    assert ("Its neg_log_loss" in facts) == callable(refit)


def test_a_search_whose_fits_all_failed():
    search = sktune.GridSearchCV(net(), RATES, cv=2, scoring=lambda *_: np.nan, refit=False)
    with pytest.warns(UserWarning, match="non-finite"):
        search.fit(X, y)

    facts = Reader(write_summary(search)).facts

    assert facts["Best score"] == "no candidate has a score"
    assert facts["Failed"] == "2 of 2 candidates have no score"


def test_a_search_without_networks_says_why():
    search = sktune.GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2).fit(X, y)

    reader = Reader(write_summary(search))

    assert "svg" not in reader.tags
    assert reader.facts["One at a time"].startswith("4 fits: ")
    assert reader.facts["Baseline accuracy"].endswith("(candidate 1)")


def make_large(n_candidates, n_epochs):
    rng = np.random.default_rng(0)
    search = sktune.GridSearchCV(net(), {"lr": [1.0]})
    params = [{"lr": 10 ** -(5 * rng.random())} for _ in range(n_candidates)]
    results = {"params": params, "mean_test_score": rng.random(n_candidates)}
    search.cv_results_ = results | {
        f"split{k}_test_score": results["mean_test_score"] for k in (0, 1)
    }
    search.best_index_ = int(np.argmax(results["mean_test_score"]))
    search.fusion_ = FusionReport()
    for candidate in range(n_candidates):
        columns = {"train_loss": np.linspace(1, rng.random(), n_epochs)}
        search.fusion_.curves.add(candidate, 0, columns)
    return search


def test_of_a_thousand_candidates_few_are_drawn():
    html = write_summary(make_large(1000, 200))

    # each line begins with one M
    lines = "".join(re.findall(r' d="([^"]*)"', html)).count("M")
    assert lines == 60
    assert len(html) < 40_000
    assert "60 candidates are drawn, with the best; 940 are not." in html


def test_curves_of_one_epoch_are_points():
    html = write_summary(make_large(3, 1))

    assert html.count("h0") == 3


def test_texts_are_escaped():
    finding = Finding("x", "problem", EVIL, EVIL, EVIL)
    rows = [(EVIL, EVIL, EVIL)]
    html = to_html(Summary(EVIL, [(EVIL, EVIL)], rows, None, [finding], 1))
    assert "img" not in Reader(html).tags
    assert html.count("&lt;img") == 9

    search = sktune.GridSearchCV(LogisticRegression(), {"C": [1]})
    params = [{EVIL: EVIL}, {EVIL: "b"}]
    search.cv_results_ = {"params": params, f"mean_test_{EVIL}": [0.5, 0.1]}
    html = write_summary(search)
    assert "img" not in Reader(html).tags
    assert "&lt;img" in html


def test_no_optional_library_is_needed(monkeypatch):
    search = make_search("grid").fit(X, y)
    for name in ("jinja2", "markupsafe", "pandas", "matplotlib", "matplotlib.pyplot", "optuna"):
        monkeypatch.setitem(sys.modules, name, None)

    assert "svg" in Reader(write_summary(search)).tags
    assert "sktune-summary" in search._repr_html_()
