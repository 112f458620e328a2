from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.nn import functional as F

from sktune import NeuralNetClassifier, NeuralNetRegressor

X = np.random.RandomState(0).randn(40, 3)
y = (X[:, 0] > 0).astype(int)
WANTED = {
    ("optimizer", "adam"): r"torch\.optim\.Adam,",
    ("optimizer", "SGD"): r"torch\.optim\.SGD,",
    ("optimizer", "torch.optim.RMSprop"): r"torch\.optim\.RMSprop,",
    ("optimizer", "adma"): r"torch\.optim\.AdamW,",
    ("criterion", "mse"): r"torch\.nn\.MSELoss,",
    ("criterion", "cross_entropy"): r"torch\.nn\.CrossEntropyLoss,",
    ("criterion", "BCEWithLogitsLoss"): r"torch\.nn\.BCEWithLogitsLoss,",
    ("criterion", "squared_error"): r"torch\.nn\.MSELoss,",
    ("criterion", "l1_loss"): r"torch\.nn\.L1Loss,",
    ("module", "mlp"): r"nn\.Module class or instance such as sktune\.MLP,",
}


@pytest.mark.parametrize("estimator", [NeuralNetClassifier, NeuralNetRegressor])
@pytest.mark.parametrize(
    ("name", "value", "wanted"), [(*given, wanted) for given, wanted in WANTED.items()]
)
def test_components_given_as_names_say_which_class_is_wanted(estimator, name, value, wanted):
    net = estimator(**{name: value})
    message = f"{name} must be an? .*{wanted} got {name}='{value}'"

    with pytest.raises(ValueError, match=message):
        net.fit(X, y)
    assert clone(net).get_params()[name] == value
    with pytest.raises(ValueError, match=message):
        estimator().set_params(**{name: value}).fit(X, y)


def test_names_in_a_grid_and_with_arguments():
    with pytest.raises(ValueError, match=r"torch\.optim\.Adam, got optimizer='adam'"):
        GridSearchCV(NeuralNetClassifier(), {"optimizer": ["adam"]}, cv=2).fit(X, y)
    with pytest.raises(ValueError, match=r"torch\.optim\.Adam, got optimizer='adam'"):
        NeuralNetClassifier(optimizer="adam", optimizer__weight_decay=0.1).fit(X, y)


def test_name_in_a_fitted_net_changes_nothing():
    net = NeuralNetClassifier(max_epochs=1, random_state=0).fit(X, y)
    before = net.predict_proba(X)

    with pytest.raises(ValueError, match=r"torch\.optim\.SGD, got optimizer='sgd'"):
        net.set_params(optimizer="sgd")
    assert net.optimizer is torch.optim.AdamW
    assert np.array_equal(net.predict_proba(X), before)


def test_optimizer_must_be_a_class():
    optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)

    with pytest.raises(
        ValueError, match=r"such as torch\.optim\.SGD, got optimizer=an instance of SGD"
    ):
        NeuralNetClassifier(optimizer=optimizer).fit(X, y)


@pytest.mark.parametrize(
    ("function", "wanted"),
    [(F.cross_entropy, "CrossEntropyLoss"), (F.mse_loss, "MSELoss"), (F.l1_loss, "L1Loss")],
)
def test_criterion_must_be_no_function(function, wanted):
    with pytest.raises(
        ValueError, match=rf"such as torch\.nn\.{wanted}, got criterion=the function"
    ):
        NeuralNetClassifier(criterion=function).fit(X, y)


def test_functions_that_make_components_are_as_in_skorch():
    net = NeuralNetClassifier(
        criterion=lambda: nn.CrossEntropyLoss(),
        optimizer=partial(torch.optim.Adam, eps=1e-6),
        max_epochs=1,
    )

    assert net.fit(X, y).n_iter_ == 1


@pytest.mark.parametrize("role", ["module", "criterion", "optimizer"])
@pytest.mark.parametrize("value", [None, 3, torch.optim])
def test_what_cannot_build_a_component_is_refused(role, value):
    net = NeuralNetClassifier(max_epochs=1, device="cpu", **{role: value})
    with pytest.raises(ValueError, match=f"{role} must be .*, got {role}="):
        net.fit(np.zeros((4, 2)), np.array([0, 1, 0, 1]))
