"""The range of learning rates
===========================

Find the learning rates worth searching, and search only those.

A few seconds. With the name of a picture, ``python examples/learning_rate_range.py rates.png``,
the test is drawn there, too. The script needs matplotlib.
"""

import sys

from sklearn.datasets import load_diabetes
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktune import LRRangeDisplay, NeuralNetRegressor, RandomizedSearchCV, lr_range_test

X, y = load_diabetes(return_X_y=True)
y = (y - y.mean()) / y.std()
net = make_pipeline(StandardScaler(), NeuralNetRegressor(max_epochs=20, random_state=0))

# %%
# 64 rates on 3 splits are trained together for some epochs.

result = lr_range_test(net, X, y)
print(result)

# %%
# The losses over the rates: the net learns in the good region, and diverges at the red line.

display = LRRangeDisplay.from_result(result)
if len(sys.argv) > 1:
    display.figure_.savefig(sys.argv[1])

# %%
# A search in the space that the test gives.

space = {"neuralnetregressor__lr": result.space}
search = RandomizedSearchCV(net, space, n_iter=20, cv=3, random_state=0).fit(X, y)
best = search.best_params_["neuralnetregressor__lr"]
print(f"\nA search of 20 candidates in that space: R² = {search.best_score_:.3f} at {best:.2g}")
