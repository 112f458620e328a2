"""The report of a search, as a file and as text."""

import re
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from scipy.stats import loguniform, uniform
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sktune
from sktune.inspection import Finding, report
from sktune.inspection.records import read_search
from sktune.inspection.report.page import sort_findings
from sktune.inspection.report.results import find_baseline

pytest.importorskip("jinja2", reason="the report needs Jinja")

X, y = load_iris(return_X_y=True)
MODEL = LogisticRegression(max_iter=1000, C=0.5)
GRID = {"C": [0.01, 0.1, 1.0, 10.0]}
EVIL = "</script><img src=x onerror=alert(1)>"


class _Reader(HTMLParser):
    """Collects tags, and the text of each section by its heading's id."""

    def __init__(self):
        super().__init__()
        self.tags = []
        self.sections = {}
        self._section = None

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs)["aria-labelledby"]
            self.sections[self._section] = ""

    def handle_endtag(self, tag):
        if tag == "section":
            self._section = None

    def handle_data(self, data):
        if self._section:
            self.sections[self._section] += " ".join(data.split()) + " "


def read(path):
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


@pytest.fixture(scope="module")
def plain():
    return GridSearchCV(MODEL, GRID, cv=3).fit(X, y)


@pytest.fixture(scope="module")
def sealed():
    net = sktune.NeuralNetClassifier(max_epochs=3, random_state=0)
    space = {"lr": loguniform(1e-4, 1e-1), "module__dropout": uniform(0, 0.5)}
    search = sktune.RandomizedSearchCV(net, space, n_iter=4, cv=2, random_state=0)
    return sktune.HoldoutSearch(search, random_state=0).fit(X, y)


def test_sections_of_a_sealed_search(sealed, tmp_path):
    path = report(sealed, tmp_path / "r.html")
    assert path == tmp_path / "r.html"
    page = read(path)
    assert list(page.sections) == [
        *("asked", "best", "sealed", "findings", "curves", "effects", "importance"),
        *("all", "fusion", "setting", "code"),
    ]
    assert "4 candidates × 2 folds = 8 fits" in page.sections["asked"]
    assert "loguniform(0.0001, 0.1)" in page.sections["asked"]
    record = read_search(sealed)
    error = record.standard_errors[record.best_index]
    assert f"{sealed.best_score_:.4f} ± {error:.4f}" in page.sections["best"]
    assert f"{sealed.baseline_score_:.4f}" in page.sections["best"]
    low, high = sealed.test_interval_
    for text in (f"{sealed.test_score_:.4f}", f"{low:.4f} to {high:.4f} (95 % interval)"):
        assert text in page.sections["sealed"]
    assert f"{sealed.optimism_:+.4f}" in page.sections["sealed"]
    assert "30 rows were sealed" in page.sections["sealed"]
    assert "Few candidates" in page.sections["findings"]
    without = read(report(sealed, tmp_path / "without.html", findings=None))
    assert "No checks were run" in without.sections["findings"]
    # a training curve and the effects of two parameters
    assert sum(tag == "svg" for tag, _ in page.tags) >= 3
    assert "search__estimator__random_state 0" in page.sections["setting"]
    assert "tuned = HoldoutSearch(" in page.sections["code"]


def test_findings_are_shown_with_problems_first(plain, tmp_path):
    given = [
        Finding("a", "note", "Few", "4 of 30.", "Try 30."),
        Finding("b", "problem", "B", "", ""),
    ]
    assert [finding.code for finding in sort_findings(given)] == ["b", "a"]
    text = read(report(plain, tmp_path / "r.html", findings=given)).sections["findings"]
    assert text.index("problem") < text.index("4 of 30. Try 30.")
    assert "nothing" in read(report(plain, tmp_path / "r.html", findings=[])).sections["findings"]


def test_a_plain_search_has_neither_sealed_rows_nor_curves(plain, tmp_path):
    page = read(report(plain, tmp_path / "r.html"))
    assert "sealed" not in page.sections
    assert "No curves were recorded" in page.sections["curves"]
    assert "none of sktune's" in page.sections["fusion"]
    assert "own settings is not known" in page.sections["best"]


def test_the_baseline_is_computed_where_rows_are_given(plain, tmp_path):
    expected = GridSearchCV(MODEL, {"C": [0.5]}, cv=3).fit(X, y)
    found = find_baseline(read_search(plain), plain, X, y)
    assert found.mean == pytest.approx(expected.best_score_)
    assert found.error == pytest.approx(expected.cv_results_["std_test_score"][0] / np.sqrt(2))
    text = read(report(plain, tmp_path / "r.html", X=X, y=y)).sections["best"]
    assert f"{expected.best_score_:.4f}" in text
    assert "computed for this report" in text


