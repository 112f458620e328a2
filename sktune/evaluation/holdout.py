"""A search beside which a test set stays sealed until the end."""

import time
from copy import copy
from html import escape

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sktune.bridge.seam import fused_tasks
from sktune.evaluation.final import (
    by_metric,
    find_best,
    find_core,
    routing_enabled,
    score_baseline,
    score_sealed,
    split_params,
)
from sktune.evaluation.sealing import check_rows, count_rows, seal_rows, take_params, take_rows
from sktune.evaluation.splits import check_splits, check_splits_of, is_own_splitter, restrict_splits

# What the parameters are called by those who tune them, most important first.
KNOWN_PARAMETERS = {
    "lr": " (α, the learning rate)",
    "optimizer__weight_decay": " (λ, the regularization strength)",
    "batch_size": "",
    "module__dropout": "",
}


def _method_of_best(name):
    def method(self, X):
        check_is_fitted(self)
        return getattr(self.best_estimator_, name)(X)

    method.__name__, method.__doc__ = name, f"Call ``{name}`` of the best estimator."
    # Before fitting, it is there if the search would have it.
    return available_if(lambda self: hasattr(getattr(self, "best_estimator_", self.search), name))(
        method
    )


class HoldoutSearch(MetaEstimatorMixin, BaseEstimator):
    """Tune on a part of the rows, and score the outcome once on the others.

    Before anything looks at the data, `test_size` of the rows are sealed. The search, its cross-validation and its
    refit see the remaining rows only. Then the model chosen is called on the sealed rows, once, for a score that no
    choice has been fitted to.

    Parameters
    ----------
    search : estimator object
        A search with ``refit``, or a Pipeline that ends in one. Its scoring is used throughout. A random ``cv``
        without a seed is given one, so that the baseline meets the same splits. The ``cv`` must divide the rows that it
        gets. A PredefinedSplit of all rows is restricted to those searched on; any other that names rows (a list of
        splits, a generator, a splitter that holds rows) is refused, since their numbers mean other rows after sealing.
    test_size : float or int, default=0.2
        Share (between 0 and 1) or number of the rows to seal; of the groups, if ``fit`` gets groups.
    random_state : int, RandomState instance or None, default=None
        Of the split and of the bootstrap. Without an int every ``fit`` seals other rows: choose between such fits by
        their test scores, and the rows are not sealed any more.
    stratify : {"auto", True, False}, default="auto"
        Whether each class keeps its share on both sides (with groups: in the best of 50 draws). "auto": of classifiers.
    splitter : object with a ``split`` method, default=None
        Its last split is used in place of the above; that of a TimeSeriesSplit seals the most recent rows.
    n_resamples, confidence_level : int, default=1000, and float, default=0.95
        Of the bootstrap behind `test_interval_`. Accuracy, balanced accuracy, precision, recall, F scores, log loss,
        Brier score, ROC AUC (one class against the others), squared and absolute errors and R² are computed from terms
        of the rows, which is quick. Any other scorer is called once for each resample, which a warning tells where it
        takes more than 10 seconds.

    Attributes
    ----------
    dev_indices_, test_indices_ : ndarray of int
        The rows searched on, and the rows sealed.
    search_, best_estimator_ : estimator object
        The fitted search (or Pipeline), and the model chosen (with the steps before the search), refitted on all of
        ``dev_indices_`` and never on the sealed rows: the test score belongs to this very model.
    best_params_, best_index_, best_score_, cv_results_, n_splits_, classes_, n_features_in_, feature_names_in_
        As the search has them.
    test_score_, baseline_score_ : float, or dict by metric
        Score of the model chosen on the sealed rows, and the mean cross-validated score of the search's estimator as
        it was given; nan if all of its fits failed.
    test_interval_ : tuple of float, or dict by metric
        Percentile bootstrap interval of the test score, over the sealed rows or whole groups of them; too narrow if
        those depend on each other, as in a time series. (nan, nan) if the metric is undefined on most resamples, or
        the scorer needs more of the model than its responses.
    ensemble_test_score_, ensemble_test_interval_ : float, and tuple of float
        Only if the search has an ensemble: what the ensemble scores on the same sealed rows, by the metric that the
        search refits by. The methods below are those of the single model; the ensemble is ``search_.ensemble_``.
    optimism_ : float, or dict by metric
        The best candidate's cross-validated score minus its test score: what choosing the best of many added.
    search_time_ : float
        Seconds taken by the search and its refit.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktune import GridSearchCV, HoldoutSearch
    >>> X, y = load_iris(return_X_y=True)
    >>> search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.001, 0.1, 10.0]})
    >>> tuned = HoldoutSearch(search, random_state=0).fit(X, y)
    >>> tuned.best_params_, round(tuned.test_score_, 3), len(tuned.test_indices_)
    ({'C': 10.0}, 1.0, 30)
    """

    __metadata_request__fit = {
        "groups": True
    }  # for the split: asked for without being told to, as in GroupKFold

    def __init__(
        self, search, *, test_size=0.2, random_state=None, stratify="auto", splitter=None,
        n_resamples=1000, confidence_level=0.95,
    ):  # fmt: skip
        self.search = search
        self.test_size = test_size
        self.random_state = random_state
        self.stratify = stratify
        self.splitter = splitter
        self.n_resamples = n_resamples
        self.confidence_level = confidence_level

    def fit(self, X, y=None, groups=None, **params):
        """Seal rows, search on the others, and evaluate the best model once on the sealed ones.

        An unfit argument, such as splits that name rows, is a ValueError or TypeError before anything is fitted; what
        was fitted before stays.

        Parameters
        ----------
        X, y : table of shape (n_samples, n_features), and array-like of shape (n_samples, ...) or None
        groups : array-like of shape (n_samples,), default=None
            Rows of one group stay on one side. They are passed on to the search's ``cv``.
        **params : dict of str -> object
            Passed on to the search's ``fit``; what has one entry per row, like ``sample_weight``, is divided with them.
        """
        self._check_arguments()
        X, y, groups = check_rows(X, y, groups)
        check_splits(self.search, count_rows(X))
        settings = {
            name: getattr(self, name)
            for name in ("test_size", "random_state", "stratify", "splitter")
        }
        is_classifier = get_tags(self.search).estimator_type == "classifier"
        dev, test = seal_rows(X, y, groups, is_classifier=is_classifier, **settings)
        cv_seed, bootstrap_seed = check_random_state(self.random_state).randint(2**31 - 1, size=2)
        if groups is not None:
            prefix = "" if routing_enabled() else find_core(self.search)[1]
            params = {**params, prefix + "groups": groups}
        if routing_enabled() and params:
            params = process_routing(self, "fit", **params).search.fit

        def take(rows):
            return take_rows(X, rows), take_rows(y, rows), take_params(params, count_rows(X), rows)

        fitted = self._fit_search(*take(dev), dev, cv_seed)
        # The seal is opened here, and nothing is chosen after it.
        settings = {
            "n_resamples": self.n_resamples,
            "confidence_level": self.confidence_level,
            "seed": bootstrap_seed,
        }
        fitted |= score_sealed(
            fitted["search_"], *take(test), groups=take_rows(groups, test), **settings
        )
        for name in ("best_score_", "ensemble_test_score_", "ensemble_test_interval_"):
            vars(self).pop(name, None)
        vars(self).update(fitted, dev_indices_=dev, test_indices_=test)
        return self

    def _check_arguments(self):
        core, _ = find_core(self.search)
        if not all(hasattr(core, name) for name in ("fit", "estimator", "refit")):
            raise TypeError(
                f"search must be a search such as GridSearchCV, or a Pipeline ending in one, got {core!r}"
            )
        if not core.refit:
            raise ValueError(f"search must refit its best candidate, got refit={core.refit!r}")
        if self.splitter is not None and not callable(getattr(self.splitter, "split", None)):
            raise TypeError(f"splitter must have a split method, got {self.splitter!r}")
        if self.stratify not in ("auto", True, False):
            raise ValueError(
                f"stratify must be 'auto', True or False, got stratify={self.stratify!r}"
            )
        if self.n_resamples < 1:
            raise ValueError(f"n_resamples must be at least 1, got {self.n_resamples}")
        if not 0 < (confidence_level := self.confidence_level) < 1:
            raise ValueError(f"confidence_level must be between 0 and 1, got {confidence_level=}")

    def _fit_search(self, X, y, params, dev, seed):
        """Search and refit on the development rows alone, and score the baseline there."""
        search = clone(self.search)
        core, _ = find_core(search)
        restrict_splits(search, dev)
        seed_splits(getattr(core, "cv", None), seed)
        self._try_splits(search, X, y, params)
        start = time.perf_counter()
        with fused_tasks():
            search.fit(X, y, **params)
        fitted = {"search_": search, "search_time_": time.perf_counter() - start}
        if not hasattr(core, "best_estimator_"):
            raise TypeError(f"search must set best_estimator_ in fit, {core!r} did not")
        names = ("best_params_", "best_index_", "best_score_", "cv_results_", "n_splits_")
        fitted |= {name: getattr(core, name) for name in names if hasattr(core, name)}
        with fused_tasks():  # anew: each serves but one search
            baseline = score_baseline(search, X, y, params)
        return fitted | {"best_estimator_": best_model(search), "baseline_score_": baseline}

    @staticmethod
    def _try_splits(search, X, y, params):
        """Refuse a splitter that names rows of the whole table."""
        core, _ = find_core(search)
        cv = getattr(core, "cv", None)
        if not is_own_splitter(cv):
            return
        of_split = split_params(search, params)

        def take(rows):
            return (
                take_rows(X, rows),
                take_rows(y, rows),
                take_params(of_split, count_rows(X), rows),
            )

        check_splits_of(cv, X, y, of_split, take, is_sure=core is search)

    predict = _method_of_best("predict")
    predict_proba = _method_of_best("predict_proba")
    predict_log_proba = _method_of_best("predict_log_proba")
    decision_function = _method_of_best("decision_function")
    score_samples = _method_of_best("score_samples")
    transform = _method_of_best("transform")
    inverse_transform = _method_of_best("inverse_transform")
    classes_ = property(lambda self: self.best_estimator_.classes_)
    n_features_in_ = property(lambda self: self.best_estimator_.n_features_in_)
    feature_names_in_ = property(lambda self: self.best_estimator_.feature_names_in_)

    def score(self, X, y=None, **params):
        """Score the best estimator on other rows, as the search does: of several metrics, by the one it refits by."""
        check_is_fitted(self)
        if routing_enabled() and params:
            params = process_routing(self, "score", **params).search.score
        return without_ensemble(self.search_).score(X, y, **params)

    def summary(self):
        """Say in a few aligned lines what was sealed, searched and found; return a str."""
        check_is_fitted(self)
        rows = list(_summary_rows(self))
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)

    @property
    def _repr_html_(self):
        diagram = super()._repr_html_  # an AttributeError where scikit-learn shows text instead
        summary = (
            f'<pre class="sktune-summary">{escape(self.summary())}</pre>'
            if hasattr(self, "search_")
            else ""
        )
        return lambda: summary + diagram()

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        return bundle | {"text/html": self._repr_html_()} if "text/html" in bundle else bundle

    def __sklearn_tags__(self):
        tags = get_tags(self.search)
        tags.array_api_support = False
        return tags

    def get_metadata_routing(self):
        """Return the MetadataRouter that says which parameters go where: `groups` here, the others to the search."""
        mapping = (
            MethodMapping().add(caller="fit", callee="fit").add(caller="score", callee="score")
        )
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(search=self.search, method_mapping=mapping)
        )


