import inspect

import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktune import MLP, NeuralNetClassifier
from sktune.checks.synonyms import SYNONYMS, suggest
from sktune.runtime.names import check_name, did_you_mean


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("droput", "; did you mean 'dropout'?"),
        ("dropout", "; did you mean 'dropout'?"),
        ("zzz", ""),
        (3, ""),
    ],
)
def test_did_you_mean(name, answer):
    assert did_you_mean(name, ["dropout", "hidden"]) == answer


def test_check_name_accepts_known():
    assert check_name("activation", "relu", {"relu": 1, "tanh": 2}) is None


def test_check_name_states_requirement_and_fact():
    with pytest.raises(
        ValueError,
        match=r"^activation must be one of \['relu', 'tanh'\], got 'than'; did you mean 'tanh'\?$",
    ):
        check_name("activation", "than", ["tanh", "relu"])


MEANT = {
    "learning_rate": "'lr' or 'lr_schedule'",
    "learning_rate_init": "'lr'",
    "hidden_layer_sizes": "'module__hidden'",
    "hidden": "'module__hidden'",
    "alpha": "'optimizer__weight_decay' or 'l2'",
    "max_iter": "'max_epochs'",
    "epochs": "'max_epochs'",
    "solver": "'optimizer'",
    "activation": "'module__activation'",
    "dropout": "'module__dropout'",
    "weight_decay": "'optimizer__weight_decay'",
    "momentum": "'optimizer__momentum'",
    "validation_split": "'validation_fraction'",
    "loss": "'criterion'",
    "module__dropout_rate": "'module__dropout'",
    "module__hidden_layer_sizes": "'module__hidden'",
    "optimizer__learning_rate": "'lr' or 'lr_schedule'",
}


@pytest.mark.parametrize(("name", "meant"), MEANT.items())
def test_names_of_other_libraries(name, meant):
    X, y = [[0.0], [1.0]] * 5, [0, 1] * 5
    message = f"has no parameter '{name}'; did you mean {meant}\\?$"

    with pytest.raises(ValueError, match=message):
        NeuralNetClassifier(**{name: 1}).fit(X, y)
    with pytest.raises(ValueError, match=message):
        NeuralNetClassifier().set_params(**{name: 1})
    pipeline = make_pipeline(StandardScaler(), NeuralNetClassifier())
    with pytest.raises(ValueError, match=message):
        GridSearchCV(pipeline, {f"neuralnetclassifier__{name}": [1]}, cv=2).fit(X, y)


def test_all_names_that_are_suggested_exist():
    optimizers = {
        "optimizer__weight_decay",
        "optimizer__momentum",
        "optimizer__nesterov",
        "optimizer__betas",
    }
    known = {*NeuralNetClassifier().get_params(), *optimizers, "optimizer__eps"}
    known |= {f"module__{name}" for name in inspect.signature(MLP).parameters}

    assert {name for meant in SYNONYMS.values() for name in meant} <= known


def test_names_of_another_module_are_its_own():
    assert suggest("hidden", ["lr"], takes=lambda name: False) == ""
