"""scikit-learn's callbacks on a HoldoutSearch are handed on to its search."""

import numpy as np
import pytest
from parity import X, y
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from told_callbacks import AskingForRows, Noting, Propagated, needs_callbacks

from sktune import GridSearchCV, HoldoutSearch, NeuralNetClassifier

pytestmark = needs_callbacks

NET = NeuralNetClassifier(module__hidden=4, max_epochs=2, random_state=0, device="cpu")
SEARCH = GridSearchCV(NET, {"lr": [1e-3, 1e-2]}, cv=2)


def test_search_and_nets_hear_of_themselves():
    plain = HoldoutSearch(SEARCH, random_state=0).fit(X, y)
    noting = Propagated()
    told = HoldoutSearch(SEARCH, random_state=0).set_callbacks(noting).fit(X, y)

    assert told.test_score_ == plain.test_score_
    np.testing.assert_array_equal(
        told.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"]
    )
    assert not told.search_.fusion_.alone
    assert noting.names("setup", "teardown") == ["fit", "fit"]
    # 4 fits of the search and its refit
    assert noting.names("end").count("epoch") == 5 * 2
    ends = [(name, path) for hook, name, path in noting.calls if hook == "end"]
    assert ends[-1] == ("HoldoutSearch", (("fit", 0, None),))
    # the search's own task is that of the subtask
    assert ends[-2] == ("GridSearchCV", (("fit", 0, None), ("fit", 0, "fit-search")))


def test_callbacks_that_are_not_handed_on():
    noting = Noting()
    HoldoutSearch(SEARCH, random_state=0).set_callbacks(noting).fit(X, y)

    assert noting.names("setup", "begin", "end", "teardown") == [
        "fit",
        "fit",
        "fit-search",
        "fit-search",
        "fit",
        "fit",
    ]


def test_search_within_a_pipeline():
    noting = Propagated()
    search = make_pipeline(StandardScaler(), SEARCH)
    HoldoutSearch(search, random_state=0).set_callbacks(noting).fit(X, y)

    # 4 fits of the search and its refit
    assert noting.names("end").count("epoch") == 5 * 2


def test_search_is_told_of_the_rows_that_it_searches_on_alone():
    asking = AskingForRows()
    search = clone(SEARCH).set_callbacks(asking)
    tuned = HoldoutSearch(search, test_size=0.2, random_state=0).fit(X, y)

    assert {n for name, n, *_ in asking.rows if name == "fit"} == {len(tuned.dev_indices_)}


@pytest.mark.parametrize("fails", ["arguments", "search"])
def test_callbacks_are_torn_down_where_the_fit_fails(fails):
    def score(net, X, y):
        raise RuntimeError("no score")

    noting = Propagated()
    search = clone(SEARCH).set_params(scoring=score, error_score="raise")
    tuned = HoldoutSearch(search, n_resamples=0 if fails == "arguments" else 10)
    error, match = {
        "arguments": (ValueError, "n_resamples must be at least 1"),
        "search": (RuntimeError, "no score"),
    }[fails]
    with pytest.raises(error, match=match):
        tuned.set_callbacks(noting).fit(X, y)

    assert noting.names("setup") == noting.names("teardown")
    assert not any("callback" in name for name in vars(tuned) if name != "_skl_callbacks")
