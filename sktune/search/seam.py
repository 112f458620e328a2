"""What searches of ours build upon within scikit-learn, private names included.

``tests/search/test_search_seam.py`` fails when one of them moves:

- ``BaseSearchCV``, the base class of scikit-learn's own searches, whose ``fit`` calls
  ``_run_search(evaluate_candidates)``;
- ``evaluate_candidates(candidates, cv=None, more_results=None)``, which returns ``cv_results_`` so
  far; scikit-learn's halving searches use these arguments;
- ``_checked_cv_orig``, the splitter that the search uses.
"""

from sklearn.model_selection._search import BaseSearchCV

__all__ = ["BaseSearchCV", "FixedSplits", "fix_splits"]


class FixedSplits:
    """A splitter that splits once, and then returns the same splits again.

    A search that asks for candidates in several rounds needs it: a splitter that shuffles without a
    seed would give each round other splits. Scores of different rounds could not be compared, and
    the best of them would be the luckiest.

    Parameters
    ----------
    cv : splitter
        With scikit-learn's ``split`` and ``get_n_splits``.
    """

    def __init__(self, cv):
        self.cv = cv
        self._splits = None

    def split(self, X, y=None, groups=None, **params):
        """Return the splits of the first call, a list of pairs of rows."""
        if self._splits is None:
            if groups is not None:
                params["groups"] = groups
            self._splits = list(self.cv.split(X, y, **params))
        return self._splits

    def get_n_splits(self, X=None, y=None, groups=None, **params):
        """Return the number of splits."""
        if groups is not None:
            params["groups"] = groups
        return self.cv.get_n_splits(X, y, **params)


def fix_splits(search):
    """Return the splitter of a search that is being fitted, with its splits fixed."""
    return FixedSplits(search._checked_cv_orig)
