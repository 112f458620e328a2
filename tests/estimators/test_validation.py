import copy
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError
from torch import nn

from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.checks.inputs import warn_if_unscaled
from sktune.checks.targets import encode_labels
from sktune.checks.weights import check_sample_weight, combine_weights
from sktune.runtime.devices import resolve_device

rng = np.random.RandomState(0)
X = rng.randn(40, 3)
y = (X[:, 0] > 0).astype(int)
FRAME = pd.DataFrame(X, columns=list("abc"))


def make_net(estimator=NeuralNetClassifier, **params):
    return estimator(**{"max_epochs": 2, "module__hidden": (4,), "random_state": 0, **params})


def describe(net):
    """Return the state of a net: its attributes by identity, and copies of its tensors."""
    tensors = []
    if net.initialized_:
        state = net.optimizer_.state_dict()
        tensors = [
            net.module_.state_dict(),
            state["state"],
            state["param_groups"],
            list(net.history),
        ]
    return {name: id(value) for name, value in vars(net).items()}, copy.deepcopy(tensors)


def assert_unchanged(net, before):
    attributes, tensors = describe(net)
    assert attributes == before[0]
    torch.testing.assert_close(tensors, before[1], rtol=0, atol=0)


def with_a_bad_value(value):
    bad = X.copy()
    bad[3, 1] = value
    return bad


# name: (arguments of fit, message)
BAD_INPUT = {
    "nan": ((with_a_bad_value(np.nan), y), "Input X contains NaN"),
    "inf": ((with_a_bad_value(np.inf), y), "Input X contains infinity"),
    "text in frame": (
        (pd.DataFrame({"a": ["x"] * 40, "b": X[:, 0], "c": 1.0}), y),
        "X must hold numbers, got text",
    ),
    "text in polars": (
        (pl.DataFrame({"a": ["x"] * 40, "b": X[:, 0]}), y),
        "X must hold numbers, got text",
    ),
    "text in array": ((np.full((40, 3), "x"), y), "X must hold numbers, got text"),
    "text in objects": ((np.full((40, 3), "x", dtype=object), y), "X must hold numbers, got text"),
    "category": (
        (FRAME.assign(a=pd.Categorical(["x", "y"] * 20)), y),
        "X must hold numbers, got text",
    ),
    "dates in frame": (
        (FRAME.assign(a=pd.Timestamp(0)), y),
        "X must hold numbers, got text or dates",
    ),
    "dates": (
        (np.zeros((40, 3), "M8[D]"), y),
        "X must hold numbers, got values of type datetime64",
    ),
    "complex": ((X * 1j, y), "Complex data not supported"),
    "one dimension": ((X[:, 0], y), "Expected 2D array, got 1D array instead"),
    "short y": ((X, y[:-1]), r"inconsistent numbers of samples: \[40, 39\]"),
    "no y": ((X, None), "requires y to be passed, but the target y is None"),
    "empty": ((FRAME[:0], y[:0]), r"Found array with 0 sample\(s\)"),
    "no columns": ((FRAME[[]], y), r"0 feature\(s\)"),
    "negative weight": (
        (X, y, np.r_[-1.0, np.ones(39)]),
        "sample_weight must be non-negative and not all zero",
    ),
    "zero weight": ((X, y, np.zeros(40)), "sample_weight must be non-negative and not all zero"),
    "short weight": ((X, y, np.ones(3)), "inconsistent numbers of samples"),
    "nan weight": ((X, y, np.full(40, np.nan)), "Input sample_weight contains NaN"),
    "wide weight": (
        (X, y, np.ones((40, 1))),
        r"sample_weight must be 1D, got an array of shape \(40, 1\)",
    ),
}
BAD_LABELS = {
    "one class": ((X, np.zeros(40)), r"y must hold at least 2 classes, got 1 class: \[0.0\]"),
    "one label": ((X, ["a"] * 40), r"y must hold at least 2 classes, got 1 class: \['a'\]"),
    "continuous": ((X, X[:, 0]), "Unknown label type: continuous"),
    "nan label": ((X, np.where(y, 1, np.nan)), "Input y contains NaN"),
}
BAD_TARGETS = {
    "text": ((X, np.where(y, "a", "b")), "y must hold numbers, got text"),
    "objects": ((X, np.where(y, "a", "b").astype(object)), "y must hold numbers, got text"),
    "dates": ((X, y.astype("M8[D]")), "y must hold numbers, got values of type datetime64"),
    "nan": ((X, np.where(y, 1, np.nan)), "Input y contains NaN"),
}
CASES = [(NeuralNetClassifier, *case) for case in [*BAD_INPUT.values(), *BAD_LABELS.values()]]
CASES += [(NeuralNetRegressor, *case) for case in [*BAD_INPUT.values(), *BAD_TARGETS.values()]]
IDS = [f"classifier: {name}" for name in BAD_INPUT | BAD_LABELS]
IDS += [f"regressor: {name}" for name in [*BAD_INPUT, *BAD_TARGETS]]


