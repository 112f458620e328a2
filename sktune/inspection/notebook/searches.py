"""The summary of a fitted search."""

from dataclasses import replace

import numpy as np

from sktune.inspection.advice import diagnose
from sktune.inspection.notebook.summary import Picture, Summary, choose_findings
from sktune.inspection.records import find_main_metric, label_of, list_metrics, read_search
from sktune.inspection.report.asked import describe_effort, list_times
from sktune.inspection.report.candidates import list_groups
from sktune.inspection.report.drawing import draw_curves
from sktune.inspection.report.results import (
    find_baseline,
    list_best_parameters,
    read_best,
    read_sealed_test,
)

# What is drawn in a notebook at most.
_MOST_CURVES = 60
_MOST_POINTS = 2_000
# Metrics beyond this many are left to `cv_results_`.
_MOST_METRICS = 6
_KEY = [("best", "best candidate"), ("top", "next best"), ("curve", "others")]


def describe_search(search):
    """Return the Summary of a fitted search with ``cv_results_``, or of what contains one.

    Of several metrics, curves and findings are by the one that the search refits by, or else by
    the first.
    """
    metric = find_main_metric(search)
    record = read_search(search, metric)
    chosen = getattr(record.search, "best_index_", None)
    findings, n_more = choose_findings(diagnose(search, metric=metric))
    return Summary(
        title=type(search).__name__,
        facts=[*_list_scores(search, metric, chosen), *_list_effort(record, search)],
        parameters=[(n, _meaning_of(n), value) for n, value, _ in list_best_parameters(record)],
        picture=_draw(record),
        findings=findings,
        n_more=n_more,
    )


def _meaning_of(name):
    meaning = label_of(name)
    return "" if meaning == name else meaning


def _list_scores(search, main, chosen):
    """Yield the scores of the chosen candidate, the baseline and the sealed test by each metric.

    Without a candidate that the search has chosen by all metrics, it is the best by each.
    """
    metrics = sorted(list_metrics(search), key=lambda metric: metric != main)
    for metric in metrics[:_MOST_METRICS]:
        record = read_search(search, metric)
        label = "Best"
        if metric != main and chosen is not None:
            record = replace(record, best_index=chosen)
            label = "Its"
        best = read_best(record)
        if best is None:
            yield f"{label} {record.scoring}", "no candidate has a score"
            continue
        yield f"{label} {record.scoring}", f"{best} ({best.source})"
        baseline = find_baseline(record, search)
        if baseline is not None and np.isfinite(baseline.mean):
            yield f"Baseline {record.scoring}", f"{baseline} ({baseline.source})"
        sealed = read_sealed_test(record, search)
        if sealed is not None:
            label = f"Test {record.scoring}, {sealed.n_rows} sealed rows"
            yield label, f"{sealed.score}, {sealed.interval}; optimism {sealed.optimism}"
    n_left_out = len(metrics) - _MOST_METRICS
    if n_left_out > 0:
        yield "Other metrics", f"{n_left_out} more are in cv_results_"


def _list_effort(record, search):
    """Yield how much was tried, in what time, and how the fits were trained."""
    yield "Tried", describe_effort(record)
    n_failed = int(record.has_failed.sum())
    if n_failed:
        yield "Failed", f"{n_failed} of {record.n_candidates} candidates have no score"
    n_spared = int(record.is_spared.any(axis=1).sum())
    if n_spared:
        yield (
            "Raced",
            f"{n_spared} of {record.n_candidates} candidates left before their last split",
        )
    if getattr(record.search, "stop_reason_", None):
        yield "Ended", str(record.search.stop_reason_)
    yield from list_times(record, search)
    fusion = list_groups(record)
    if fusion is None:
        return
    groups, alone, stopped = fusion
    for n_groups, n_fits, _, steps, device in groups:
        yield "Trained together", f"{n_fits} fits in {n_groups} groups, {steps} steps on {device}"
    for number, reason in alone:
        yield "One at a time", f"{number} fits: {reason}"
    for number, reason in stopped:
        yield "Ended early", f"{number} fits: {reason}"


def _draw(record):
    """Return the Picture of the losses; None where there are none."""
    if record.curves is None:
        return None
    for name, label in (("valid_loss", "validation loss"), ("train_loss", "training loss")):
        means, _ = record.curves.mean_over_splits(name)
        if np.isfinite(means).any():
            most = {"most_curves": _MOST_CURVES, "most_points": _MOST_POINTS}
            key = _KEY[: min(record.n_candidates, len(_KEY))]
            svg, notes = draw_curves(record, name, label, **most)
            return Picture(svg, f"{label.capitalize()}, mean over the folds", key, notes)
    return None
