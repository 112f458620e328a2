"""All of scikit-learn's estimator checks, without expected failures."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sktune import NeuralNetClassifier, NeuralNetRegressor


@parametrize_with_checks([NeuralNetClassifier(), NeuralNetRegressor()])
def test_estimator(estimator, check):
    check(estimator)
