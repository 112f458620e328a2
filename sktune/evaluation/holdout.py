"""A search with a test set that stays sealed until the end."""

import time

from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sktune.bridge.seam import fused_tasks
from sktune.estimators.callbacks.seam import CallbackSupport
from sktune.estimators.callbacks.tasks import told_subtask
from sktune.evaluation.final import score_baseline, score_sealed
from sktune.evaluation.sealing import check_rows, count_rows, seal_rows, take_params, take_rows
from sktune.evaluation.searches import (
    best_model,
    find_core,
    open_cache_of,
    routing_enabled,
    seed_splits,
    split_params,
    without_ensemble,
)
from sktune.evaluation.splits import check_splits, check_splits_of, is_own_splitter, restrict_splits
from sktune.evaluation.summary import summarize
from sktune.runtime.diagrams.notebooks import ShowsSummary
from sktune.runtime.versions import RemembersVersions


def _method_of_best(name):
    """Return a method that calls the method `name` of the best estimator."""

    def method(self, X):
        check_is_fitted(self)
        return getattr(self.best_estimator_, name)(X)

    def is_available(self):
        # Before fit, the search tells whether its best estimator will have the method.
        model = getattr(self, "best_estimator_", self.search)
        return hasattr(model, name)

    method.__name__ = name
    method.__doc__ = f"Call ``{name}`` of the best estimator."
    return available_if(is_available)(method)


