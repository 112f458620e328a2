"""Searches over candidates, whose networks are trained together."""

from sktune.search.grid import GridSearchCV, RandomizedSearchCV
from sktune.search.spaces import default_space, loguniform_int, powers_of_two, zero_or
from sktune.search.stages import StagedSearch

__all__ = [
    "GridSearchCV",
    "RandomizedSearchCV",
    "StagedSearch",
    "default_space",
    "loguniform_int",
    "powers_of_two",
    "zero_or",
]
