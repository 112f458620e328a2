"""Searches over candidates, whose networks are trained together."""

from sktune.search.bayes import BayesSearchCV
from sktune.search.grid import GridSearchCV, RandomizedSearchCV
from sktune.search.halving.searches import (
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    HyperbandSearchCV,
)
from sktune.search.simplicity import OneStandardError
from sktune.search.spaces import default_space, loguniform_int, powers_of_two, zero_or
from sktune.search.stages import StagedSearch

__all__ = [
    "BayesSearchCV",
    "GridSearchCV",
    "HalvingGridSearchCV",
    "HalvingRandomSearchCV",
    "HyperbandSearchCV",
    "OneStandardError",
    "RandomizedSearchCV",
    "StagedSearch",
    "default_space",
    "loguniform_int",
    "powers_of_two",
    "zero_or",
]
