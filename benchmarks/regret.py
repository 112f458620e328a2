"""How far from the best a search ends, by the way in which it chooses its candidates.

    python benchmarks/regret.py                    # some minutes
    python benchmarks/regret.py --seeds 5 --quick
    python benchmarks/regret.py --train            # trains the candidates of the surrogate anew

A thousand searches cannot be trained for real: they are played on a surrogate. It is made of 1,200
candidates drawn at random that were trained for real (digits, one hidden layer, 10 epochs of Adam
with weight decay, 5 folds) by ``RandomizedSearchCV`` of sktune, which `results/regret_data.json`
holds. A forest of extremely randomized trees on the transformed parameters (logarithms where the
distribution is logarithmic) predicts the mean score of a candidate: that is its true score. What is
measured of it has noise: the folds of a real candidate of about the same score, less their mean.

The score is ``neg_log_loss`` from -1 upwards: a worse one counts as -1, since what a net says when
it has learned nothing is not the question. The regret of a search is the best true score that there
is, of many candidates, minus the true score of the candidate that the search would refit: the one
with the best measured mean. A search has 90 candidates:

- ``random``: ``ParameterSampler``
- ``tpe``, ``gp``: our samplers, asked for batches and told as ``BayesSearchCV`` does, three rounds
  of 30 candidates as by its defaults
- ``optuna tpe``: Optuna's TPESampler, one candidate after the other
- ``optuna gp``: Optuna's GPSampler, one candidate after the other, if ``--gp-seeds`` is not 0: it
  takes 0.4 to 0.9 s for each candidate

The second table plays the rule ``stop="auto"`` on the same surrogate, on longer searches. For each
`tol` it tells how many candidates are evaluated, and how much more the regret is than that of the
search that was not stopped. The standard error that `tol` is a part of is told before it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from harness import RESULTS, save
from scipy.stats import loguniform, uniform
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import ParameterSampler, StratifiedKFold, cross_val_predict

from sktune import NeuralNetClassifier, RandomizedSearchCV
from sktune.search.rounds.stopping import StoppingRule, corrected_standard_error
from sktune.search.samplers.batches import BatchSampler
from sktune.search.samplers.distributions import Space

DATA = RESULTS / "regret_data.json"
SPACE = {
    "lr": loguniform(1e-4, 1e0),
    "optimizer__weight_decay": loguniform(1e-5, 1e1),
    "module__dropout": uniform(0, 0.7),
    "batch_size": [16, 32, 64, 128, 256],
    "module__hidden": [(16,), (32,), (64,)],
}
N_TRAINED = 1200
# Of the digits.
N_ROWS = 1797
N_SPLITS = 5
N_ITER = 90
BATCH_SIZE = 30
# The rule for stopping is played on searches of more rounds.
N_LONG = 240
TOLS = (0.1, 0.25, 0.5, 1.0)
WORST = -1.0


def train_candidates(n_candidates):
    """Train candidates for real; return a row for each: its parameters and the scores of folds."""
    X, y = load_digits(return_X_y=True)
    net = NeuralNetClassifier(max_epochs=10, random_state=0)
    search = RandomizedSearchCV(
        net,
        SPACE,
        n_iter=n_candidates,
        scoring="neg_log_loss",
        cv=StratifiedKFold(N_SPLITS, shuffle=True, random_state=0),
        refit=False,
        random_state=0,
    )
    results = search.fit((X / 16).astype(np.float32), y).cv_results_
    rows = []
    for number, params in enumerate(results["params"]):
        values = [params[name] for name in SPACE]
        scores = [results[f"split{n}_test_score"][number] for n in range(N_SPLITS)]
        # five digits of a parameter and of a score are more than they are worth
        shown = [float(f"{v:.5g}") if isinstance(v, float) else v for v in [*values, *scores]]
        rows.append([None if isinstance(v, float) and np.isnan(v) else v for v in shown])
    return rows


def read_candidates(path):
    """Return the parameters and the scores of the folds of the trained candidates."""
    n_names = len(SPACE)
    candidates = []
    scores = []
    for row in json.loads(path.read_text())["rows"]:
        params = dict(zip(SPACE, row[:n_names], strict=True))
        params["module__hidden"] = tuple(params["module__hidden"])
        candidates.append(params)
        scores.append(row[n_names:])
    # a fit that has failed is as bad as one that has learned nothing
    return candidates, np.nan_to_num(np.array(scores, dtype=float), nan=WORST)


class Surrogate:
    """Tells the true and the measured scores of any candidate.

    Parameters
    ----------
    candidates : list of dict
    scores : ndarray of shape (n_candidates, n_splits)
    """

    def __init__(self, candidates, scores):
        self.space = Space(SPACE)
        scores = np.maximum(scores, WORST)
        means = scores.mean(axis=1)
        self.forest = ExtraTreesRegressor(200, min_samples_leaf=2, random_state=0)
        features = self.features(candidates)
        predicted = cross_val_predict(self.forest, features, means, cv=5)
        # of the better half, for the others are easy to tell apart
        better = means > np.median(means)
        self.r2 = 1 - np.mean((predicted - means)[better] ** 2) / np.var(means[better])
        self.forest.fit(features, means)
        order = np.argsort(means)
        self.means = means[order]
        self.residuals = (scores - means[:, np.newaxis])[order]
        rng = np.random.RandomState(0)
        sampled = ParameterSampler(SPACE, 20_000, random_state=rng)
        self.best = max(self.true(list(sampled)).max(), self.forest.predict(features).max())

    def features(self, candidates):
        """Return the transformed parameters, an array of shape (n_candidates, n_features)."""
        return self.space.features([self.space.find_point(params) for params in candidates])

    def true(self, candidates):
        """Return the true scores of candidates."""
        return self.forest.predict(self.features(candidates))

    def measure(self, candidates, rng):
        """Return the true scores, and those of the folds: shape (n_candidates, n_splits)."""
        true = self.true(candidates)
        near = np.searchsorted(self.means, true) + rng.randint(-20, 21, len(true))
        residuals = self.residuals[np.clip(near, 0, len(self.means) - 1)]
        return true, true[:, np.newaxis] + residuals


def play_random(surrogate, n_iter, seed, rules=()):
    """Return the true and the measured scores of a random search."""
    rng = np.random.RandomState(seed)
    candidates = list(ParameterSampler(SPACE, n_iter, random_state=rng))
    true, measured = surrogate.measure(candidates, rng)
    if rules:
        points = [surrogate.space.find_point(params) for params in candidates]
        for n in range(BATCH_SIZE, n_iter + 1, BATCH_SIZE):
            for rule in rules:
                rule(points[:n], measured[:n])
    return true, measured


def play_batches(surrogate, n_iter, seed, sampler, rules=()):
    """Return the true and the measured scores of a search that asks a sampler of ours.

    `rules` are functions that are called with what a rule for stopping knows after each round.
    """
    rng = np.random.RandomState(seed)
    space = Space(SPACE)
    batches = BatchSampler(sampler, space, seed)
    points = []
    true = np.zeros(0)
    measured = np.zeros((0, N_SPLITS))
    while len(points) < n_iter:
        asked = batches.ask(min(BATCH_SIZE, n_iter - len(points)))
        found, folds = surrogate.measure([space.params_at(point) for point in asked], rng)
        batches.tell(asked, folds.mean(axis=1))
        points += asked
        true = np.append(true, found)
        measured = np.append(measured, folds, axis=0)
        for rule in rules:
            rule(points, measured)
    return true, measured


def play_optuna(surrogate, n_iter, seed, make_sampler):
    """Return the true and the measured scores of a search that asks Optuna for each candidate."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rng = np.random.RandomState(seed)
    study = optuna.create_study(direction="maximize", sampler=make_sampler(optuna, seed))
    true = []
    measured = []
    for _ in range(n_iter):
        trial = study.ask()
        params = {
            "lr": trial.suggest_float("lr", 1e-4, 1e0, log=True),
            "optimizer__weight_decay": trial.suggest_float("decay", 1e-5, 1e1, log=True),
            "module__dropout": trial.suggest_float("dropout", 0, 0.7),
            "batch_size": trial.suggest_categorical("batch_size", SPACE["batch_size"]),
            "module__hidden": (trial.suggest_categorical("width", [16, 32, 64]),),
        }
        found, folds = surrogate.measure([params], rng)
        study.tell(trial, folds.mean())
        true.append(found[0])
        measured.append(folds[0])
    return np.array(true), np.array(measured)


