"""The summary as HTML that stands in a page of any colours."""

from html import escape

from sklearn.exceptions import NotFittedError
from skorch import NeuralNet

from sktune.inspection.notebook.networks import describe_net
from sktune.inspection.notebook.searches import describe_search
from sktune.inspection.records import find_search
from sktune.inspection.report.page import read_template


def write_summary(estimator):
    """Return the summary of a fitted search or network as HTML.

    It needs no library that is optional, and all texts in it are escaped.

    Parameters
    ----------
    estimator : estimator object

    Returns
    -------
    html : str
        Empty for an estimator that is not fitted.

    Examples
    --------
    >>> from sktune import NeuralNetClassifier
    >>> from sktune.inspection.notebook import write_summary
    >>> write_summary(NeuralNetClassifier())
    ''
    """
    if isinstance(estimator, NeuralNet):
        is_trained = bool(getattr(estimator, "history_", None))
        return to_html(describe_net(estimator)) if is_trained else ""
    if _has_results(estimator):
        return to_html(describe_search(estimator))
    if hasattr(estimator, "search_"):
        # a HoldoutSearch, whose search does not tell its candidates
        return _wrap(f"<pre>{escape(estimator.summary())}</pre>")
    return ""


def _has_results(search):
    """Tell whether a search, or the one within it, has ``cv_results_``."""
    try:
        core = find_search(search)
    except (NotFittedError, TypeError):
        return False
    return "params" in core.cv_results_


def to_html(summary):
    """Return a Summary as HTML."""
    tables = _write_table("", summary.facts)
    if summary.parameters:
        rows = [(f"{n} ({meaning})" if meaning else n, v) for n, meaning, v in summary.parameters]
        tables += _write_table("Best parameters", rows)
    picture = "" if summary.picture is None else _write_picture(summary.picture)
    return _wrap(
        f"<p><b>{escape(summary.title)}</b></p>"
        f"<div class='sktune-columns'><div>{tables}</div>{picture}</div>"
        f"{_write_findings(summary)}"
    )


def _wrap(content):
    """Return the element that the style applies to."""
    return (
        f"<div class='sktune-summary'><style>{read_template('summary.css')}</style>{content}</div>"
    )


def _write_table(caption, rows):
    """Return rows of a label and a text as a table."""
    lines = [
        f"<tr><th scope='row'>{escape(label)}</th><td>{escape(text)}</td></tr>"
        for label, text in rows
    ]
    head = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{head}<tbody>{''.join(lines)}</tbody></table>"


def _write_picture(picture):
    """Return a Picture with its caption, the meaning of its lines, and its notes."""
    key = "".join(f"<span class='{name}'>{escape(text)}</span>" for name, text in picture.key)
    notes = "".join(f"<small>{escape(note)}</small>" for note in picture.notes)
    caption = f"<figcaption>{escape(picture.caption)}<br>{key}</figcaption>"
    return f"<figure>{caption}{picture.svg}{notes}</figure>"


def _write_findings(summary):
    """Return the findings as a list; how many more there are is its last line."""
    items = [
        f"<li class='{escape(finding.severity)}'><b>{escape(finding.severity)}: "
        f"{escape(finding.title)}.</b> {escape(finding.text)} {escape(finding.action)}</li>"
        for finding in summary.findings
    ]
    if summary.n_more:
        more = "more in" if summary.findings else "less important in"
        items.append(f"<li>{summary.n_more} {more} <code>sktune.inspection.diagnose</code></li>")
    return f"<ul>{''.join(items)}</ul>" if items else ""
