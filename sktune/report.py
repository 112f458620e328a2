"""What a sealed search found, as aligned text."""

import numpy as np

from sktune.evaluation import by_metric, find_core

# What the parameters are called by those who tune them, most important first.
KNOWN_PARAMETERS = {
    "lr": " (α, the learning rate)",
    "optimizer__weight_decay": " (λ, the regularization strength)",
    "batch_size": "",
    "module__dropout": "",
}


def summary_text(tuned):
    """Describe a fitted :class:`~sktune.HoldoutSearch` in aligned lines."""
    rows = list(_rows(tuned))
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def _rows(tuned):
    """Yield the label and the text of each line."""
    core, _ = find_core(tuned.search_)
    n_test, n_dev = len(tuned.test_indices_), len(tuned.dev_indices_)
    scores, intervals = by_metric(tuned.test_score_), by_metric(tuned.test_interval_)
    optimisms, baselines = by_metric(tuned.optimism_), by_metric(tuned.baseline_score_)
    names = {"score": core.scoring} if isinstance(core.scoring, str) else {metric: metric for metric in scores}
    rounds = getattr(core, "n_candidates_", [len(core.cv_results_["params"])])
    candidates = f"{rounds[0]} candidates" + (f" in {len(rounds)} rounds" if hasattr(core, "n_candidates_") else "")
    fits = f"{candidates} × {core.n_splits_} folds = {sum(rounds) * core.n_splits_} fits"
    yield "Sealed", f"{n_test} rows ({n_test / (n_test + n_dev):.0%})"
    yield "Searched", f"{n_dev} rows: {fits} in {tuned.search_time_:.1f} s"
    for metric, name in names.items():
        mean, std = (core.cv_results_[f"{of}_test_{metric}"][tuned.best_index_] for of in ("mean", "std"))
        yield f"Baseline CV {name}", _number(baselines[metric])
        yield f"Best CV {name}", f"{_number(mean)} ± {_number(std)} over the folds"
    yield from _parameter_rows(tuned.best_params_)
    for metric, name in names.items():
        low, high = map(_number, intervals[metric])
        around = f"{tuned.confidence_level * 100:g}% interval {low} to {high}" if low != "nan" else "no interval"
        yield f"Test {name}", f"{_number(scores[metric])} ({around})"
        yield f"Optimism of {metric}" if len(names) > 1 else "Optimism", f"{optimisms[metric]:+.4f} (best CV − test)"


def _parameter_rows(params):
    """Yield a row for each parameter, those known by a letter first."""
    known = {name: next((k for k in KNOWN_PARAMETERS if f"__{name}".endswith(f"__{k}")), None) for name in params}
    ranks = [*KNOWN_PARAMETERS, None]
    width = max(map(len, params), default=0)
    for i, name in enumerate(sorted(params, key=lambda name: ranks.index(known[name]))):
        value = params[name]
        value = f"{value:.4g}" if isinstance(value, (float, np.floating)) else " ".join(str(value).split())
        yield "" if i else "Best parameters", f"{name:<{width}} = {value}{KNOWN_PARAMETERS.get(known[name], '')}"


def _number(value):
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"
