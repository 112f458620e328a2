"""A search beside which a test set stays sealed until the end."""

import time
from copy import deepcopy

from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sktune.evaluation import evaluate_once
from sktune.indexing import check_rows, count_rows, take_params, take_rows
from sktune.inner_search import (
    best_model,
    core_params,
    core_search,
    cv_score,
    routing_enabled,
    score_baseline,
    scorer_params,
    search_prefix,
    seed_splits,
)
from sktune.report import summary_html, summary_text
from sktune.sealing import check_test_size, seal_rows

__all__ = ["HoldoutSearch"]


def _best_has(method):
    """Whether the best estimator has `method`; before fitting, whether the search would."""

    def check(self):
        return hasattr(getattr(self, "best_estimator_", self.search), method)

    return check


class HoldoutSearch(MetaEstimatorMixin, BaseEstimator):
    """Tune on a part of the rows, and score the outcome once on the others.

    Before anything looks at the data, `test_size` of the rows are sealed. The search, its
    cross-validation and its refit see the remaining rows only. Then the model chosen is called on
    the sealed rows, once, for a score that no choice has been fitted to.

    Parameters
    ----------
    search : estimator object
        A scikit-learn search with ``refit``, such as :class:`~sktune.RandomizedSearchCV`, or a
        :class:`~sklearn.pipeline.Pipeline` that ends in one. Its scoring is used throughout.
    test_size : float or int, default=0.2
        Share (between 0 and 1) or number of the rows to seal; of the groups, if ``fit`` gets
        groups. Unused with a `splitter`.
    random_state : int, RandomState instance or None, default=None
        Of the split and of the bootstrap. Without an int every ``fit`` seals other rows: choose
        between such fits by their test scores, and the rows are not sealed any more.
    stratify : {"auto", True, False}, default="auto"
        Whether each class keeps its share on both sides. "auto" does so for classifiers. With
        groups, it is the nearest to that of 50 random splits.
    splitter : object with a ``split`` method, default=None
        Makes the split in place of the above. Its last split counts: of a
        :class:`~sklearn.model_selection.TimeSeriesSplit` that seals the most recent rows.
    n_resamples : int, default=1000
        Bootstrap resamples for `test_interval_`.
    confidence_level : float, default=0.95
        Of `test_interval_`.

    Attributes
    ----------
    search_ : estimator object
        The fitted search (or Pipeline), which has seen ``dev_indices_`` only.
    best_estimator_ : estimator object
        The model chosen, refitted on ``dev_indices_``; of a Pipeline, with the steps before the
        search. Never refitted on the sealed rows: the test score belongs to this very model.
    best_params_, best_index_, cv_results_, n_splits_
        As the search has them.
    best_score_ : float
        Mean cross-validated score of the best candidate; not available if the search has several
        metrics and a callable ``refit``.
    baseline_score_ : float or dict
        Mean cross-validated score, on the same splits, of the search's estimator as it was given.
        nan if all of its fits failed.
    dev_indices_, test_indices_ : ndarray of int
        The rows searched on, and the rows sealed.
    test_score_ : float or dict
        Score on the sealed rows, by metric if the search has several metrics.
    test_interval_ : tuple of float, or dict of them
        Percentile bootstrap interval of the test score over the sealed rows, or over whole groups
        of them if ``fit`` got groups. Resamples on which the metric is undefined are left out; if
        they are the most, or the scorer needs more of the model than its responses to the rows,
        it is (nan, nan).
    optimism_ : float or dict
        The best candidate's cross-validated score minus its test score: what choosing the best
        of many made it look better.
    search_time_ : float
        Seconds taken by the search and its refit.
    classes_, n_features_in_, feature_names_in_
        Those of `best_estimator_`, where it has them.

    See Also
    --------
    sklearn.model_selection.train_test_split : The split alone.

    Notes
    -----
    For an interval over rows that depend on each other (a time series) the bootstrap over rows is
    too narrow. With the search's ``cv`` at random and without a seed, a seed is given to it, so
    that the baseline meets the same splits.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktune.holdout import HoldoutSearch
    >>> from sktune.search import GridSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.001, 0.1, 10.0]})
    >>> tuned = HoldoutSearch(search, random_state=0).fit(X, y)
    >>> tuned.best_params_
    {'C': 10.0}
    >>> round(tuned.test_score_, 3), len(tuned.test_indices_)
    (1.0, 30)
    """

    # `groups` is for the split itself: asked for without being told to, as in GroupKFold.
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
        """Seal rows, search on the others, and evaluate the best model once on the sealed ones.

        Parameters
        ----------
        X : array-like, frame or sparse matrix of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            What to predict.
        groups : array-like of shape (n_samples,), default=None
            Rows of one group stay on one side. They are passed on to the search's ``cv``, which
            keeps them together only if it is a splitter by groups.
        **params : dict of str -> object
            Passed on to the search's ``fit``; what has one entry per row, such as
            ``sample_weight``, is divided along with the rows.

        Returns
        -------
        self : HoldoutSearch
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If an argument is unfit, before anything is fitted; what was fitted before stays.
        """
        self._check_arguments()
        X, y, groups = check_rows(X, y, groups)
        dev, test = seal_rows(
            X,
            y,
            groups,
            test_size=self.test_size,
            random_state=self.random_state,
            stratify=self.stratify,
            splitter=self.splitter,
            is_classifier=get_tags(self.search).estimator_type == "classifier",
        )
        cv_seed, bootstrap_seed = check_random_state(self.random_state).randint(2**31 - 1, size=2)
        params = self._params_of_search(groups, params)
        fitted = self._fit_search(X, y, dev, params, cv_seed)
        # The seal is opened here, and nothing is chosen after it.
        fitted |= self._evaluate(fitted, X, y, groups, test, params, bootstrap_seed)
        fitted |= {"dev_indices_": dev, "test_indices_": test}
        vars(self).pop("best_score_", None)
        for name, value in fitted.items():
            setattr(self, name, value)
        return self

    def _check_arguments(self):
        core = core_search(self.search)
        if not all(hasattr(core, name) for name in ("fit", "estimator", "refit")):
            raise TypeError(
                f"search must be a search such as GridSearchCV, or a Pipeline that ends in one, got {core!r}"
            )
        if not core.refit:
            raise ValueError(f"search must refit its best candidate, got refit={core.refit!r}")
        if self.splitter is None:
            check_test_size(self.test_size)
        elif not callable(getattr(self.splitter, "split", None)):
            raise TypeError(f"splitter must have a split method, got {self.splitter!r}")
        if self.stratify not in ("auto", True, False):
            raise ValueError(f"stratify must be 'auto', True or False, got stratify={self.stratify!r}")
        if self.n_resamples < 1:
            raise ValueError(f"n_resamples must be at least 1, got {self.n_resamples}")
        if not 0 < self.confidence_level < 1:
            raise ValueError(
                f"confidence_level must be between 0 and 1, got confidence_level={self.confidence_level!r}"
            )

    def _params_of_search(self, groups, params):
        """Return what to pass to the search's ``fit``, still with all rows."""
        if groups is not None:
            params = {**params, "groups": groups}
        if routing_enabled():
            return dict(process_routing(self, "fit", **params).search.fit) if params else {}
        if groups is not None:
            params[search_prefix(self.search) + "groups"] = params.pop("groups")
        return params

    def _fit_search(self, X, y, dev, params, cv_seed):
        """Search and refit on the development rows alone, and score the baseline there."""
        params = take_params(params, count_rows(X), dev)
        X, y = take_rows(X, dev), take_rows(y, dev)
        search = clone(self.search)
        core = core_search(search)
        seed_splits(core, cv_seed)
        start = time.perf_counter()
        search.fit(X, y, **params)
        seconds = time.perf_counter() - start
        if not hasattr(core, "best_estimator_"):
            raise TypeError(f"search must set best_estimator_ in fit, {core!r} did not")
        fitted = {name: getattr(core, name) for name in ("best_params_", "best_index_")}
        fitted |= {name: getattr(core, name) for name in ("cv_results_", "n_splits_")}
        if hasattr(core, "best_score_"):
            fitted["best_score_"] = core.best_score_
        return fitted | {
            "search_": search,
            "best_estimator_": best_model(search),
            "search_time_": seconds,
            "baseline_score_": score_baseline(search, X, y, core_params(search, params)),
        }

    def _evaluate(self, fitted, X, y, groups, test, params, seed):
        """Call the best model on the sealed rows, this once."""
        core, index = core_search(fitted["search_"]), fitted["best_index_"]
        params = take_params(params, count_rows(X), test)
        evaluation = evaluate_once(
            fitted["best_estimator_"],
            take_rows(X, test),
            take_rows(y, test),
            scoring=core.scoring,
            params=scorer_params(core, core_params(fitted["search_"], params)),
            groups=take_rows(groups, test),
            n_resamples=self.n_resamples,
            confidence_level=self.confidence_level,
            seed=seed,
        )
        score = evaluation.score
        if isinstance(score, dict):
            optimism = {name: cv_score(core, index, name)[0] - score[name] for name in score}
        else:
            optimism = cv_score(core, index)[0] - score
        return {
            "test_score_": score,
            "test_interval_": evaluation.interval,
            "optimism_": optimism,
        }

    @available_if(_best_has("predict"))
    def predict(self, X):
        """Predict with the best estimator."""
        return self._fitted_best().predict(X)

    @available_if(_best_has("predict_proba"))
    def predict_proba(self, X):
        """Predict class probabilities with the best estimator."""
        return self._fitted_best().predict_proba(X)

    @available_if(_best_has("predict_log_proba"))
    def predict_log_proba(self, X):
        """Predict logarithms of class probabilities with the best estimator."""
        return self._fitted_best().predict_log_proba(X)

    @available_if(_best_has("decision_function"))
    def decision_function(self, X):
        """Call the best estimator's decision function."""
        return self._fitted_best().decision_function(X)

    @available_if(_best_has("score_samples"))
    def score_samples(self, X):
        """Score each row with the best estimator."""
        return self._fitted_best().score_samples(X)

    @available_if(_best_has("transform"))
    def transform(self, X):
        """Transform with the best estimator."""
        return self._fitted_best().transform(X)

    @available_if(_best_has("inverse_transform"))
    def inverse_transform(self, X):
        """Transform back with the best estimator."""
        return self._fitted_best().inverse_transform(X)

    def score(self, X, y=None, **params):
        """Score the best estimator on other rows, with the search's scoring.

        Parameters
        ----------
        X : array-like, frame or sparse matrix of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            The truth.
        **params : dict of str -> object
            Passed on to the search's ``score``.

        Returns
        -------
        float
            The score; of several metrics, the one that the search refits by.
        """
        check_is_fitted(self)
        if routing_enabled() and params:
            params = process_routing(self, "score", **params).search.score
        return self.search_.score(X, y, **params)

    def _fitted_best(self):
        check_is_fitted(self)
        return self.best_estimator_

    @property
    def classes_(self):
        """Class labels of the best estimator."""
        return self.best_estimator_.classes_

    @property
    def n_features_in_(self):
        """Number of features seen by ``fit``."""
        return self.best_estimator_.n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the features seen by ``fit``."""
        return self.best_estimator_.feature_names_in_

    def summary(self):
        """Say in a few aligned lines what was sealed, searched and found.

        Returns
        -------
        str
        """
        check_is_fitted(self)
        return summary_text(self)

    @property
    def _repr_html_(self):
        diagram = super()._repr_html_  # an AttributeError where scikit-learn shows text instead
        return lambda: self._with_summary(diagram())

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:
            bundle["text/html"] = self._with_summary(bundle["text/html"])
        return bundle

    def _with_summary(self, diagram):
        return summary_html(self) + diagram if hasattr(self, "test_score_") else diagram

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = deepcopy(get_tags(self.search))
        for part in ("estimator_type", "classifier_tags", "regressor_tags", "transformer_tags"):
            setattr(tags, part, getattr(inner, part))
        tags.target_tags, tags.input_tags = inner.target_tags, inner.input_tags
        return tags

    def get_metadata_routing(self):
        """Say which parameters go where: `groups` here, the others to the search.

        Returns
        -------
        MetadataRouter
        """
        mapping = MethodMapping().add(caller="fit", callee="fit").add(caller="score", callee="score")
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(search=self.search, method_mapping=mapping)