@pytest.mark.parametrize(("estimator", "arguments", "message"), CASES, ids=IDS)
@pytest.mark.parametrize("is_fitted", [False, True])
def test_bad_input_is_named_and_leaves_the_net_alone(estimator, arguments, message, is_fitted):
    net = make_net(estimator)
    if is_fitted:
        net.fit(X, y)
    before = describe(net)

    with pytest.raises(ValueError, match=message):
        net.fit(*arguments)

    assert_unchanged(net, before)


@pytest.mark.parametrize(
    "name", [name for name, case in BAD_INPUT.items() if isinstance(case[0][0], np.ndarray)]
)
def test_bad_input_of_partial_fit(name):
    (X_bad, y_bad, *weight), message = BAD_INPUT[name]
    net = make_net().fit(X, y)
    before = describe(net)

    with pytest.raises(ValueError, match=message):
        net.partial_fit(X_bad, y_bad, sample_weight=weight[0] if weight else None)

    assert_unchanged(net, before)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "partial_fit"])
@pytest.mark.parametrize("bad", [X[:, :2], np.c_[X, X]], ids=["fewer", "more"])
def test_other_number_of_features(method, bad):
    net = make_net().fit(X, y)
    before = describe(net)
    arguments = (bad, y) if method == "partial_fit" else (bad,)

    with pytest.raises(
        ValueError, match=f"X has {bad.shape[1]} features, but NeuralNetClassifier is expecting 3"
    ):
        getattr(net, method)(*arguments)

    assert_unchanged(net, before)


def test_other_names_of_features():
    with pytest.raises(ValueError, match="feature names should match"):
        make_net().fit(FRAME, y).predict(FRAME[["b", "a", "c"]])


def test_array_for_a_frame_warns_and_a_tensor_does_not():
    net = make_net().fit(FRAME, y)

    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        expected = net.predict_proba(X)
    assert np.array_equal(net.predict_proba(torch.from_numpy(X)), expected)
    with pytest.raises(
        ValueError, match="X has 2 features, but NeuralNetClassifier is expecting 3"
    ):
        net.predict(torch.from_numpy(X[:, :2]))


@pytest.mark.parametrize("estimator", [NeuralNetClassifier, NeuralNetRegressor])
@pytest.mark.parametrize("method", ["predict", "score"])
def test_predict_before_fit(estimator, method):
    arguments = (X, y) if method == "score" else (X,)
    with pytest.raises(NotFittedError, match="not initialized yet|not fitted yet"):
        getattr(make_net(estimator), method)(*arguments)


class Wide(nn.Module):
    def __init__(self, n_features, width=5):
        super().__init__()
        self.layer = nn.Linear(n_features, width)

    def forward(self, X):
        return self.layer(X)


