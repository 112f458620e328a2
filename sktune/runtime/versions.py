"""The versions that a pickle was written with, and a warning where they are others."""

import warnings
from functools import cache
from importlib.metadata import version

from sklearn.exceptions import InconsistentVersionWarning as SklearnWarning

# All of a version of these can change what a pickle holds.
_WHOLE = ("sktune", "skorch")
_KEY = "_pickled_with"
_UNKNOWN = "an unknown version"


class InconsistentVersionWarning(SklearnWarning):
    """A pickle is read with other versions than it was written with.

    It is a subclass of :class:`sklearn.exceptions.InconsistentVersionWarning`, so that a filter of
    that one is one of this.

    Parameters
    ----------
    estimator_name : str
        The class of what was pickled.
    differences : dict of str to tuple of (str, str)
        Of each package its version in the pickle, and the present one.

    Examples
    --------
    >>> from sktune import InconsistentVersionWarning
    >>> warning = InconsistentVersionWarning("GridSearchCV", {"sktune": ("0.1.0", "0.2.0")})
    >>> str(warning).partition(":")[0]
    'GridSearchCV was pickled with sktune 0.1.0 and is read with sktune 0.2.0'
    """

    def __init__(self, estimator_name, differences):
        # that of scikit-learn is told by its own warning
        super().__init__(
            estimator_name=estimator_name, current_sklearn_version="", original_sklearn_version=""
        )
        self.differences = differences

    def __str__(self):
        before = ", ".join(f"{name} {old}" for name, (old, _) in self.differences.items())
        now = ", ".join(f"{name} {new}" for name, (_, new) in self.differences.items())
        return (
            f"{self.estimator_name} was pickled with {before} and is read with {now}: "
            "its results may be wrong, and its code may fail"
        )

    def __reduce__(self):
        # a process hands on the warnings of its tasks
        return type(self), (self.estimator_name, self.differences)


class RemembersVersions:
    """A base class of estimators whose pickles tell what versions they were written with.

    It stands before the bases that make the state.
    """

    # the packages whose objects are in a pickle
    _packages = ("sktune",)

    def __getstate__(self):
        return {**super().__getstate__(), _KEY: find_versions(self._packages)}

    def __setstate__(self, state):
        state = dict(state)
        differences = compare_versions(state.pop(_KEY, {}), find_versions(self._packages))
        if differences:
            warning = InconsistentVersionWarning(type(self).__name__, differences)
            warnings.warn(warning, stacklevel=2)
        super().__setstate__(state)


def find_versions(packages):
    """Return the versions of packages, by name."""
    return {name: _find_version(name) for name in packages}


# looking for the files of a package takes milliseconds
_find_version = cache(version)


def compare_versions(before, now):
    """Return the versions before and now of packages where a change matters, by name.

    Of torch a minor release does; its patches, and builds such as that for another GPU, do not.

    Examples
    --------
    >>> from sktune.runtime.versions import compare_versions
    >>> compare_versions({"torch": "2.8.0+cpu"}, {"torch": "2.8.1+cu128"})
    {}
    >>> compare_versions({"torch": "2.8.0"}, {"torch": "2.9.0"})
    {'torch': ('2.8.0', '2.9.0')}
    """
    pairs = {name: (before.get(name, _UNKNOWN), present) for name, present in now.items()}
    return {name: pair for name, pair in pairs.items() if _differ(name, *pair)}


def _differ(name, before, now):
    if name in _WHOLE:
        return before != now
    return before.split(".")[:2] != now.split(".")[:2]
