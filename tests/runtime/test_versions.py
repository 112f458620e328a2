"""Pickles that were written with other versions are read with a warning."""

import copy
import pickle
import warnings

import pytest
from parity import RAGGED, X, y
from sklearn import exceptions
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktune import (
    GridSearchCV,
    HoldoutSearch,
    InconsistentVersionWarning,
    NeuralNetClassifier,
    NeuralNetRegressor,
    StagedSearch,
)
from sktune.runtime import versions

NET = NeuralNetClassifier(module__hidden=(4,), max_epochs=1, random_state=0)


class OwnNet(NeuralNetClassifier):
    """A class of the user's."""


def set_versions(monkeypatch, **found):
    """Let packages have other versions."""
    known = versions._find_version
    monkeypatch.setattr(versions, "_find_version", lambda name: found.get(name) or known(name))


def make_estimators():
    search = GridSearchCV(NET, {"lr": [0.01]}, cv=RAGGED, ensemble="folds")
    return {
        "net": NET,
        "unfitted": clone(NET),
        "regressor": NeuralNetRegressor(module__hidden=(4,), max_epochs=1, random_state=0),
        "own class": OwnNet(max_epochs=1, random_state=0),
        "pipeline": make_pipeline(StandardScaler(), NET),
        "search": search,
        "staged": StagedSearch(NET, [("lr", {"lr": [0.01]})], n_iter=1, cv=2, random_state=0),
        "holdout": HoldoutSearch(GridSearchCV(NET, {"lr": [0.01]}, cv=2), random_state=0),
    }


@pytest.fixture(scope="module")
def fitted():
    """Estimators by name; all are fitted but one."""
    found = make_estimators()
    for name, estimator in found.items():
        if name != "unfitted":
            found[name] = clone(estimator).fit(X, y)
    return {**found, "ensemble": found["search"].ensemble_}


@pytest.mark.parametrize("kind", [*make_estimators(), "ensemble"])
def test_another_version_of_sktune_is_told(kind, fitted, monkeypatch):
    with monkeypatch.context() as patch:
        set_versions(patch, sktune="0.0.9")
        data = pickle.dumps(fitted[kind])
    # a filter of scikit-learn's warning is one of ours
    with pytest.warns(exceptions.InconsistentVersionWarning, match="sktune 0.0.9") as caught:
        read = pickle.loads(data)
    texts = [str(one.message) for one in caught if one.category is InconsistentVersionWarning]
    now = versions.find_versions(["sktune"])["sktune"]
    expected = f"was pickled with sktune 0.0.9 and is read with sktune {now}: its results may be"
    assert texts
    assert all(expected in text for text in texts)
    if kind != "unfitted":
        assert (read.predict(X) == fitted[kind].predict(X)).all()
    # what is read has the present version
    assert not hasattr(read, "_pickled_with")
    pickle.loads(pickle.dumps(read))


@pytest.mark.parametrize("kind", [*make_estimators(), "ensemble"])
def test_the_same_versions_are_not_told(kind, fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (pickle.loads(pickle.dumps(fitted[kind])), copy.deepcopy(fitted[kind])):
            assert vars(read).keys() == vars(fitted[kind]).keys()


@pytest.mark.parametrize(
    ("old", "new", "is_told"),
    [
        ("2.8.0+cpu", "2.8.1+cu128", False),
        ("2.8.0", "2.9.0", True),
        ("2.9.0", "2.8.0", True),
        ("3.8.0", "2.8.0", True),
    ],
)
def test_versions_of_torch_matter_to_nets(old, new, is_told, monkeypatch):
    search = GridSearchCV(NET, {"lr": [0.01]}, cv=RAGGED, refit=False).fit(X, y)
    with monkeypatch.context() as patch:
        set_versions(patch, torch=old)
        data = pickle.dumps(NET)
        # it holds an unfitted net
        of_search = pickle.dumps(search)
    set_versions(monkeypatch, torch=new)
    if not is_told:
        pickle.loads(data)
        return
    for each in (data, of_search):
        message = f"NeuralNetClassifier was pickled with torch {old} and is read with torch {new}"
        with pytest.warns(InconsistentVersionWarning, match=message) as caught:
            pickle.loads(each)
        assert len(caught) == 1


def test_a_pickle_without_versions_is_told(monkeypatch):
    state = NET.__getstate__()
    del state["_pickled_with"]
    net = object.__new__(NeuralNetClassifier)
    with pytest.warns(InconsistentVersionWarning, match="sktune an unknown version, torch an unk"):
        net.__setstate__(state)
    assert net.get_params()["max_epochs"] == 1


def test_the_warning_can_be_sent():
    warning = InconsistentVersionWarning("NeuralNetClassifier", {"torch": ("2.8.0", "2.9.0")})
    sent = pickle.loads(pickle.dumps(warning))
    assert (str(sent), sent.differences) == (str(warning), warning.differences)