def test_the_baseline_of_a_pipeline_sees_what_the_search_saw():
    pipeline = make_pipeline(StandardScaler(), GridSearchCV(MODEL, GRID, cv=3)).fit(X, y)
    inner = GridSearchCV(MODEL, {"C": [0.5]}, cv=3).fit(pipeline[:-1].transform(X), y)
    found = find_baseline(read_search(pipeline), pipeline, X, y)
    assert found.mean == pytest.approx(inner.best_score_)


def test_the_baseline_is_a_candidate_with_the_estimators_own_settings():
    search = GridSearchCV(MODEL, {"C": [0.1, 0.5]}, cv=3).fit(X, y)
    found = find_baseline(read_search(search), search)
    assert (found.mean, found.source) == (search.cv_results_["mean_test_score"][1], "candidate 1")


def _bayes():
    pytest.importorskip("optuna", reason="BayesSearchCV needs Optuna")
    space = {"C": loguniform(1e-2, 1)}
    return sktune.BayesSearchCV(MODEL, space, n_iter=3, cv=2, random_state=0).fit(X, y)


KINDS = {
    "one candidate": lambda: GridSearchCV(MODEL, {"C": [1.0]}, cv=2).fit(X, y),
    "no refit": lambda: GridSearchCV(MODEL, GRID, cv=2, refit=False).fit(X, y),
    "one split": lambda: GridSearchCV(MODEL, GRID, cv=[([*range(0, 150, 2)], [1, 61])]).fit(X, y),
    "splitter": lambda: GridSearchCV(MODEL, GRID, cv=KFold(2, shuffle=True)).fit(X, y),
    "grids": lambda: GridSearchCV(MODEL, [GRID, {"fit_intercept": [False]}], cv=2).fit(X, y),
    "train scores": lambda: GridSearchCV(MODEL, GRID, cv=2, return_train_score=True).fit(X, y),
    "halving": lambda: HalvingGridSearchCV(MODEL, GRID, cv=2, factor=2, random_state=0).fit(X, y),
    "staged": lambda: sktune.StagedSearch(MODEL, [("all", {"C": [0.1, 1.0]})], cv=2).fit(X, y),
    "bayes": _bayes,
    "pipeline": lambda: make_pipeline(StandardScaler(), GridSearchCV(MODEL, GRID, cv=2)).fit(X, y),
    "results": lambda: {"params": [{"a": 1}, {"a": 2}], "mean_test_score": [0.1, 0.2]},
    "frame": lambda: pd.DataFrame(GridSearchCV(MODEL, GRID, cv=2).fit(X, y).cv_results_),
    "constant": lambda: {"params": [{"a": 1}, {"a": 1}], "mean_test_score": [0.5, 0.5]},
    "infinite": lambda: {"params": [{"a": 1}, {"a": 2}], "mean_test_score": [0.5, -np.inf]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_search_has_a_report(kind, tmp_path):
    search = KINDS[kind]()
    page = read(report(search, tmp_path / "r.html"))
    record = read_search(search)
    n_rows = sum(tag == "tr" and attrs.get("class") == "best" for tag, attrs in page.tags)
    assert n_rows == 1
    assert f"All {record.n_candidates} candidates" in page.sections["all"]
    if record.search is None:
        assert "without their search" in page.sections["code"]
    else:
        assert f"{type(record.search).__name__}(" in page.sections["code"]


def test_several_metrics(tmp_path):
    search = GridSearchCV(MODEL, GRID, cv=2, scoring=["accuracy", "neg_log_loss"], refit="accuracy")
    tuned = sktune.HoldoutSearch(search, random_state=0).fit(X, y)
    page = read(report(tuned, tmp_path / "r.html", metric="neg_log_loss"))
    assert "Best neg_log_loss" in page.sections["best"]
    assert f"{tuned.test_score_['neg_log_loss']:.4f}" in page.sections["sealed"]
    # the search has no ``scorer_`` of its own where it has a dict of them
    found = find_baseline(read_search(tuned.search_, "neg_log_loss"), tuned.search_, X, y)
    assert found.mean < 0


@pytest.mark.parametrize("n_failed", [1, 2, 3])
def test_failed_candidates(n_failed, tmp_path):
    scores = np.array([0.1, 0.2, 0.3])
    scores[:n_failed] = np.nan
    results = {"params": [{"a": 1}, {"a": 2}, {"a": 3}], "mean_test_score": scores}
    text = report(results, tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count(">failed</td>") == n_failed
    if n_failed == 3:
        assert "No candidate has a score: all 3 failed." in text
    else:
        assert f"{n_failed} of 3 candidates have no score." in text


def test_a_search_whose_scorer_gives_nan(tmp_path):
    search = GridSearchCV(MODEL, GRID, cv=2, scoring=lambda *given: np.nan)
    with pytest.warns(UserWarning, match="One or more of the test scores are non-finite"):
        search.fit(X, y)
    assert "all 4 failed" in report(search, tmp_path / "r.html").read_text(encoding="utf-8")


def evil_results():
    params = [{EVIL: EVIL + str(n % 3), f"n{EVIL}": 10.0**n} for n in range(16)]
    return {"params": params, "mean_test_score": np.linspace(0, 1, 16)}


def evil_search():
    """Return a fitted search whose reasons, for fits that were not fused, are markup."""
    search = sktune.GridSearchCV(MODEL, GRID, cv=2).fit(X, y)
    for fit in search.fusion_.alone:
        fit["reason"] = EVIL
    return search


def test_texts_of_the_user_are_escaped(tmp_path):
    finding = Finding("x", "note", EVIL, EVIL, EVIL, EVIL)
    for search in (evil_results(), evil_search()):
        path = report(search, tmp_path / "r.html", title=EVIL, findings=[finding])
        page = read(path)
        assert not [tag for tag, _ in page.tags if tag in ("img", "iframe", "object", "link")]
        assert sum(tag == "script" for tag, _ in page.tags) == 1
        assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
        assert EVIL in page.sections["findings"]
    assert EVIL in page.sections["fusion"]


def test_odd_characters_are_written(tmp_path):
    results = {"params": [{"a": "\x00\ud800"}, {"a": "é\u2028"}], "mean_test_score": [0.1, 0.2]}
    text = report(results, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "\\ud800" in text
    assert "é" in text


def test_no_source_of_the_network_is_allowed_or_named(sealed, tmp_path):
    path = report(sealed, tmp_path / "r.html")
    page = read(path)
    policy = next(
        attrs["content"] for tag, attrs in page.tags if tag == "meta" and "content" in attrs
    )
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"https?://|url\(|@import", path.read_text(encoding="utf-8"))


def test_a_thousand_candidates_fit_in_two_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    n, splits, epochs = 1000, 5, 20
    names = ["lr", "optimizer__weight_decay", "module__dropout", "batch_size", "l1", "momentum"]
    params = [dict(zip(names, rng.random(6).tolist(), strict=True)) for _ in range(n)]
    results = {"params": params, "mean_test_score": rng.random(n), "mean_fit_time": rng.random(n)}
    results |= {f"split{s}_test_score": rng.random(n) for s in range(splits)}
    search = GridSearchCV(MODEL, GRID)
    search.cv_results_ = results
    search.fusion_ = _fusion_of(n, splits, epochs, rng)
    path = report(search, tmp_path / "r.html")
    assert (
        len(re.findall("M", re.search('class="curve" d="([^"]*)', path.read_text())[1])) == n - 10
    )
    assert path.stat().st_size < 2_000_000


def _fusion_of(n, splits, epochs, rng):
    """Return a report on fits that all have curves on both kinds of rows."""
    from sktune.engine.report import FusionReport

    fusion = FusionReport()
    for candidate in range(n):
        for split in range(splits):
            columns = {name: rng.random(epochs) for name in ("train_loss", "valid_loss", "lr")}
            fusion.curves.add(candidate, split, columns)
    return fusion


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (MODEL, TypeError, "search must be a search with cv_results_"),
        (GridSearchCV(MODEL, GRID), NotFittedError, "not fitted"),
    ],
)
def test_what_is_no_fitted_search(given, error, message, tmp_path):
    with pytest.raises(error, match=message):
        report(given, tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def test_paths_that_cannot_be_written(plain, tmp_path):
    with pytest.raises(OSError, match="path must be in a folder that exists, got path="):
        report(plain, tmp_path / "nowhere" / "r.html")
    with pytest.raises(OSError, match="path must be a file, got the folder path="):
        report(plain, tmp_path)
    with pytest.raises(OSError, match="path must be a file that can be written, got path="):
        report(plain, tmp_path / ("x" * 300))
    with pytest.raises(OSError, match="path must be a file that can be written, got path="):
        report(plain, "/proc/report.html")
    assert not list(tmp_path.iterdir())


def test_an_older_file_stays_until_the_new_one_is_complete(plain, tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("older")

    def fail(*paths):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(OSError, match="path must be .* got path=.*No space left on device"):
            report(plain, path)
    assert path.read_text() == "older"
    assert [other.name for other in tmp_path.iterdir()] == ["r.html"]
    report(plain, str(path))
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert [other.name for other in tmp_path.iterdir()] == ["r.html"]


def test_without_jinja_the_extra_is_named(plain, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"report needs Jinja: pip install 'sktune\[report\]'"):
        report(plain, tmp_path / "r.html")
