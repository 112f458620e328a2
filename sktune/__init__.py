"""PyTorch networks as scikit-learn estimators, tuned fast and honestly."""

from sktune.bridge import backend as _backend  # registers "sktune" with joblib
from sktune.bridge.alone import recording as _recording  # lets fits find a cache
from sktune.estimators import NeuralNetClassifier, NeuralNetRegressor
from sktune.evaluation import HoldoutSearch
from sktune.inspection import LRRangeDisplay, find_max_batch_size, lr_range_test
from sktune.modules import MLP
from sktune.runtime.versions import InconsistentVersionWarning
from sktune.search import (
    BayesSearchCV,
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    HyperbandSearchCV,
    OneStandardError,
    RandomizedSearchCV,
    StagedSearch,
    default_space,
    loguniform_int,
    powers_of_two,
    zero_or,
)
from sktune.training import DivergenceError, ImageAugmentation, TableAugmentation

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "BayesSearchCV",
    "DivergenceError",
    "GridSearchCV",
    "HalvingGridSearchCV",
    "HalvingRandomSearchCV",
    "HoldoutSearch",
    "HyperbandSearchCV",
    "ImageAugmentation",
    "InconsistentVersionWarning",
    "LRRangeDisplay",
    "NeuralNetClassifier",
    "NeuralNetRegressor",
    "OneStandardError",
    "RandomizedSearchCV",
    "StagedSearch",
    "TableAugmentation",
    "default_space",
    "find_max_batch_size",
    "loguniform_int",
    "lr_range_test",
    "powers_of_two",
    "zero_or",
]

del _backend, _recording
