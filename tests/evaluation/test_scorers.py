"""Prepared metrics are compared with their scorers on the same rows."""

import warnings

import numpy as np
import pytest
import sklearn
from sklearn import metrics
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer, make_scorer
from sklearn.utils.fixes import parse_version

from sktune import NeuralNetClassifier, NeuralNetRegressor
from sktune.evaluation.label_metrics import IrregularError
from sktune.evaluation.scorers import prepare_metric, read_scorer

N_ROWS = 60
rng = np.random.default_rng(0)
ROWS = np.arange(N_ROWS)
WEIGHTS = rng.uniform(0.1, 5, N_ROWS)
WEIGHTS[::7] = 0
GROUPS = rng.integers(0, 15, N_ROWS)


class Answers(BaseEstimator):
    """A fitted model whose responses are given; X holds the numbers of the rows."""

    def __init__(self, classes=None, **answers):
        self.classes_, self.answers = classes, answers
        self.fitted_ = True

    def fit(self, X, y):
        return self

    def predict(self, X):
        return self.answers["predict"][X]

    def predict_proba(self, X):
        return self.answers["predict_proba"][X]

    def get_params(self, deep=True):
        return {}


class Labels(ClassifierMixin, Answers):
    pass


class Numbers(RegressorMixin, Answers):
    pass


def classifier(n_classes, dtype=np.float64, as_text=False):
    """Return labels with a rare class, and a model that predicts most of them."""
    y = rng.integers(0, n_classes, N_ROWS)
    y[y == n_classes - 1] = np.where(
        rng.uniform(size=(y == n_classes - 1).sum()) < 0.8, 0, n_classes - 1
    )
    y[:n_classes] = np.arange(n_classes)
    proba = rng.dirichlet(np.ones(n_classes), N_ROWS)
    proba[ROWS, y] += 0.6
    # Ties, and wrong predictions with a high probability.
    proba[:5] = np.eye(n_classes)[0] + 1e-3
    proba = (proba / proba.sum(axis=1, keepdims=True)).astype(dtype)
    classes = (
        np.array([f"class {n}" for n in range(n_classes)]) if as_text else np.arange(n_classes)
    )
    return classes[y], Labels(classes, predict=classes[proba.argmax(axis=1)], predict_proba=proba)


def regressor(n_outputs=1, dtype=np.float64):
    y = rng.normal(size=(N_ROWS, n_outputs))
    found = (y + rng.normal(size=y.shape)).astype(dtype)
    return (y, Numbers(predict=found)) if n_outputs > 1 else (y[:, 0], Numbers(predict=found[:, 0]))


def resamples(n=3, groups=None):
    """Return rows drawn with replacement: single rows, or whole groups."""
    if groups is None:
        return [rng.integers(N_ROWS, size=N_ROWS) for _ in range(n)]
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    return [
        np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        for _ in range(n)
    ]


# Before scikit-learn 1.9 losses of probabilities of float32 are computed in float64.
RTOL_OF_FLOAT32 = 1e-12 if parse_version(sklearn.__version__) >= parse_version("1.9") else 1e-6


def assert_as_scored(scorer, y, model, weight=None, groups=None, least=1, rtol=1e-12):
    """Assert that a prepared metric agrees with its scorer on resamples, where it is defined."""
    params = {} if weight is None else {"sample_weight": weight}
    metric = prepare_metric(model, scorer, y, model.answers, params)
    assert metric is not None
    n_compared = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rows in [ROWS, *resamples(groups=groups)]:
            options = {name: values[rows] for name, values in params.items()}
            try:
                found = metric(rows)
            except IrregularError:
                continue
            expected = (scorer or type(model).score.__get__(model))(
                *([model] if scorer else []), rows, y[rows], **options
            )
            np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-14)
            n_compared += 1
    assert n_compared >= least


