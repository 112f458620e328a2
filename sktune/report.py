"""What a sealed search found, as aligned text and as an HTML table."""

from html import escape

import numpy as np

from sktune.inner_search import core_search, cv_score

__all__ = ["summary_html", "summary_text"]

# What the parameters are called by those who tune them, most important first.
KNOWN_PARAMETERS = {
    "lr": "α, the learning rate",
    "optimizer__weight_decay": "λ, the regularization strength",
    "batch_size": "",
    "module__dropout": "",
}


def summary_text(tuned):
    """Describe a fitted :class:`~sktune.HoldoutSearch` in aligned lines."""
    rows = list(_rows(tuned))
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def summary_html(tuned):
    """Describe a fitted :class:`~sktune.HoldoutSearch` as a table for notebooks."""
    cells = "".join(
        f'<tr><th style="text-align: left">{escape(label)}</th><td style="text-align: left">{escape(value)}</td></tr>'
        for label, value in _rows(tuned)
    )
    return f'<table class="sktune-summary"><tbody>{cells}</tbody></table>'


def _rows(tuned):
    """Yield the label and the text of each line."""
    core = core_search(tuned.search_)
    n_test, n_dev = len(tuned.test_indices_), len(tuned.dev_indices_)
    yield "Sealed", f"{n_test} rows ({n_test / (n_test + n_dev):.0%})"
    yield "Searched", f"{n_dev} rows: {_describe_fits(core)} in {_seconds(tuned.search_time_)}"
    several = isinstance(tuned.test_score_, dict)
    for metric in tuned.test_score_ if several else ("score",):
        mean, std = cv_score(core, tuned.best_index_, metric)
        baseline = tuned.baseline_score_[metric] if several else tuned.baseline_score_
        name = metric if several else _metric_name(core.scoring)
        yield f"Baseline CV {name}", _number(baseline)
        yield f"Best CV {name}", f"{_number(mean)} ± {_number(std)} over the folds"
    yield from _parameter_rows(tuned.best_params_)
    for metric in tuned.test_score_ if several else ("score",):
        score, interval, optimism = (
            value[metric] if several else value for value in (tuned.test_score_, tuned.test_interval_, tuned.optimism_)
        )
        name = metric if several else _metric_name(core.scoring)
        yield f"Test {name}", _number(score) + _describe_interval(interval, tuned.confidence_level)
        yield f"Optimism{f' of {metric}' if several else ''}", f"{optimism:+.4f} (best CV − test)"


def _describe_fits(core):
    n_rows = len(core.cv_results_["params"])
    # A halving search has a row for each round that a candidate took part in.
    n_candidates = core.n_candidates_[0] if hasattr(core, "n_candidates_") else n_rows
    rounds = f" in {len(core.n_candidates_)} rounds" if hasattr(core, "n_candidates_") else ""
    n_fits = n_rows * core.n_splits_
    return f"{n_candidates} candidates{rounds} × {core.n_splits_} folds = {n_fits} fits"


def _describe_interval(interval, confidence_level):
    if np.isnan(interval[0]):
        return " (no interval)"
    low, high = map(_number, interval)
    return f" ({confidence_level * 100:g}% interval {low} to {high})"


def _parameter_rows(params):
    """Yield a row for each parameter, those known by a letter first."""
    names = sorted(params, key=_rank)  # a stable sort
    width = max((len(name) for name in names), default=0)
    for i, name in enumerate(names):
        meaning = KNOWN_PARAMETERS.get(_known_as(name), "")
        value = f"{name:<{width}} = {_value(params[name])}" + (f" ({meaning})" if meaning else "")
        yield "" if i else "Best parameters", value


def _known_as(name):
    return next((k for k in KNOWN_PARAMETERS if f"__{name}".endswith(f"__{k}")), None)


def _rank(name):
    known = list(KNOWN_PARAMETERS)
    return known.index(_known_as(name)) if _known_as(name) else len(known)


def _metric_name(scoring):
    return scoring if isinstance(scoring, str) else "score"


def _value(value):
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else " ".join(str(value).split())


def _number(value):
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"


def _seconds(seconds):
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
