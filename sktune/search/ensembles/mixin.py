"""What a search needs to end in an ensemble."""

import difflib
import warnings
from copy import copy

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target

from sktune.bridge.install import forget_optimizer
from sktune.bridge.seam import fit_together, route_params, take_split
from sktune.search.ensembles.answers import check_answers, list_parts
from sktune.search.ensembles.averages import align_columns, average_fitted
from sktune.search.ensembles.fold_models import FoldModels
from sktune.search.ensembles.greedy import select_greedily
from sktune.search.ensembles.scoring import RESPONSES, SplitScorer, check_scorer, find_scorer

KINDS = ("greedy", "folds")
# Each average is scored by a call of the scorer, unless its metric is one of those of `greedy`:
# among fewer candidates, the best ones (Caruana, Munson and Niculescu-Mizil 2006, section 4.2).
_MOST_SCORED = 20
_FITTED = ("ensemble_", "ensemble_weights_", "ensemble_score_", "oof_predictions_")


def _answers(name):
    """Return a method of a search, which the ensemble answers where there is one."""

    def is_there(search):
        # an AttributeError says what is missing
        getattr(super(EnsembleSearch, search._as_single()), name)
        return True

    def method(self, X):
        return getattr(super(EnsembleSearch, self._as_single()), name)(X)

    method.__name__ = name
    method.__doc__ = f"Call ``{name}`` of the ensemble if there is one, or of the best estimator."
    return available_if(is_there)(method)


