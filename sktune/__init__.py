"""PyTorch networks as scikit-learn estimators, tuned fast and honestly."""

from sktune.bridge import backend as _backend  # registers "sktune" with joblib
from sktune.estimators import NeuralNetClassifier, NeuralNetRegressor
from sktune.evaluation import HoldoutSearch
from sktune.modules import MLP
from sktune.search import (
    GridSearchCV,
    RandomizedSearchCV,
    StagedSearch,
    default_space,
    loguniform_int,
    powers_of_two,
    zero_or,
)
from sktune.training import DivergenceError

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "DivergenceError",
    "GridSearchCV",
    "HoldoutSearch",
    "NeuralNetClassifier",
    "NeuralNetRegressor",
    "RandomizedSearchCV",
    "StagedSearch",
    "default_space",
    "loguniform_int",
    "powers_of_two",
    "zero_or",
]

del _backend
