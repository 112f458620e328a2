"""Networks that are scikit-learn estimators."""

from sktune.estimators.classifier import NeuralNetClassifier
from sktune.estimators.regressor import NeuralNetRegressor

__all__ = ["NeuralNetClassifier", "NeuralNetRegressor"]