@pytest.mark.parametrize(
    ("estimator", "params", "message"),
    [
        (
            NeuralNetClassifier,
            {},
            r"output must have shape \(40, 2\): one column per class, got \(40, 5\)",
        ),
        (
            NeuralNetClassifier,
            {"module__width": 1},
            r"output must have shape \(40, 2\).* got \(40, 1\)",
        ),
        (
            NeuralNetClassifier,
            {"criterion": nn.BCEWithLogitsLoss},
            r"output must have shape \(40,\) or \(40, 1\)",
        ),
        (
            NeuralNetRegressor,
            {},
            r"output must have shape \(40, 1\): one column per target, got \(40, 5\)",
        ),
    ],
)
def test_module_that_does_not_fit_the_targets(estimator, params, message):
    net = estimator(Wide, **params)
    before = describe(net)

    with pytest.raises(ValueError, match=message):
        net.fit(X, y)

    assert_unchanged(net, before)


# --- hyperparameters ------------------------------------------------------------------------------

BAD_VALUES = {
    "lr": [0, -0.1, np.nan, np.inf, "0.1", None, True],
    "optimizer__lr": [0, -1],
    "max_epochs": [0, -1, 2.5, "5", True],
    "batch_size": [0, -2, 2.5, "32", True, None],
    "l1": [-1e-3, np.nan, "0"],
    "l2": [-1e-3, np.inf],
    "optimizer__weight_decay": [-0.1, "0.1"],
    "module__dropout": [-0.1, 1, 1.0, 1.5, "0.5"],
    "validation_fraction": [0, 1, 1.5],
    "n_iter_no_change": [0, 1.5],
    "tol": [-1],
}
BAD_VALUES = [(name, value) for name, values in BAD_VALUES.items() for value in values]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_value_out_of_range(name, value):
    net = make_net(**{name: value})
    before = describe(net)

    with pytest.raises(ValueError, match=rf"^{name} must be .*, got {name}={value!r}$"):
        net.fit(X, y)

    assert_unchanged(net, before)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("max_epochs", 0), ("l1", -1.0), ("lr", -1.0)]
)
def test_value_out_of_range_after_fit(name, value, method):
    net = make_net().fit(X, y).set_params(**{name: value})
    before = describe(net)

    with pytest.raises(ValueError, match=f"{name} must be"):
        getattr(net, method)(X, y)

    assert_unchanged(net, before)


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", np.int64(8)), ("lr", np.float32(0.1)), ("max_epochs", np.int32(1)), ("l1", 0)],
)
def test_numbers_of_numpy_are_welcome(name, value):
    make_net(**{name: value}).fit(X, y)


UNKNOWN = [
    ("lrr", "NeuralNetClassifier has no parameter 'lrr'; did you mean 'lr'?"),
    ("batchsize", "NeuralNetClassifier has no parameter 'batchsize'; did you mean 'batch_size'?"),
    ("module__droput", "MLP has no parameter 'module__droput'; did you mean 'module__dropout'?"),
    (
        "modul__dropout",
        "NeuralNetClassifier has no parameter 'modul__dropout'; did you mean 'module__dropout'?",
    ),
    (
        "optimizer__weigth_decay",
        "AdamW has no parameter 'optimizer__weigth_decay'; did you mean 'optimizer__weight_decay'?",
    ),
    (
        "criterion__wieght",
        "CrossEntropyLoss has no parameter 'criterion__wieght'; did you mean 'criterion__weight'?",
    ),
    ("lr_schedule__warmpu", "did you mean '(lr_schedule__)?warmup'?"),
    (
        "iterator_train__shufle",
        "DataLoader has no parameter 'iterator_train__shufle'; "
        "did you mean 'iterator_train__shuffle'?",
    ),
]


@pytest.mark.parametrize(("name", "message"), UNKNOWN)
def test_unknown_name_in_the_constructor(name, message):
    net = make_net(**{name: 1})
    before = describe(net)

    with pytest.raises(ValueError, match=message):
        net.fit(X, y)

    assert_unchanged(net, before)


@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize(("name", "message"), UNKNOWN)
def test_unknown_name_in_set_params(name, message, is_fitted):
    net = make_net()
    if is_fitted:
        net.fit(X, y)
    before = describe(net)

    with pytest.raises(ValueError, match=message):
        net.set_params(**{name: 1})

    assert_unchanged(net, before)


