"""Looking for what is wrong with a search or a network."""

from sktune.inspection.advice.context import make_context
from sktune.inspection.advice.findings import Findings
from sktune.inspection.advice.rules import RULES, find_missing


def diagnose(search_or_net, X=None, y=None, *, metric=None, compare=False):
    """Say what is wrong with a search or a network, with the numbers and what to do about it.

    Parameters
    ----------
    search_or_net : estimator object, dict or DataFrame
        A fitted search, what contains one, or its ``cv_results_``; or a fitted network, or a
        Pipeline that ends in one, of which only its training is looked at.
    X, y : array-like, default=None
        The data of the search, for the rules that need them. They are only read, and of a
        :class:`sktune.HoldoutSearch` the sealed rows are left out.
    metric : str, default=None
        Which score, where there are several; None is the one that the search refits by.
    compare : bool, default=False
        Whether gradient boosting is trained on the same folds, which needs X and y.

    Returns
    -------
    findings : Findings
        The most serious first. Its ``skipped`` has the rules that were not checked, and why.

    Raises
    ------
    NotFittedError
        If the search or the network is not fitted.
    TypeError
        If it is neither a search nor a network.
    ValueError
        If the metric is not in the results, or is not given and there are several.

    Examples
    --------
    >>> from sktune.inspection import diagnose
    >>> results = {"params": [{"C": 0.1}, {"C": 1.0}], "mean_test_score": [float("nan")] * 2}
    >>> diagnose(results)[0].code
    'failed-fits'
    """
    context = make_context(search_or_net, X, y, metric=metric, compare=compare)
    found = []
    skipped = {}
    for rule in RULES:
        reason = find_missing(rule, context)
        if reason is not None:
            skipped[rule.code] = reason
            continue
        finding = rule.check(context)
        if finding is not None:
            found.append(finding)
    return Findings(found, skipped)
