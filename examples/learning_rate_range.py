"""Find the learning rates worth searching, and search only those.

A few seconds. With the name of a picture, ``python examples/learning_rate_range.py rates.png``,
it draws the test (needs matplotlib).
"""

import sys

from sklearn.datasets import load_diabetes
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktune import LRRangeDisplay, NeuralNetRegressor, RandomizedSearchCV, lr_range_test


def main():
    X, y = load_diabetes(return_X_y=True)
    y = (y - y.mean()) / y.std()
    net = make_pipeline(StandardScaler(), NeuralNetRegressor(max_epochs=20, random_state=0))

    # 64 rates x 3 splits, trained together for some epochs
    result = lr_range_test(net, X, y)
    print(result)

    space = {"neuralnetregressor__lr": result.space}
    search = RandomizedSearchCV(net, space, n_iter=20, cv=3, random_state=0).fit(X, y)
    best = search.best_params_["neuralnetregressor__lr"]
    print(f"\nA search of 20 candidates in that space: R² = {search.best_score_:.3f} at {best:.2g}")

    if len(sys.argv) > 1:
        LRRangeDisplay.from_result(result).figure_.savefig(sys.argv[1])


if __name__ == "__main__":
    main()