def test_names_of_a_component_that_is_set_at_the_same_time():
    net = NeuralNetClassifier()
    net.set_params(module=Wide, module__width=2)

    with pytest.raises(ValueError, match="Wide has no parameter 'module__hidden'"):
        net.set_params(module__hidden=3)


# --- labels and weights ---------------------------------------------------------------------------


def test_encode_labels():
    assert encode_labels(np.array(["b", "a", "b"]), np.array(["a", "b", "c"])).tolist() == [1, 0, 1]


def test_encode_unknown_label():
    with pytest.raises(
        ValueError, match=r"y must hold the classes \['a', 'b'\] only, got also \['c'\]"
    ):
        encode_labels(np.array(["b", "c"]), np.array(["a", "b"]))


def test_weights_have_mean_one():
    weights = combine_weights(np.array([1.0, 2.0, 3.0, 2.0]), {0: 1, 1: 3}, np.array([0, 0, 1, 1]))

    assert weights.mean() == pytest.approx(1)
    assert (weights / weights[0]).tolist() == pytest.approx([1, 2, 9, 6])


def test_weights_whose_sum_is_beyond_float64_keep_their_ratios():
    np.testing.assert_allclose(
        combine_weights(np.array([1e308, 5e307] * 3), None, y), [4 / 3, 2 / 3] * 3
    )


def test_no_weights():
    assert combine_weights(None, None, y) is None
    assert check_sample_weight(X, y, None)[2] is None


# --- scale ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [NeuralNetClassifier, NeuralNetRegressor])
def test_unscaled_features_are_warned_of_once(estimator):
    with pytest.warns(UserWarning, match=r"use make_pipeline\(StandardScaler\(\), net\)") as caught:
        make_net(estimator).fit(X * [1, 1, 5000], y)

    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    "table",
    [
        X,
        X * [1, 10, 500],
        X.astype(np.float16),
        np.c_[X, np.zeros(40)],
        # A constant, whose standard deviation is rounded to something above 0.
        np.c_[X, np.full(40, 0.1)],
        sparse.csr_array(X * [1, 1, 5000]),
        (X * [1, 1, 5000]).reshape(40, 3, 1),
        X > 0,
        X * 1e200,
    ],
    ids=["scaled", "ratio 500", "float16", "zeros", "constant", "sparse", "3D", "bool", "huge"],
)
def test_no_warning_of_scale(table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_unscaled(table)


# --- devices --------------------------------------------------------------------------------------


def test_auto_device_is_the_fastest_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_named_device(device):
    assert resolve_device(device) == torch.device("cpu")


@pytest.mark.parametrize("device", ["gpu", None, 3.5])
def test_no_name_of_a_device(device):
    with pytest.raises(
        ValueError, match="device must be 'auto' or a torch device on this machine, got device="
    ):
        resolve_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_absent_device(device):
    net = make_net(device=device)
    before = describe(net)

    with pytest.raises(
        ValueError,
        match=rf"device must be 'auto' or a torch device on this machine, got device='{device}'",
    ):
        net.fit(X, y)

    assert_unchanged(net, before)


@pytest.mark.parametrize(
    "names", [["X_val", "y_val"], ["validation_data"], ["eval_set"], ["validation_split"]]
)
def test_validation_rows_of_other_libraries_name_the_way(names):
    net = make_net()

    with pytest.raises(
        ValueError, match=r"train_split=skorch.helper.predefined_split\(Dataset\(X_val, y_val\)\)"
    ):
        net.fit(X, y, **dict.fromkeys(names, X))
    assert not net.initialized_


def test_a_module_may_take_such_names():
    class Own(nn.Linear):
        def forward(self, X, eval_set):
            return super().forward(X) * eval_set

    net = NeuralNetClassifier(Own, module__in_features=3, module__out_features=2, max_epochs=1)
    assert net.fit(X, y, eval_set=2.0).n_iter_ == 1
