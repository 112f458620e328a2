"""The search within what a user gives."""

from collections.abc import Mapping

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

# Attributes of searches that hold their space.
SPACES = ("param_distributions", "param_grid", "search_spaces")


def find_search(search):
    """Return the search within a HoldoutSearch or a Pipeline, or results as a mapping.

    Raises
    ------
    NotFittedError, TypeError
        See :func:`read_search`.
    """
    if isinstance(search, Mapping):
        _check_results(search)
        return search
    if hasattr(search, "columns") and hasattr(search, "to_dict"):
        return find_search({name: search[name].to_numpy() for name in search.columns})
    while True:
        if isinstance(search, Pipeline):
            search = search.steps[-1][1]
        elif hasattr(search, "search") and hasattr(search, "test_size"):
            # a HoldoutSearch
            check_is_fitted(search, "search_")
            search = search.search_
        else:
            break
    if not hasattr(search, "fit") or not _is_search(search):
        raise TypeError(
            "search must be a search with cv_results_, such as GridSearchCV, or its cv_results_, "
            f"got {type(search).__name__}"
        )
    check_is_fitted(search, "cv_results_")
    return search


def _is_search(search):
    """Tell whether an estimator has, or will have, ``cv_results_``."""
    if hasattr(search, "cv_results_"):
        return True
    return hasattr(search, "estimator") and any(hasattr(search, name) for name in (*SPACES, "cv"))


def _check_results(results):
    """Raise unless a mapping is a ``cv_results_``."""
    if "params" not in results and not any(str(name).startswith("param_") for name in results):
        raise TypeError(
            "search must be a search with cv_results_, such as GridSearchCV, or its cv_results_, "
            f"got a mapping with the keys {sorted(map(str, results))}"
        )
