"""scikit-learn's searches, whose networks are trained together."""

from sklearn import model_selection

from sktune.bridge.seam import fused_tasks
from sktune.engine.report import FusionReport


class _FusedSearch:
    def fit(self, X, y=None, **params):
        """Run fit with all sets of parameters, as in scikit-learn."""
        report = FusionReport()
        with fused_tasks(report=report, progress=self.verbose > 0):
            super().fit(X, y, **params)
        self.fusion_ = report
        return self

    @property
    def curves_(self):
        """How each fused fit went: a pandas frame of candidate, split, epoch, losses and learning rate."""
        from pandas import DataFrame  # only those who look at curves need it

        return DataFrame(self.fusion_.curves.columns)


class GridSearchCV(_FusedSearch, model_selection.GridSearchCV):
    """Search over every combination of the values given, with cross-validation.

    It is :class:`sklearn.model_selection.GridSearchCV`, with the same signature and meaning. Networks of sktune,
    alone or as the last step of a Pipeline, are trained together.

    Parameters
    ----------
    estimator : estimator object
        What to tune.
    param_grid : dict or list of dicts
        Names of parameters to lists of values.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score
        As in :class:`sklearn.model_selection.GridSearchCV`. `n_jobs` is the number of threads
        that groups of networks are trained in (None: as many as torch has), and of processes for what is not trained
        so. With `verbose` above 0 a progress bar is shown on stderr.

    Attributes
    ----------
    fusion_ : FusionReport
        What was trained together, and why a fit was not; ``print`` it for a summary.
    cv_results_ : dict
        As in scikit-learn. The ``fit_time`` of fits trained together is their group's, divided by their number.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sktune import GridSearchCV, NeuralNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(max_epochs=20, random_state=0)
    >>> search = GridSearchCV(net, {"lr": [1e-5, 1e-2]}, cv=3).fit(X, y)
    >>> search.best_params_
    {'lr': 0.01}
    >>> len(search.fusion_.alone)
    0
    """


class RandomizedSearchCV(_FusedSearch, model_selection.RandomizedSearchCV):
    """Search over candidates drawn from distributions, with cross-validation.

    It is :class:`sklearn.model_selection.RandomizedSearchCV`, whose networks are trained as in :class:`GridSearchCV`.

    Parameters
    ----------
    param_distributions : dict or list of dicts
        Names of parameters to lists of values or to distributions with ``rvs``, as in :mod:`scipy.stats` and
        :mod:`sktune.search.spaces`.
    n_iter : int, default=10
        How many candidates to draw.
    estimator, scoring, n_jobs, refit, cv, verbose, pre_dispatch, random_state, error_score, return_train_score
        See :class:`GridSearchCV`, also for the attributes.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_iris
    >>> from sktune import NeuralNetClassifier, RandomizedSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(max_epochs=20, random_state=0)
    >>> space = {"lr": loguniform(1e-4, 1e-1), "module__dropout": [0.0, 0.2]}
    >>> len(RandomizedSearchCV(net, space, n_iter=4, cv=3, random_state=0).fit(X, y).cv_results_["params"])
    4
    """
