"""Ensembles of the models that a search has trained anyway."""

import warnings

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier
from sklearn.model_selection import GridSearchCV
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_method_params, _num_samples

from sktune.bridge.seam import fused_tasks
from sktune.runtime.names import check_name
from sktune.search.ensembles.fold_models import FoldModels, average_predictions
from sktune.search.ensembles.greedy import select_greedily

KINDS = ("greedy", "folds")
# Out-of-fold predictions of more bytes than this are not kept by a search.
MOST_BYTES = 256 * 2**20


class _Ensemble(BaseEstimator):
    """The weighted mean of what members predict, each the mean of its models.

    Parameters
    ----------
    members : list of lists of estimators
        The fitted models of each member.
    weights : ndarray (n_members,)
        They sum to 1.
    """

    def __init__(self, members, weights):
        self.members = members
        self.weights = weights

    def __sklearn_is_fitted__(self):
        return True

    @property
    def n_features_in_(self):
        """The number of features of the members."""
        return self.members[0][0].n_features_in_

    def _average(self, method, X):
        total = 0.0
        for models, weight in zip(self.members, self.weights, strict=True):
            predicted = [np.asarray(getattr(model, method)(X), dtype=float) for model in models]
            total = total + weight * np.mean(predicted, axis=0)
        return total


class ClassifierEnsemble(ClassifierMixin, _Ensemble):
    """A classifier whose probabilities are the weighted mean of its members'."""

    @property
    def classes_(self):
        """The labels, in the order of the columns of ``predict_proba``."""
        return self.members[0][0].classes_

    def predict_proba(self, X):
        """Return the probability of each class, an array (n_rows, n_classes)."""
        return _normalize(self._average("predict_proba", X))

    def predict_log_proba(self, X):
        """Return the logarithm of :meth:`predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X):
        """Return the label of the largest probability, an array (n_rows,)."""
        return self.classes_[np.argmax(self.predict_proba(X), axis=1)]


def _normalize(probabilities):
    """Return probabilities that sum to 1 in float64, of a mean of float32's."""
    return probabilities / probabilities.sum(axis=1, keepdims=True)


class RegressorEnsemble(RegressorMixin, _Ensemble):
    """A regressor whose predictions are the weighted mean of its members'."""

    def predict(self, X):
        """Return the predicted targets, an array (n_rows,) or (n_rows, n_targets)."""
        return self._average("predict", X)


def check_ensemble(search, y):
    """Raise for a search whose ensemble could not be made, before anything is trained."""
    check_name("ensemble", search.ensemble, [*KINDS])
    estimator = search.estimator
    if is_classifier(estimator):
        if not hasattr(estimator, "predict_proba"):
            raise ValueError(
                "ensemble must have an estimator with predict_proba, "
                f"got {type(estimator).__name__}"
            )
        if np.ndim(y) == 2 and np.shape(y)[1] > 1:
            raise ValueError(
                f"ensemble must have one target for classification, got y of shape {np.shape(y)}"
            )
    elif not hasattr(estimator, "predict"):
        raise ValueError(
            f"ensemble must have an estimator with predict, got {type(estimator).__name__}"
        )
    _check_scoring(search)


def _check_scoring(search):
    """Raise if the scoring needs what an ensemble of classifiers does not have."""
    metrics = search.scoring if isinstance(search.scoring, list | tuple | set) else [search.scoring]
    if isinstance(search.scoring, dict):
        metrics = search.scoring.values()
    for metric in metrics:
        needed = getattr(metric, "_response_method", None)
        if needed == "decision_function":
            raise ValueError(
                "scoring must need predict or predict_proba only where there is an ensemble, "
                "got one that needs decision_function"
            )


def open_models(search):
    """Return an empty :class:`FoldModels` for a search that is about to begin."""
    return FoldModels("predict_proba" if is_classifier(search.estimator) else "predict")


def build_ensemble(search, models):
    """Build the ensemble of a search that is over, and set its attributes on the search.

    Parameters
    ----------
    search : search
        Fitted, with `ensemble` and `ensemble_refit`.
    models : FoldModels
        What the search has trained.
    """
    params = search.cv_results_["params"]
    n_splits = len(models.splits)
    n_rows = _num_samples(models.arguments["X"])
    candidates = _list_candidates(search, n_splits)
    models.fit_missing(
        search.estimator, {candidate: params[candidate] for candidate in candidates}, search.n_jobs
    )
    candidates = _limit(search, models, candidates, n_rows)
    predictions = average_predictions(models, candidates, n_rows)
    weights = _weigh(search, models, candidates, predictions)
    search.ensemble_weights_ = np.zeros(len(params))
    search.ensemble_weights_[candidates] = weights

    chosen = np.flatnonzero(weights)
    members = [candidates[position] for position in chosen]
    fitted = [[models.models[member, split] for split in range(n_splits)] for member in members]
    kind = ClassifierEnsemble if is_classifier(search.estimator) else RegressorEnsemble
    search.ensemble_ = kind(fitted, weights[chosen])
    mean = np.tensordot(weights, np.nan_to_num(predictions), axes=1)
    search.ensemble_score_ = _score(search, models, mean)
    if search.ensemble_refit:
        refitted = _refit(search, models, [params[member] for member in members])
        search.ensemble_ = kind(refitted, weights[chosen])
    search.oof_predictions_ = _keep_predictions(search, candidates, predictions)


