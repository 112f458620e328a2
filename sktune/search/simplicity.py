"""The one-standard-error rule: the simplest candidate that is about as good as the best."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# On which side a parameter is simpler, by the last part of its name; the first ones count most.
SIMPLER = {
    "max_depth": "low",
    "depth": "low",
    "max_leaf_nodes": "low",
    "n_estimators": "low",
    "hidden": "low",
    "width": "low",
    "n_components": "low",
    "degree": "low",
    "n_neighbors": "high",
    "min_samples_leaf": "high",
    "weight_decay": "high",
    "alpha": "high",
    "l2": "high",
    "l1": "high",
    "C": "low",
    "dropout": "high",
    "gamma": "low",
}


@dataclass(frozen=True)
class OneStandardError:
    """A `refit` that chooses the simplest candidate within one standard error of the best.

    The standard error is that of the best candidate's mean score over the splits (Breiman et al.
    1984, "Classification and regression trees", section 3.4.3). ``refit="one_standard_error"`` of
    sktune's searches is this rule with its defaults, which also sets ``best_score_``; as a callable
    it serves in scikit-learn's searches, too.

    Parameters
    ----------
    order : dict or callable, default=None
        Names of parameters to the side on which they are simpler, ``"low"`` or ``"high"``: the
        first name decides, then the next. A callable gets the parameters of a candidate and
        returns a number, or a tuple of these, that is lower for simpler ones. None knows common
        names, such as ``max_depth``, ``hidden``, ``weight_decay``, ``C`` and ``dropout``.
    metric : str, default="score"
        The name of the score, if a search has several.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktune import GridSearchCV, OneStandardError
    >>> X, y = load_iris(return_X_y=True)
    >>> rule = OneStandardError({"C": "low"})
    >>> model = LogisticRegression(max_iter=1000)
    >>> for refit in (True, rule):
    ...     search = GridSearchCV(model, {"C": [0.1, 0.5, 1, 5]}, refit=refit).fit(X, y)
    ...     print(search.best_params_)
    {'C': 1}
    {'C': 0.5}
    """

    order: object = None
    metric: str = "score"

    def __call__(self, results):
        """Return the number of the candidate in ``cv_results_`` that is to be refitted.

        Raises
        ------
        ValueError
            If the parameters have no order.
        """
        means = results[f"mean_test_{self.metric}"]
        best = int(results[f"rank_test_{self.metric}"].argmin())
        names = [f"split{n}_test_{self.metric}" for n in range(len(results))]
        scores = [results[name][best] for name in names if name in results]
        if len(scores) < 2:
            return best
        error = np.std(scores, ddof=1) / np.sqrt(len(scores))
        within = np.flatnonzero(means >= means[best] - error).tolist()
        params = results["params"]
        measure = make_measure(self.order, [name for own in params for name in own])
        # of equally simple ones the better
        return min([best, *within], key=lambda index: (measure(params[index]), -means[index]))


def make_measure(order, names):
    """Return a function of a candidate's parameters that is lower for simpler ones.

    Parameters
    ----------
    order : dict, callable or None
        See :class:`OneStandardError`.
    names : list of str
        The parameters of the search.
    """
    if callable(order):
        return order
    if order is None:
        order = {}
        for known, side in SIMPLER.items():
            order |= {name: side for name in names if name.rpartition("__")[2] == known}
    sides = set(order.values()) if isinstance(order, Mapping) else {None}
    if not order or not sides <= {"low", "high"}:
        raise ValueError(
            "the order of simplicity must be a dict of parameters to 'low' or 'high', or a function "
            f"of the parameters, got {order!r} for {sorted(set(names))}: give "
            "refit=OneStandardError({...})"
        )
    return lambda params: tuple(_measure(params, name, side) for name, side in order.items())


def _measure(params, name, side):
    """Return a number that is lower for simpler values; what is not set is least simple."""
    value = params.get(name)
    if value is None:
        return np.inf
    # of several numbers, such as the widths of layers, the sum
    size = float(np.sum(value))
    return size if side == "low" else -size


def check_order(search):
    """Raise a ValueError if a search asks for the rule and nothing tells what is simpler."""
    if not isinstance(search.refit, str) or search.refit != "one_standard_error":
        return
    space = getattr(search, "param_grid", None) or getattr(search, "param_distributions", None)
    parts = [space] if isinstance(space, Mapping) else space
    make_measure(None, [name for part in parts for name in part])