def seed_splits(cv, seed):
    """Give random splits without a fixed seed this one, so that they are alike each time."""
    if getattr(cv, "shuffle", True) and isinstance(
        getattr(cv, "random_state", 0), (type(None), np.random.RandomState)
    ):
        cv.random_state = int(seed)


def best_model(search):
    """Return the best estimator of a fitted search, with the fitted steps before it."""
    if not isinstance(search, Pipeline):
        return search.best_estimator_
    *before, (name, last) = search.steps
    return Pipeline([*before, (name, best_model(last))])


def without_ensemble(search):
    """Return a fitted search, maybe in a Pipeline, whose answers are those of its single best model."""
    if isinstance(search, Pipeline):
        *before, (name, last) = search.steps
        return Pipeline([*before, (name, without_ensemble(last))])
    search = copy(search)
    vars(search).pop("ensemble_", None)
    return search


def _summary_rows(tuned):
    """Yield the label and the text of each line of a fitted HoldoutSearch's summary."""
    core, _ = find_core(tuned.search_)
    n_test, n_dev = len(tuned.test_indices_), len(tuned.dev_indices_)
    scores, intervals = by_metric(tuned.test_score_), by_metric(tuned.test_interval_)
    optimisms, baselines = by_metric(tuned.optimism_), by_metric(tuned.baseline_score_)
    scoring = getattr(core, "scoring", None)
    names = (
        {"score": scoring} if isinstance(scoring, str) else {metric: metric for metric in scores}
    )
    fits = _describe_fits(core)
    yield "Sealed", f"{n_test} rows ({n_test / (n_test + n_dev):.0%})"
    yield "Searched", f"{n_dev} rows{': ' if fits else ''}{fits} in {tuned.search_time_:.1f} s"
    for metric, name in names.items():
        std = find_best(core, "std", metric)
        over_folds = "" if np.isnan(std) else f" ± {_number(std)} over the folds"
        yield f"Baseline CV {name}", _number(baselines[metric])
        yield f"Best CV {name}", _number(find_best(core, "mean", metric)) + over_folds
    yield from _parameter_rows(getattr(tuned, "best_params_", {}))
    for metric, name in names.items():
        low, high = map(_number, intervals[metric])
        around = (
            f"{tuned.confidence_level * 100:g}% interval {low} to {high}"
            if low != "nan"
            else "no interval"
        )
        yield f"Test {name}", f"{_number(scores[metric])} ({around})"
        yield (
            f"Optimism of {metric}" if len(names) > 1 else "Optimism",
            f"{optimisms[metric]:+.4f} (best CV − test)",
        )
    if hasattr(tuned, "ensemble_test_score_"):
        low, high = map(_number, tuned.ensemble_test_interval_)
        interval = f"{tuned.confidence_level * 100:g}% interval {low} to {high}"
        yield "Test of the ensemble", f"{_number(tuned.ensemble_test_score_)} ({interval})"