OF_LABELS = ["accuracy", "balanced_accuracy"]
OF_LABELS += [
    f"{name}_{average}"
    for name in ("f1", "precision", "recall")
    for average in ("macro", "micro", "weighted")
]
OF_PROBABILITIES = ["neg_log_loss", "neg_brier_score", "roc_auc_ovr", "roc_auc_ovr_weighted"]
BINARY = [*OF_LABELS, "neg_log_loss", "neg_brier_score", "roc_auc", "f1", "precision", "recall"]
OF_NUMBERS = [
    "r2",
    "neg_mean_squared_error",
    "neg_root_mean_squared_error",
    "neg_mean_absolute_error",
]


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("groups", [None, GROUPS], ids=["rows", "groups"])
@pytest.mark.parametrize("kind", ["binary", "text", "float32", "4 classes", "4 classes of float32"])
def test_metrics_of_classes_are_those_of_their_scorers(kind, groups, weight):
    n_classes = 4 if "4" in kind else 2
    y, model = classifier(
        n_classes, np.float32 if "float32" in kind else np.float64, kind == "text"
    )
    names = [*OF_LABELS, *OF_PROBABILITIES] if n_classes > 2 else BINARY
    if kind == "text":  # whose positive class a scorer cannot know
        names = [
            name for name in names if name not in ("f1", "precision", "recall", "neg_brier_score")
        ]

    for name in names:
        if name == "neg_brier_score" and n_classes > 2 and not hasattr(metrics, "d2_brier_score"):
            continue  # before scikit-learn 1.7 it is for two classes
        is_rounded = "float32" in kind and name in ("neg_log_loss", "neg_brier_score")
        rtol = RTOL_OF_FLOAT32 if is_rounded else 1e-12
        assert_as_scored(get_scorer(name), y, model, weight, groups, rtol=rtol)


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("groups", [None, GROUPS], ids=["rows", "groups"])
@pytest.mark.parametrize("name", OF_NUMBERS)
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_metrics_of_numbers_are_those_of_their_scorers(name, groups, weight, n_outputs):
    for dtype in (np.float64, np.float32):
        y, model = regressor(n_outputs, dtype)
        assert_as_scored(get_scorer(name), y, model, weight, groups)


@pytest.mark.parametrize(
    ("scorer", "n_classes"),
    [
        (make_scorer(metrics.f1_score, pos_label=0), 2),
        (make_scorer(metrics.fbeta_score, beta=2, average="macro"), 4),
        (make_scorer(metrics.fbeta_score, beta=0.5), 2),
        (make_scorer(metrics.precision_score, average="macro", zero_division=0), 4),
        (make_scorer(metrics.balanced_accuracy_score, adjusted=True), 4),
        (make_scorer(metrics.accuracy_score, greater_is_better=False), 4),
        (None, 4),
    ],
)
def test_options_are_those_of_the_scorer(scorer, n_classes):
    assert_as_scored(scorer, *classifier(n_classes))


def test_scores_of_models_are_known():
    assert_as_scored(None, *classifier(3), weight=WEIGHTS)
    assert_as_scored(None, *regressor(), weight=WEIGHTS)
    y, model = classifier(3)
    for net in (NeuralNetClassifier(), NeuralNetRegressor()):
        assert prepare_metric(net, None, y, model.answers, {}) is not None


def own_accuracy(y, predicted):
    return 0.5


own_accuracy.__name__ = "accuracy_score"


class OwnScore(Labels):
    def score(self, X, y):
        return 0.5


@pytest.mark.parametrize(
    "scorer",
    [
        make_scorer(own_accuracy),
        make_scorer(metrics.accuracy_score, normalize=False),
        make_scorer(metrics.f1_score, average="macro", labels=[0, 1]),
        make_scorer(metrics.f1_score, average="macro", zero_division=1.0),
        make_scorer(metrics.f1_score, average="macro", zero_division=np.nan),
        make_scorer(metrics.log_loss, response_method="predict_proba", normalize=False),
        make_scorer(metrics.roc_auc_score, response_method="predict_proba", multi_class="ovo"),
        make_scorer(metrics.matthews_corrcoef),
        lambda model, X, y: 0.5,
    ],
)
def test_what_is_not_known_is_left_to_the_scorer(scorer):
    y, model = classifier(3)

    assert prepare_metric(model, scorer, y, model.answers, {}) is None


def test_other_parameters_and_models_are_left_to_the_scorer():
    y, model = classifier(3)
    accuracy = get_scorer("accuracy")

    assert prepare_metric(model, accuracy, y, model.answers, {"fee": WEIGHTS}) is None
    assert prepare_metric(model, accuracy, None, model.answers, {}) is None
    assert prepare_metric(model, accuracy, y, {}, {}) is None
    assert (
        prepare_metric(model, accuracy, np.eye(3)[rng.integers(0, 3, N_ROWS)], model.answers, {})
        is None
    )
    assert (
        prepare_metric(OwnScore(model.classes_, **model.answers), None, y, model.answers, {})
        is None
    )


def test_a_class_that_is_missing_is_for_the_scorer():
    y, model = classifier(3)
    for name in OF_PROBABILITIES:
        metric = prepare_metric(model, get_scorer(name), y, model.answers, {})
        with pytest.raises(IrregularError, match="the resample lacks some"):
            metric(np.flatnonzero(y != 2))


def test_private_names_of_scorers_are_where_they_were():
    metric, options, sign, responses = read_scorer(get_scorer("neg_log_loss"))

    assert (metric, options, sign, responses) == (metrics.log_loss, {}, -1, ("predict_proba",))
    assert read_scorer(get_scorer("roc_auc"))[3] == ("decision_function", "predict_proba")
    assert read_scorer(lambda model, X, y: 0.0) is None
    assert sklearn.metrics.accuracy_score is read_scorer(get_scorer("accuracy"))[0]