class EnsembleSearch:
    """Beside a search of scikit-learn's: lets it end in an ensemble of the models of its folds.

    A search that takes these as parameters sets them in its constructor:

    ensemble : {"greedy", "folds"} or None
    ensemble_refit : bool
    max_oof_mb : float
    """

    ensemble = None
    ensemble_refit = False
    max_oof_mb = 256

    predict = _answers("predict")
    predict_proba = _answers("predict_proba")
    predict_log_proba = _answers("predict_log_proba")
    decision_function = _answers("decision_function")

    def score(self, X, y=None, **params):
        """Score the ensemble if there is one, or else the best estimator."""
        return super(EnsembleSearch, self._as_single()).score(X, y, **params)

    def _as_single(self):
        """Return a search whose best estimator is the ensemble, or this one where there is none."""
        if not hasattr(self, "ensemble_"):
            return self
        search = copy(self)
        search.best_estimator_ = search.ensemble_
        del search.ensemble_
        return search

    def _begin_ensemble(self, y):
        """Check what an ensemble needs; return what keeps the models, None without an ensemble."""
        for name in _FITTED:
            vars(self).pop(name, None)
        if self.ensemble is None:
            return None
        kind = self._check_ensemble(y)
        check_scorer(self, find_scorer(self), kind)
        method = RESPONSES[kind][-1]
        check_answers(self.estimator, self._list_parts(), method)
        return FoldModels(method)

    def _list_parts(self):
        """Return the parts of the space, dicts; an empty one is the estimator as it is."""
        space = getattr(self, "param_grid", None)
        parts = list_parts(getattr(self, "param_distributions", None) if space is None else space)
        return [{}, *parts] if getattr(self, "baseline", False) else parts

    def _check_ensemble(self, y):
        """Check the settings and the targets; return what kind of models there are."""
        if self.ensemble not in KINDS:
            near = difflib.get_close_matches(str(self.ensemble), KINDS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"ensemble must be 'greedy', 'folds' or None, got ensemble={self.ensemble!r}{hint}"
            )
        if self.refit is False:
            raise ValueError("an ensemble needs refit, got refit=False")
        if self.ensemble_refit and self.ensemble == "folds":
            raise ValueError(
                "ensemble_refit must be False with ensemble='folds', "
                "which are the models of the folds; got ensemble_refit=True"
            )
        if not self.max_oof_mb >= 0:
            raise ValueError(f"max_oof_mb must be at least 0, got max_oof_mb={self.max_oof_mb}")
        if is_regressor(self.estimator):
            return "regressor"
        if not is_classifier(self.estimator):
            name = type(self.estimator).__name__
            raise ValueError(f"an ensemble must be of classifiers or regressors, got {name}")
        target = "None" if y is None else type_of_target(y)
        if target not in ("binary", "multiclass"):
            raise ValueError(
                f"an ensemble of classifiers needs one class for each row, y is {target}"
            )
        return "classifier"

    def _end_ensemble(self, kept, X, y, params):
        """Choose the members among the models kept, and set the attributes."""
        models, tests = kept.arrange(self.n_splits_, self._list_eligible())
        models = _leave_out(models, kept.method)
        are_whole = self._find_whole(models)
        predictions = self._collect_predictions(models, are_whole, tests)
        fit_params, score_params = route_params(self, find_scorer(self), params)
        scorers = [self._make_scorer(X, y, score_params, test) for test in tests]
        weights = self._choose(predictions, are_whole, scorers)
        self.ensemble_weights_ = weights
        self.ensemble_score_ = self._score_average(weights, predictions, scorers)
        self._keep_predictions(predictions, tests, len(y))
        if self.ensemble_refit:
            members, of_members = self._refit_members(weights, X, y, fit_params)
        else:
            members, of_members = _list_members(models, weights)
        self.ensemble_ = average_fitted(members, of_members, like=self.best_estimator_)

    def _list_eligible(self):
        """Return the numbers of the candidates that may be members; None is all."""
        return None

    @property
    def _metric(self):
        """The name in ``cv_results_`` of the metric that counts."""
        return self.refit if self.multimetric_ else "score"

    def _find_whole(self, models):
        """Tell of each candidate whether each of its fits succeeded and has finite scores."""
        scores = self.cv_results_[f"mean_test_{self._metric}"]
        found = []
        for of_candidate, score in zip(models, scores, strict=True):
            is_fitted = all(model is not None for model in of_candidate)
            is_finite = is_fitted and all(
                np.isfinite(model.predictions).all() for model in of_candidate
            )
            found.append(is_finite and np.isfinite(score))
        return np.array(found)

    def _collect_predictions(self, models, are_whole, tests):
        """Return the predictions of each split: arrays of shape (n_candidates, n_test_rows, ...).

        Those of failed candidates are nan.
        """
        classes = getattr(self.best_estimator_, "classes_", None)
        collected = []
        for split in range(len(tests)):
            known = {}
            for candidate in np.flatnonzero(are_whole):
                model = models[candidate][split]
                found = model.predictions
                if classes is not None:
                    found = align_columns(found, model.estimator.classes_, classes)
                known[candidate] = found
            if not known:
                raise ValueError(
                    "an ensemble needs a candidate whose fits succeed, with finite predictions, "
                    "on all splits; got none"
                )
            some = next(iter(known.values()))
            table = np.full((len(models), *some.shape), np.nan, some.dtype)
            for candidate, found in known.items():
                table[candidate] = found
            collected.append(table)
        return collected

    def _make_scorer(self, X, y, params, test):
        return SplitScorer(
            find_scorer(self),
            *take_split(self.estimator, X, y, params, test),
            classes=getattr(self.best_estimator_, "classes_", None),
            metric=self.refit,
            is_own_score=self.scoring is None,
        )

    def _choose(self, predictions, are_whole, scorers):
        """Return the weights of the candidates."""
        weights = np.zeros(len(are_whole))
        if self.ensemble == "folds":
            if not are_whole[self.best_index_]:
                raise ValueError(
                    "ensemble='folds' needs the best candidate to be fitted on all splits and to "
                    f"predict probabilities, candidate {self.best_index_} has failed or does not"
                )
            weights[self.best_index_] = 1.0
            return weights
        library = np.flatnonzero(are_whole)
        if scorers[0].known is None:
            library = self._find_best(library)
        weights[library] = select_greedily(
            [part[library] for part in predictions],
            lambda split, averages: scorers[split].score_each(averages),
        )
        return weights

    def _find_best(self, candidates):
        """Return the best of some candidates, in their order."""
        scores = self.cv_results_[f"mean_test_{self._metric}"][candidates]
        best = np.argsort(-scores, kind="stable")[:_MOST_SCORED]
        return candidates[np.sort(best)]

    @staticmethod
    def _score_average(weights, predictions, scorers):
        """Return the mean over the splits of the scores of an average."""
        members = np.flatnonzero(weights)
        scores = []
        for part, scorer in zip(predictions, scorers, strict=True):
            of_members = weights[members].astype(part.dtype)
            scores.append(scorer.score(np.tensordot(of_members, part[members], axes=1)))
        return float(np.mean(scores))

    def _keep_predictions(self, predictions, tests, n_rows):
        """Set the predictions for all rows; warn and leave them out if they are too large."""
        shape = (len(predictions[0]), n_rows, *predictions[0].shape[2:])
        size = 4 * np.prod(shape, dtype=float) / 2**20
        if size > self.max_oof_mb:
            warnings.warn(
                f"oof_predictions_ is left out: it must take at most max_oof_mb={self.max_oof_mb}, "
                f"it would take {size:.3g} MB",
                UserWarning,
                stacklevel=4,
            )
            return
        table = np.zeros(shape, np.float32)
        n_times = np.zeros(n_rows, np.float32)
        for part, test in zip(predictions, tests, strict=True):
            table[:, test] += part
            n_times[test] += 1
        # a row that no split tests is nan: 0 / 0
        with np.errstate(invalid="ignore"):
            table /= n_times.reshape(-1, *[1] * (table.ndim - 2))
        self.oof_predictions_ = table

    def _refit_members(self, weights, X, y, fit_params):
        """Fit the chosen candidates to all rows, together; return them and their weights."""
        chosen = np.flatnonzero(weights)
        members = []
        for candidate in chosen:
            params = clone(self.cv_results_["params"][candidate], safe=False)
            members.append(clone(self.estimator).set_params(**params))
        members = fit_together(members, X, y, fit_params, self.n_jobs)
        for member in members:
            forget_optimizer(member)
        return members, weights[chosen]


def _leave_out(models, method):
    """Return models with None for those that do not have what is averaged; warn of them.

    Raises
    ------
    ValueError
        If no candidate has it.
    """
    reasons = {}
    for candidate, of_candidate in enumerate(models):
        for model in of_candidate:
            if model is not None and model.reason:
                reasons.setdefault(candidate, model.reason)
    if not reasons:
        return models
    reason = ", ".join(dict.fromkeys(reasons.values()))
    if len(reasons) == len(models):
        raise ValueError(f"an ensemble needs {method} of each model: {reason}")
    shown = ", ".join(map(str, reasons))
    warnings.warn(
        f"the ensemble is chosen without candidates {shown}: {reason} as they set its parameters",
        UserWarning,
        stacklevel=5,
    )
    kept = []
    for of_candidate in models:
        kept.append([None if model and model.reason else model for model in of_candidate])
    return kept


def _list_members(models, weights):
    """Return the fold models of the candidates that have weight, and the weight of each model."""
    members = []
    of_members = []
    for of_candidate, weight in zip(models, weights, strict=True):
        if weight > 0:
            members.extend(model.estimator for model in of_candidate)
            of_members.extend([weight / len(of_candidate)] * len(of_candidate))
    return members, np.array(of_members)
