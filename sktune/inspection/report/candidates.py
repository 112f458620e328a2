"""The table of all candidates, and how they were trained."""

from dataclasses import dataclass

import numpy as np

from sktune.inspection.records import label_of
from sktune.inspection.records.parameters import format_value
from sktune.inspection.report.results import format_score


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Parameters
    ----------
    title : str
    is_number : bool
        Whether it is sorted as numbers.
    note : str
        How people call it, if the title is a parameter's name.
    """

    title: str
    is_number: bool
    note: str = ""


@dataclass(frozen=True)
class CandidateTable:
    """All candidates, the best first.

    Parameters
    ----------
    columns : list of Column
    rows : list of list of str
    best : int
        The position of the chosen candidate among the rows; -1 if there is none.
    """

    columns: list
    rows: list
    best: int


def _write_scores(record):
    """Return the mean score of each candidate as a text, or why it has none."""
    texts = []
    for score, has_failed in zip(record.mean_scores, record.has_failed, strict=True):
        if score == score:
            texts.append(format_score(score))
        else:
            texts.append("failed" if has_failed else "left the race")
    return texts


def list_candidates(record):
    """Return the table of the candidates of a SearchRecord."""
    scores = record.mean_scores
    # failed candidates are last
    order = np.argsort(-np.where(np.isfinite(scores), scores, -np.inf), kind="stable")
    ranks = _rank(scores)
    columns = [
        (Column("#", True), [str(number) for number in range(record.n_candidates)]),
        (Column("rank", True), ranks),
        (Column(record.scoring, True), _write_scores(record)),
    ]
    if record.n_splits > 1:
        errors = record.standard_errors
        texts = [format_score(e) if np.isfinite(e) else "" for e in errors]
        columns.append((Column("± s.e.", True), texts))
    if record.train_scores is not None:
        texts = [format_score(score) for score in record.train_scores.mean(axis=1)]
        columns.append((Column("training score", True), texts))
    if record.fit_seconds is not None:
        columns.append((Column("fit, s", True), [f"{s:.3g}" for s in record.fit_seconds]))
    if record.stages is not None:
        columns.append((Column("stage", False), [str(stage) for stage in record.stages]))
    if record.rungs is not None:
        columns.append((Column("rung", True), [str(rung) for rung in record.rungs]))
    if record.resources is not None:
        title = record.resource or "resources"
        texts = [format_value(amount) for amount in record.resources]
        columns.append((Column(title, True, "of the rung"), texts))
    if record.brackets is not None:
        columns.append((Column("bracket", False), [str(bracket) for bracket in record.brackets]))
    columns += [_column_of(parameter) for parameter in record.parameters.values()]
    rows = [[texts[number] for _, texts in columns] for number in order]
    best = -1
    if record.best_index is not None:
        best = int(np.flatnonzero(order == record.best_index)[0])
    return CandidateTable([column for column, _ in columns], rows, best)


def _rank(scores):
    """Return the texts of the ranks from 1 on; equal scores have equal ranks."""
    finite = np.sort(scores[np.isfinite(scores)])
    better = len(finite) - np.searchsorted(finite, scores, side="right")
    return [
        str(rank + 1) if is_there else ""
        for rank, is_there in zip(better, np.isfinite(scores), strict=True)
    ]


def _column_of(parameter):
    texts = [
        format_value(value) if is_set else ""
        for value, is_set in zip(parameter.values, parameter.is_set, strict=True)
    ]
    meaning = label_of(parameter.name)
    note = "" if meaning == parameter.name else meaning
    return Column(parameter.name, parameter.is_number, note), texts


def list_groups(record):
    """Return how the fits were trained, line by line: None where the search does not tell.

    Returns
    -------
    groups : list of tuple of str
        Of each kind of group: how many there were, the fits in them, seconds, how steps were taken,
        and where.
    alone : list of (int, str)
        How many fits were trained by themselves, by reason.
    stopped : list of (int, str)
        How many were ended early, by reason.
    """
    fusion = getattr(record.search, "fusion_", None)
    if fusion is None:
        return None
    kinds = {}
    for group in fusion.groups:
        kinds.setdefault((group["steps"], str(group["device"])), []).append(group)
    groups = []
    for (steps, device), members in kinds.items():
        n_lanes = sum(group["lanes"] for group in members)
        seconds = sum(group["seconds"] for group in members)
        groups.append((str(len(members)), str(n_lanes), f"{seconds:.2f}", steps, device))
    return groups, _count_reasons(fusion.alone), _count_reasons(fusion.stopped)


def _count_reasons(fits):
    """Return how often each reason is given, the most frequent first."""
    reasons = [fit["reason"] for fit in fits]
    counts = [(reasons.count(reason), reason) for reason in dict.fromkeys(reasons)]
    return sorted(counts, key=lambda pair: -pair[0])
