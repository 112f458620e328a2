"""What a search was asked: the estimator, the space, the splits, the score, the effort."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sktune.inspection.records import label_of
from sktune.inspection.report.code_writer import CodeWriter
from sktune.inspection.report.recipe import SPACES

# Longer texts of settings are cut.
_MOST_CHARACTERS = 1500


@dataclass(frozen=True)
class Asked:
    """What the first section of a report says.

    Parameters
    ----------
    facts : list of (str, str)
        Label and text.
    space : list of (str, str, str)
        Of each parameter its name, how people call it, and its values.
    """

    facts: list
    space: list


def describe_asked(record, search):
    """Return what was asked.

    Parameters
    ----------
    record : SearchRecord
    search : estimator object or dict
        As it was given to the report.

    Returns
    -------
    asked : Asked
    """
    core = record.search
    facts = []
    if core is not None:
        facts.append(("Search", type(core).__name__))
        facts.append(("Estimator", describe(record.estimator)))
        facts.append(("Splits", _describe_splits(core, record.n_splits)))
    facts.append(("Score", f"{record.scoring}; greater is better"))
    facts.append(("Effort", describe_effort(record)))
    facts += list_times(record, search)
    return Asked(facts, _list_space(core))


def describe(value):
    """Return a value as code, cut if it is very long."""
    writer = CodeWriter()
    code = writer.write(value)
    if writer.unknown:
        # what has no code is shown as it shows itself
        code = repr(value)
    return code if len(code) <= _MOST_CHARACTERS else code[:_MOST_CHARACTERS] + " …"


def describe_effort(record):
    """Return how many candidates were tried, and in how many fits.

    Examples
    --------
    >>> from sktune.inspection.records import read_search
    >>> from sktune.inspection.report.asked import describe_effort
    >>> results = {"params": [{"a": 1}], "split0_test_score": [1], "split1_test_score": [0.5]}
    >>> describe_effort(read_search(results | {"mean_test_score": [0.75]}))
    '1 candidate × 2 folds = 2 fits'
    """
    n_evaluations, n_splits = record.n_candidates, record.n_splits
    # a candidate that goes on to the next rung is evaluated again
    n_candidates = n_evaluations if record.rungs is None else len(np.unique(record.tracks))
    candidates = f"{n_candidates} candidate{'s' if n_candidates != 1 else ''}"
    if n_candidates < n_evaluations:
        candidates += f" in {n_evaluations} evaluations"
    if n_splits == 1:
        return f"{candidates}, one score each"
    n_fits = n_evaluations * n_splits
    n_spared = int(record.is_spared.sum())
    fits = f"{n_fits - n_spared} of {n_fits} fits, raced" if n_spared else f"{n_fits} fits"
    return f"{candidates} × {n_splits} folds = {fits}"


def _describe_splits(core, n_splits):
    cv = getattr(core, "cv", None)
    if cv is None or isinstance(cv, int):
        return f"{getattr(core, 'n_splits_', n_splits)} folds"
    return describe(cv)


def list_times(record, search):
    """Yield label and text of the times that are known: whole, groups, fits and refit."""
    if hasattr(search, "search_time_"):
        yield "Time of search and refit", f"{search.search_time_:.1f} s"
    fusion = getattr(record.search, "fusion_", None)
    if fusion is not None and fusion.groups:
        yield "Time in fused groups", f"{fusion.seconds:.1f} s"
    if record.fit_seconds is not None:
        n_fits = (~record.is_spared).sum(axis=1)
        seconds = np.nansum(record.fit_seconds * n_fits)
        yield "Time of all fits, one after the other", f"{seconds:.1f} s"
    if hasattr(record.search, "refit_time_"):
        yield "Time of the refit", f"{record.search.refit_time_:.1f} s"


def _list_space(core):
    """Return the rows of the table of the space; of several spaces, one after the other."""
    given = next((getattr(core, name) for name in SPACES if hasattr(core, name)), None)
    if given is None:
        return []
    rows = []
    for title, space in _divide(core, given):
        for name, values in space.items():
            meaning = label_of(name)
            note = "" if meaning == name else meaning
            rows.append((f"{title}{name}", note, describe(values)))
    return rows


def _divide(core, given):
    """Yield a title and a dict for each part of a space."""
    if hasattr(core, "stages_"):
        for stage in core.stages_:
            yield f"{stage['name']}: ", stage["space"] or {}
    elif isinstance(given, Mapping):
        yield "", given
    else:
        for number, part in enumerate(given, start=1):
            yield f"{number}: " if len(given) > 1 else "", part
