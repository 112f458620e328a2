"""The report of a search: one file, complete or not there."""

import os
import secrets
from pathlib import Path

from sktune.inspection.advice import diagnose
from sktune.inspection.records import read_search
from sktune.inspection.report.page import render_page
from sktune.runtime.optional import import_jinja


def report(search, path="report.html", *, title=None, X=None, y=None, metric=None, findings="auto"):
    """Write all that a search has found into one HTML file.

    The file needs no server and no network. It says what was asked; the best candidate and the
    baseline; the test on sealed rows, of a :class:`sktune.HoldoutSearch`; findings; curves; what
    each parameter does and how much it matters; all candidates, to sort and to filter; how the
    fits were trained; versions, seeds, and the code that repeats the search.

    Parameters
    ----------
    search : estimator object, dict or DataFrame
        A fitted search of sktune's or scikit-learn's, a HoldoutSearch, a Pipeline that ends in one
        of these, or a ``cv_results_``.
    path : str or path-like, default="report.html"
        A file that is there already is replaced, once the new one is complete.
    title : str, default=None
        None is the name of the estimator.
    X, y : table of shape (n_samples, n_features) and array-like of shape (n_samples, ...), \
            default=None
        What was searched on. With them, the estimator's own settings are cross-validated where the
        search has not done so.
    metric : str, default=None
        Which score, where there are several; None is the one that the search refits by.
    findings : "auto", list of Finding or None, default="auto"
        What checks have found. ``"auto"`` runs those of :func:`sktune.inspection.diagnose`, with X
        and y if they are given; None says in the report that none were run.

    Returns
    -------
    path : Path
        Where the report is.

    Raises
    ------
    OSError
        If the file cannot be written.
    NotFittedError, TypeError, ValueError
        If `search` is no fitted search, or has not this metric.
    ImportError
        If Jinja is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sktune.inspection import report
    >>> results = {"params": [{"C": 0.1}, {"C": 1.0}], "mean_test_score": [0.7, 0.9]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = report(results, Path(folder) / "report.html", title="Two candidates")
    ...     "<title>Two candidates</title>" in path.read_text(encoding="utf-8")
    True
    """
    import_jinja("report")
    path = Path(path)
    _check_path(path)
    record = read_search(search, metric)
    if isinstance(findings, str):
        findings = diagnose(search, X, y, metric=metric)
    title = _default_title(record) if title is None else str(title)
    _write_whole(path, render_page(record, search, title, findings, X, y))
    return path


def _default_title(record):
    if record.estimator is None:
        return "Report of a search"
    return f"Report of a search: {type(record.estimator).__name__}"


def _check_path(path):
    """Raise OSError for a path that cannot be written, before anything is done."""
    try:
        is_folder = path.is_dir()
        is_in_folder = path.parent.is_dir()
    except OSError as error:
        # such as a name that is too long
        raise _cannot_write(path, error) from error
    if is_folder:
        raise IsADirectoryError(f"path must be a file, got the folder path={str(path)!r}")
    if not is_in_folder:
        raise FileNotFoundError(f"path must be in a folder that exists, got path={str(path)!r}")


def _write_whole(path, page):
    """Write a file under another name, and rename it when it is complete."""
    # a link stays a link, to a new file
    target = path.resolve()
    draft = target.with_name(f".report-{secrets.token_hex(8)}.tmp")
    try:
        # what UTF-8 cannot hold, half of a pair of surrogates, is written as its number
        draft.write_bytes(page.encode("utf-8", "backslashreplace"))
        os.replace(draft, target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def _cannot_write(path, error):
    """Return the error that says which path cannot be written, and why."""
    return OSError(
        f"path must be a file that can be written, got path={str(path)!r}: {error.strerror}"
    )
