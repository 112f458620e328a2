"""Searches: candidates, splits, and a test set that stays sealed."""

from sktune.search.grid import GridSearchCV, RandomizedSearchCV
from sktune.search.holdout import HoldoutSearch
from sktune.search.spaces import default_space, loguniform_int, powers_of_two, zero_or

__all__ = [
    "GridSearchCV",
    "HoldoutSearch",
    "RandomizedSearchCV",
    "default_space",
    "loguniform_int",
    "powers_of_two",
    "zero_or",
]