def _list_candidates(search, n_splits):
    """Return the candidates whose fits have all succeeded."""
    results = search.cv_results_
    names = [f"split{split}_test_{_name_metric(search)}" for split in range(n_splits)]
    scores = np.array([results[name] for name in names])
    candidates = np.flatnonzero(np.isfinite(scores).all(axis=0)).tolist()
    if not candidates:
        raise ValueError("ensemble must have a candidate whose fits have all succeeded, got none")
    return candidates


def _limit(search, models, candidates, n_rows):
    """Return the candidates whose predictions fit into memory, those of the best ranks."""
    example = models.predictions[candidates[0], 0]
    n_bytes = n_rows * example[0].size * example.itemsize
    n_most = max(1, MOST_BYTES // n_bytes)
    if len(candidates) <= n_most:
        return candidates
    ranks = search.cv_results_[f"rank_test_{_name_metric(search)}"]
    by_rank = sorted(candidates, key=lambda candidate: ranks[candidate])
    return sorted(by_rank[:n_most])


def _name_metric(search):
    """Return the name of the metric that chooses the best candidate."""
    return search.refit if search.multimetric_ else "score"


def _weigh(search, models, candidates, predictions):
    """Return the weight of each candidate in the ensemble."""
    if search.ensemble == "folds":
        if search.best_index_ not in candidates:
            raise ValueError(
                "ensemble='folds' must have a best candidate whose fits have all succeeded, "
                f"got candidate {search.best_index_}, one of whose fits has failed"
            )
        return (np.array(candidates) == search.best_index_).astype(float)
    # rows that some split has tested
    rows = np.flatnonzero(np.isfinite(predictions[0]).all(axis=1))
    sample_weight = (models.arguments.get("fit_params") or {}).get("sample_weight")
    if sample_weight is not None:
        sample_weight = np.asarray(sample_weight)[rows]
    y = np.asarray(models.arguments["y"])
    loss = "squared_error"
    target = y[rows]
    if is_classifier(search.estimator):
        loss = "log_loss"
        classes = models.models[candidates[0], 0].classes_
        target = np.searchsorted(classes, target.ravel())
    weights, _ = select_greedily(predictions[:, rows], target, loss, sample_weight=sample_weight)
    return weights


class _Foretold(BaseEstimator):
    """Has the responses of an ensemble to the rows that a scorer asks for."""

    def __init__(self, ensemble, predictions):
        self.ensemble = ensemble
        self.predictions = predictions

    def __sklearn_is_fitted__(self):
        return True

    def __sklearn_tags__(self):
        return self.ensemble.__sklearn_tags__()


class _ForetoldClassifier(ClassifierMixin, _Foretold):
    @property
    def classes_(self):
        return self.ensemble.classes_

    def predict_proba(self, X):
        return _normalize(self.predictions)

    def predict(self, X):
        return self.classes_[np.argmax(self.predictions, axis=1)]


class _ForetoldRegressor(RegressorMixin, _Foretold):
    def predict(self, X):
        return self.predictions


def _score(search, models, predictions):
    """Return the mean over the splits of the score of the ensemble's out-of-fold predictions."""
    scorer = search.scorer_
    if isinstance(scorer, dict):
        scorer = scorer[_name_metric(search)]
    X = models.arguments["X"]
    y = models.arguments["y"]
    params = models.arguments.get("score_params") or {}
    kind = _ForetoldRegressor
    if is_classifier(search.estimator):
        kind = _ForetoldClassifier
    elif np.ndim(y) == 1:
        predictions = predictions[:, 0]
    scores = []
    for _, test in models.splits:
        score = scorer(
            kind(search.ensemble_, predictions[test]),
            _safe_indexing(X, test),
            _safe_indexing(y, test),
            **_check_method_params(X, params=params, indices=test),
        )
        scores.append(score[_name_metric(search)] if isinstance(score, dict) else score)
    return float(np.mean(scores))


def _refit(search, models, candidates):
    """Return the members fitted to all rows, networks in one group: a list of one model each."""
    refitted = open_models(search)
    rows = np.arange(_num_samples(models.arguments["X"]))
    grids = [{name: [value] for name, value in params.items()} for params in candidates]
    # All rows train; the models are asked for one of them only.
    trainer = GridSearchCV(
        search.estimator,
        grids,
        cv=[(rows, rows[:1])],
        scoring=_score_nothing,
        refit=False,
        n_jobs=search.n_jobs,
        error_score="raise",
    )
    fit_params = models.arguments.get("fit_params") or {}
    with fused_tasks(keeper=refitted):
        trainer.fit(models.arguments["X"], models.arguments["y"], **fit_params)
    refitted.fit_missing(search.estimator, dict(enumerate(candidates)), search.n_jobs)
    return [[refitted.models[position, 0]] for position in range(len(candidates))]


def _score_nothing(estimator, X, y=None):
    return 0.0


def _keep_predictions(search, candidates, predictions):
    """Return the out-of-fold predictions of all candidates, or None if they are too large."""
    n_candidates = len(search.cv_results_["params"])
    n_bytes = predictions[0].nbytes * n_candidates
    if n_bytes > MOST_BYTES:
        warnings.warn(
            f"oof_predictions_ must take at most {MOST_BYTES / 2**20:.0f} MiB to be kept, "
            f"and would take {n_bytes / 2**20:.0f} MiB: it is None",
            UserWarning,
            stacklevel=4,
        )
        return None
    kept = np.full((n_candidates, *predictions.shape[1:]), np.nan, dtype=np.float32)
    kept[candidates] = predictions
    return kept
