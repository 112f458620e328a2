"""What scorers compute: many of them as functions of row positions, for resamples of the rows.

A scorer checks its input anew in each call, which takes longer than the metric itself. A prepared
metric does the arithmetic of scikit-learn's metric on rows that have been checked.
``tests/evaluation/test_scorers.py`` compares each of them with its scorer. All other metrics are
left to their scorers.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
from sklearn import metrics
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import check_scoring, get_scorer

from sktune.bridge.seam import read_scorer
from sktune.evaluation.label_metrics import (
    compute_f_beta,
    compute_precision,
    compute_recall,
    prepare_accuracy,
    prepare_balanced_accuracy,
    prepare_by_class,
    prepare_f_beta,
)
from sktune.evaluation.number_metrics import (
    prepare_brier,
    prepare_log_loss,
    prepare_mean_of,
    prepare_r2,
    prepare_roc_auc,
)


def _identity(values):
    return values


_PREPARERS = {
    metrics.accuracy_score: prepare_accuracy,
    metrics.balanced_accuracy_score: prepare_balanced_accuracy,
    metrics.precision_score: partial(prepare_by_class, compute_precision),
    metrics.recall_score: partial(prepare_by_class, compute_recall),
    metrics.f1_score: partial(prepare_by_class, compute_f_beta),
    metrics.fbeta_score: prepare_f_beta,
    metrics.log_loss: prepare_log_loss,
    metrics.brier_score_loss: prepare_brier,
    metrics.roc_auc_score: prepare_roc_auc,
    metrics.mean_squared_error: partial(prepare_mean_of, np.square, _identity),
    metrics.root_mean_squared_error: partial(prepare_mean_of, np.square, np.sqrt),
    metrics.mean_absolute_error: partial(prepare_mean_of, np.abs, _identity),
    metrics.r2_score: prepare_r2,
}

# Module and name of sktune's own `score`, which is the accuracy with a warning of unseen labels.
_OWN_ACCURACY = ("sktune.estimators.classifier", "NeuralNetClassifier.score")


def scorers_by_metric(model, scoring, names):
    """Return the scorer of each metric, as far as `scoring` tells them.

    Parameters
    ----------
    model : estimator object
    scoring : str, callable, list, tuple, set, dict or None
        As scikit-learn takes it.
    names : collection of str
        The names of the metrics that `scoring` returned; ``{"score"}`` for a single one.

    Returns
    -------
    scorers : dict of str -> scorer or None
        None stands for the model's own ``score``. Empty for a callable that returns several scores.
    """
    if isinstance(scoring, Mapping):
        return {name: check_scoring(model, scorer) for name, scorer in scoring.items()}
    if isinstance(scoring, (list, tuple, set, frozenset)):
        return {name: get_scorer(name) for name in scoring}
    if set(names) != {"score"}:
        return {}
    if scoring is None:
        return {"score": None}
    return {"score": check_scoring(model, scoring)}


def prepare_metric(model, scorer, y, responses, params):
    """Return a function of row positions that computes what a scorer returns for these rows.

    Parameters
    ----------
    model : estimator object
        The fitted model. Where `scorer` is None, its ``score`` method is prepared.
    scorer : callable or None
    y : array-like of shape (n_rows, ...)
    responses : dict of str -> array-like of shape (n_rows, ...)
        What the methods of the model returned for all rows, by the name of the method.
    params : dict
        What the scorer is called with. Only ``sample_weight`` is known here.

    Returns
    -------
    score : callable or None
        ``score(rows)`` returns a float, or raises :class:`IrregularError`. None if the scorer, its
        options or the data are not known here.
    """
    parts = _read_score_method(model) if scorer is None else read_scorer(scorer)
    if parts is None or y is None or params.keys() - {"sample_weight"}:
        return None
    metric, options, sign, names = parts
    response = next((responses[name] for name in names if name in responses), None)
    prepare = _PREPARERS.get(metric)
    if response is None or prepare is None:
        return None
    weight = params.get("sample_weight")
    if weight is not None:
        weight = np.asarray(weight, dtype=np.float64)
    try:
        score = prepare(np.asarray(y), np.asarray(response), weight, **options)
    except (TypeError, ValueError):
        # The options, labels or shapes are not known here.
        return None
    return None if score is None else lambda rows: sign * float(score(rows))


def _read_score_method(model):
    """Return for a model's ``score`` method what :func:`read_scorer` returns for a scorer."""
    method = getattr(type(model), "score", None)
    qualified_name = (getattr(method, "__module__", None), getattr(method, "__qualname__", None))
    if method is ClassifierMixin.score or qualified_name == _OWN_ACCURACY:
        return metrics.accuracy_score, {}, 1, ("predict",)
    if method is RegressorMixin.score:
        return metrics.r2_score, {}, 1, ("predict",)
    return None