WAYS = {
    "random": play_random,
    "tpe": lambda *search: play_batches(*search, sampler="tpe"),
    "gp": lambda *search: play_batches(*search, sampler="gp"),
    "optuna tpe": lambda *search: play_optuna(
        *search, lambda optuna, seed: optuna.samplers.TPESampler(seed=seed)
    ),
    "optuna gp": lambda *search: play_optuna(
        *search, lambda optuna, seed: optuna.samplers.GPSampler(seed=seed)
    ),
}


def find_regret(surrogate, true, measured):
    """Return the regret of a search."""
    return surrogate.best - true[measured.mean(axis=1).argmax()]


def compare_ways(surrogate, n_iter, n_seeds, n_gp_seeds):
    """Yield a row of figures for each way to choose candidates."""
    for way, play in WAYS.items():
        n_own = n_gp_seeds if way == "optuna gp" else n_seeds
        if n_own == 0:
            continue
        regrets = [find_regret(surrogate, *play(surrogate, n_iter, seed)) for seed in range(n_own)]
        row = {"way": way, "seeds": n_own, **summarize(regrets), "regrets": regrets}
        print_row([way, n_own, row["mean"], row["median"], row["standard_error"]])
        yield row


def summarize(values):
    """Return mean, median and standard error of the mean."""
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {
        "mean": float(np.mean(values)),
        "median": float(np.median(values)),
        "standard_error": error,
    }


