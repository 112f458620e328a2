"""scikit-learn's searches, with a progress bar over all their fits."""

from sklearn import model_selection
from sklearn.model_selection import ParameterGrid

from sktune.progress import fits_progress

__all__ = ["GridSearchCV", "RandomizedSearchCV"]


class _ProgressMixin:
    """A bar over candidates × folds when ``verbose=1``; everything else is scikit-learn's."""

    def fit(self, X, y=None, **params):
        """Run fit with all sets of parameters.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            What to predict.
        **params : dict of str -> object
            Passed on as scikit-learn does: to the estimator's ``fit``, the scorer and the splitter.

        Returns
        -------
        self : object
            The fitted search.
        """
        # From 2 on scikit-learn prints a line for each fit, which would tear a bar apart.
        if self.verbose != 1:
            return super().fit(X, y, **params)
        # n_splits_ is known by the time that the first fit starts.
        with fits_progress(lambda: self._count_candidates() * self.n_splits_) as progress:
            super().fit(X, y, **params)
            if hasattr(self, "best_score_"):
                progress.finish(best=f"{self.best_score_:.4g}")
        return self


class GridSearchCV(_ProgressMixin, model_selection.GridSearchCV):
    """Search over every combination of the values given, with cross-validation.

    It is :class:`sklearn.model_selection.GridSearchCV`: the same signature, attributes and, to the
    last bit, results. With ``verbose=1`` it shows one progress bar over all its fits.

    Parameters
    ----------
    estimator : estimator object
        What to tune.
    param_grid : dict or list of dicts
        Names of parameters to lists of values.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score
        As in :class:`sklearn.model_selection.GridSearchCV`. With ``verbose=1`` a progress bar is
        shown on stderr; above that, scikit-learn's own lines.

    See Also
    --------
    RandomizedSearchCV : Draw candidates from distributions.
    sktune.HoldoutSearch : Keep a sealed test set beside any search.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktune.search import GridSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.001, 1.0]}).fit(X, y)
    >>> search.best_params_
    {'C': 1.0}
    """

    def _count_candidates(self):
        return len(ParameterGrid(self.param_grid))


class RandomizedSearchCV(_ProgressMixin, model_selection.RandomizedSearchCV):
    """Search over candidates drawn from distributions, with cross-validation.

    It is :class:`sklearn.model_selection.RandomizedSearchCV`: the same signature, attributes and,
    to the last bit, results. With ``verbose=1`` it shows one progress bar over all its fits.

    Parameters
    ----------
    estimator : estimator object
        What to tune.
    param_distributions : dict or list of dicts
        Names of parameters to lists of values or to distributions with ``rvs``, as in
        :mod:`scipy.stats` and :mod:`sktune.spaces`.
    n_iter : int, default=10
        How many candidates to draw.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, random_state, error_score, return_train_score
        As in :class:`sklearn.model_selection.RandomizedSearchCV`. With ``verbose=1`` a progress bar
        is shown on stderr; above that, scikit-learn's own lines.

    See Also
    --------
    GridSearchCV : Try every combination.
    sktune.HoldoutSearch : Keep a sealed test set beside any search.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktune.search import RandomizedSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> space = {"C": loguniform(1e-3, 1e2)}
    >>> search = RandomizedSearchCV(LogisticRegression(max_iter=500), space, n_iter=4,
    ...                             random_state=0).fit(X, y)
    >>> len(search.cv_results_["params"])
    4
    """

    def _count_candidates(self):
        spaces = self.param_distributions
        spaces = [spaces] if isinstance(spaces, dict) else spaces
        if any(hasattr(values, "rvs") for space in spaces for values in space.values()):
            return self.n_iter
        # Out of lists alone scikit-learn draws without replacement, until they are used up.
        return min(self.n_iter, len(ParameterGrid(spaces)))
