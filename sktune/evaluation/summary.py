"""The text that tells what a HoldoutSearch has sealed, searched and found."""

import numpy as np

from sktune.evaluation.bootstrap import by_metric
from sktune.evaluation.searches import find_best, find_core
from sktune.inspection.advice import diagnose, list_important
from sktune.inspection.records import find_main_metric
from sktune.inspection.records.parameters import (
    KNOWN_PARAMETERS,
    format_value,
    known_parameter,
)


def summarize(tuned):
    """Return the summary of a fitted HoldoutSearch: a str of aligned lines."""
    lines = [
        *_list_sizes(tuned),
        *_list_validation_scores(tuned),
        *_list_parameters(getattr(tuned, "best_params_", {})),
        *_list_test_scores(tuned),
        *_list_findings(tuned),
    ]
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in lines)


def _list_sizes(tuned):
    """Yield label and text of the lines about the rows."""
    core, _ = find_core(tuned.search_)
    n_test = len(tuned.test_indices_)
    n_dev = len(tuned.dev_indices_)
    fits = _describe_fits(core)
    colon = ": " if fits else ""
    yield "Sealed", f"{n_test} rows ({n_test / (n_test + n_dev):.0%})"
    yield "Searched", f"{n_dev} rows{colon}{fits} in {tuned.search_time_:.1f} s"


def _list_validation_scores(tuned):
    """Yield label and text of the lines about the cross-validated scores."""
    core, _ = find_core(tuned.search_)
    baselines = by_metric(tuned.baseline_score_)
    for metric, name in _name_metrics(tuned).items():
        mean = _format_number(find_best(core, "mean", metric))
        std = find_best(core, "std", metric)
        spread = "" if np.isnan(std) else f" ± {_format_number(std)} over the folds"
        yield f"Baseline CV {name}", _format_number(baselines[metric])
        yield f"Best CV {name}", mean + spread


def _list_test_scores(tuned):
    """Yield label and text of the lines about the sealed rows."""
    scores = by_metric(tuned.test_score_)
    intervals = by_metric(tuned.test_interval_)
    optimisms = by_metric(tuned.optimism_)
    names = _name_metrics(tuned)
    looks = _describe_looks(tuned)
    for metric, name in names.items():
        low, high = map(_format_number, intervals[metric])
        interval = "no interval"
        if low != "nan":
            interval = f"{tuned.confidence_level * 100:g}% interval {low} to {high}"
        yield f"Test {name}", f"{_format_number(scores[metric])} ({interval})"
        label = f"Optimism of {metric}" if len(names) > 1 else "Optimism"
        yield label, f"{optimisms[metric]:+.4f} (best CV − test{looks})"
    if hasattr(tuned, "ensemble_test_score_"):
        low, high = map(_format_number, tuned.ensemble_test_interval_)
        interval = f"{tuned.confidence_level * 100:g}% interval {low} to {high}"
        score = _format_number(tuned.ensemble_test_score_)
        yield "Test of the ensemble", f"{score} ({interval})"


def _list_findings(tuned):
    """Yield label and text of what is wrong with the search, if anything is."""
    core, _ = find_core(tuned.search_)
    # without results by candidate there is nothing to read
    if "params" not in getattr(core, "cv_results_", {}):
        return
    label = "Findings"
    for line in list_important(diagnose(tuned, metric=find_main_metric(tuned))):
        yield label, line
        label = ""


def _describe_looks(tuned):
    """Return out of how many scores the best was chosen: more looks, more optimism.

    A search that learns has seen the scores before it chose its next candidates, and is the more
    optimistic for it.
    """
    core, _ = find_core(tuned.search_)
    candidates = _list_candidates(core)
    if candidates is None or len(candidates) < 2:
        return ""
    looks = f"; the best of {len(candidates)} looks"
    n_rounds = getattr(core, "n_rounds_", 1)
    return f"{looks} in {n_rounds} rounds" if n_rounds > 1 else looks


def _name_metrics(tuned):
    """Return the name to show for each metric."""
    core, _ = find_core(tuned.search_)
    scoring = getattr(core, "scoring", None)
    if isinstance(scoring, str):
        return {"score": scoring}
    return {metric: metric for metric in by_metric(tuned.test_score_)}


def _describe_fits(core):
    """Return how many candidates a fitted search has tried, on how many folds, if it tells."""
    n_splits = getattr(core, "n_splits_", None)
    candidates = _list_candidates(core)
    # A search by halving has a number of candidates for each of its rounds.
    if hasattr(core, "n_candidates_"):
        rounds = np.atleast_1d(core.n_candidates_).tolist()
        text = f"{rounds[0]} candidates in {len(rounds)} rounds"
    elif hasattr(core, "brackets_"):
        rounds = [len(candidates)]
        n_candidates = sum(bracket["n_candidates"][0] for bracket in core.brackets_)
        text = f"{n_candidates} candidates in {len(core.brackets_)} brackets"
        text += f", {rounds[0]} evaluations"
    elif candidates is not None:
        rounds = [len(candidates)]
        text = f"{rounds[0]} candidates"
    else:
        return "" if n_splits is None else f"{n_splits} folds"
    if n_splits is None:
        return text
    n_fits = sum(rounds) * n_splits
    n_run = int(np.sum(getattr(core, "cv_results_", {}).get("n_splits_run", n_fits)))
    fits = f"{n_fits} fits" if n_run == n_fits else f"{n_run} of {n_fits} fits, raced,"
    return f"{text} × {n_splits} folds = {fits}"


def _list_candidates(core):
    """Return a list with an entry for each candidate; None if the search does not tell."""
    results = getattr(core, "cv_results_", {})
    for name in ("params", "mean_test_score"):
        if name in results:
            return results[name]
    return getattr(core, "trials_", None)


def _list_parameters(params):
    """Yield a line for each parameter, the known ones first."""
    ranks = [*KNOWN_PARAMETERS, None]
    width = max(map(len, params), default=0)
    label = "Best parameters"
    for name in sorted(params, key=lambda name: ranks.index(known_parameter(name))):
        yield label, f"{name:<{width}} = {format_value(params[name])}{_explain(name)}"
        label = ""


def _explain(name):
    """Return symbol and meaning of a parameter that has a symbol, in parentheses."""
    known = KNOWN_PARAMETERS.get(known_parameter(name))
    if known is None or not known.symbol:
        return ""
    return f" ({known.symbol}, the {known.meaning})"


def _format_number(value):
    """Format a score."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.4g}"