def find_error(surrogate):
    """Return the median standard error of the best tenth of the trained candidates, corrected."""
    best = surrogate.residuals[-len(surrogate.residuals) // 10 :]
    rows = (N_ROWS * (1 - 1 / N_SPLITS), N_ROWS / N_SPLITS)
    return float(np.median([corrected_standard_error(folds, *rows) for folds in best]))


class Checks:
    """Notes at each round by which `tol` the rule would stop the search.

    Parameters
    ----------
    n_iter : int
    seed : int
    is_adaptive : bool
    """

    def __init__(self, n_iter, seed, is_adaptive):
        self.n_iter = n_iter
        # the candidates at which each `tol` has stopped the search
        self.stops = {}
        self.rules = {tol: StoppingRule(Space(SPACE), tol, 1, is_adaptive, seed) for tol in TOLS}

    def __call__(self, points, measured):
        """Check each rule that has not stopped the search yet."""
        n_next = min(BATCH_SIZE, self.n_iter - len(points))
        rows = (N_ROWS * (1 - 1 / N_SPLITS), N_ROWS / N_SPLITS)
        # what stops by a smaller `tol` stops by a larger one, too
        for tol in sorted(TOLS, reverse=True):
            if tol in self.stops or n_next == 0:
                continue
            if not self.rules[tol].check(points, measured, *rows, n_next):
                break
            self.stops[tol] = len(points)


def play_stops(surrogate, n_iter, n_seeds, sampler):
    """Return a row of figures for each `tol`."""
    found = {tol: [] for tol in TOLS}
    for seed in range(n_seeds):
        checks = Checks(n_iter, seed, is_adaptive=sampler != "random")
        if sampler == "random":
            true, measured = play_random(surrogate, n_iter, seed, [checks])
        else:
            true, measured = play_batches(surrogate, n_iter, seed, sampler, [checks])
        whole = find_regret(surrogate, true, measured)
        for tol in TOLS:
            n = checks.stops.get(tol, n_iter)
            found[tol].append((n, find_regret(surrogate, true[:n], measured[:n]) - whole))
    rows = []
    for tol, pairs in found.items():
        n_evaluated, lost = np.array(pairs).T
        row = {
            "sampler": sampler,
            "tol": tol,
            "candidates": float(n_evaluated.mean()),
            "saved": float(1 - n_evaluated.mean() / n_iter),
            "lost": summarize(lost),
        }
        print_row(
            [sampler, tol, row["candidates"], row["lost"]["mean"], row["lost"]["standard_error"]]
        )
        rows.append(row)
    return rows


def print_row(cells):
    """Print a row of a table."""
    shown = [f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in cells]
    print("| " + " | ".join(shown) + " |", flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train the candidates anew")
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--gp-seeds", type=int, default=0, help="searches of Optuna's GPSampler")
    parser.add_argument("--stop-seeds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", type=Path, default=RESULTS / "regret.json")
    options = parser.parse_args(arguments)
    if options.train:
        rows = train_candidates(40 if options.quick else N_TRAINED)
        save({"names": list(SPACE), "rows": rows}, options.data)
    surrogate = Surrogate(*read_candidates(options.data))
    print(f"surrogate: R² {surrogate.r2:.2f} on the better half, best score {surrogate.best:.4f}")
    n_iter, n_long = (20, 30) if options.quick else (N_ITER, N_LONG)
    print_row(["way", "seeds", "mean regret", "median", "standard error"])
    print_row(5 * ["---"])
    ways = list(compare_ways(surrogate, n_iter, options.seeds, options.gp_seeds))
    error = find_error(surrogate)
    print(f"the standard error of a good candidate's score is {error:.4f}")
    print_row(["sampler", "tol", "candidates", "lost", "standard error"])
    print_row(5 * ["---"])
    stops = []
    for sampler in ("random", "tpe", "gp"):
        stops += play_stops(surrogate, n_long, options.stop_seeds, sampler)
    record = {
        "standard_error": error,
        "r2": surrogate.r2,
        "best": surrogate.best,
        "ways": ways,
        "stops": stops,
    }
    save(record, options.json)


if __name__ == "__main__":
    main()
