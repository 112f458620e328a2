"""Does it matter how a network is written? The same layers in several styles, in one fused search.

    python benchmarks/styles.py
    python benchmarks/styles.py --peers       # also scikit-learn's searches over other nets

Each search trains 12 learning rates x 3 folds x 10 epochs on the digits, without refit. The styles:

- ``MLP``: our module;
- ``class``: a class of one's own with layers as attributes, ``F.relu`` and ``nn.Dropout``;
- ``softmax``: the style of skorch's documentation, with a softmax at the end under ``NLLLoss``;
- ``sequential in a class``; ``batch norm``; ``residual``; ``embeddings``, of four columns beside
  numbers; ``functional dropout``: classes of one's own;
- ``label smoothing``, ``RMSprop``: the class with another criterion or optimizer;
- ``clipping``, ``callbacks``: the class with skorch's ``GradientNormClipping``, and with an
  ``EarlyStopping`` beside it, which looks at each epoch and stops none of these fits;
- ``convolutions``: a small convolution net on the digits as images, of other layers than the
  ``MLP``;
- ``MLP, batch norm`` and ``MLP, two layers``: our module with the layers that ``batch norm`` and
  ``residual`` have.

The styles take turns, round by round; shown are medians over the rounds, and the ratio to the
``MLP`` of the same layers.
``steps`` tells how they were taken. With ``--peers``, scikit-learn's GridSearchCV over skorch's
net (no other callbacks, no printing, torch's fused AdamW) runs at ``n_jobs`` of 1 and 2, once each,
and the ratio is that of the better one to ours. So does its GridSearchCV over ``MLPClassifier``, a
layer of as many units without dropout, which stands beside the styles that have no more than that.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import torch
from harness import RESULTS, save
from sklearn import model_selection
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from skorch.callbacks import EarlyStopping, GradientNormClipping
from skorch.utils import noop
from torch import nn
from torch.nn import functional as F

import sktune

HIDDEN = 128
# The columns of the digits that are looked up in embeddings: pixels near the middle.
KEYS = [27, 28, 35, 36]
N_KEYS = len(KEYS)
RATES = np.geomspace(1e-4, 1e-2, 12).tolist()
N_EPOCHS = 10


class OwnClass(nn.Module):
    def __init__(self, n_features=64, n_outputs=10):
        super().__init__()
        self.dense = nn.Linear(n_features, HIDDEN)
        self.dropout = nn.Dropout(0.2)
        self.output = nn.Linear(HIDDEN, n_outputs)

    def forward(self, X):
        return self.output(self.dropout(F.relu(self.dense(X))))


class Softmax(OwnClass):
    def forward(self, X):
        return F.softmax(super().forward(X), dim=-1)


class SequentialInClass(nn.Module):
    def __init__(self, n_features=64, n_outputs=10):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, HIDDEN), nn.ReLU(), nn.Dropout(0.2), nn.Linear(HIDDEN, n_outputs)
        )

    def forward(self, X):
        return self.layers(X)


class BatchNorm(OwnClass):
    def __init__(self, n_features=64, n_outputs=10):
        super().__init__(n_features, n_outputs)
        self.norm = nn.BatchNorm1d(HIDDEN)

    def forward(self, X):
        return self.output(self.dropout(F.relu(self.norm(self.dense(X)))))


class FunctionalDropout(OwnClass):
    def forward(self, X):
        return self.output(F.dropout(F.relu(self.dense(X)), 0.2, self.training))


class Embedded(OwnClass):
    """The first columns are whole numbers, each with an embedding of its own."""

    def __init__(self, n_features=64, n_outputs=10):
        super().__init__(n_features - N_KEYS + 4 * N_KEYS, n_outputs)
        self.embeddings = nn.ModuleList(nn.Embedding(17, 4) for _ in range(N_KEYS))

    def forward(self, X):
        parts = [layer(X[:, n].long()) for n, layer in enumerate(self.embeddings)]
        return super().forward(torch.cat([*parts, X[:, N_KEYS:]], dim=1))


class Residual(OwnClass):
    def __init__(self, n_features=64, n_outputs=10):
        super().__init__(n_features, n_outputs)
        self.inner = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, X):
        X = F.relu(self.dense(X))
        return self.output(self.dropout(X + F.relu(self.inner(X))))


class Convolutions(nn.Module):
    def __init__(self, n_outputs=10):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, padding=1)
        # two poolings of images of 8 x 8
        self.output = nn.Linear(16 * 2 * 2, n_outputs)

    def forward(self, X):
        X = F.max_pool2d(F.relu(self.first(X)), 2)
        X = F.max_pool2d(F.relu(self.second(X)), 2)
        return self.output(X.flatten(1))


STYLES = {
    "MLP": {"module__hidden": (HIDDEN,), "module__dropout": 0.2},
    "class": {"module": OwnClass},
    "softmax": {"module": Softmax, "criterion": nn.NLLLoss},
    "sequential in a class": {"module": SequentialInClass},
    "label smoothing": {"module": OwnClass, "criterion__label_smoothing": 0.1},
    "RMSprop": {"module": OwnClass, "optimizer": torch.optim.RMSprop},
    "clipping": {"module": OwnClass, "callbacks": [GradientNormClipping(1.0)]},
    "callbacks": {
        "module": OwnClass,
        "callbacks": [
            GradientNormClipping(1.0),
            EarlyStopping("train_loss", patience=N_EPOCHS, sink=noop),
        ],
    },
    "MLP, batch norm": {
        "module__hidden": (HIDDEN,),
        "module__dropout": 0.2,
        "module__batch_norm": True,
    },
    "batch norm": {"module": BatchNorm},
    "MLP, two layers": {"module__hidden": (HIDDEN, HIDDEN), "module__dropout": 0.2},
    "residual": {"module": Residual},
    "embeddings": {"module": Embedded},
    "functional dropout": {"module": FunctionalDropout},
    "convolutions": {"module": Convolutions},
}
# Those of which scikit-learn's MLPClassifier has all but the dropout.
CLASSICAL = ("MLP", "class", "softmax", "sequential in a class", "functional dropout")
# The MLP with the layers of a style.
REFERENCES = {"batch norm": "MLP, batch norm", "residual": "MLP, two layers"}


def load():
    X, y = load_digits(return_X_y=True)
    others = np.delete(X, KEYS, axis=1) / 16
    tables = {"numbers": X / 16, "keys": np.hstack([X[:, KEYS], others])}
    tables["images"] = X.reshape(-1, 1, 8, 8) / 16
    return {name: table.astype(np.float32) for name, table in tables.items()}, y


def find_table(style, tables):
    names = {"embeddings": "keys", "convolutions": "images"}
    return tables[names.get(style, "numbers")]


def search_fused(style):
    net = sktune.NeuralNetClassifier(max_epochs=N_EPOCHS, random_state=0, **STYLES[style])
    return sktune.GridSearchCV(net, {"lr": RATES}, cv=3, refit=False)


def search_skorch(style, n_jobs):
    from skorch import NeuralNetClassifier

    options = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.AdamW,
        "callbacks": "disable",
        **STYLES[style],
    }
    if options["optimizer"] is torch.optim.AdamW:
        options["optimizer__fused"] = True
    net = NeuralNetClassifier(
        max_epochs=N_EPOCHS,
        batch_size=64,
        train_split=None,
        verbose=0,
        **options,
    )
    search = model_selection.GridSearchCV
    return search(net, {"lr": RATES}, cv=3, refit=False, n_jobs=n_jobs)


def search_classical(n_jobs):
    net = MLPClassifier(
        (HIDDEN,), batch_size=64, max_iter=N_EPOCHS, n_iter_no_change=N_EPOCHS, random_state=0
    )
    search = model_selection.GridSearchCV
    return search(net, {"learning_rate_init": RATES}, cv=3, refit=False, n_jobs=n_jobs)


def time_peers(styles, tables, y):
    """Return the seconds of the peers at their best, by the columns and styles that they are in."""
    found = {"skorch": {}, "classical": {}}
    # its epochs are as many as asked for, of which it warns
    warnings.simplefilter("ignore", ConvergenceWarning)
    seconds = min(time_fit(search_classical(n), tables["numbers"], y) for n in (1, 2))
    found["classical"] = {style: seconds for style in styles if style in CLASSICAL}
    for style in styles:
        # skorch has no MLP of ours
        if not style.startswith("MLP"):
            X = find_table(style, tables)
            seconds = min(time_fit(search_skorch(style, n), X, y) for n in (1, 2))
            found["skorch"][style] = seconds
    return found


def time_fit(search, X, y):
    start = time.perf_counter()
    search.fit(X, y)
    return time.perf_counter() - start


def measure(styles, n_rounds, tables, y):
    """Return the seconds of each style in each round, and how its steps were taken."""
    seconds = {style: [] for style in styles}
    steps = {}
    for style in styles:
        # code is compiled, and modules are read, before the clock runs
        warm = search_fused(style).fit(find_table(style, tables), y)
        steps[style] = ", ".join(sorted({group["steps"] for group in warm.fusion_.groups}))
    for _ in range(n_rounds):
        for style in styles:
            X = find_table(style, tables)
            seconds[style].append(time_fit(search_fused(style), X, y))
    return seconds, steps


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--styles", nargs="+", choices=list(STYLES), default=list(STYLES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action="store_true", help="also run scikit-learn's searches")
    parser.add_argument("--json", type=Path, default=RESULTS / "styles.json")
    args = parser.parse_args(arguments)
    tables, y = load()
    references = [REFERENCES.get(style, "MLP") for style in args.styles]
    styles = list(dict.fromkeys(["MLP", *references, *args.styles]))
    seconds, steps = measure(styles, args.rounds, tables, y)
    ours = {style: median(times) for style, times in seconds.items()}
    peers = time_peers(styles, tables, y) if args.peers else {}
    rows = []
    names = "".join(f"{name:>10}{'ratio':>8}" for name in peers)
    print(f"{'':<24}{'seconds':>9}{'/ MLP':>8}  {'steps':<10}{names}")
    for style in styles:
        reference = ours[REFERENCES.get(style, "MLP")]
        row = {"style": style, "seconds": ours[style], "to_mlp": ours[style] / reference}
        row["steps"] = steps[style]
        line = f"{style:<24}{row['seconds']:>9.3f}{row['to_mlp']:>8.2f}  {row['steps']:<10}"
        for name, found in peers.items():
            if style in found:
                row[name] = found[style]
                row[f"{name}_ratio"] = found[style] / row["seconds"]
                line += f"{found[style]:>10.2f}{found[style] / row['seconds']:>8.1f}"
            else:
                line += " " * 18
        print(line.rstrip(), flush=True)
        rows.append(row)
    save({"rows": rows}, args.json)


if __name__ == "__main__":
    main()
