"""Weights without pickles, and pickles that stay small."""

import pickle

import numpy as np
import pytest
import torch
from parity import RAGGED, X, X_reg, y, y_reg
from safetensors.torch import load_file
from sklearn.base import clone

from sktune import GridSearchCV, NeuralNetClassifier, NeuralNetRegressor
from sktune.estimators.base import NetworkEstimator

SETTINGS = {"module__hidden": (8,), "max_epochs": 2, "random_state": 0}
NETS = {
    "classifier": (NeuralNetClassifier(**SETTINGS), X, y),
    "regressor": (NeuralNetRegressor(**SETTINGS), X_reg, y_reg),
    "batch norm": (NeuralNetClassifier(**SETTINGS, module__batch_norm=True), X, y),
    "double": (NeuralNetClassifier(**SETTINGS, module__dtype=torch.float64), X, y),
}


@pytest.mark.parametrize("is_searched", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_weights_are_saved_and_loaded_without_a_pickle(name, is_searched, tmp_path):
    net, *data = NETS[name]
    if is_searched:
        fitted = GridSearchCV(net, {"lr": [0.01]}, cv=RAGGED).fit(*data).best_estimator_
    else:
        fitted = clone(net).fit(*data)
    path = str(tmp_path / "weights.safetensors")
    fitted.save_params(f_params=path, use_safetensors=True)
    assert load_file(path).keys() == fitted.module_.state_dict().keys()
    other = clone(net).set_params(random_state=1).fit(*data)
    assert not np.array_equal(other.predict(data[0]), fitted.predict(data[0]))
    other.load_params(f_params=path, use_safetensors=True)

    np.testing.assert_array_equal(other.predict(data[0]), fitted.predict(data[0]))


def test_a_search_with_a_cache_pickles_no_larger_than_one_without(tmp_path):
    grid = {"lr": [0.01, 0.02, 0.05, 0.1], "max_epochs": [2, 4]}
    search = GridSearchCV(NeuralNetClassifier(**SETTINGS), grid, cv=3).fit(X, y)
    plain = pickle.dumps(search)
    cached = pickle.dumps(search.set_params(cache=str(tmp_path)).fit(X, y))
    again = pickle.dumps(search.fit(X, y))

    assert len(cached) < len(plain) + 500
    assert len(again) < len(plain) + 500
    # of the fits that were only scored, the search keeps curves and scores
    one = pickle.dumps(search.best_estimator_)
    assert len(plain) < 2 * len(one) + 20_000
    restored = pickle.loads(again)
    assert isinstance(restored.best_estimator_, NetworkEstimator)
    np.testing.assert_array_equal(restored.predict(X), search.predict(X))