def _describe_fits(core):
    """Say how many candidates a fitted search has tried, on how many folds, as far as it tells."""
    results = getattr(core, "cv_results_", {})
    tried = next((results[name] for name in ("params", "mean_test_score") if name in results), None)
    tried = getattr(core, "trials_", None) if tried is None else tried
    n_splits = getattr(core, "n_splits_", None)
    if hasattr(core, "n_candidates_"):  # of a search by halving, in each of its rounds
        rounds = np.atleast_1d(core.n_candidates_).tolist()
        text = f"{rounds[0]} candidates in {len(rounds)} rounds"
    elif tried is not None:
        rounds = [len(tried)]
        text = f"{rounds[0]} candidates"
    else:
        return "" if n_splits is None else f"{n_splits} folds"
    return (
        text if n_splits is None else f"{text} × {n_splits} folds = {sum(rounds) * n_splits} fits"
    )


def _parameter_rows(params):
    """Yield a row for each parameter, those known by a letter first."""
    known = {
        name: next((k for k in KNOWN_PARAMETERS if f"__{name}".endswith(f"__{k}")), None)
        for name in params
    }
    ranks = [*KNOWN_PARAMETERS, None]
    width = max(map(len, params), default=0)
    for i, name in enumerate(sorted(params, key=lambda name: ranks.index(known[name]))):
        value = params[name]
        value = (
            f"{value:.4g}"
            if isinstance(value, (float, np.floating))
            else " ".join(str(value).split())
        )
        yield (
            "" if i else "Best parameters",
            f"{name:<{width}} = {value}{KNOWN_PARAMETERS.get(known[name], '')}",
        )


def _number(value):
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"
