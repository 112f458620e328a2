"""The code in a report makes the same search again."""

import ast

import numpy as np
import pytest
from scipy.stats import loguniform, uniform
from sklearn.datasets import load_iris
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingRandomSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn, optim

import sktune
from sktune.inspection.report.code_writer import CodeWriter
from sktune.inspection.report.recipe import write_recipe

X, y = load_iris(return_X_y=True)
MODEL = LogisticRegression(max_iter=500)
SPACE = {"C": loguniform(1e-3, 10)}


def run(code):
    """Run code that fits on X and y; return its names."""
    names = {"X": X, "y": y}
    exec(compile(code, "recipe", "exec"), names)
    return names


def _net_search():
    net = sktune.NeuralNetClassifier(
        max_epochs=2, random_state=1, module__hidden=(8,), optimizer=optim.SGD, criterion=nn.NLLLoss
    )
    net.set_params(criterion=nn.CrossEntropyLoss)
    space = {"lr": sktune.zero_or(loguniform(1e-3, 1)), "module__dropout": uniform(0, 0.5)}
    space["batch_size"] = sktune.loguniform_int(8, 64)
    return sktune.RandomizedSearchCV(net, space, n_iter=3, cv=2, random_state=3)


SEARCHES = {
    "grid": lambda: GridSearchCV(MODEL, {"C": [0.01, 1.0]}, cv=StratifiedKFold(3)),
    "net": _net_search,
    "sealed": lambda: sktune.HoldoutSearch(
        make_pipeline(
            StandardScaler(),
            sktune.RandomizedSearchCV(MODEL, SPACE, n_iter=2, cv=2, random_state=0),
        ),
        random_state=0,
    ),
    "pipeline inside": lambda: GridSearchCV(
        make_pipeline(StandardScaler(), MODEL), {"logisticregression__C": [0.01, 1.0]}, cv=2
    ),
    "halving": lambda: HalvingRandomSearchCV(MODEL, SPACE, cv=2, random_state=0),
    "staged": lambda: sktune.StagedSearch(MODEL, [("C", SPACE)], n_iter=2, cv=2, random_state=0),
}


@pytest.mark.parametrize("kind", SEARCHES)
def test_the_code_repeats_the_search(kind):
    search = SEARCHES[kind]().fit(X, y)
    code = write_recipe(search)
    assert "..." not in code
    names = run(code)
    again = names.get("tuned", names["search"])
    assert again.best_params_ == search.best_params_
    np.testing.assert_array_equal(
        again.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"]
    )


def test_what_has_no_code_is_named():
    search = GridSearchCV(MODEL, {"C": [1.0]}, cv=2, scoring=lambda model, X, y: 1.0).fit(X, y)
    code = write_recipe(search)
    ast.parse(code)
    assert "scoring=..." in code
    assert "# `...` stands for what cannot be written as code:\n#   function: <function" in code


def test_an_evil_repr_stays_in_its_comment():
    class Evil:
        def __repr__(self):
            return "x\nimport os\u2028os.abort()"

    code = write_recipe(GridSearchCV(MODEL, {"C": [Evil()]}))
    assert [type(node).__name__ for node in ast.parse(code).body][:2] == ["ImportFrom"] * 2
    assert "import os" not in code.splitlines()


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (np.float64(0.5), "0.5"),
        (float("nan"), "float('nan')"),
        (float("-inf"), "float('-inf')"),
        ((1,), "(1,)"),
        ((), "()"),
        ({"a": [None, True]}, "{'a': [None, True]}"),
        ("it's \n", '"it\'s \\n"'),
        (np.array([1.0, 2.0]), "array([1.0, 2.0], dtype='float64')"),
        (uniform(loc=1), "uniform(loc=1)"),
        (nn.ReLU, "ReLU"),
        (len, "len"),
        (dict, "dict"),
        (StratifiedKFold(3), "StratifiedKFold(n_splits=3, random_state=None, shuffle=False)"),
        (object(), "..."),
        (np.random.RandomState(0), "..."),
    ],
)
def test_values(value, code):
    assert CodeWriter().write(value) == code


def test_two_things_of_one_name_have_two_names():
    writer = CodeWriter()
    assert writer.write([GridSearchCV, sktune.GridSearchCV]) == "[GridSearchCV, GridSearchCV_]"
    assert writer.list_imports() == [
        "from sklearn.model_selection import GridSearchCV",
        "from sktune import GridSearchCV as GridSearchCV_",
    ]


def test_results_alone_have_no_code():
    assert write_recipe({"params": []}) == ""
