"""A store in memory: what was trained is answered, or gone on with."""

import joblib
import numpy as np
import pytest
from parity import RAGGED, Keep, X, assert_same_net, assert_same_scores, grid, y
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

from sktune import NeuralNetClassifier
from sktune.engine.report import FusionReport
from sktune.engine.store import MemoryStore

SETTINGS = {"module__hidden": (8,), "module__dropout": 0.2, "batch_size": 16, "random_state": 0}
STOPS = {"early_stopping": True, "n_iter_no_change": 2, "lr": 0.1}


def ours(**options):
    return NeuralNetClassifier(**{**SETTINGS, **options})


def run(net, candidates, store=None, **options):
    """Return a finished search, the nets that it fitted, and the report of their fusion."""
    keep = Keep()
    report = FusionReport()
    with joblib.parallel_config("sktune", store=store, report=report, **options):
        found = GridSearchCV(net, grid(*candidates), cv=RAGGED, scoring=keep, refit=False).fit(X, y)
    assert not report.alone
    return found, keep.nets, report


def assert_same(one, other):
    assert_same_scores(one[0], other[0], tolerance=0)
    for first, second in zip(one[1], other[1], strict=True):
        assert_same_net(first, second, rtol=0)


@pytest.mark.parametrize("options", [{}, STOPS], ids=["plain", "early stopping"])
def test_a_second_search_goes_on_where_the_first_has_ended(options):
    store = MemoryStore()
    net = ours(**options)
    run(net, [{"max_epochs": 4}], store)
    n_first = store.n_epochs
    longer = run(net, [{"max_epochs": 10}], store)

    alone = run(net, [{"max_epochs": 10}])
    assert_same(alone, longer)
    assert n_first == 8
    whole = alone[2].sharing.n_trained_epochs
    assert longer[2].sharing.n_trained_epochs == whole - 8
    assert longer[2].sharing.n_known_epochs == 8
    assert store.n_epochs == whole


def test_what_is_known_is_not_trained():
    store = MemoryStore()
    candidates = [{"lr": 0.01}, {"lr": 0.1, "max_epochs": 5}]
    first = run(ours(), candidates, store)
    second = run(ours(), candidates, store)

    assert_same(first, second)
    assert second[2].groups == []
    assert second[2].sharing.n_trained_epochs == 0
    assert second[2].sharing.n_known_fits == 4
    assert second[2].curves == first[2].curves
    assert "110 epochs of 4 fits were known from before" in str(second[2])


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_a_failed_fit_is_known_as_well():
    store = MemoryStore()
    candidates = [{"lr": 1e30, "optimizer__weight_decay": 0.0}, {"lr": 0.01}]
    with pytest.warns(FitFailedWarning, match="2 fits failed out of a total of 4"):
        first, _, _ = run(ours(), candidates, store)
    with pytest.warns(FitFailedWarning, match="2 fits failed out of a total of 4"):
        second, _, report = run(ours(), candidates, store)

    assert report.sharing.n_known_fits == 4
    assert np.isnan(second.cv_results_["mean_test_score"]).tolist() == [True, False]
    assert_same_scores(first, second, tolerance=0)


def test_the_oldest_records_are_dropped_where_memory_is_short():
    whole = MemoryStore()
    run(ours(), [{"lr": 0.01}, {"lr": 0.1}], whole)
    store = MemoryStore(max_bytes=whole.n_bytes // 2)
    run(ours(), [{"lr": 0.01}, {"lr": 0.1}], store)

    assert 0 < store.n_bytes <= store.max_bytes
    assert len(store.records) == 2
