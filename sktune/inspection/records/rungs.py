"""The rungs of searches by halving, and what each gave to a fit."""

import numpy as np


def read_resources(results, search, rungs):
    """Return how much each candidate's rung gave to its fits; None if it is not known."""
    if "n_resources" in results:
        return np.asarray(results["n_resources"])
    of_rungs = getattr(search, "n_resources_", None)
    if rungs is None or of_rungs is None or np.ndim(of_rungs) != 1 or rungs.max() >= len(of_rungs):
        return None
    return np.asarray(of_rungs)[rungs]


def name_resource(search):
    """Return how a search by halving calls its resource; ``""`` where it does not tell."""
    name = getattr(search, "resource_", getattr(search, "resource", ""))
    return "" if name == "auto" else str(name)


def find_first(rungs, brackets, n_candidates):
    """Return which candidates are in the first rung of their bracket: ndarray of bool."""
    if rungs is None:
        return np.ones(n_candidates, dtype=bool)
    return find_final(-rungs, brackets, n_candidates)


def find_comparable(rungs, brackets, resources, n_candidates):
    """Return which candidates nobody has chosen by their scores, and got the same: bool.

    They are those of a first rung. Of several brackets, whose first rungs may have different
    resources, it is the rung of most candidates, and of equal ones that with most resources.
    """
    is_first = find_first(rungs, brackets, n_candidates)
    if brackets is None:
        return is_first
    amounts = brackets if resources is None else resources
    counts = {}
    for amount in amounts[is_first].tolist():
        counts[amount] = counts.get(amount, 0) + 1
    most = max(counts.values())
    chosen = [amount for amount, count in counts.items() if count == most]
    return is_first & (amounts == (chosen[0] if resources is None else max(chosen)))


def find_final(rungs, brackets, n_candidates):
    """Return which candidates are in the last rung of their bracket: ndarray of bool."""
    if rungs is None:
        return np.ones(n_candidates, dtype=bool)
    brackets = np.zeros(n_candidates) if brackets is None else brackets
    is_final = np.zeros(n_candidates, dtype=bool)
    for bracket in set(brackets.tolist()):
        is_within = brackets == bracket
        is_final |= is_within & (rungs == rungs[is_within].max())
    return is_final
