"""PyTorch networks as scikit-learn estimators, tuned fast and honestly."""

from sktune.estimators import NeuralNetClassifier, NeuralNetRegressor
from sktune.modules import MLP
from sktune.training import DivergenceError

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "DivergenceError",
    "NeuralNetClassifier",
    "NeuralNetRegressor",
]