class HoldoutSearch(
    RemembersVersions, ShowsSummary, CallbackSupport, MetaEstimatorMixin, BaseEstimator
):
    """Tune on a part of the rows, and score the best model once on the others.

    First, `test_size` of the rows are sealed. The search, its cross-validation and its refit use
    the remaining rows only. Then the best model is called on the sealed rows, once, for a score
    that no choice has been fitted to.

    Parameters
    ----------
    search : estimator object
        A search with ``refit``, or a Pipeline that ends in one. Its scoring is used for all scores.
        Its ``cv`` must divide the rows that it gets:

        - A random ``cv`` without a seed gets one, so that the baseline uses the same splits.
        - A PredefinedSplit of all rows is restricted to the rows that are searched on.
        - Any other ``cv`` that names rows (a list of splits, a generator, a splitter that holds
          rows) is refused, because the numbers mean other rows after sealing.
    test_size : float or int, default=0.2
        Share (between 0 and 1) or number of the rows to seal; with groups in ``fit``, of the
        groups.
    random_state : int, RandomState instance or None, default=None
        Of the split and of the bootstrap. Without an int, every ``fit`` seals other rows. Whoever
        chooses between such fits by their test scores has used the sealed rows for a choice.
    stratify : {"auto", True, False}, default="auto"
        Whether both sides have the same shares of the classes. With groups, the best of 50 random
        splits is taken. ``"auto"`` stratifies for classifiers.
    splitter : object with a ``split`` method, default=None
        Its last split is used instead of `test_size` and `stratify`. A TimeSeriesSplit seals the
        most recent rows.
    n_resamples : int, default=1000
        Resamples of the bootstrap behind `test_interval_`. Common metrics are fast: accuracy,
        balanced accuracy, precision, recall, F scores, log loss, Brier score, ROC AUC (one class
        against the others), squared and absolute errors and R². Any other scorer is called once for
        each resample, with a UserWarning if this takes more than 10 seconds.
    confidence_level : float, default=0.95
        Of the interval.

    Attributes
    ----------
    dev_indices_ : ndarray of int
        The rows searched on.
    test_indices_ : ndarray of int
        The sealed rows.
    search_ : estimator object
        The fitted search (or Pipeline).
    best_estimator_ : estimator object
        The best model, with the steps before the search. It is refitted on all of ``dev_indices_``
        and never on the sealed rows: the test score is that of this very model.
    best_params_, best_index_, best_score_, cv_results_, n_splits_
        Those of the search, as far as it has them.
    classes_, n_features_in_, feature_names_in_
        Those of the best model.
    test_score_ : float, or dict by metric
        Score of the best model on the sealed rows.
    test_interval_ : tuple of float, or dict by metric
        Percentile bootstrap interval of the test score, over the sealed rows or whole groups of
        them. It is too narrow if the rows depend on each other, as in a time series. It is
        (nan, nan) if the metric is undefined on most resamples, or if the scorer needs more of the
        model than its responses.
    baseline_score_ : float, or dict by metric
        Mean cross-validated score of the search's estimator as it was given; nan if all of its fits
        failed.
    ensemble_test_score_, ensemble_test_interval_ : float, and tuple of float
        Of a search with an ensemble: its score on the same sealed rows, by the metric that the
        search refits by. The methods below are those of the single model; the ensemble is
        ``search_.ensemble_``.
    optimism_ : float, or dict by metric
        The best candidate's cross-validated score minus its test score: the bias of choosing the
        best of many.
    search_time_ : float
        Seconds that the search and its refit took.

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

    # The split needs groups: they are requested by default, as by GroupKFold.
    __metadata_request__fit = {"groups": True}

    def __init__(
        self,
        search,
        *,
        test_size=0.2,
        random_state=None,
        stratify="auto",
        splitter=None,
        n_resamples=1000,
        confidence_level=0.95,
    ):
        self.search = search
        self.test_size = test_size
        self.random_state = random_state
        self.stratify = stratify
        self.splitter = splitter
        self.n_resamples = n_resamples
        self.confidence_level = confidence_level

    def fit(self, X, y=None, groups=None, **params):
        """Seal rows, search on the others, and score the best model once on the sealed rows.

        If ``fit`` fails, the attributes of an earlier ``fit`` stay as they are.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)
        y : array-like of shape (n_samples, ...), default=None
        groups : array-like of shape (n_samples,), default=None
            Rows of one group stay on one side. They are passed on to the search's ``cv``.
        **params : dict of str -> object
            Passed on to the search's ``fit``. Values with one entry per row, such as
            ``sample_weight``, are divided with the rows.

        Returns
        -------
        self : HoldoutSearch

        Raises
        ------
        TypeError
            If `search` is no search with ``refit``, or `splitter` has no ``split`` method.
        ValueError
            If another parameter is out of range, if the rows cannot be divided as asked, or if
            splits in the search name rows. Nothing is fitted then.
        """
        self._check_arguments()
        X, y, groups = check_rows(X, y, groups)
        check_splits(self.search, count_rows(X))
        dev, test = self._seal_rows(X, y, groups)
        cv_seed, bootstrap_seed = check_random_state(self.random_state).randint(2**31 - 1, size=2)
        params = self._route_params(params, groups)

        def take(rows):
            return take_rows(X, rows), take_rows(y, rows), take_params(params, count_rows(X), rows)

        fitted = self._fit_search(*take(dev), dev, cv_seed)
        # The seal is opened here, and nothing is chosen after it.
        fitted |= score_sealed(
            fitted["search_"],
            *take(test),
            groups=take_rows(groups, test),
            n_resamples=self.n_resamples,
            confidence_level=self.confidence_level,
            seed=bootstrap_seed,
        )
        for name in ("best_score_", "ensemble_test_score_", "ensemble_test_interval_"):
            vars(self).pop(name, None)
        vars(self).update(fitted, dev_indices_=dev, test_indices_=test)
        return self

    def _check_arguments(self):
        core, _ = find_core(self.search)
        if not all(hasattr(core, name) for name in ("fit", "estimator", "refit")):
            raise TypeError(
                "search must be a search such as GridSearchCV, or a Pipeline ending in one, "
                f"got {core!r}"
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
        if not 0 < self.confidence_level < 1:
            raise ValueError(
                "confidence_level must be between 0 and 1, "
                f"got confidence_level={self.confidence_level!r}"
            )

    def _seal_rows(self, X, y, groups):
        """Return the positions of the rows to search on, and of those to seal."""
        return seal_rows(
            X,
            y,
            groups,
            test_size=self.test_size,
            random_state=self.random_state,
            stratify=self.stratify,
            splitter=self.splitter,
            is_classifier=get_tags(self.search).estimator_type == "classifier",
        )

    def _route_params(self, params, groups):
        """Return what the search's ``fit`` gets beside X and y, for all rows."""
        if groups is not None:
            prefix = "" if routing_enabled() else find_core(self.search)[1]
            params = {**params, f"{prefix}groups": groups}
        if routing_enabled() and params:
            return process_routing(self, "fit", **params).search.fit
        return params

    def _fit_search(self, X, y, params, dev, seed):
        """Search and refit on the rows `dev` alone, score the baseline, return the attributes."""
        search = clone(self.search)
        core, _ = find_core(search)
        restrict_splits(search, dev)
        seed_splits(getattr(core, "cv", None), seed)
        self._try_splits(search, X, y, params)
        start = time.perf_counter()
        # callbacks see none of the sealed rows
        with told_subtask(self, search, X, y, "fit-search"), fused_tasks():
            search.fit(X, y, **params)
        fitted = {"search_": search, "search_time_": time.perf_counter() - start}
        if not hasattr(core, "best_estimator_"):
            raise TypeError(f"search must set best_estimator_ in fit, {core!r} did not")
        for name in ("best_params_", "best_index_", "best_score_", "cv_results_", "n_splits_"):
            if hasattr(core, name):
                fitted[name] = getattr(core, name)
        # A new context, because each of them serves one search only.
        with fused_tasks(**open_cache_of(core)):
            fitted["baseline_score_"] = score_baseline(search, X, y, params)
        fitted["best_estimator_"] = best_model(search)
        return fitted

    @staticmethod
    def _try_splits(search, X, y, params):
        """Refuse a splitter of the user's that names rows of the whole table."""
        core, _ = find_core(search)
        cv = getattr(core, "cv", None)
        if not is_own_splitter(cv):
            return
        params = split_params(search, params)

        def take(rows):
            return take_rows(X, rows), take_rows(y, rows), take_params(params, count_rows(X), rows)

        check_splits_of(cv, X, y, params, take, is_sure=core is search)

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
        """Score the best estimator on other rows, as ``score`` of the search does.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)
        y : array-like of shape (n_samples, ...), default=None
        **params : dict of str -> object
            Passed on to ``score`` of the search. scikit-learn's searches take parameters only if
            metadata routing is enabled.

        Returns
        -------
        score : float
            Of several metrics, the one that the search refits by.
        """
        check_is_fitted(self)
        if routing_enabled() and params:
            params = process_routing(self, "score", **params).search.score
        return without_ensemble(self.search_).score(X, y, **params)

    def summary(self):
        """Return a few aligned lines, a str, on what was sealed, searched and found.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        """
        check_is_fitted(self)
        return summarize(self)

    def __sklearn_tags__(self):
        tags = get_tags(self.search)
        tags.array_api_support = False
        return tags

    def get_metadata_routing(self):
        """Return the routing of metadata: groups to this object, all others to the search.

        Returns
        -------
        router : MetadataRouter
        """
        mapping = MethodMapping()
        mapping.add(caller="fit", callee="fit")
        mapping.add(caller="score", callee="score")
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(search=self.search, method_mapping=mapping)
