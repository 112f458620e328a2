"""Pictures of a search: losses by epoch, and scores by parameter.

A few seconds. With the name of a folder, ``python examples/pictures.py pictures``, it keeps the
pictures there (needs matplotlib).
"""

import sys
import tempfile
from pathlib import Path

from scipy.stats import loguniform
from sklearn.datasets import load_wine
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktune import GridSearchCV, NeuralNetClassifier, RandomizedSearchCV
from sktune.inspection import LossCurveDisplay, SearchDisplay


def draw(folder):
    """Draw five pictures into a folder; return their tables by name."""
    X, y = load_wine(return_X_y=True)
    net = make_pipeline(StandardScaler(), NeuralNetClassifier(max_epochs=15, random_state=0))
    lr = "neuralnetclassifier__lr"
    decay = "neuralnetclassifier__optimizer__weight_decay"
    size = "neuralnetclassifier__batch_size"

    space = {lr: loguniform(1e-5, 1), decay: [0.0, 1e-4, 1e-2]}
    options = {"n_iter": 30, "cv": 3, "scoring": "neg_log_loss", "random_state": 0}
    search = RandomizedSearchCV(net, space, **options).fit(X, y)
    grid = GridSearchCV(net, {lr: [1e-4, 1e-3, 1e-2, 1e-1], size: [8, 32, 128]}, cv=3).fit(X, y)

    displays = {
        "losses": LossCurveDisplay.from_search(search),
        "learning_rate": SearchDisplay.from_search(search, "lr"),
        "progress": SearchDisplay.from_search(search, kind="progress"),
        "parallel": SearchDisplay.from_search(search, kind="parallel"),
        "grid": SearchDisplay.from_search(grid, ("lr", "batch_size")),
    }
    for name, display in displays.items():
        display.figure_.savefig(Path(folder) / f"{name}.png")
    return {name: display.to_frame() for name, display in displays.items()}


def main():
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(exist_ok=True)
        tables = draw(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            tables = draw(folder)

    # each picture has a table that says the same
    regimes = tables["losses"].groupby("candidate")["regime"].first()
    print("Candidates by the regime of their learning rate:")
    print(regimes[regimes != ""].value_counts().to_string())
    print("\nThe best three:")
    print(tables["learning_rate"].nlargest(3, "score").round(4).to_string(index=False))


if __name__ == "__main__":
    main()
