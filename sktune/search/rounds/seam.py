"""What searches of ours build upon within scikit-learn, private names included.

``tests/search/test_search_seam.py`` fails when one of them moves:

- ``BaseSearchCV``, the base class of scikit-learn's own searches, whose ``fit`` calls
  ``_run_search(evaluate_candidates)``;
- ``evaluate_candidates(candidates, cv=None, more_results=None)``, which returns ``cv_results_`` so
  far; scikit-learn's halving searches use these arguments;
- ``_checked_cv_orig``, the splitter that the search uses. Before scikit-learn 1.9 the splitter and
  the number of splits are the variables ``cv_orig`` and ``n_splits`` of ``fit``, which
  ``evaluate_candidates`` has in its closure.
"""

import inspect

import numpy as np
from sklearn.model_selection._search import BaseSearchCV

__all__ = ["BaseSearchCV", "FixedSplits", "fix_splits"]


class FixedSplits:
    """A splitter that splits once and gives the same splits in each round.

    A search that asks for candidates in several rounds needs it: a splitter that shuffles without a
    seed would give each round other splits. Scores of different rounds could not be compared, and
    the best of them would be the luckiest.

    Parameters
    ----------
    cv : splitter
    check : callable or None
        ``check(splits)`` may raise an error before anything is trained.
    """

    def __init__(self, cv, check=None):
        self.cv = cv
        self.check = check
        self.splits = None

    def split(self, X, y=None, **params):
        """Return the splits, which are made when they are first asked for."""
        if self.splits is None:
            self.splits = list(self.cv.split(X, y, **params))
            if self.check is not None:
                self.check(self.splits)
        return iter(self.splits)

    def get_n_splits(self, X=None, y=None, **params):
        """Return the number of splits."""
        return self.cv.get_n_splits(X, y, **params)

    @property
    def mean_sizes(self):
        """The mean numbers of rows to train on and to score on."""
        sizes = [(_count(train), _count(test)) for train, test in self.splits]
        n_train, n_test = np.mean(sizes, axis=0)
        return float(n_train), float(n_test)


def _count(rows):
    """Return how many rows are told by number or by mask."""
    rows = np.asarray(rows)
    return int(rows.sum()) if rows.dtype == bool else len(rows)


def fix_splits(search, evaluate_candidates, check=None):
    """Return the splitter of a search that is being fitted, with its splits fixed.

    The search has ``n_splits_`` from here on, which scikit-learn sets at the end of ``fit`` only
    before 1.9.

    Parameters
    ----------
    search : search of scikit-learn's class
    evaluate_candidates : callable
        What scikit-learn calls ``_run_search`` with.
    check : callable or None
        See :class:`FixedSplits`.
    """
    if hasattr(search, "_checked_cv_orig"):
        return FixedSplits(search._checked_cv_orig, check)
    variables = inspect.getclosurevars(evaluate_candidates).nonlocals
    search.n_splits_ = variables["n_splits"]
    return FixedSplits(variables["cv_orig"], check)
